//! The cluster's records and the keeper that acts on them, as a node tells of them.

use serde::{Deserialize, Serialize};
use synod_paxos::{ClusterVersion, NodeId};
use synod_shard::{Bootstrap, Claim, NodeDescriptor, NodeRow, Records, Standing};

/// What a node that is to join a running cluster is handed. Handing the same over again
/// is harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The cluster as it is now; the node holds nothing in it.
    pub bootstrap: Bootstrap,
    /// All nodes, the new one among them.
    pub nodes: Vec<NodeRow>,
}

/// What a node knows of the cluster's records, and what its keeper does. The keeper of the
/// node that leads the meta shard acts; the others rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementStatus {
    /// Whether this node leads the meta shard, so that what follows is of now.
    pub acting: bool,
    /// The records, as read within about the last second.
    pub records: Records,
    /// Nodes that have been silent for longer than the down limit: they are replaced.
    pub down: Vec<NodeId>,
    /// What the keeper does now, one line for each shard in hand.
    pub doing: Vec<String>,
    /// What stands in its way, as of its last look.
    pub problems: Vec<String>,
    /// Looks at the whole cluster since it began to act.
    pub looks: u64,
    /// Steps gone since it began to act.
    pub steps: u64,
}

/// A change of the cluster's records. Repeating one is harmless. [`PlacementStatus`] shows
/// once it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordChange {
    /// A node belongs to the cluster from now on.
    Node(NodeDescriptor),
    /// A node is meant to be something else.
    Standing {
        /// Which.
        node: NodeId,
        /// What.
        standing: Standing,
    },
    /// The policy of all keys with this prefix; of the empty one: the cluster's default.
    Policy {
        /// The prefix.
        prefix: Vec<u8>,
        /// The policy; none: what is around it holds.
        text: Option<String>,
    },
    /// Who moves replicas.
    Placement {
        /// Only people.
        manual: bool,
    },
    /// A shard id is to be somebody's who wants to split a shard: unless it is gone. Whose
    /// it is show the records.
    ClaimShard(Claim),
    /// All nodes know this cluster version, and it may begin.
    Version(ClusterVersion),
    /// A setting of the cluster that is a number.
    Setting {
        /// Its name.
        name: String,
        /// Its value; none: the default.
        value: Option<u64>,
    },
}
