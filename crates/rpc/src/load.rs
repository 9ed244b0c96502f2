//! How large shards are and how much they are asked, and which are split or merged for that, as a
//! node tells of it.

use serde::{Deserialize, Serialize};
use synod_paxos::NodeId;
use synod_placement::{MergeLimits, ShardLoad, SplitLimits};

/// What a node knows of the shards that it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadStatus {
    /// The node.
    pub node: NodeId,
    /// The shards, ascending.
    pub shards: Vec<ShardLoad>,
    /// What the cluster splits by itself; only from the node that leads the meta shard.
    pub splits: Option<SplitsStatus>,
}

/// What the cluster splits by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitsStatus {
    /// Its settings.
    pub limits: SplitLimits,
    /// What is being split now, one line for each shard.
    pub doing: Vec<String>,
    /// What stands in the way, as of the last look.
    pub problems: Vec<String>,
    /// Shards split for their size since this node leads the meta shard.
    pub by_size: u64,
    /// Shards split for their load since then.
    pub by_load: u64,
    /// Attempts that came to nothing since then; they are repeated.
    pub failed: u64,
}

/// What the cluster merges by itself, as the node that leads the meta shard tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergesStatus {
    /// Its settings.
    pub limits: MergeLimits,
    /// What is being merged now, one line for each shard that stays.
    pub doing: Vec<String>,
    /// What stands in the way of shards that have been cold for long enough, as of the last look.
    pub problems: Vec<String>,
    /// Shards that became part of others since this node leads the meta shard.
    pub merged: u64,
    /// Attempts that came to nothing since then; they are repeated.
    pub failed: u64,
}
