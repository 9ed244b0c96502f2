//! What rest means: once faults and clients have stopped and everything had
//! its time, nothing is left, and all replicas are equal.

use super::{Everyone, Ledger};
use synod_paxos::{GroupId, Slot};
use synod_shard::{Shard, ShardMap};
use synod_txn::Group;

/// What has not come to rest, in words; empty if all has.
pub(super) fn unrest(everyone: &Everyone<'_>, map: &ShardMap) -> String {
    for descriptor in &map.shards {
        let group = descriptor.id;
        let replicas = replicas(everyone, group);
        let Some(leader) = replicas.iter().find(|s| s.in_office()) else {
            return format!("{group} has no leader in office");
        };
        let left = left(leader.group());
        if !left.is_empty() {
            return format!("{group} has {left}");
        }
        let uneven = uneven(leader, &replicas);
        if !uneven.is_empty() {
            return uneven;
        }
    }
    String::new()
}

/// What a leader's machine has left to do, in words; empty if nothing.
pub(crate) fn left(machine: &Group) -> String {
    let intents = machine.open_intents().count();
    let doubts = machine.in_doubt().count();
    if intents + doubts + machine.locks() + machine.sessions() == 0 && machine.is_quiet() {
        return String::new();
    }
    format!(
        "{intents} open intents, {doubts} transactions in doubt, {} locks, {} sessions",
        machine.locks(),
        machine.sessions()
    )
}

/// What is uneven among a shard's running replicas, in words: members that lack entries,
/// and replicas on other nodes; empty if nothing is.
///
/// Nobody deletes its copy before a majority's number of data-holding voters hold the
/// state (G3). Where so few of them run any more, who was left out must know it and wait.
pub(crate) fn uneven(leader: &Shard, replicas: &[&Shard]) -> String {
    let (group, replica) = (leader.replica().group(), leader.replica());
    let (configuration, last) = (replica.configuration(), replica.last());
    let voters = replicas.iter().map(|s| s.replica().me());
    let voters = voters.filter(|id| configuration.is_voter(*id)).count();
    let must_go = voters >= configuration.majority();
    for replica in replicas.iter().map(|s| s.replica()) {
        let (id, at) = (replica.me(), replica.last());
        if configuration.is_member(id) {
            if at != last {
                return format!("{group} has a replica at slot {at} of {last} on {id}");
            }
        } else if at > Slot(0) {
            if must_go {
                return format!("{group} still has a replica on {id}, which is no member");
            }
            if replica.left_out_of() != Some(configuration.epoch) {
                return format!("{group} has a replica on {id} that does not know it was left out");
            }
        }
    }
    String::new()
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
