//! What goes into a worker: its parts at the start, then one input after another.

use crate::records::NodeRow;
use crate::shard::Recovered;
use crate::wire::{NodeMessage, ShardMap, ShardRequest};
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeSet;
use synod_paxos::lease::{LeaseRecord, LeaseSettings};
use synod_paxos::{ClusterVersion, GroupId, Incarnation, NodeId, Slot, SnapshotId, VersionRange};
use synod_txn::effect::EngineRows;
use synod_txn::{AttemptId, Caller, ClientId, GroupSettings, ReadToken, Span};

/// Everything that goes into a worker.
#[derive(Clone, Debug)]
pub enum Input {
    /// From another node.
    Peer {
        /// Who.
        from: NodeId,
        /// What.
        message: NodeMessage,
    },
    /// From a client.
    Client {
        /// Who waits for the answer.
        caller: Caller,
        /// The request.
        request: ShardRequest,
    },
    /// Nobody waits for these answers any more.
    Cancel {
        /// Who waited: all that left together.
        callers: BTreeSet<Caller>,
    },
    /// The client lives, and so do these of its transactions.
    ClientSeen {
        /// The client.
        client: ClientId,
        /// Its transactions under way.
        live: Vec<AttemptId>,
    },
    /// The client said good-bye, or its last connection closed.
    ClientGone {
        /// The client.
        client: ClientId,
    },
    /// All log batches up to this ticket are durable.
    Logged {
        /// The ticket.
        ticket: u64,
    },
    /// The engine answered a read.
    ReadDone {
        /// The shard.
        group: GroupId,
        /// Which read.
        token: ReadToken,
        /// The rows.
        rows: EngineRows,
    },
    /// The engine holds everything of this shard up to this slot.
    EngineApplied {
        /// The shard.
        group: GroupId,
        /// The slot.
        slot: Slot,
    },
    /// The engine holds the checkpoint of this slot and everything below, synced.
    Checkpointed {
        /// The shard.
        group: GroupId,
        /// The slot.
        slot: Slot,
    },
    /// A chunk of an outgoing snapshot was read.
    SnapshotRead {
        /// The shard.
        group: GroupId,
        /// For whom.
        to: NodeId,
        /// Which.
        id: SnapshotId,
        /// The chunk's number.
        chunk: u64,
        /// The chunk.
        data: Bytes,
        /// Whether it is the last.
        done: bool,
    },
    /// An incoming snapshot is installed in the engine.
    SnapshotInstalled {
        /// The shard.
        group: GroupId,
        /// Which.
        id: SnapshotId,
        /// The range that it was of.
        span: Span,
        /// The replicated state it brought.
        state: Bytes,
    },
    /// The engine holds what a shard that was split off begins with, and all that was
    /// written before, synced (effect of [`crate::SnapshotTask::Birth`]).
    Born {
        /// The new shard.
        group: GroupId,
    },
    /// What this node held of the shard is deleted, durably (effect of
    /// [`crate::SnapshotTask::Destroy`]).
    Destroyed {
        /// The shard.
        group: GroupId,
    },
    /// Whether the log's disk answers in time (L6).
    DiskHealth {
        /// False while it stalls.
        healthy: bool,
    },
    /// Whether so little room is left on the node's disk that only deletes are let in.
    DiskSpace {
        /// True below the reserve.
        full: bool,
    },
    /// An operator wants the shard led by another node.
    Transfer {
        /// The shard.
        group: GroupId,
        /// The new leader.
        to: NodeId,
    },
    /// Hand over all leaderships (before an orderly stop), each to a follower
    /// that is ready. Repeating it catches what came to lead meanwhile.
    StepDown,
    /// Only time has passed.
    Tick,
}

/// Cluster versions, as a worker begins with them (P8).
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Versions {
    /// That of the cluster's first map: its shards' logs begin in it.
    pub first: ClusterVersion,
    /// The highest one heard of; the cluster's, or an older one.
    pub raised: ClusterVersion,
    /// What this program can serve in.
    pub supports: VersionRange,
}

impl Versions {
    /// Of a cluster that begins now, for this program.
    #[must_use]
    pub fn of(first: ClusterVersion) -> Versions {
        Versions {
            first,
            raised: first,
            supports: VersionRange::OWN,
        }
    }
}

/// What a worker is made of.
pub struct Setup {
    /// This node.
    pub me: NodeId,
    /// Its incarnation (durable, already incremented).
    pub incarnation: Incarnation,
    /// Nodes and shards.
    pub map: ShardMap,
    /// What is known of nodes besides; younger rows win.
    pub nodes: Vec<NodeRow>,
    /// Cluster versions.
    pub versions: Versions,
    /// Limits granted before the restart.
    pub leases: Vec<LeaseRecord>,
    /// The shards that have a replica here.
    pub shards: Vec<Recovered>,
    /// Consensus settings; the priority is set per shard.
    pub paxos: synod_paxos::Settings,
    /// Lease settings.
    pub lease: LeaseSettings,
    /// Transaction settings.
    pub txn: GroupSettings,
    /// Seeds the jitter of elections.
    pub seed: u64,
}
