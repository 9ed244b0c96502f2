//! S4: what was absorbed is there as long as anybody needs it. A replica of it goes only once all
//! members of the shard that absorbed it have its state, or have none to go on from.

use super::{Context, Rule, Verdict};
use std::collections::BTreeMap;
use synod_paxos::{GroupId, Slot};

#[derive(Default)]
pub(super) struct S4 {
    absorbed: BTreeMap<GroupId, (GroupId, Slot)>,
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
            if let Some(absorbed) = shard.group().state().tail.absorbed {
                self.absorbed
                    .insert(absorbed.id, (change.group, absorbed.at));
            }
            let goes = shard.replica().is_being_destroyed();
            let Some((left, at)) = self.absorbed.get(&change.group).filter(|_| goes) else {
                continue;
            };
            let newest = cx.book.group(*left).and_then(|b| b.electorates().last());
            let Some(newest) = newest else { continue };
            for (node, peer) in cx.everyone.nodes.iter().enumerate() {
                if !newest.electors.contains(&peer.id) {
                    continue;
                }
                let seen = cx.book.seen(node, *left);
                let seen = seen.or_else(|| cx.book.before_crash(node, *left));
                let lacks = seen.is_some_and(|seen| seen.holds_data && seen.applied < *at);
                if lacks {
                    return Err(format!(
                        "{} lets go of {}, and {} has not come to slot {at} of {left}, which \
                         absorbed it",
                        cx.look.id, change.group, peer.id
                    ));
                }
            }
        }
        Ok(())
    }
}
