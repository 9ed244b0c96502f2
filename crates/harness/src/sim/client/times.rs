//! When what was committed where: what availability is measured by.

use super::SimClient;
use super::histories::Histories;
use super::keys::Keyspace;
use crate::history::{BankOp, ListOp, Nanos, Outcome, RwOp, Transaction};
use synod_paxos::GroupId;

/// Times of commits, ascending.
#[derive(Clone, Debug, Default)]
pub struct CommitTimes {
    /// All of them.
    pub all: Vec<Nanos>,
    /// Those that touched each shard that holds users' keys.
    pub shards: Vec<(GroupId, Vec<Nanos>)>,
}

/// The times of all commits of lists, registers, transfers, the ring and increments.
/// Of the last two it is not told which shards they touched.
pub(in crate::sim) fn commit_times(all: &Histories, clients: &[SimClient]) -> CommitTimes {
    let Some(client) = clients.first() else {
        return CommitTimes::default();
    };
    let keys = &client.workload.keys;
    let shards = keys.shards().map(|id| (id, Vec::new())).collect();
    let mut times = CommitTimes {
        all: Vec::new(),
        shards,
    };
    let list = |op: &ListOp| match op {
        ListOp::Append { key, .. } | ListOp::Read { key, .. } => keys.shard_of_list(*key),
    };
    let register = |op: &RwOp| match op {
        RwOp::Write { key, .. } | RwOp::Read { key, .. } => keys.shard_of(*key),
    };
    for transaction in &all.lists {
        times.add(transaction, list);
    }
    for transaction in &all.registers {
        times.add(transaction, register);
    }
    times.add_bank(&all.bank, keys);
    for transaction in &all.ring {
        times.add(transaction, |_| None);
    }
    let increments = all.increments.iter();
    let committed = increments.filter(|i| matches!(i.outcome, Outcome::Committed(_)));
    times.all.extend(committed.map(|i| i.completed));
    times.all.sort_unstable();
    for (_, times) in &mut times.shards {
        times.sort_unstable();
    }
    times
}

impl CommitTimes {
    fn add<Op>(&mut self, transaction: &Transaction<Op>, shard: impl Fn(&Op) -> Option<usize>) {
        if !matches!(transaction.outcome, Outcome::Committed(_)) {
            return;
        }
        self.all.push(transaction.completed);
        for index in transaction.ops.iter().filter_map(shard) {
            self.touched(index, transaction.completed);
        }
    }

    fn touched(&mut self, shard: usize, at: Nanos) {
        let times = self.shards.get_mut(shard).map(|(_, times)| times);
        if let Some(times) = times.filter(|times| times.last() != Some(&at)) {
            times.push(at);
        }
    }

    fn add_bank(&mut self, transactions: &[Transaction<BankOp>], keys: &Keyspace) {
        for transaction in transactions {
            self.add(transaction, |op| match op {
                BankOp::Transfer { from, .. } => keys.shard_of(u64::from(*from)),
                BankOp::ReadAll { .. } => None,
            });
            self.add_payees(transaction, keys);
        }
    }

    fn add_payees(&mut self, transaction: &Transaction<BankOp>, keys: &Keyspace) {
        if !matches!(transaction.outcome, Outcome::Committed(_)) {
            return;
        }
        for op in &transaction.ops {
            if let BankOp::Transfer { to, .. } = op
                && let Some(shard) = keys.shard_of(u64::from(*to))
            {
                self.touched(shard, transaction.completed);
            }
        }
    }
}
