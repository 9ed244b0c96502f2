//! What the rules must know of once shards were merged: whose transactions were whose.

use super::{Look, Rules};
use synod_paxos::{GroupId, Slot};
use synod_txn::Absorb;

impl Rules {
    /// An `Absorb` is decided, and this node is the first to know. It may not have applied it yet.
    pub(super) fn follow_merge(
        &mut self,
        look: &Look<'_>,
        (left, slot): (GroupId, Slot),
        absorb: &Absorb,
    ) {
        let Some(shard) = look.worker.shard(left) else {
            return;
        };
        let state = shard.group().state();
        let counts = if shard.applied() >= slot {
            state.has_absorbed(absorb.right)
        } else {
            state.absorbs(absorb)
        };
        if !counts {
            return;
        }
        self.ledger.merge(left, absorb.right, slot);
        let mut grown = shard.descriptor().clone();
        let epoch = u64::from(grown.configuration.epoch.0);
        grown.generation = epoch.saturating_add(absorb.splits).max(grown.generation);
        grown.span.end = absorb.gained.end.clone();
        self.setting.map.learn(&grown);
        self.absorbed.push(absorb.right);
        self.gone.push(absorb.right);
    }

    /// Shards that became part of others since last asked.
    pub fn take_absorbed(&mut self) -> Vec<GroupId> {
        std::mem::take(&mut self.absorbed)
    }
}
