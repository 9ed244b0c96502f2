//! The cluster's version, as a node hears of it (decision 17).
//!
//! A row of the meta shard holds it. Who reads that row or hears of it by gossip tells its
//! shards, and those that are led here raise themselves, each by its own log. So does who finds
//! it in a log: nothing gets there but what the row said.

use super::Worker;
use crate::shard::Now;
use crate::wire::{NodeMessage, spread};
use std::collections::BTreeSet;
use synod_paxos::{ClusterVersion, GroupId, VersionRange};

impl Worker {
    /// The cluster's version as far as this node has heard.
    #[must_use]
    pub fn version(&self) -> ClusterVersion {
        self.making.versions.raised
    }

    /// What this program can serve in.
    #[must_use]
    pub fn supports(&self) -> VersionRange {
        self.making.versions.supports
    }

    /// Whether the cluster's version is one that this program does not know: then this node
    /// leads nothing.
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        self.version() > self.supports().newest
    }

    /// The cluster's version is this one, or a later one.
    pub fn learn_version(&mut self, now: Now, version: ClusterVersion) {
        if version <= self.version() {
            return;
        }
        let was_overtaken = self.is_overtaken();
        self.making.versions.raised = version;
        self.map_changes += 1;
        self.dirty.extend(self.shards.keys());
        if self.is_overtaken() && !was_overtaken {
            for shard in self.shards.values_mut() {
                shard.be_overtaken(now, &self.leases, &mut self.outbox);
            }
        }
    }

    /// Part of [`Worker::map_digest`]; nothing where nodes do not tell each other of it.
    pub(super) fn version_digest(&self) -> u64 {
        match self.version() {
            version if version < NodeMessage::VERSION_SINCE => 0,
            version => spread(u64::MAX, u64::from(version.0)),
        }
    }

    /// What logs and states tell of it.
    pub(super) fn review_versions_of(&mut self, now: Now, groups: &BTreeSet<GroupId>) {
        let shards = groups.iter().filter_map(|id| self.shards.get(id));
        let seen = shards.map(crate::Shard::version_seen).max();
        self.learn_version(now, seen.unwrap_or_default());
    }

    /// The same of all replicas here.
    pub(super) fn review_versions(&mut self, now: Now) {
        let all = self.shards.keys().copied().collect();
        self.review_versions_of(now, &all);
    }
}
