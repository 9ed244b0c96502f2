//! What rest means: once faults and clients have stopped and everything had
//! its time, nothing is left, and all replicas are equal.

use super::{Everyone, Ledger};
use synod_paxos::GroupId;
use synod_shard::{Shard, ShardMap};

/// What has not come to rest, in words; empty if all has.
pub(super) fn unrest(everyone: &Everyone<'_>, map: &ShardMap) -> String {
    for descriptor in &map.shards {
        let group = descriptor.id;
        let replicas = replicas(everyone, group);
        let Some(leader) = replicas.iter().find(|s| s.in_office()) else {
            return format!("{group} has no leader in office");
        };
        let machine = leader.group();
        let intents = machine.open_intents().count();
        let doubts = machine.in_doubt().count();
        if intents + doubts + machine.locks() + machine.sessions() > 0 || !machine.is_quiet() {
            return format!(
                "{group} has {intents} open intents, {doubts} transactions in doubt, {} locks, \
                 {} sessions",
                machine.locks(),
                machine.sessions()
            );
        }
        let last = leader.replica().last();
        if let Some(stays) = replicas.iter().find(|s| !is_member(s) && !is_gone(s)) {
            let id = stays.replica().me();
            return format!("{group} still has a replica on {id}, which is no member");
        }
        let mut members = replicas.iter().filter(|s| is_member(s));
        if let Some(behind) = members.find(|s| s.replica().last() != last) {
            let at = behind.replica().last();
            return format!("{group} has a replica at slot {at} of {last}");
        }
    }
    String::new()
}

/// Whether a replica is part of its group, as far as it knows.
fn is_member(shard: &Shard) -> bool {
    let replica = shard.replica();
    replica.configuration().is_member(replica.me())
}

/// Whether nothing is left of it.
fn is_gone(shard: &Shard) -> bool {
    shard.replica().last() == synod_paxos::Slot(0)
}

fn replicas<'a>(everyone: &Everyone<'a>, group: GroupId) -> Vec<&'a Shard> {
    let running = everyone.running();
    running
        .filter_map(|(_, _, worker)| worker.shard(group))
        .collect()
}

/// What is wrong with the rest, by the number of the rule that it breaks.
pub(super) fn check(
    everyone: &Everyone<'_>,
    map: &ShardMap,
    ledger: &Ledger,
) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    let left = unrest(everyone, map);
    if !left.is_empty() {
        wrong.push(("T9", left));
    }
    for descriptor in &map.shards {
        let group = descriptor.id;
        let replicas = replicas(everyone, group);
        // The news that the last entries are decided may still be on its way.
        let most = replicas.iter().map(|s| s.applied()).max();
        let level = replicas.iter().filter(|s| Some(s.applied()) == most);
        let digests: Vec<u64> = level.map(|s| s.group().digest()).collect();
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            wrong.push((
                "P7",
                format!("the replicas of {group} ended in different states"),
            ));
        }
    }
    for (attempt, known) in ledger.all() {
        let open = known.held.iter().find(|h| h.resolved.is_none());
        if let Some(held) = open {
            wrong.push((
                "T9",
                format!(
                    "the intent of {attempt} in slot {} of {} was never resolved",
                    held.slot, held.group
                ),
            ));
            break;
        }
    }
    wrong
}
