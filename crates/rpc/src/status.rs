//! What a node tells about itself: its state now, and totals since its start.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use synod_paxos::lease::Suspicion;
use synod_paxos::{GroupId, Incarnation, NodeId, Slot, Timestamp};
use synod_txn::Span;

/// A node's state at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// Its name, as in its certificate.
    pub name: String,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Its place: ordered tiers, `region=…,dc=…,rack=…,host=…`.
    pub locality: String,
    /// Counts its starts.
    pub incarnation: Incarnation,
    /// The version of its program.
    pub version: String,
    /// Whether it works as it should.
    pub health: Health,
    /// Its wall clock.
    pub clock: ClockStatus,
    /// Its replicas, ascending by shard.
    pub shards: Vec<ShardStatus>,
}

/// Whether a node works as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// It does.
    Ok,
    /// It serves, with the reservation named.
    Degraded(String),
    /// It waits for `synod init`.
    Uninitialized,
}

/// A node's wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// The reading.
    pub now: Timestamp,
    /// Half the width of its interval, nanoseconds; none in unbounded mode.
    pub bound_nanos: Option<u64>,
    /// The highest timestamp a majority of its peers grants it now (L4).
    pub limit: Timestamp,
    /// Why it does not trust its clock, if it does not (K2): it leads nothing, or, after the
    /// quarantine's while, only what nobody better leads.
    pub quarantined: Option<String>,
}

/// What a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReplicaRole {
    /// Runs phase 2, in office or about to be.
    Leader,
    /// Asks to lead.
    Candidate,
    /// Votes and stores data.
    Follower,
    /// Votes and stores only the log.
    Witness,
    /// Stores data, never votes.
    Learner,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The shard.
    pub id: GroupId,
    /// Its keys.
    pub span: Span,
    /// What this replica is doing.
    pub role: ReplicaRole,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The ballot that names its leader's term, as text; empty if there is none.
    pub term: String,
    /// Whether it leads and is in office (P6).
    pub in_office: bool,
    /// What is left of its leader lease, milliseconds; none if it holds none.
    pub lease_millis: Option<u64>,
    /// Everything up to here is decided.
    pub decided: Slot,
    /// Everything up to here is applied.
    pub applied: Slot,
    /// The last slot of its log.
    pub last: Slot,
    /// The log below and including this slot is gone.
    pub trimmed: Slot,
    /// Bytes of log kept in memory.
    pub log_bytes: u64,
    /// As leader: how far each other member is.
    pub followers: Vec<FollowerLag>,
    /// Intents that are not resolved yet.
    pub open_intents: u64,
    /// Open intents whose outcome this shard has been asking for (§6 T5).
    pub in_doubt: u64,
    /// Transactions' sessions open here.
    pub sessions: u64,
    /// Locks held.
    pub locks: u64,
    /// The highest timestamp used (K3).
    pub last_timestamp: Timestamp,
}

/// How far one member of a group is, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerLag {
    /// The member.
    pub node: NodeId,
    /// It holds everything up to here, durably.
    pub matched: Slot,
}

/// How well a node hears the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HearsStatus {
    /// Who hears.
    pub node: NodeId,
    /// All other nodes of the cluster; none while this one is not well and asks nobody (L6).
    pub others: Vec<HeardNode>,
}

/// One that is to be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardNode {
    /// Which.
    pub node: NodeId,
    /// None: not since the node started that tells this.
    pub heard: Option<Heard>,
}

/// When a node was heard, and what its silence since then means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// How long ago; milliseconds.
    pub silent_millis: u64,
    /// How unlikely that is, by what its link usually does.
    pub suspicion: Suspicion,
}

/// Totals since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Processor time, user and system; microseconds.
    pub cpu_micros: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Bytes written to the log.
    pub log_bytes: u64,
    /// Batches written to the log.
    pub batches: u64,
    /// Requests received from clients.
    pub requests: u64,
    /// Transactions committed here as coordinator.
    pub commits: u64,
    /// Transactions aborted here as coordinator.
    pub aborts: u64,
    /// The transport's.
    pub transport: TransportCounters,
    /// Messages dropped for a named reason, and how many.
    pub ignored: Vec<(String, u64)>,
}

/// Totals of one [`Endpoint`](crate::Endpoint).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportCounters {
    /// UDP datagrams received (of connections open now and closed).
    pub packets_in: u64,
    /// UDP datagrams sent.
    pub packets_out: u64,
    /// Bytes of frames received.
    pub bytes_in: u64,
    /// Bytes of frames sent.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Frames to nodes that were dropped: queue full, or the node cannot be reached.
    pub dropped: u64,
    /// Messages to nodes larger than a frame may be; dropped.
    pub too_large: u64,
    /// Frames that could not be decoded; each closed its stream.
    pub bad_frames: u64,
    /// Requests refused because too many were unanswered on their stream.
    pub overloaded: u64,
    /// Connections closed because their client did not read its answers.
    pub slow_readers: u64,
    /// Connections refused: wrong certificate, role, cluster or node, or too many.
    pub refused: u64,
}
