//! What the rules must know of once a shard was split: another group, whose transactions
//! were another's before.

use super::{Look, Rules};
use synod_paxos::GroupId;
use synod_shard::first_descriptor;

impl Rules {
    /// Takes in the splits that a node is the first to have applied.
    pub(super) fn follow_splits(&mut self, look: &Look<'_>) {
        for shard in look.worker.shards() {
            let state = shard.group().state();
            for child in &state.lineage.children {
                if !self.book.split(child, state.last) {
                    continue;
                }
                let parent = shard.descriptor().id;
                self.ledger.split(parent, child);
                self.setting.map.learn(&first_descriptor(child));
                self.setting.map.learn(shard.descriptor());
                self.born.push(child.id);
            }
        }
    }

    /// Shards that were split off since last asked.
    pub fn take_born(&mut self) -> Vec<GroupId> {
        std::mem::take(&mut self.born)
    }
}
