//! T9: every wait has an owner that repeats. A leader in office has a timer for
//! every intent it has to see resolved, and for every record it has to see
//! acknowledged; and no request waits for a younger holder that could be wounded
//! where it stands: by age alone, waits in several shards never form a ring.
//! (That all waits end is demanded once all is quiet.)

use super::hash::Map;
use super::{Book, Context, Everyone, Ledger, Rule, Taken, Verdict};
use std::collections::VecDeque;
use synod_paxos::NodeId;
use synod_shard::{Input, Shard};
use synod_txn::{AttemptId, Priority, Request};

/// Attempts whose ages are remembered.
const AGES: usize = 1 << 15;

#[derive(Default)]
pub(super) struct T9 {
    /// Each attempt's age, as its client names it.
    ages: Map<AttemptId, Priority>,
    order: VecDeque<AttemptId>,
}

impl T9 {
    fn fair(&self, id: NodeId, shard: &Shard) -> Verdict {
        let age = |attempt| self.ages.get(&attempt).copied();
        match shard.group().waits_for_younger(&age) {
            Some((waiter, holder)) => Err(format!(
                "in {} on {id}, {waiter} waits for {holder}, which is younger and not proposed",
                shard.descriptor().id
            )),
            None => Ok(()),
        }
    }
}

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

    fn follows_inputs(&self) -> bool {
        true
    }

    fn taken(&mut self, taken: &Taken<'_>) {
        let Input::Client { request, .. } = taken.input else {
            return;
        };
        let (attempt, age) = match &request.request {
            Request::LockedRead {
                attempt, priority, ..
            } => (*attempt, *priority),
            Request::Commit(commit) => (commit.attempt, commit.priority),
            _ => return,
        };
        if self.ages.insert(attempt, age).is_none() {
            self.order.push_back(attempt);
            if self.order.len() > AGES
                && let Some(old) = self.order.pop_front()
            {
                self.ages.remove(&old);
            }
        }
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
                self.fair(peer.id, shard)?;
            }
        }
        Ok(())
    }
}
