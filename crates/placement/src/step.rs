//! What is to be done to a cluster, one change of one shard at a time.

use crate::view::{Role, View};
use std::collections::BTreeMap;
use std::fmt;
use synod_paxos::{GroupId, NodeId};

/// One change of one shard. The steps of a shard are done in order, each only
/// once the one before it is complete; those of different shards may be done
/// together, as far as disks and links allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The shard.
    pub shard: GroupId,
    /// What is done to it.
    pub change: Change,
    /// What it is for.
    pub aim: Aim,
}

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aim {
    /// What the policies, and the nodes' states, want.
    Policy,
    /// That nodes come to hold about as much as each other.
    Fill,
    /// That what leaders are asked is about the same on all nodes.
    Load,
}

/// What is done to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new shard gets its first replicas.
    Create {
        /// All of them.
        replicas: BTreeMap<NodeId, Role>,
        /// The voter that should lead.
        leader: Option<NodeId>,
    },
    /// A replica that does not vote is made, and catches up. Complete once it
    /// holds what its later role needs (a witness needs only the log).
    AddLearner {
        /// Where.
        node: NodeId,
        /// What it is to become.
        later: Role,
    },
    /// One voter is replaced by a learner that has caught up. If the one that
    /// goes leads, the one that comes leads after it.
    Swap {
        /// Who goes.
        out: NodeId,
        /// Who comes.
        into: NodeId,
        /// As what.
        role: Role,
    },
    /// Learners that have caught up vote from now on, all at once.
    Promote {
        /// Who, and as what.
        nodes: BTreeMap<NodeId, Role>,
    },
    /// Voters leave without a successor, all at once.
    Remove {
        /// Who.
        nodes: Vec<NodeId>,
    },
    /// A replica goes on in another role. A witness that is to be a voter counts
    /// as a witness until it has the data.
    ChangeRole {
        /// Whose.
        node: NodeId,
        /// To what.
        role: Role,
    },
    /// Several of the changes above in one: none of them alone, in any order,
    /// would leave the shard as strong as it is.
    Reconfigure {
        /// All replicas after it.
        replicas: BTreeMap<NodeId, Role>,
        /// Who leads after it, if the leader goes with it.
        leader: Option<NodeId>,
    },
    /// A learner is given up.
    RemoveLearner {
        /// Where.
        node: NodeId,
    },
    /// Another voter leads. Without a leader now, `to` should campaign.
    TransferLeader {
        /// Who leads now.
        from: Option<NodeId>,
        /// Who is to.
        to: NodeId,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: {}", self.shard.0, self.change)?;
        f.write_str(match self.aim {
            Aim::Policy => "",
            Aim::Fill => " (evens out what nodes hold)",
            Aim::Load => " (evens out what leaders are asked)",
        })
    }
}

fn listed(replicas: &BTreeMap<NodeId, Role>) -> String {
    let each = replicas.iter().map(|(node, role)| match role {
        Role::Voter => node.to_string(),
        role => format!("{node} as {role}"),
    });
    each.collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Create { replicas, leader } => {
                write!(f, "create on {}", listed(replicas))?;
                leader.map_or(Ok(()), |leader| write!(f, "; {leader} leads"))
            }
            Change::AddLearner { node, later } => match later {
                Role::Learner => write!(f, "add {node} as learner"),
                later => write!(f, "add {node}, to be a {later}"),
            },
            Change::Swap { out, into, role } => write!(f, "replace {out} by {into} as {role}"),
            Change::Promote { nodes } => write!(f, "let vote: {}", listed(nodes)),
            Change::Remove { nodes } => {
                let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
                write!(f, "remove {}", nodes.join(", "))
            }
            Change::ChangeRole { node, role } => write!(f, "make {node} a {role}"),
            Change::Reconfigure { replicas, leader } => {
                write!(f, "change at once to {}", listed(replicas))?;
                leader.map_or(Ok(()), |leader| write!(f, "; {leader} leads"))
            }
            Change::RemoveLearner { node } => write!(f, "remove learner {node}"),
            Change::TransferLeader { from, to } => match from {
                Some(from) => write!(f, "hand the leadership from {from} to {to}"),
                None => write!(f, "let {to} campaign"),
            },
        }
    }
}

