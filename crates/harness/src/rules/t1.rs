//! T1: an intent holds its write and read locks, across leaders; its timestamp
//! never changes.

use super::{Book, Context, Event, Everyone, Ledger, Rule, Setting, Verdict};
use synod_paxos::NodeId;
use synod_shard::Shard;
use synod_txn::Outcome;

pub(super) struct T1;

fn locked(id: NodeId, shard: &Shard) -> Verdict {
    match shard.group().unlocked_intent() {
        Some(attempt) => Err(format!(
            "{id}, in office for {}, does not hold the locks of the intent of {attempt}",
            shard.descriptor().id
        )),
        None => Ok(()),
    }
}

impl Rule for T1 {
    fn number(&self) -> &'static str {
        "T1"
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, _setting: &Setting) -> Verdict {
        let Event::Yes {
            attempt,
            group,
            anchor,
            timestamp,
            node,
        } = event
        else {
            return Ok(());
        };
        let known = ledger.get(*attempt);
        let Some(held) = known.and_then(|k| k.held_by(anchor)) else {
            // No decided intent: that is T2's.
            return Ok(());
        };
        // Resolved, it says the commit's timestamp: the maximum of all.
        let told = known.and_then(|k| k.told).map(|(outcome, ..)| outcome);
        if *timestamp == held.timestamp || told == Some(Outcome::Committed(*timestamp)) {
            return Ok(());
        }
        Err(format!(
            "{node} votes yes at {timestamp} for {attempt} in {group}; its intent has {}",
            held.timestamp
        ))
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            if change.after.office.is_none() || change.after.office == change.before.office {
                continue;
            }
            if let Some(shard) = cx.look.worker.shard(change.group) {
                locked(cx.look.id, shard)?;
            }
        }
        Ok(())
    }

    fn full(&mut self, everyone: &Everyone<'_>, _book: &Book, _ledger: &Ledger) -> Verdict {
        for (_, peer, worker) in everyone.running() {
            for shard in worker.shards().filter(|s| s.in_office()) {
                locked(peer.id, shard)?;
            }
        }
        Ok(())
    }
}
