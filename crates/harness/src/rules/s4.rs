//! S4: what was absorbed is there as long as anybody needs it. A replica of it goes only once all
//! members of the shard that absorbed it have its state, or have none to go on from; whoever becomes one
//! later is brought past that.

use super::{Context, Rule, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{GroupId, Slot};

#[derive(Default)]
pub(super) struct S4 {
    absorbed: BTreeMap<GroupId, (GroupId, Slot)>,
    /// Those of which all members of that time had the state.
    retired: BTreeSet<GroupId>,
}

/// Whether all members of the shard have come that far.
fn all_have(cx: &Context<'_>, right: GroupId, (left, at): (GroupId, Slot)) -> Verdict {
    let newest = cx.book.group(left).and_then(|b| b.electorates().last());
    let Some(newest) = newest else { return Ok(()) };
    for (node, peer) in cx.everyone.nodes.iter().enumerate() {
        let seen = cx.book.seen(node, left);
        let seen = seen.or_else(|| cx.book.before_crash(node, left));
        let lacks = seen.is_some_and(|seen| seen.holds_data && seen.applied < at);
        if newest.electors.contains(&peer.id) && lacks {
            return Err(format!(
                "{} says that nobody needs {right} any more, and {} has not come to slot {at} of {left}, \
                 which absorbed it",
                cx.look.id, peer.id
            ));
        }
    }
    Ok(())
}

impl Rule for S4 {
    fn number(&self) -> &'static str {
        "S4"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let Some(shard) = cx.look.worker.shard(change.group) else {
                continue;
            };
            let state = shard.group().state();
            let now = state.tail.absorbed;
            if let Some(absorbed) = now {
                let by = (change.group, absorbed.at);
                self.absorbed.insert(absorbed.id, by);
            }
            let over = self.absorbed.iter().filter(|(right, (left, _))| {
                let kept = now.is_some_and(|absorbed| absorbed.id == **right);
                *left == change.group && !kept && state.has_absorbed(**right)
            });
            for (right, by) in over {
                if self.retired.insert(*right) {
                    all_have(cx, *right, *by)?;
                }
            }
            let goes = shard.replica().is_being_destroyed() && shard.is_member();
            let is_absorbed = self.absorbed.contains_key(&change.group);
            if goes && is_absorbed && !self.retired.contains(&change.group) {
                return Err(format!(
                    "{} lets go of {}, which others may need",
                    cx.look.id, change.group
                ));
            }
        }
        Ok(())
    }
}