/// A step does not fit the view: it was planned for another one, or another
/// step was done before it. Nothing was changed; plan anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{step}` does not fit the shard as it is; plan anew")]
pub struct ApplyError {
    /// The step.
    pub step: Step,
}

impl View {
    /// The view as it is once the step is complete.
    ///
    /// # Errors
    ///
    /// The step does not fit: see [`ApplyError`].
    pub fn apply(&mut self, step: &Step) -> Result<(), ApplyError> {
        let nodes = &self.nodes;
        // Who does not answer leads nothing, whatever was last heard of it.
        let answers = |id: &NodeId| nodes.iter().any(|n| n.id == *id && n.state.answers());
        let shard = self.shards.iter_mut().find(|shard| shard.id == step.shard);
        let done = shard.and_then(|shard| {
            let leader = shard.leader.filter(answers);
            let after = change(&shard.replicas, leader, &step.change)?;
            Some((shard, after))
        });
        let Some((shard, (replicas, leader))) = done else {
            let step = step.clone();
            return Err(ApplyError { step });
        };
        shard.replicas = replicas;
        shard.leader = leader;
        Ok(())
    }
}

impl Change {
    /// A shard's replicas once the change is complete; none if it does not fit them.
    /// Who leads is not looked at.
    #[must_use]
    pub fn roles_after(&self, before: &BTreeMap<NodeId, Role>) -> Option<BTreeMap<NodeId, Role>> {
        change(before, None, self).map(|(replicas, _)| replicas)
    }
}

type After = (BTreeMap<NodeId, Role>, Option<NodeId>);

/// Replicas and leader after a change; none if it does not fit.
fn change(
    before: &BTreeMap<NodeId, Role>,
    leader: Option<NodeId>,
    change: &Change,
) -> Option<After> {
    let mut replicas = before.clone();
    let is = |node: &NodeId, role: Role| before.get(node) == Some(&role);
    let votes = |node: &NodeId| before.get(node).is_some_and(|role| role.votes());
    let mut leader = leader;
    let fits = match change {
        Change::Create {
            replicas: all,
            leader: first,
        } => {
            replicas.clone_from(all);
            leader = *first;
            before.is_empty()
        }
        Change::AddLearner { node, .. } => replicas.insert(*node, Role::Learner).is_none(),
        Change::Swap { out, into, role } => {
            replicas.remove(out);
            replicas.insert(*into, *role);
            if leader == Some(*out) {
                leader = Some(*into);
            }
            votes(out) && is(into, Role::Learner) && role.votes()
        }
        Change::Promote { nodes } => {
            replicas.extend(nodes);
            nodes.keys().all(|node| is(node, Role::Learner))
        }
        Change::Remove { nodes } => {
            replicas.retain(|node, _| !nodes.contains(node));
            nodes.iter().all(votes)
        }
        Change::ChangeRole { node, role } => {
            replicas.insert(*node, *role);
            votes(node) && !is(node, *role)
        }
        Change::Reconfigure {
            replicas: all,
            leader: next,
        } => {
            replicas.clone_from(all);
            leader = next.or(leader);
            all.keys().all(|node| before.contains_key(node))
        }
        Change::RemoveLearner { node } => {
            replicas.remove(node);
            is(node, Role::Learner)
        }
        Change::TransferLeader { from, to } => {
            let fits = (from.is_none() || *from == leader) && is(to, Role::Voter);
            leader = Some(*to);
            fits
        }
    };
    let led = leader.is_none_or(|leader| replicas.get(&leader) == Some(&Role::Voter));
    (fits && led).then_some((replicas, leader))
}
