//! What the rules must know of once a shard was split: another group, whose transactions
//! were another's before.

use super::{Look, Rules};
use synod_paxos::{GroupId, Slot, Timestamp};
use synod_shard::first_descriptor;

impl Rules {
    /// A split is decided, and this node is the first to know: it has applied it, too.
    pub(super) fn follow_split(
        &mut self,
        look: &Look<'_>,
        (parent, slot): (GroupId, Slot),
        child: GroupId,
        last: Timestamp,
    ) {
        let Some(shard) = look.worker.shard(parent) else {
            return;
        };
        let children = &shard.group().state().lineage.children;
        // One that met something undecided made nothing.
        let Some(child) = children.iter().find(|c| c.id == child) else {
            return;
        };
        self.book.split(child, last, (parent, slot));
        self.ledger.split(parent, child);
        self.setting.map.learn(&first_descriptor(child));
        self.setting.map.learn(shard.descriptor());
        self.born.push(child.id);
    }

    /// Shards that were split off since last asked.
    pub fn take_born(&mut self) -> Vec<GroupId> {
        std::mem::take(&mut self.born)
    }
}
