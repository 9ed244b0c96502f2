//! Finding what stands in the way of policies.

use crate::class::Class;
use crate::locality::NODE_TIER;
use crate::nearest::nearest;
use crate::planner::Planner;
use crate::policy::{Expr, Policies};
use crate::problem::{Claim, Problem};
use crate::strength::{Placed, Strength};
use crate::topology::Topology;
use crate::view::{Directory, Node, NodeState, Role, View, ViewError};
use std::collections::{BTreeMap, BTreeSet};

/// What stands in the way of these policies on these nodes, shards aside.
///
/// # Errors
///
/// The nodes or a policy make no sense.
pub fn check(nodes: &[Node], policies: &Policies) -> Result<Vec<Problem>, ViewError> {
    let view = View {
        nodes: nodes.to_vec(),
        policies: policies.clone(),
        shards: Vec::new(),
    };
    let topology = Topology::of(&view)?;
    let directories = policies.directories.keys().map(|d| Some(d.as_slice()));
    let mut problems = Vec::new();
    for directory in std::iter::once(None).chain(directories) {
        let named = Directory(directory.map(<[u8]>::to_vec));
        let rules = policies.rules(directory);
        let rules = rules.map_err(|error| ViewError::Rules {
            directory: named.clone(),
            error,
        })?;
        problems.extend(Class::new(&topology, named, rules).problems(&topology));
    }
    Ok(problems)
}

impl Class {
    /// What stands in the way of this policy.
    pub(crate) fn problems(&self, topology: &Topology) -> Vec<Problem> {
        let mut problems = self.unknown_names(topology);
        problems.extend(self.spread_order(topology));
        let directory = || self.directory.clone();
        let may = |role| (0..topology.nodes.len()).filter(move |n| self.takes(topology, *n, role));
        let nodes = (may(Role::Witness).count(), may(Role::Voter).count());
        let storing = self.rules.voters - self.rules.witnesses;
        if self.feasible(nodes.0, nodes.1) != (self.rules.voters, storing) {
            problems.push(Problem::TooFewNodes {
                directory: directory(),
                wanted: (self.rules.voters, storing),
                nodes,
            });
        }
        if let Some(claim) = self.claim(topology) {
            problems.push(Problem::CannotSurvive {
                directory: directory(),
                claim,
            });
        }
        for ((kind, wanted), (expr, _)) in self.learners.iter().zip(&self.rules.learners) {
            let nodes = may(Role::Learner).filter(|n| kind[*n]).count();
            if nodes < *wanted {
                problems.push(Problem::TooFewLearners {
                    directory: directory(),
                    kind: expr.to_string(),
                    wanted: *wanted,
                    nodes,
                });
            }
        }
        for (kind, expr) in self.leaders.iter().zip(&self.rules.leaders) {
            if !may(Role::Voter).any(|node| kind[node]) {
                problems.push(Problem::NoPreferredLeader {
                    directory: directory(),
                    kind: expr.to_string(),
                });
            }
        }
        problems
    }

