//! Copies of shards to other nodes, as a node tells of them: how fast it sends, and what it
//! takes in.

use serde::{Deserialize, Serialize};
use synod_paxos::{GroupId, NodeId};

/// What a node says of copies. Totals since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesStatus {
    /// The node.
    pub node: NodeId,
    /// Bytes that it sends in a second, at most; as its cluster's setting says, as far as it
    /// has heard.
    pub rate: u64,
    /// Whether it sends less than that now, because its disk or its requests need the time.
    pub yields: bool,
    /// Bytes of copies sent.
    pub sent: u64,
    /// Bytes of copies taken in.
    pub taken: u64,
    /// Bytes that it has room for besides what it is taking in; none: it has no limit, or
    /// does not know.
    pub room: Option<u64>,
    /// Copies that it does not take in now.
    pub refused: Vec<RefusedCopy>,
}

/// A copy that a node does not take in, for want of room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCopy {
    /// Of which shard.
    pub shard: GroupId,
    /// Why, in words.
    pub reason: String,
}
