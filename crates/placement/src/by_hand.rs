//! What a person wants moved: which replica goes for the one that comes, and what speaks
//! against it.

use crate::planner::Planner;
use crate::strength::{Placed, Strength};
use crate::view::{NodeState, Role, View, ViewError};
use synod_paxos::{GroupId, NodeId};

/// A replica that is to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where it is now.
    pub out: NodeId,
    /// What it does.
    pub role: Role,
    /// What its policy, or the new node's state, has against it; nothing if it may be.
    pub objections: Vec<String>,
}

/// Why a replica cannot be moved, or a leadership not be handed over. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// The view makes no sense.
    #[error(transparent)]
    View(#[from] ViewError),
    /// There is no such shard.
    #[error("there is no shard {}", shard.0)]
    NoShard {
        /// What was named.
        shard: GroupId,
    },
    /// The node is not known.
    #[error("there is no node {node}")]
    NoNode {
        /// What was named.
        node: NodeId,
    },
    /// It is not where it was said to be.
    #[error("shard {} has no replica on {node}", shard.0)]
    NotThere {
        /// The shard.
        shard: GroupId,
        /// What was named.
        node: NodeId,
    },
    /// The shard has a replica there, which is not on its way.
    #[error("shard {} has a replica on {node} already; name another node", shard.0)]
    Already {
        /// The shard.
        shard: GroupId,
        /// What was named.
        node: NodeId,
    },
    /// A shard without a quorum cannot change.
    #[error(
        "shard {} has no quorum, so nothing of it can be changed: start its nodes, see `synod \
         status`", shard.0
    )]
    NoQuorum {
        /// The shard.
        shard: GroupId,
    },
    /// Only voters lead.
    #[error("shard {} has no voter on {node} that answers; move one there first", shard.0)]
    NoVoter {
        /// The shard.
        shard: GroupId,
        /// What was named.
        node: NodeId,
    },
    /// There is nobody to hand over to.
    #[error("shard {} has no other voter that answers", shard.0)]
    NobodyElse {
        /// The shard.
        shard: GroupId,
    },
}

/// What moving a replica of a shard to the node `to` would mean. Without `from`, of its
/// replicas that one goes against whose move least speaks, and of several the one on the
/// fullest node.
///
/// # Errors
/// When it cannot be done at all.
pub fn propose_move(
    view: &View,
    shard: GroupId,
    from: Option<NodeId>,
    to: NodeId,
) -> Result<Move, MoveError> {
    let planner = Planner::new(view)?;
    let number = number_of(&planner, shard)?;
    let into = node_of(&planner, to)?;
    let now = &planner.now[number];
    if !planner.is_movable(number) {
        return Err(MoveError::NoQuorum { shard });
    }
    // A learner may be one whose move was interrupted.
    if now.role(into).is_some_and(Role::votes) {
        return Err(MoveError::Already { shard, node: to });
    }
    let outs: Vec<(usize, Role)> = match from {
        Some(from) => {
            let out = node_of(&planner, from)?;
            let role = now.role(out);
            let role = role.ok_or(MoveError::NotThere { shard, node: from })?;
            vec![(out, role)]
        }
        None => now.electors().collect(),
    };
    let moves = outs.into_iter().map(|(out, role)| {
        let objections = planner.objections(number, (out, into), role);
        let is_led = now.leader == Some(out);
        let fullest = std::cmp::Reverse(planner.fill.key(out));
        let move_ = Move {
            out: planner.topology.nodes[out].id,
            role,
            objections,
        };
        ((move_.objections.len(), is_led, fullest), move_)
    });
    let best = moves.min_by(|(one, _), (other, _)| one.cmp(other));
    best.map(|(_, best)| best)
        .ok_or(MoveError::NoQuorum { shard })
}