    fn unknown_names(&self, topology: &Topology) -> Vec<Problem> {
        let tiers: Vec<&str> = topology.tiers.names().collect();
        let labels = topology.nodes.iter().flat_map(|node| node.labels.keys());
        let mut names: BTreeSet<&str> = labels.map(String::as_str).collect();
        names.extend(&tiers);
        let unknown = |setting, name: &str, known: Vec<&str>| Problem::UnknownName {
            directory: self.directory.clone(),
            setting,
            name: name.to_owned(),
            nearest: nearest(name, known).map(str::to_owned),
        };
        let rules = &self.rules;
        let mut problems = Vec::new();
        let spread = rules.spread.iter().flatten().map(|tier| ("spread", tier));
        for (setting, tier) in spread.chain(rules.survive.iter().map(|tier| ("survive", tier))) {
            if tier != NODE_TIER && !tiers.contains(&tier.as_str()) {
                problems.push(unknown(setting, tier, tiers.clone()));
            }
        }
        let learners = rules.learners.iter().map(|(expr, _)| ("learners", expr));
        let leaders = rules.leaders.iter().map(|expr| ("leaders", expr));
        let exprs: Vec<(&'static str, &Expr)> =
            [("require", &rules.require), ("forbid", &rules.forbid)]
                .into_iter()
                .chain(learners)
                .chain(leaders)
                .collect();
        for (setting, expr) in exprs {
            // A label that nobody has is a plain way to forbid what may come.
            let plain = setting == "forbid";
            for name in expr.names() {
                if !names.contains(name) && !plain {
                    problems.push(unknown(setting, name, names.iter().copied().collect()));
                }
            }
        }
        problems
    }

    fn spread_order(&self, topology: &Topology) -> Option<Problem> {
        let named = self.rules.spread.as_deref().unwrap_or_default();
        let known: Vec<usize> = named
            .iter()
            .filter_map(|tier| topology.tiers.position(tier))
            .collect();
        let wrong = known.windows(2).find(|pair| pair[0] > pair[1])?;
        Some(Problem::SpreadOrder {
            directory: self.directory.clone(),
            narrower: topology.tiers.name(wrong[0]).to_owned(),
            wider: topology.tiers.name(wrong[1]).to_owned(),
        })
    }

    /// Why the loss of some place of the claimed tier is not survived; none if it is.
    pub(crate) fn claim(&self, topology: &Topology) -> Option<Claim> {
        let name = self.rules.survive.as_ref()?;
        let tier = topology.tiers.position(name)?;
        let voters = self.rules.voters;
        let storing = voters - self.rules.witnesses;
        let most = (voters - 1) / 2;
        let mut places = BTreeMap::<usize, (usize, usize)>::new();
        let (mut untold, mut away) = (0, 0);
        for node in 0..topology.nodes.len() {
            let of = topology.nodes[node];
            if self.allowed[node] && of.state.is_left() {
                away += 1;
            }
            // A node that is silent or drains comes back: it is no lasting lack.
            if !self.keeps(topology, node, Role::Witness) {
                continue;
            }
            if name != NODE_TIER && of.locality.get(name).is_none() {
                untold += 1;
            }
            let (all, data) = places.entry(topology.place(node, tier)).or_default();
            *all += 1;
            *data += usize::from(self.keeps(topology, node, Role::Voter));
        }
        let room = |of: fn(&(usize, usize)) -> usize| -> usize {
            places.values().map(|place| of(place).min(most)).sum()
        };
        let missing = voters.saturating_sub(room(|p| p.0));
        let missing = missing.max(storing.saturating_sub(room(|p| p.1)));
        (missing > 0).then(|| Claim {
            tier: name.clone(),
            places: places.len(),
            voters,
            most,
            missing,
            untold: if untold > 1 { untold } else { 0 },
            away,
        })
    }
}

impl Planner<'_> {
    /// What stands in the way once everything is decided.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let classes = self.classes.iter();
        let mut problems: Vec<Problem> = classes.flat_map(|c| c.problems(&self.topology)).collect();
        for shard in self.by_urgency() {
            problems.extend(self.problems_of(shard));
        }
        problems
    }

    /// What stands in the way of one shard.
    pub(crate) fn problems_of(&self, shard: usize) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.straddles(shard).into_iter().collect();
        if !self.is_movable(shard) {
            problems.push(self.no_quorum(shard));
            return problems;
        }
        for (node, role) in &self.now[shard].replicas {
            if !self.class(shard).keeps(&self.topology, *node, *role) {
                problems.extend(self.held(shard, *node));
            }
        }
        problems
    }

    fn straddles(&self, shard: usize) -> Option<Problem> {
        let of = self.shards[shard];
        let inside = |key: &Vec<u8>| *key > of.start && (of.end.is_empty() || *key < of.end);
        let all = &self.view.policies.directories;
        // A directory that begins within the shard, or in which it begins and does not end.
        let begins = all.range(of.start.clone()..).map(|(key, _)| key);
        let mut begins = begins.take_while(|key| of.end.is_empty() || **key < of.end);
        let begun = begins.find(|key| inside(key));
        let around = self.class(shard).directory.0.as_ref();
        let ends = around.filter(|directory| {
            after(directory).is_some_and(|end| of.end.is_empty() || of.end > end)
        });
        let directory = begun.or(ends)?;
        Some(Problem::Straddles {
            shard: of.id,
            directory: Directory(Some(directory.clone())),
        })
    }

    fn no_quorum(&self, shard: usize) -> Problem {
        let now = &self.now[shard];
        let nodes = &self.topology.nodes;
        let silent = now.electors().filter(|(n, _)| !nodes[*n].state.answers());
        let silent: Vec<_> = silent.map(|(n, _)| nodes[n].id).collect();
        Problem::NoQuorum {
            shard: self.shards[shard].id,
            answer: now.electors().count() - silent.len(),
            majority: now.majority(),
            silent,
        }
    }

    /// Why a replica stays where it should not be; none if the next plan moves it.
    fn held(&self, shard: usize, node: usize) -> Option<Problem> {
        let of = self.topology.nodes[node];
        let class = self.class(shard);
        let badness = |placed: &Placed| class.badness(&self.topology, placed);
        let wanted = self
            .electors(shard)
            .filter(|next| next.role(node).is_none() && badness(next) < badness(&self.now[shard]));
        let because = match wanted {
            Some(next) if self.is_weaker(shard, &next) => {
                let strength = Strength::of(&self.topology, &next);
                strength.given_up(&self.base[shard], &self.topology)
            }
            Some(_) => return None,
            None => "no other node may take its place; add one".to_owned(),
        };
        Some(Problem::Held {
            shard: self.shards[shard].id,
            node: of.id,
            state: of.state,
            allowed: class.allowed[node] || of.state == NodeState::Down,
            because,
        })
    }
}

/// The first key behind all that begin with `prefix`; none if there is none.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
