//! What the planner sees of a cluster.

use crate::locality::Locality;
use crate::policy::{Policies, RulesError};
use crate::tiers::{TierOrderError, Tiers};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use synod_paxos::{GroupId, NodeId};

/// Whether a node serves, and what it is meant to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// It answers: it holds replicas, leads, and takes more.
    #[default]
    Up,
    /// It answers, keeps its replicas, takes no more and leads nothing: it is
    /// about to be restarted.
    Draining,
    /// It answers, and all it holds is to go elsewhere: it is being retired.
    Leaving,
    /// It does not answer, for less than the down limit: it is waited for.
    Silent,
    /// It has not answered for longer than the down limit: it is replaced.
    Down,
}

impl NodeState {
    /// Whether its replicas answer.
    #[must_use]
    pub fn answers(self) -> bool {
        matches!(
            self,
            NodeState::Up | NodeState::Draining | NodeState::Leaving
        )
    }

    /// Whether what it holds is to go elsewhere.
    #[must_use]
    pub fn is_left(self) -> bool {
        matches!(self, NodeState::Leaving | NodeState::Down)
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Up => "up",
            NodeState::Draining => "draining",
            NodeState::Leaving => "leaving",
            NodeState::Silent => "silent",
            NodeState::Down => "down",
        })
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node.
    pub id: NodeId,
    /// Its place.
    pub locality: Locality,
    /// What else is said of it.
    pub labels: BTreeMap<String, String>,
    /// Whether it serves.
    pub state: NodeState,
    /// Bytes of data it may hold; with nothing said, as many as needed. Nodes
    /// get replicas in proportion to it. A node of capacity 0 stores no data:
    /// it can be a witness only.
    pub capacity: Option<u64>,
    /// Bytes of data it may take in besides what it holds; with nothing said, as many as needed.
    pub room: Option<u64>,
    /// Shards of which it has refused a copy lately, for want of room.
    pub refuses: BTreeSet<GroupId>,
}

impl Node {
    /// A node that is up, without labels or a limit of bytes.
    #[must_use]
    pub fn new(id: NodeId, locality: Locality) -> Node {
        Node {
            id,
            locality,
            labels: BTreeMap::new(),
            state: NodeState::Up,
            capacity: None,
            room: None,
            refuses: BTreeSet::new(),
        }
    }
}

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Votes and stores data.
    Voter,
    /// Votes and stores only the log; never leads.
    Witness,
    /// Stores data, never votes.
    Learner,
}

impl Role {
    /// Whether it counts for a majority.
    #[must_use]
    pub fn votes(self) -> bool {
        self != Role::Learner
    }

    /// Whether it stores data.
    #[must_use]
    pub fn stores(self) -> bool {
        self != Role::Witness
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Voter => "voter",
            Role::Witness => "witness",
            Role::Learner => "learner",
        })
    }
}

/// A shard and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The shard.
    pub id: GroupId,
    /// Its first key.
    pub start: Vec<u8>,
    /// The first key behind it; empty for the end of all keys.
    pub end: Vec<u8>,
    /// Its replicas by node. None at all: it is new and can be put anywhere.
    pub replicas: BTreeMap<NodeId, Role>,
    /// Who leads it now, if that is known.
    pub leader: Option<NodeId>,
    /// Bytes of data in each replica that stores it; none while it is not known.
    pub bytes: Option<u64>,
    /// Requests a second, about.
    pub requests: u64,
    /// Where its requests come from, with their number a second.
    pub origins: Vec<(Locality, u64)>,
}

impl Shard {
    /// A new shard, of which nothing is placed yet.
    #[must_use]
    pub fn new(id: GroupId, start: Vec<u8>, end: Vec<u8>) -> Shard {
        Shard {
            id,
            start,
            end,
            replicas: BTreeMap::new(),
            leader: None,
            bytes: Some(0),
            requests: 0,
            origins: Vec::new(),
        }
    }
}

/// A cluster at one moment: the planner's whole input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The nodes, those that are down included.
    pub nodes: Vec<Node>,
    /// The policies.
    pub policies: Policies,
    /// The shards.
    pub shards: Vec<Shard>,
}

/// Why a view makes no sense. Nothing was changed; correct it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// A node stands there twice.
    #[error("node {node} is listed twice; list each node once")]
    RepeatedNode {
        /// The node.
        node: NodeId,
    },
    /// A shard stands there twice.
    #[error("shard {} is listed twice; list each shard once", shard.0)]
    RepeatedShard {
        /// The shard.
        shard: GroupId,
    },
    /// A replica lies on a node that is not listed.
    #[error("shard {} has a replica on {node}, which is not listed; list it, as down if it is gone", shard.0)]
    UnknownNode {
        /// The shard.
        shard: GroupId,
        /// The node.
        node: NodeId,
    },
    /// A shard is led by a node that has no voter of it.
    #[error("shard {} is led by {leader}, which has no voter of it; give the leader as unknown", shard.0)]
    LeaderWithoutVoter {
        /// The shard.
        shard: GroupId,
        /// Its leader.
        leader: NodeId,
    },
    /// The localities contradict each other.
    #[error(transparent)]
    Tiers(#[from] TierOrderError),
    /// A policy contradicts itself.
    #[error("the policy of {directory}: {error}")]
    Rules {
        /// Where it stands.
        directory: Directory,
        /// Why.
        error: RulesError,
    },
}

/// A directory for people: its prefix, or the cluster's default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Directory(pub Option<Vec<u8>>);

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("the cluster"),
            Some(prefix) => write!(f, "directory {}", prefix.escape_ascii()),
        }
    }
}

impl View {
    /// Checks that the view makes sense, and finds the order of its tiers.
    pub(crate) fn check(&self) -> Result<Tiers, ViewError> {
        let mut nodes = BTreeSet::new();
        if let Some(twice) = self.nodes.iter().find(|node| !nodes.insert(node.id)) {
            return Err(ViewError::RepeatedNode { node: twice.id });
        }
        let mut shards = BTreeSet::new();
        for shard in &self.shards {
            let id = shard.id;
            if !shards.insert(id) {
                return Err(ViewError::RepeatedShard { shard: id });
            }
            if let Some(node) = shard.replicas.keys().find(|node| !nodes.contains(node)) {
                let node = *node;
                return Err(ViewError::UnknownNode { shard: id, node });
            }
            if let Some(leader) = shard.leader
                && shard.replicas.get(&leader) != Some(&Role::Voter)
            {
                return Err(ViewError::LeaderWithoutVoter { shard: id, leader });
            }
        }
        let localities = self.nodes.iter().map(|node| (node.id, &node.locality));
        Ok(Tiers::of(localities)?)
    }
}
