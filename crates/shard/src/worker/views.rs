//! What is to be seen of a worker, by its driver and in its status.

use super::Worker;
use crate::clock::ClockMonitor;
use crate::records::Roster;
use crate::shard::Shard;
use crate::wire::ShardMap;
use std::collections::BTreeMap;
use synod_paxos::lease::{Hearing, LeaseRecord, NodeLease};
use synod_paxos::{Durable, GroupId, Slot};
use synod_txn::Unencoded;

impl Worker {
    /// The map this worker routes by.
    #[must_use]
    pub fn map(&self) -> &ShardMap {
        &self.map
    }

    /// All nodes, and what each is meant to be.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// A number that two nodes share if they know the same of all shards, nodes and the
    /// cluster's version, and hardly otherwise.
    #[must_use]
    pub fn map_digest(&self) -> u64 {
        let rest = self.roster.digest().wrapping_add(self.version_digest());
        self.map.digest().wrapping_add(rest)
    }

    /// Rises whenever the map, the roster or the cluster's version changes.
    #[must_use]
    pub fn map_changes(&self) -> u64 {
        self.map_changes
    }

    /// The support exchange, for status.
    #[must_use]
    pub fn leases(&self) -> &NodeLease {
        &self.leases
    }

    /// How suspect the silence of other nodes is.
    #[must_use]
    pub fn hearing(&self) -> &Hearing {
        &self.hearing
    }

    /// The clock's state, for status.
    #[must_use]
    pub fn clock(&self) -> &ClockMonitor {
        &self.clock
    }

    /// All shards with a replica here.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    /// One shard.
    #[must_use]
    pub fn shard(&self, group: GroupId) -> Option<&Shard> {
        self.shards.get(&group)
    }

    /// The replicated state of a shard and its slot, for a checkpoint of the engine. None if
    /// there is no such replica, or its data is not all there.
    #[must_use]
    pub fn checkpoint(&self, group: GroupId) -> Option<(Slot, Unencoded)> {
        self.shards.get(&group)?.checkpoint()
    }

    /// Everything durable of a replica: what a log must repeat before its older part may go.
    #[must_use]
    pub fn base(&self, group: GroupId) -> Option<(&Shard, Durable)> {
        let shard = self.shards.get(&group)?;
        Some((shard, shard.replica.durable()))
    }

    /// Everything durable of the lease exchange; as [`Worker::base`].
    #[must_use]
    pub fn lease_records(&self) -> Vec<LeaseRecord> {
        self.leases.records()
    }

    /// Messages dropped for a named reason, over all shards.
    #[must_use]
    pub fn ignored(&self) -> Vec<(String, u64)> {
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for shard in self.shards.values() {
            for (reason, count) in shard.replica.ignored() {
                *all.entry(format!("{reason:?}")).or_default() += count;
            }
        }
        all.into_iter().collect()
    }
}