/// Who is to lead a shard: `to`, or without it, of the other voters that may lead by its policy
/// the one that is asked least. With what the policy has against it.
///
/// # Errors
/// When it cannot lead.
pub fn propose_leader(
    view: &View,
    shard: GroupId,
    to: Option<NodeId>,
) -> Result<(NodeId, Vec<String>), MoveError> {
    let planner = Planner::new(view)?;
    let number = number_of(&planner, shard)?;
    if !planner.is_movable(number) {
        return Err(MoveError::NoQuorum { shard });
    }
    let now = &planner.now[number];
    let answers = |node: &usize| planner.topology.nodes[*node].state.answers();
    let candidates = planner.candidates(number);
    let node = match to {
        Some(to) => {
            let node = node_of(&planner, to)?;
            let mut voters = now.voters().filter(answers);
            let voter = voters.find(|voter| *voter == node);
            voter.ok_or(MoveError::NoVoter { shard, node: to })?
        }
        None => {
            let load = |node: usize| -> u64 {
                let led = { planner.shards.iter() }.zip(&planner.now);
                let led = led.filter(|(_, placed)| placed.leader == Some(node));
                let requests = led.map(|(shard, _)| shard.requests.saturating_add(1));
                requests.fold(0, u64::saturating_add)
            };
            let others = now.voters().filter(answers);
            let others = others.filter(|node| now.leader != Some(*node));
            let best = others.min_by_key(|node| (!candidates.contains(node), load(*node), *node));
            best.ok_or(MoveError::NobodyElse { shard })?
        }
    };
    let mut objections = Vec::new();
    let of = planner.topology.nodes[node];
    if of.state != NodeState::Up {
        objections.push(format!(
            "{} is {}, and should lead nothing",
            of.id, of.state
        ));
    } else if !candidates.contains(&node) {
        let directory = &planner.class(number).directory;
        objections.push(format!(
            "the policy of {directory} prefers other leaders than {}",
            of.id
        ));
    }
    Ok((of.id, objections))
}

fn number_of(planner: &Planner<'_>, shard: GroupId) -> Result<usize, MoveError> {
    let number = planner.shards.iter().position(|s| s.id == shard);
    number.ok_or(MoveError::NoShard { shard })
}

fn node_of(planner: &Planner<'_>, id: NodeId) -> Result<usize, MoveError> {
    let number = planner.topology.nodes.iter().position(|node| node.id == id);
    number.ok_or(MoveError::NoNode { node: id })
}

impl Planner<'_> {
    /// What speaks against a replica of this role going from one node to the other.
    fn objections(&self, shard: usize, (out, into): (usize, usize), role: Role) -> Vec<String> {
        let topology = &self.topology;
        let (class, now) = (self.class(shard), &self.now[shard]);
        let to = topology.nodes[into];
        let mut after = now.clone();
        after.remove(out);
        after.put(into, role);
        let mut objections = Vec::new();
        if to.state != NodeState::Up {
            objections.push(format!("{} is {}, and takes no replicas", to.id, to.state));
        }
        if !class.allowed[into] || (role.stores() && to.capacity == Some(0)) {
            let directory = &class.directory;
            objections.push(format!(
                "the policy of {directory} allows no such replica on {}",
                to.id
            ));
        }
        if !self.has_room(shard, into, role) {
            objections.push(format!("{} has no room for it", to.id));
        }
        for (tier, cap) in class.caps.iter().enumerate() {
            let place = topology.place(into, tier);
            let there = |placed: &Placed| {
                let electors = placed.electors();
                let there = electors.filter(|(node, _)| topology.place(*node, tier) == place);
                there.count()
            };
            let count = there(&after);
            if count > *cap && count > there(now) {
                objections.push(format!(
                    "{count} of its voters would be in {}, where at most {cap} may be",
                    topology.names[tier][place]
                ));
            }
        }
        if self.is_weaker(shard, &after) {
            let strength = Strength::of(topology, &after);
            objections.push(strength.given_up(&self.base[shard], topology));
        }
        let best = |placed: &Placed| class.preference(&placed.voters().collect::<Vec<_>>());
        if best(&after) > best(now) {
            let directory = &class.directory;
            objections.push(format!(
                "no voter would be left where the policy of {directory} prefers leaders"
            ));
        }
        objections
    }
}
