//! S2: a shard that is split off begins with the same state on all replicas, at what was
//! its parent's `last`.

use super::{Context, Rule, Verdict};
use std::collections::BTreeMap;
use synod_paxos::{GroupId, NodeId};
use synod_txn::lineage::BIRTH;

#[derive(Default)]
pub(super) struct S2 {
    digests: BTreeMap<GroupId, (NodeId, u64)>,
}

impl Rule for S2 {
    fn number(&self) -> &'static str {
        "S2"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let (group, id) = (change.group, cx.look.id);
            let Some(shard) = cx.look.worker.shard(group) else {
                continue;
            };
            let state = shard.group().state();
            let begins = state.applied == BIRTH && !state.lineage.ancestors.is_empty();
            if !begins {
                continue;
            }
            let digest = shard.group().digest();
            let first = *self.digests.entry(group).or_insert((id, digest));
            if first.1 != digest {
                return Err(format!(
                    "{group} begins otherwise on {} than on {id}",
                    first.0
                ));
            }
            if cx
                .book
                .group(group)
                .is_some_and(|book| state.last < book.born_at())
            {
                return Err(format!("{group} begins on {id} below its parent's `last`"));
            }
        }
        Ok(())
    }
}
