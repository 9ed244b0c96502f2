//! Why a shard is where it is, and what a failure would do.

use crate::planner::Planner;
use crate::policy::Expr;
use crate::problem::Problem;
use crate::strength::{Placed, Strength};
use crate::survive::{Domain, Survival};
use crate::view::{Directory, NodeState, Role, View, ViewError};
use std::collections::BTreeSet;
use std::fmt;
use synod_paxos::{GroupId, NodeId};

/// Why the replicas of a shard are where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The shard.
    pub shard: GroupId,
    /// Whose policy holds for it.
    pub directory: Directory,
    /// Bytes of data in each replica that stores it; none while it is not known.
    pub bytes: Option<u64>,
    /// Requests a second, about.
    pub requests: u64,
    /// Its replicas, by node.
    pub replicas: Vec<ReplicaReason>,
    /// For each place that holds voters, what its loss alone would do: by
    /// tier, widest first, then single nodes. Nodes that do not answer count as lost.
    pub survivals: Vec<Survival>,
    /// What stands in the way of its policy.
    pub problems: Vec<Problem>,
}

/// Why one replica is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReason {
    /// Its node.
    pub node: NodeId,
    /// Where that is.
    pub place: String,
    /// What it does.
    pub role: Role,
    /// Whether it leads.
    pub leads: bool,
    /// The reasons.
    pub reasons: Vec<Reason>,
}

/// A reason for one replica, or against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No other voter of the shard is in this place, the widest of which that is so.
    AloneIn(Domain),
    /// Other voters are in the same place of the widest tier; so many of the
    /// shard's voters are, and so many may.
    Among {
        /// The place.
        place: Domain,
        /// Voters in it.
        voters: usize,
        /// Voters that may be in it.
        most: usize,
    },
    /// The policy prefers leaders here.
    Preferred {
        /// The kind of nodes.
        kind: String,
        /// Its place in the list of preferences, from 1.
        rank: usize,
    },
    /// The policy wants a learner here.
    LearnerOf {
        /// The kind of nodes.
        kind: String,
    },
    /// It leads because the policy prefers that.
    LeadsByPreference,
    /// It leads because most requests come from near it.
    LeadsByOrigin,
    /// It leads because that evens out what leaders are asked.
    LeadsByBalance,
    /// It leads because there is no other voter.
    LeadsAlone,
    /// It leads although another voter should.
    LeadsForNow,
    /// The policy allows no replica here; it is to move.
    NotAllowed,
    /// The node is not up.
    State(NodeState),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::AloneIn(place) => write!(f, "the only voter in {place}"),
            Reason::Among {
                place,
                voters,
                most,
            } => {
                write!(
                    f,
                    "one of {voters} voters in {place}, where up to {most} may be"
                )
            }
            Reason::Preferred { kind, rank } => {
                write!(f, "leaders are preferred on {kind} (preference {rank})")
            }
            Reason::LearnerOf { kind } => write!(f, "the policy wants a learner on {kind}"),
            Reason::LeadsByPreference => f.write_str("leads: the policy prefers it"),
            Reason::LeadsByOrigin => f.write_str("leads: its requests come from near it"),
            Reason::LeadsByBalance => f.write_str("leads: this evens out what leaders are asked"),
            Reason::LeadsAlone => f.write_str("leads: it is the only voter"),
            Reason::LeadsForNow => f.write_str("leads for now: another voter should"),
            Reason::NotAllowed => f.write_str("the policy allows no such replica here"),
            Reason::State(state) => write!(f, "the node is {state}"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "shard {}, by the policy of {}",
            self.shard.0, self.directory
        )?;
        for replica in &self.replicas {
            let reasons: Vec<String> = replica.reasons.iter().map(Reason::to_string).collect();
            let ReplicaReason {
                node, place, role, ..
            } = replica;
            writeln!(f, "  {node} ({place}) {role}: {}", reasons.join("; "))?;
        }
        let bytes = self.bytes.map(|bytes| format!("{bytes} bytes each"));
        writeln!(
            f,
            "  size: {}; asked {} times a second",
            bytes.as_deref().unwrap_or("not known yet"),
            self.requests
        )?;
        for survival in &self.survivals {
            let outcome = if survival.quorum { "goes on" } else { "stops" };
            let lost = survival.lost.len();
            writeln!(f, "  without {}: {lost} lost, {outcome}", survival.domain)?;
        }
        for problem in &self.problems {
            writeln!(f, "  problem: {problem}")?;
        }
        Ok(())
    }
}

/// Explains one shard as it is; none if the view does not have it.
///
/// # Errors
///
/// The view makes no sense: see [`ViewError`].
pub fn explain(view: &View, shard: GroupId) -> Result<Option<Explanation>, ViewError> {
    let planner = Planner::new(view)?;
    let number = planner.shards.iter().position(|s| s.id == shard);
    Ok(number.map(|number| planner.explain(number)))
}

