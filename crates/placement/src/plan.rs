//! Voters and leader of every shard of a new cluster.

use crate::leaders;
use crate::locality::Locality;
use crate::spread::Spread;
use crate::tiers::{TierOrderError, Tiers};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use synod_paxos::NodeId;

/// Replicas of a shard unless something else is asked for.
pub const DEFAULT_REPLICAS: usize = 3;

/// Shards in one plan, at most.
pub const MAX_SHARDS: usize = 100_000;

/// What the planner sees of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// The node.
    pub id: NodeId,
    /// Its place.
    pub locality: Locality,
}

/// What is to be placed, and where it could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRequest {
    /// The nodes, in any order.
    pub nodes: Vec<NodeView>,
    /// Replicas of each shard; odd. Fewer are planned if there are fewer nodes.
    pub replicas: usize,
    /// How many shards.
    pub shards: usize,
}

/// Where one shard goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardPlan {
    /// Its voters, sorted.
    pub voters: Vec<NodeId>,
    /// The voter that should lead.
    pub leader: NodeId,
    /// Why so, for people: first about the whole set, then one for each voter.
    pub reasons: Vec<String>,
}

/// Why there is no plan. Nothing was changed; correct the request and repeat it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There are no nodes.
    #[error("there are no nodes to place shards on; name at least one")]
    NoNodes,
    /// The number of replicas is not odd.
    #[error(
        "{replicas} replicas for each shard were asked for; \
         ask for an odd number (an even one survives no more failures than the odd one below it)"
    )]
    EvenReplicas {
        /// The number asked for.
        replicas: usize,
    },
    /// A node stands in the request twice.
    #[error("node {node} is listed twice; list each node once")]
    RepeatedNode {
        /// The node.
        node: NodeId,
    },
    /// The localities contradict each other.
    #[error(transparent)]
    Tiers(#[from] TierOrderError),
    /// More shards than one plan may have.
    #[error("{shards} shards were asked for; at most {MAX_SHARDS} can be planned")]
    TooManyShards {
        /// The number asked for.
        shards: usize,
    },
}

/// Places shards on nodes:
///
/// - No place of the widest tier, then of the next, holds a majority of a
///   shard's voters, where there are enough of them to avoid it.
/// - Voters of a shard are apart in the widest tier that has enough values for
///   all of them, and spread as evenly as can be over the tiers above it.
/// - Under these conditions each shard goes to the nodes with the fewest
///   replicas so far. Nodes that are alike (the same number of nodes in all
///   domains) end with the same number of replicas, or one more.
/// - Leaders are spread as evenly as the voters allow.
///
/// # Errors
///
/// See [`PlanError`]; the request itself is wrong then.
pub fn plan(request: PlanRequest) -> Result<Vec<ShardPlan>, PlanError> {
    let PlanRequest {
        mut nodes,
        replicas: asked,
        shards,
    } = request;
    check(&nodes, asked, shards)?;
    nodes.sort_by_key(|node| node.id);
    let most = nodes.len() - (1 - nodes.len() % 2);
    let replicas = asked.min(most);
    let tiers = Tiers::of(nodes.iter().map(|node| (node.id, &node.locality)))?;
    let spread = Spread::new(&nodes, &tiers, replicas);
    let mut load = vec![0_usize; nodes.len()];
    let mut voters = Vec::with_capacity(shards);
    for _ in 0..shards {
        let mut chosen = spread.choose(&spread.order(&load));
        chosen.sort_unstable();
        for node in &chosen {
            load[*node] += 1;
        }
        voters.push(chosen);
    }
    let general = general_reasons(&spread, &tiers, nodes.len(), asked, replicas);
    let leaders = leaders::assign(&voters, nodes.len());
    Ok(voters
        .iter()
        .zip(leaders)
        .map(|(chosen, leader)| shard_plan(&nodes, &general, chosen, leader))
        .collect())
}

fn check(nodes: &[NodeView], replicas: usize, shards: usize) -> Result<(), PlanError> {
    if nodes.is_empty() {
        return Err(PlanError::NoNodes);
    }
    if replicas.is_multiple_of(2) {
        return Err(PlanError::EvenReplicas { replicas });
    }
    if shards > MAX_SHARDS {
        return Err(PlanError::TooManyShards { shards });
    }
    let mut seen = BTreeSet::new();
    match nodes.iter().find(|node| !seen.insert(node.id)) {
        Some(twice) => Err(PlanError::RepeatedNode { node: twice.id }),
        None => Ok(()),
    }
}

/// What holds for every shard of this plan.
fn general_reasons(
    spread: &Spread,
    tiers: &Tiers,
    nodes: usize,
    asked: usize,
    replicas: usize,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if replicas < asked {
        let survived = (replicas - 1) / 2;
        reasons.push(format!(
            "{replicas} replicas instead of {asked}: the largest odd number on {nodes} nodes; \
             the loss of {survived} nodes is survived"
        ));
    }
    reasons.push(match spread.separate() {
        _ if replicas == 1 => "the only replica".to_owned(),
        Some(tier) => format!("each replica in a {} of its own", tiers.name(tier)),
        None => "each replica on a node of its own; no tier has enough values".to_owned(),
    });
    for (tier, name) in tiers.names().enumerate() {
        let (most, values) = spread.density(tier);
        if values > 1 && most > replicas / 2 && replicas > 1 {
            reasons.push(format!(
                "up to {most} of {replicas} replicas in one {name}: \
                 too few of them have room, so losing that {name} can lose the quorum"
            ));
        }
    }
    reasons
}

fn shard_plan(
    nodes: &[NodeView],
    general: &[String],
    chosen: &[usize],
    leader: usize,
) -> ShardPlan {
    let mut reasons = general.to_vec();
    for &node in chosen {
        let NodeView { id, locality } = &nodes[node];
        let place = if locality.0.is_empty() {
            "no locality".to_owned()
        } else {
            locality.to_string()
        };
        let role = if node == leader {
            "leads: this evens out the leaderships"
        } else {
            "among the nodes with the fewest replicas that keep to the spread"
        };
        reasons.push(format!("{id} ({place}): {role}"));
    }
    ShardPlan {
        voters: chosen.iter().map(|node| nodes[*node].id).collect(),
        leader: nodes[leader].id,
        reasons,
    }
}
