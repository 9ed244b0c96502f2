//! T9: every wait has an owner that repeats. A leader in office has a timer for
//! every intent it has to see resolved, and for every record it has to see
//! acknowledged. (That all waits end is demanded once all is quiet.)

use super::{Book, Context, Everyone, Ledger, Rule, Verdict};
use synod_paxos::NodeId;
use synod_shard::Shard;

pub(super) struct T9;

fn owned(id: NodeId, shard: &Shard) -> Verdict {
    match shard.group().unowned() {
        Some(attempt) => Err(format!(
            "{id}, in office for {}, has {attempt} open and repeats nothing for it",
            shard.descriptor().id
        )),
        None => Ok(()),
    }
}

impl Rule for T9 {
    fn number(&self) -> &'static str {
        "T9"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            if change.after.office.is_none() || change.after.office == change.before.office {
                continue;
            }
            if let Some(shard) = cx.look.worker.shard(change.group) {
                owned(cx.look.id, shard)?;
            }
        }
        Ok(())
    }

    fn full(&mut self, everyone: &Everyone<'_>, _book: &Book, _ledger: &Ledger) -> Verdict {
        for (_, peer, worker) in everyone.running() {
            for shard in worker.shards().filter(|s| s.in_office()) {
                owned(peer.id, shard)?;
            }
        }
        Ok(())
    }
}
