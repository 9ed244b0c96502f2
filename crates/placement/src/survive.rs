//! What a set of voters outlives.

use crate::locality::Locality;
use crate::plan::NodeView;
use crate::tiers::{TierOrderError, Tiers};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use synod_paxos::NodeId;

/// Something that fails as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Domain {
    /// All nodes at this place, as far as it is told: one value of its last tier.
    Place(Locality),
    /// One node.
    Node(NodeId),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Domain::Place(locality) => locality.fmt(f),
            Domain::Node(node) => write!(f, "node {node}"),
        }
    }
}

/// What the failure of one domain does to one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survival {
    /// What fails.
    pub domain: Domain,
    /// The voters that go with it, sorted; at least one.
    pub lost: Vec<NodeId>,
    /// Whether the rest is a majority still: the shard stays available.
    pub quorum: bool,
}

/// For each domain that holds one of `voters`, what its failure alone does:
/// places by tier, widest first, then single nodes. A voter that is not in
/// `nodes` has no known place and counts as a node only.
///
/// # Errors
///
/// The localities contradict each other.
pub fn survives(nodes: &[NodeView], voters: &[NodeId]) -> Result<Vec<Survival>, TierOrderError> {
    let tiers = Tiers::of(nodes.iter().map(|node| (node.id, &node.locality)))?;
    let voters: BTreeSet<NodeId> = voters.iter().copied().collect();
    let majority = voters.len() / 2 + 1;
    let survival = |domain, lost: BTreeSet<NodeId>| Survival {
        domain,
        quorum: voters.len() - lost.len() >= majority,
        lost: lost.into_iter().collect(),
    };
    let mut outcomes = Vec::new();
    for (position, tier) in tiers.names().enumerate() {
        let mut places = BTreeMap::<Locality, BTreeSet<NodeId>>::new();
        for node in nodes.iter().filter(|node| voters.contains(&node.id)) {
            if node.locality.get(tier).is_some() {
                let place = tiers.through(&node.locality, position);
                places.entry(place).or_default().insert(node.id);
            }
        }
        let tier_outcomes = places
            .into_iter()
            .map(|(place, lost)| survival(Domain::Place(place), lost));
        outcomes.extend(tier_outcomes);
    }
    for &node in &voters {
        outcomes.push(survival(Domain::Node(node), BTreeSet::from([node])));
    }
    Ok(outcomes)
}
