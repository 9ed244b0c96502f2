//! The bank: transfers between accounts, each with its marker, and reads of all
//! balances. An empty account is deleted.

use super::{Call, Cx, End, Histories, Memory, Script, encode, mode, number, put, unique};
use crate::history::BankOp;
use synod_txn::Value;
use synod_txn::client::{Page, Transaction};
use synod_txn::request::LockMode;

struct Transfer {
    /// The marker's count, this client's only.
    count: u64,
    from: usize,
    to: usize,
    /// Wanted; what is there is less, perhaps.
    wanted: i64,
    one_by_one: bool,
    mode: LockMode,
    balances: Vec<i64>,
    amount: i64,
}

/// Reads all balances.
#[derive(Default)]
pub(super) struct ReadAll {
    /// By scans, which pass by accounts that were deleted meanwhile; else by keys.
    scans: bool,
    /// Calls made.
    asked: usize,
    balances: Vec<i64>,
}

pub(super) fn begin(cx: &mut Cx<'_>) -> Box<dyn Script> {
    let accounts = cx.workload.keys.accounts.len() as u64;
    if cx.random.chance(150) {
        return Box::new(ReadAll {
            scans: cx.random.chance(700),
            ..ReadAll::default()
        });
    }
    let from = if cx.random.chance(300) {
        cx.random.range(0, 2)
    } else {
        cx.random.range(0, accounts)
    };
    let to = (from + cx.random.range(1, accounts)) % accounts;
    cx.memory.markers += 1;
    Box::new(Transfer {
        count: cx.memory.markers,
        from: from as usize,
        to: to as usize,
        wanted: if cx.random.chance(50) {
            i64::MAX
        } else {
            cx.random.range(1, 20) as i64
        },
        one_by_one: cx.random.chance(400),
        mode: mode(cx.random),
        balances: Vec::new(),
        amount: 0,
    })
}

impl Script for Transfer {
    fn read_only(&self) -> bool {
        false
    }

    fn restart(&mut self) {
        self.balances.clear();
        self.amount = 0;
    }

    fn next(&mut self, machine: &mut Transaction, cx: &mut Cx<'_>) -> Call {
        let keys = &cx.workload.keys;
        let (from, to) = (&keys.accounts[self.from], &keys.accounts[self.to]);
        match (self.balances.len(), self.one_by_one) {
            (0, true) => return Call::Get(vec![from.clone()], self.mode),
            (0, false) => return Call::Get(vec![from.clone(), to.clone()], self.mode),
            (1, _) => return Call::Get(vec![to.clone()], self.mode),
            _ => {}
        }
        self.amount = self.wanted.min(self.balances[0]).max(0);
        if self.amount > 0 {
            let left = self.balances[0] - self.amount;
            if left == 0 {
                let delete = machine.delete(from.clone());
                assert!(delete.is_ok(), "a delete was refused: {delete:?}");
            } else {
                put(machine, from.clone(), encode(left as u64));
            }
            let more = self.balances[1] + self.amount;
            put(machine, to.clone(), encode(more as u64));
        }
        let marker = keys.marker(b'n', cx.memory.client, self.count);
        put(machine, marker, encode(self.amount as u64));
        Call::Commit
    }

    fn values(&mut self, values: Vec<Option<Value>>, _cx: &mut Cx<'_>) {
        let balances = values.iter().map(|v| number(v.as_ref()) as i64);
        self.balances.extend(balances);
    }

    fn end(self: Box<Self>, end: End, memory: &mut Memory, histories: &mut Histories) {
        histories.bank.push(end.of(vec![BankOp::Transfer {
            id: unique(memory.client, self.count),
            from: self.from as u32,
            to: self.to as u32,
            amount: self.amount,
        }]));
    }
}

impl Script for ReadAll {
    fn read_only(&self) -> bool {
        true
    }

    fn restart(&mut self) {
        self.asked = 0;
        self.balances.clear();
    }

    fn next(&mut self, _machine: &mut Transaction, cx: &mut Cx<'_>) -> Call {
        let keys = &cx.workload.keys;
        self.asked += 1;
        if self.scans {
            // What has no row is empty.
            self.balances.resize(keys.accounts.len(), 0);
            return match keys.account_span(self.asked - 1) {
                Some(span) => Call::Scan {
                    span,
                    reverse: cx.random.chance(400),
                    limit: if cx.random.chance(200) { 3 } else { 1_000 },
                },
                None => Call::Commit,
            };
        }
        if self.asked == 1 {
            return Call::Get(keys.accounts.clone(), LockMode::Shared);
        }
        Call::Commit
    }

    fn values(&mut self, values: Vec<Option<Value>>, _cx: &mut Cx<'_>) {
        let balances = values.iter().map(|v| number(v.as_ref()) as i64);
        self.balances = balances.collect();
    }

    fn page(&mut self, page: Page, cx: &mut Cx<'_>) {
        for (key, value) in &page.rows {
            let accounts = &cx.workload.keys.accounts;
            if let Some(account) = accounts.iter().position(|account| account == key) {
                self.balances[account] = number(Some(value)) as i64;
            }
        }
    }

    fn end(self: Box<Self>, end: End, _memory: &mut Memory, histories: &mut Histories) {
        if end.committed() {
            let balances = self.balances;
            histories
                .bank
                .push(end.of(vec![BankOp::ReadAll { balances }]));
        }
    }
}
