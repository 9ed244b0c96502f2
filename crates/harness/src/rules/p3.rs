//! P3: a new leader adopts the suffix with the highest `(accepted, last)` of a
//! majority. So whatever was decided under a lower ballot stands in its log,
//! and in every log accepted under its ballot.

use super::{Book, Context, Everyone, Ledger, Rule, Verdict, hash};
use synod_paxos::{Ballot, GroupId, NodeId, Replica, Slot};

/// Decided slots compared per replica: of a new leader, and every so often.
const WHOLE: u64 = 1024;
const WINDOW: u64 = 32;

pub(super) struct P3;

/// Whether the log accepted under `ballot` holds everything decided below it.
fn complete(
    book: &Book,
    id: NodeId,
    group: GroupId,
    replica: &Replica,
    (ballot, window): (Ballot, u64),
) -> Verdict {
    let Some(book) = book.group(group) else {
        return Ok(());
    };
    let frontier = book.frontier();
    let from = replica.trimmed().0.max(frontier.0.saturating_sub(window)) + 1;
    for slot in (from..=frontier.0).map(Slot) {
        let Some(digest) = book.decided_below(slot, ballot) else {
            continue;
        };
        let held = replica.entry(slot).map(hash::entry);
        if held != Some(digest) {
            let what = held.map_or("nothing", |_| "another value");
            return Err(format!(
                "the log of {id} in {group}, accepted under {ballot}, has {what} in slot {slot}, \
                 decided under a lower ballot"
            ));
        }
    }
    Ok(())
}

impl Rule for P3 {
    fn number(&self) -> &'static str {
        "P3"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let Some(ballot) = change.elected() else {
                continue;
            };
            if let Some(shard) = cx.look.worker.shard(change.group) {
                let log = (ballot, WHOLE);
                complete(cx.book, cx.look.id, change.group, shard.replica(), log)?;
            }
        }
        Ok(())
    }

    fn full(&mut self, everyone: &Everyone<'_>, book: &Book, _ledger: &Ledger) -> Verdict {
        for (_, peer, worker) in everyone.running() {
            for shard in worker.shards() {
                let replica = shard.replica();
                let group = shard.descriptor().id;
                complete(book, peer.id, group, replica, (replica.accepted(), WINDOW))?;
            }
        }
        Ok(())
    }

    fn restarted(&mut self, cx: &Context<'_>) -> Verdict {
        for shard in cx.look.worker.shards() {
            let (replica, group) = (shard.replica(), shard.descriptor().id);
            let log = (replica.accepted(), WHOLE);
            complete(cx.book, cx.look.id, group, replica, log)?;
        }
        Ok(())
    }
}
