//! P2: a decided slot has one value, everywhere, for ever, durable on a majority.
//!
//! A leader may take a slot for decided only when followers that said Accepted
//! for it make a majority with itself. Where they need the leader, the leader
//! must still hold the slot after a crash.

use super::book::is_emptied;
use super::{Book, Change, Context, Everyone, Ledger, Rule, Verdict, hash};
use std::collections::BTreeMap;
use synod_paxos::{Ballot, GroupId, Ignored, Message, NodeId, Replica, Slot};
use synod_shard::NodeMessage;

/// Entries compared again per replica when everything is compared.
const WINDOW: u64 = 32;

#[derive(Default)]
pub(super) struct P2 {
    /// The highest Accepted each replica has sent.
    accepted: BTreeMap<(GroupId, NodeId), (Ballot, Slot)>,
    /// What leaders counted themselves for, where the others were no majority.
    owed: BTreeMap<(GroupId, NodeId), (Ballot, Slot)>,
}

impl P2 {
    fn count(&mut self, cx: &Context<'_>, change: &Change, ballot: Ballot) -> Verdict {
        let (group, me, slot) = (change.group, cx.look.id, change.after.decided);
        let Some(book) = cx.book.group(group) else {
            return Ok(());
        };
        // What was decided when it was elected it has from the promises.
        let start = book.start_of(ballot).unwrap_or(Slot(u64::MAX));
        if slot < start {
            return Ok(());
        }
        let Some(known) = book.electorate(ballot.epoch) else {
            return Ok(());
        };
        let holders = known.electors.iter().filter(|node| **node != me);
        let others = holders
            .filter(|node| {
                let said = self.accepted.get(&(group, **node)).copied();
                said.unwrap_or_default() >= (ballot, slot)
            })
            .count();
        if others + 1 < known.majority {
            return Err(format!(
                "{me} takes slot {slot} of {group} for decided under {ballot}; only {others} \
                 others have accepted it"
            ));
        }
        if others < known.majority && known.electors.contains(&me) {
            let owed = self.owed.entry((group, me)).or_default();
            *owed = (ballot, slot).max(*owed);
        }
        Ok(())
    }
}

fn compare(cx: &Book, id: NodeId, group: GroupId, replica: &Replica, from: Slot) -> Verdict {
    let Some(book) = cx.group(group) else {
        return Ok(());
    };
    let through = replica.decided();
    for (slot, entry) in replica.entries_from(from) {
        if slot > through {
            break;
        }
        let known = book.decided(slot);
        if known.is_some_and(|digest| digest != hash::entry(entry)) {
            return Err(format!(
                "slot {slot} of {group} was decided with another value than {id} has decided: \
                 {entry:?}"
            ));
        }
    }
    Ok(())
}

impl Rule for P2 {
    fn number(&self) -> &'static str {
        "P2"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let (before, after) = (change.before, change.after);
            if after.decided <= before.decided {
                continue;
            }
            let Some(shard) = cx.look.worker.shard(change.group) else {
                continue;
            };
            if after.emptied {
                continue;
            }
            let from = before.decided.next();
            compare(cx.book, cx.look.id, change.group, shard.replica(), from)?;
            if let Some(ballot) = after.leads {
                self.count(cx, change, ballot)?;
            }
        }
        for (_, message) in cx.look.step.messages() {
            if let NodeMessage::Group { group, message } = message
                && let Message::Accepted { ballot, last, .. } = message
            {
                let said = self.accepted.entry((*group, cx.look.id)).or_default();
                *said = (*ballot, *last).max(*said);
            }
        }
        Ok(())
    }

    fn full(&mut self, everyone: &Everyone<'_>, book: &Book, _ledger: &Ledger) -> Verdict {
        for (_, peer, worker) in everyone.running() {
            for shard in worker.shards() {
                let replica = shard.replica();
                let from = Slot(replica.decided().0.saturating_sub(WINDOW));
                let group = shard.descriptor().id;
                compare(book, peer.id, group, replica, from)?;
                if let Some(times) = replica.ignored().get(&Ignored::Contradicts) {
                    return Err(format!(
                        "{} was sent {times} times a log of {group} that contradicts what is \
                         decided there",
                        peer.id
                    ));
                }
            }
        }
        Ok(())
    }

    fn restarted(&mut self, cx: &Context<'_>) -> Verdict {
        for shard in cx.look.worker.shards() {
            let (replica, group) = (shard.replica(), shard.descriptor().id);
            compare(cx.book, cx.look.id, group, replica, Slot(0))?;
            let holds = (replica.accepted(), replica.last());
            let owed = self.owed.get(&(group, cx.look.id)).copied();
            if owed.is_some_and(|owed| holds < owed) && !is_emptied(replica) {
                return Err(format!(
                    "{} counted itself for {owed:?} of {group} and came back with {holds:?}: \
                     what it decided is not on a majority's disks",
                    cx.look.id
                ));
            }
        }
        Ok(())
    }
}
