//! Cluster versions (decision 17), as a node tells of them.

use serde::{Deserialize, Serialize};
use synod_paxos::{ClusterVersion, GroupId, NodeId, VersionRange};

/// What a node knows of cluster versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionsStatus {
    /// Who answers.
    pub node: NodeId,
    /// What its program can serve in.
    pub supports: VersionRange,
    /// The cluster's version, as far as it has heard; none if it belongs to no cluster. The
    /// node that leads the meta shard knows it first.
    pub cluster: Option<ClusterVersion>,
    /// Its replicas, ascending by shard.
    pub shards: Vec<ShardVersion>,
}

/// How far a replica's log has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardVersion {
    /// The shard.
    pub shard: GroupId,
    /// The version that its entries may be of.
    pub version: ClusterVersion,
    /// Whether this replica leads and is in office.
    pub in_office: bool,
    /// Why it applies nothing any more, if so.
    pub halted: Option<String>,
}
