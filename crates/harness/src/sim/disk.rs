//! One node's log on a simulated disk: batches become durable in order, one
//! sync at a time; a crash loses what was not synced, save a prefix that
//! happened to reach the platter.

use super::random::Random;
use std::collections::{BTreeMap, VecDeque};
use synod_paxos::lease::LeaseRecord;
use synod_paxos::{Configuration, Durable, GroupId, NodeId};
use synod_shard::{LogBatch, NodeRecord};

/// The log.
#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk {
    durable: BTreeMap<GroupId, Durable>,
    leases: BTreeMap<NodeId, LeaseRecord>,
    queued: VecDeque<LogBatch>,
    /// How many of the queued batches the sync under way covers.
    syncing: usize,
}

impl SimDisk {
    /// A group's first durable state.
    pub(super) fn create(&mut self, group: GroupId, configuration: Configuration) {
        self.durable.insert(group, Durable::new(configuration));
    }

    pub(super) fn append(&mut self, batch: LogBatch) {
        self.queued.push_back(batch);
    }

    /// Starts a sync if there is something to sync and none under way.
    pub(super) fn start_sync(&mut self) -> bool {
        if self.syncing > 0 || self.queued.is_empty() {
            return false;
        }
        self.syncing = self.queued.len();
        true
    }

    /// The sync ended; returns the last durable ticket.
    pub(super) fn synced(&mut self) -> Option<u64> {
        let count = std::mem::take(&mut self.syncing);
        let mut last = None;
        for _ in 0..count {
            if let Some(batch) = self.queued.pop_front() {
                last = Some(batch.ticket);
                self.keep(batch);
            }
        }
        last
    }

    fn keep(&mut self, batch: LogBatch) {
        for record in batch.records {
            match record {
                NodeRecord::Group { group, record } => {
                    if let Some(durable) = self.durable.get_mut(&group) {
                        durable.replay(record);
                    }
                }
                NodeRecord::Lease(record) => {
                    self.leases.insert(record.holder, record);
                }
            }
        }
    }

    /// Power goes: some prefix of what was queued may have been written.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let kept = random.range(0, self.queued.len() as u64 + 1);
        for _ in 0..kept {
            if let Some(batch) = self.queued.pop_front() {
                self.keep(batch);
            }
        }
        self.queued.clear();
        self.syncing = 0;
    }

    pub(super) fn durable(&self, group: GroupId) -> Option<Durable> {
        self.durable.get(&group).cloned()
    }

    pub(super) fn leases(&self) -> Vec<LeaseRecord> {
        self.leases.values().copied().collect()
    }
}