/// Explains every shard as it is, by rising id.
///
/// # Errors
///
/// The view makes no sense: see [`ViewError`].
pub fn explain_all(view: &View) -> Result<Vec<Explanation>, ViewError> {
    let planner = Planner::new(view)?;
    let numbers = 0..planner.shards.len();
    Ok(numbers.map(|number| planner.explain(number)).collect())
}

impl Planner<'_> {
    fn explain(&self, shard: usize) -> Explanation {
        let class = self.class(shard);
        let now = &self.now[shard];
        let reason = |(node, role): &(usize, Role)| {
            let of = self.topology.nodes[*node];
            let place = match of.locality.0.is_empty() {
                true => "no locality".to_owned(),
                false => of.locality.to_string(),
            };
            ReplicaReason {
                node: of.id,
                place,
                role: *role,
                leads: now.leader == Some(*node),
                reasons: self.reasons(shard, *node, *role),
            }
        };
        let mut problems = class.problems(&self.topology);
        problems.extend(self.problems_of(shard));
        Explanation {
            shard: self.shards[shard].id,
            directory: class.directory.clone(),
            bytes: self.shards[shard].bytes,
            requests: self.shards[shard].requests,
            replicas: now.replicas.iter().map(reason).collect(),
            survivals: self.survivals(now),
            problems,
        }
    }

    fn reasons(&self, shard: usize, node: usize, role: Role) -> Vec<Reason> {
        let class = self.class(shard);
        let of = self.topology.nodes[node];
        let mut reasons = Vec::new();
        if role.votes() {
            reasons.push(self.place_reason(shard, node));
        } else {
            let kinds = class.learners.iter().zip(&class.rules.learners);
            let kinds = kinds.filter(|((nodes, _), _)| nodes[node]);
            reasons.extend(kinds.map(|(_, (expr, _))| {
                let kind = expr.to_string();
                Reason::LearnerOf { kind }
            }));
        }
        let rank = class.preference_of(node);
        if let Some(kind) = class
            .rules
            .leaders
            .get(rank)
            .filter(|_| role == Role::Voter)
        {
            let (kind, rank) = (kind.to_string(), rank + 1);
            reasons.push(Reason::Preferred { kind, rank });
        }
        if self.now[shard].leader == Some(node) {
            reasons.push(self.leads_because(shard, node));
        }
        if !class.allowed[node] || (role.stores() && of.capacity == Some(0)) {
            reasons.push(Reason::NotAllowed);
        }
        if of.state != NodeState::Up {
            reasons.push(Reason::State(of.state));
        }
        reasons
    }

    fn place_reason(&self, shard: usize, node: usize) -> Reason {
        let topology = &self.topology;
        let electors: Vec<usize> = self.now[shard].electors().map(|(n, _)| n).collect();
        let place_of = |tier: usize| match topology.names.get(tier) {
            Some(names) => Domain::Place(names[topology.place(node, tier)].clone()),
            None => Domain::Node(topology.nodes[node].id),
        };
        let there = |tier: usize| {
            let place = topology.place(node, tier);
            electors
                .iter()
                .filter(|n| topology.place(**n, tier) == place)
                .count()
        };
        let alone = (0..topology.depth()).find(|tier| there(*tier) == 1);
        let several = (0..topology.tiers.len()).find(|tier| topology.names[*tier].len() > 1);
        match (alone, several) {
            (Some(alone), _) if alone < topology.tiers.len() => Reason::AloneIn(place_of(alone)),
            (_, Some(tier)) => Reason::Among {
                place: place_of(tier),
                voters: there(tier),
                most: self.class(shard).caps[tier],
            },
            _ => Reason::AloneIn(Domain::Node(topology.nodes[node].id)),
        }
    }

    fn leads_because(&self, shard: usize, node: usize) -> Reason {
        let class = self.class(shard);
        let candidates = self.candidates(shard);
        let voters: Vec<usize> = self.now[shard].voters().collect();
        let differ =
            |merit: &dyn Fn(usize) -> u64| voters.iter().any(|other| merit(*other) != merit(node));
        if !candidates.contains(&node) {
            Reason::LeadsForNow
        } else if voters == [node] {
            Reason::LeadsAlone
        } else if differ(&|n| class.preference_of(n) as u64) {
            Reason::LeadsByPreference
        } else if differ(&|n| self.origin(shard, n)) {
            Reason::LeadsByOrigin
        } else {
            Reason::LeadsByBalance
        }
    }

    /// What the loss of each place with answering voters does.
    fn survivals(&self, placed: &Placed) -> Vec<Survival> {
        let topology = &self.topology;
        let answers = |node: &usize| topology.nodes[*node].state.answers();
        let mut survivals = Vec::new();
        for tier in 0..topology.depth() {
            let electors = placed.electors().map(|(node, _)| node).filter(answers);
            let places: BTreeSet<usize> = electors.map(|n| topology.place(n, tier)).collect();
            for place in places {
                let domain = match topology.names.get(tier) {
                    // A place of which this tier is not told is no place that fails.
                    Some(names) if names[place].get(topology.tiers.name(tier)).is_none() => {
                        continue;
                    }
                    Some(names) => Domain::Place(names[place].clone()),
                    None => Domain::Node(topology.nodes[place].id),
                };
                let gone = |node: usize| topology.place(node, tier) == place;
                let (lost, left) = self.without(placed, gone);
                survivals.push(Survival {
                    domain,
                    lost,
                    quorum: left.0 >= placed.majority() && left.1 > 0,
                });
            }
        }
        survivals
    }

    /// Voters that go with `gone`, and how many answer without them, in all and with data.
    fn without(
        &self,
        placed: &Placed,
        gone: impl Fn(usize) -> bool,
    ) -> (Vec<NodeId>, (usize, usize)) {
        let nodes = &self.topology.nodes;
        let (mut lost, mut left) = (Vec::new(), (0, 0));
        for (node, role) in placed.electors() {
            if gone(node) {
                lost.push(nodes[node].id);
            } else if nodes[node].state.answers() {
                left.0 += 1;
                left.1 += usize::from(role.stores());
            }
        }
        (lost, left)
    }
}

