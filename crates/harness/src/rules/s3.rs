//! S3: of each end of a shard one thing follows, as its left neighbour's log says: it is absorbed, or
//! it goes on. And whoever has ended serves nobody meanwhile.

use super::{Context, Event, Ledger, Rule, Setting, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{GroupId, Slot};
use synod_txn::Command;

#[derive(Default)]
pub(super) struct S3 {
    /// Ends that were refused.
    reopened: BTreeSet<(GroupId, Slot)>,
    /// By which slot of which log.
    absorbed: BTreeMap<GroupId, (GroupId, Slot)>,
}

impl Rule for S3 {
    fn number(&self) -> &'static str {
        "S3"
    }

    fn event(&mut self, event: &Event<'_>, _ledger: &Ledger, _setting: &Setting) -> Verdict {
        let Event::Decided(fresh) = event else {
            return Ok(());
        };
        let Some(Command::Resume { slot }) = &fresh.command else {
            return Ok(());
        };
        if let Some((left, at)) = self.absorbed.get(&fresh.group) {
            return Err(format!(
                "{} goes on after its end in slot {slot}, and slot {at} of {left} has absorbed it",
                fresh.group
            ));
        }
        if !self.reopened.contains(&(fresh.group, *slot)) {
            return Err(format!(
                "{} goes on after its end in slot {slot}, which nobody has refused",
                fresh.group
            ));
        }
        Ok(())
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let Some(shard) = cx.look.worker.shard(change.group) else {
                continue;
            };
            let state = shard.group().state();
            self.reopened.extend(state.tail.reopened.iter().copied());
            if let Some(absorbed) = state.tail.absorbed {
                let by = (change.group, absorbed.at);
                let first = *self.absorbed.entry(absorbed.id).or_insert(by);
                if first != by {
                    return Err(format!(
                        "{} is absorbed by slot {} of {} and by slot {} of {}",
                        absorbed.id, first.1, first.0, by.1, by.0
                    ));
                }
            }
            if let Some(ended) = &state.tail.ended
                && shard.in_office()
            {
                return Err(format!(
                    "{} is in office for {}, which has ended in slot {}",
                    cx.look.id, change.group, ended.slot
                ));
            }
            let open = state.intents.len() + state.parts.len();
            if state.tail.ended.is_some() && open > 0 {
                return Err(format!(
                    "{} has ended with {open} open intents",
                    change.group
                ));
            }
        }
        Ok(())
    }
}
