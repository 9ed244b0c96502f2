//! How much a shard withstands, and whether one state is weaker than another.

use crate::topology::Topology;
use crate::view::Role;

/// Where a shard's replicas are, by numbers of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Sorted by node.
    pub(crate) replicas: Vec<(usize, Role)>,
    pub(crate) leader: Option<usize>,
}

impl Placed {
    pub(crate) fn role(&self, node: usize) -> Option<Role> {
        let at = self
            .replicas
            .binary_search_by_key(&node, |(n, _)| *n)
            .ok()?;
        Some(self.replicas[at].1)
    }

    /// Puts a replica there, or gives the one there another role.
    pub(crate) fn put(&mut self, node: usize, role: Role) {
        match self.replicas.binary_search_by_key(&node, |(n, _)| *n) {
            Ok(at) => self.replicas[at].1 = role,
            Err(at) => self.replicas.insert(at, (node, role)),
        }
    }

    pub(crate) fn remove(&mut self, node: usize) {
        self.replicas.retain(|(n, _)| *n != node);
    }

    /// Voters and witnesses.
    pub(crate) fn electors(&self) -> impl Iterator<Item = (usize, Role)> + Clone + '_ {
        self.replicas
            .iter()
            .copied()
            .filter(|(_, role)| role.votes())
    }

    /// Voters that store data.
    pub(crate) fn voters(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        let voters = self
            .replicas
            .iter()
            .filter(|(_, role)| *role == Role::Voter);
        voters.map(|(node, _)| *node)
    }

    pub(crate) fn majority(&self) -> usize {
        self.electors().count() / 2 + 1
    }
}

/// What a shard withstands. States are compared number by number; a state is
/// weaker if one of its numbers is worse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strength {
    /// How many more voters can fail; below zero there is no quorum now.
    pub(crate) margin: isize,
    /// Voters that store data and answer.
    pub(crate) data: usize,
    /// Whether every majority would have the data even if it lay with as few
    /// voters as may be (G3).
    pub(crate) stored: bool,
    /// For each tier, single nodes last, how many places there are of which the
    /// loss of one alone stops the shard or leaves nobody with its data.
    pub(crate) fatal: Vec<usize>,
}

impl Strength {
    pub(crate) fn of(topology: &Topology, placed: &Placed) -> Strength {
        let answers = |node: usize| topology.nodes[node].state.answers();
        let majority = placed.majority();
        let alive: Vec<(usize, Role)> = placed.electors().filter(|(n, _)| answers(*n)).collect();
        let storing = |role: Role| usize::from(role.stores());
        let data = alive.iter().map(|(_, role)| storing(*role)).sum();
        let fatal = (0..topology.depth()).map(|tier| {
            let mut places: Vec<usize> = alive
                .iter()
                .map(|(node, _)| topology.place(*node, tier))
                .collect();
            places.sort_unstable();
            places.dedup();
            let is_fatal = |place: &&usize| {
                let rest = alive
                    .iter()
                    .filter(|(n, _)| topology.place(*n, tier) != **place);
                let rest = rest.fold((0, 0), |(all, with), (_, role)| {
                    (all + 1, with + storing(*role))
                });
                rest.0 < majority || rest.1 == 0
            };
            places.iter().filter(is_fatal).count()
        });
        Strength {
            margin: alive.len() as isize - majority as isize,
            data,
            stored: placed.voters().count() >= majority,
            fatal: fatal.collect(),
        }
    }

    /// Whether a shard in this state can change at all.
    pub(crate) fn has_quorum(&self) -> bool {
        self.margin >= 0 && self.data > 0
    }

    /// Whether going from `start` to this state gives something up that a
    /// policy of so many voters, so many of them with data, does not give up itself.
    pub(crate) fn is_weaker_than(&self, start: &Strength, voters: usize, data: usize) -> bool {
        let margin = start.margin.min((voters as isize - 1) / 2);
        let alone = usize::from(voters == 1);
        let mut fatal = self.fatal.iter().zip(&start.fatal);
        self.margin < margin
            || self.data < start.data.min(data)
            || (start.stored && !self.stored)
            || fatal.any(|(now, then)| *now > (*then).max(alone))
    }

    /// What is given up by going from `start` to this state, for people.
    pub(crate) fn given_up(&self, start: &Strength, topology: &Topology) -> String {
        let mut worse = self.fatal.iter().zip(&start.fatal).enumerate();
        let tier = worse.find(|(_, (now, then))| now > then);
        match tier {
            Some((tier, _)) => {
                let tier = topology.tiers.name(tier);
                format!("the loss of one more {tier} would then stop the shard")
            }
            None if self.margin < start.margin => {
                "it would withstand the loss of fewer voters then".to_owned()
            }
            None => "fewer voters would have its data then".to_owned(),
        }
    }
}