/// What would happen if all nodes of a kind failed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhatIf {
    /// The kind of nodes.
    pub lose: Expr,
    /// The nodes, those that do not answer already included.
    pub nodes: Vec<NodeId>,
    /// All shards with a replica there.
    pub shards: Vec<ShardLoss>,
    /// Shards in the view.
    pub total: usize,
}

/// What would be left of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardLoss {
    /// The shard.
    pub shard: GroupId,
    /// Its voters, witnesses included.
    pub voters: usize,
    /// How many of them a majority takes.
    pub majority: usize,
    /// Voters that would go.
    pub lost: Vec<NodeId>,
    /// Voters that would answer still.
    pub survivors: usize,
    /// Those of them that store data.
    pub with_data: usize,
    /// Whether its leader would go.
    pub leader_lost: bool,
    /// Whether it has a quorum now.
    pub quorum_before: bool,
    /// Whether it would have one.
    pub quorum: bool,
}

impl fmt::Display for WhatIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stopped = self.shards.iter().filter(|s| !s.quorum && s.quorum_before);
        let leaders = self.shards.iter().filter(|s| s.leader_lost && s.quorum);
        writeln!(
            f,
            "without {} ({}): {} of {} shards lose their quorum, {} elect another leader",
            self.lose,
            match self.nodes.len() {
                1 => "1 node".to_owned(),
                more => format!("{more} nodes"),
            },
            stopped.count(),
            self.total,
            leaders.count()
        )?;
        for shard in &self.shards {
            writeln!(f, "  {shard}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ShardLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match (self.quorum, self.quorum_before, self.leader_lost) {
            (true, _, false) => "goes on",
            (true, _, true) => "goes on after an election",
            (false, true, _) => "loses its quorum",
            (false, false, _) => "has no quorum now either",
        };
        write!(
            f,
            "shard {}: {} of {} voters survive, {} must, {} of them with data: {outcome}",
            self.shard.0, self.survivors, self.voters, self.majority, self.with_data
        )
    }
}

/// What the loss of all nodes for which `lose` holds would do, such as `dc=eu-1`.
///
/// # Errors
///
/// The view makes no sense: see [`ViewError`].
pub fn what_if(view: &View, lose: &Expr) -> Result<WhatIf, ViewError> {
    let planner = Planner::new(view)?;
    let nodes = &planner.topology.nodes;
    let gone: Vec<bool> = nodes
        .iter()
        .map(|node| lose.matches(&node.locality, &node.labels))
        .collect();
    let mut shards = Vec::new();
    for (shard, placed) in planner.shards.iter().zip(&planner.now) {
        if !placed.replicas.iter().any(|(node, _)| gone[*node]) {
            continue;
        }
        let (lost, (survivors, with_data)) = planner.without(placed, |node| gone[node]);
        let majority = placed.majority();
        shards.push(ShardLoss {
            shard: shard.id,
            voters: placed.electors().count(),
            majority,
            lost,
            survivors,
            with_data,
            leader_lost: placed.leader.is_some_and(|node| gone[node]),
            quorum_before: Strength::of(&planner.topology, placed).has_quorum(),
            quorum: survivors >= majority && with_data > 0,
        });
    }
    let lost = nodes.iter().zip(&gone).filter(|(_, gone)| **gone);
    Ok(WhatIf {
        lose: lose.clone(),
        nodes: lost.map(|(node, _)| node.id).collect(),
        shards,
        total: view.shards.len(),
    })
}
