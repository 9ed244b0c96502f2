//! Where every replica is to be: state of the planner, and its rounds.

use crate::class::Class;
use crate::fill::Fill;
use crate::strength::{Placed, Strength};
use crate::topology::Topology;
use crate::view::{Directory, Role, Shard, View, ViewError};
use std::collections::{BTreeMap, BTreeSet};

/// Rounds of repairing and balancing, at most. Each makes some shard better
/// or the nodes more even, so they end by themselves; two are usual.
const MAX_ROUNDS: usize = 64;

/// All that is known while a plan is made. Shards are numbered by rising id.
pub(crate) struct Planner<'a> {
    pub(crate) view: &'a View,
    pub(crate) shards: Vec<&'a Shard>,
    pub(crate) topology: Topology<'a>,
    pub(crate) classes: Vec<Class>,
    /// For each shard, its class.
    class_of: Vec<usize>,
    /// Where the shards are when the plan begins.
    pub(crate) start: Vec<Placed>,
    /// What they withstand then.
    pub(crate) base: Vec<Strength>,
    /// Where they are to be.
    pub(crate) now: Vec<Placed>,
    pub(crate) fill: Fill,
    /// For each node, the shards with a replica there.
    pub(crate) on: Vec<BTreeSet<usize>>,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(view: &'a View) -> Result<Planner<'a>, ViewError> {
        let topology = Topology::of(view)?;
        let mut shards: Vec<&Shard> = view.shards.iter().collect();
        shards.sort_by_key(|shard| shard.id);
        let mut numbers = BTreeMap::<Option<&[u8]>, usize>::new();
        let mut classes = Vec::new();
        let mut class_of = Vec::with_capacity(view.shards.len());
        for shard in &shards {
            let directory = view.policies.directory_of(&shard.start);
            if let Some(number) = numbers.get(&directory) {
                class_of.push(*number);
                continue;
            }
            let named = Directory(directory.map(<[u8]>::to_vec));
            let rules = view.policies.rules(directory);
            let rules = rules.map_err(|error| ViewError::Rules {
                directory: named.clone(),
                error,
            })?;
            numbers.insert(directory, classes.len());
            class_of.push(classes.len());
            classes.push(Class::new(&topology, named, rules));
        }
        let place = |shard: &&Shard| {
            let replicas = shard.replicas.iter();
            let replicas = replicas.map(|(id, role)| (topology.number(*id), *role));
            Placed {
                replicas: replicas.collect(),
                leader: shard
                    .leader
                    .map(|id| topology.number(id))
                    .filter(|node| topology.nodes[*node].state.answers()),
            }
        };
        let start: Vec<Placed> = shards.iter().map(place).collect();
        let base = start.iter().map(|placed| Strength::of(&topology, placed));
        let base = base.collect();
        let mut fill = Fill::new(&topology);
        let mut on = vec![BTreeSet::new(); topology.nodes.len()];
        for (number, (shard, placed)) in shards.iter().zip(&start).enumerate() {
            fill.count_all(&topology, placed, shard.bytes, true);
            for (node, _) in &placed.replicas {
                on[*node].insert(number);
            }
        }
        Ok(Planner {
            view,
            shards,
            topology,
            classes,
            class_of,
            now: start.clone(),
            start,
            base,
            fill,
            on,
        })
    }

    pub(crate) fn class(&self, shard: usize) -> &Class {
        &self.classes[self.class_of[shard]]
    }

    /// Decides where everything is to be.
    pub(crate) fn settle(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let mut changed = false;
            for shard in self.by_urgency() {
                changed |= self.improve(shard);
            }
            changed |= self.balance();
            // Who leads decides which replicas go first.
            changed |= self.choose_leaders();
            if !changed {
                break;
            }
        }
    }

    /// Shards whose loss is nearest first.
    pub(crate) fn by_urgency(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.now.len()).collect();
        order.sort_by_key(|shard| (self.base[*shard].margin, *shard));
        order
    }

    /// Whether a shard can be changed at all: it is new, or has a quorum.
    pub(crate) fn is_movable(&self, shard: usize) -> bool {
        self.start[shard].replicas.is_empty() || self.base[shard].has_quorum()
    }

    /// Whether being there gives up something that the shard has when the plan begins.
    pub(crate) fn is_weaker(&self, shard: usize, placed: &Placed) -> bool {
        let rules = &self.class(shard).rules;
        let storing = rules.voters - rules.witnesses;
        !self.start[shard].replicas.is_empty()
            && Strength::of(&self.topology, placed).is_weaker_than(
                &self.base[shard],
                rules.voters,
                storing,
            )
    }

    /// Puts a shard elsewhere.
    pub(crate) fn set(&mut self, shard: usize, placed: Placed) {
        let bytes = self.shards[shard].bytes;
        let before = std::mem::replace(&mut self.now[shard], placed);
        self.fill.count_all(&self.topology, &before, bytes, false);
        for (node, _) in &before.replicas {
            self.on[*node].remove(&shard);
        }
        let after = &self.now[shard];
        self.fill.count_all(&self.topology, after, bytes, true);
        for (node, _) in &after.replicas {
            self.on[*node].insert(shard);
        }
    }

    /// Whether a node has room for a replica that is not there yet.
    pub(crate) fn has_room(&self, shard: usize, node: usize, role: Role) -> bool {
        let bytes = self.shards[shard].bytes;
        let stored = self.now[shard].role(node).is_some_and(Role::stores);
        stored || self.fill.fits(node, role, bytes)
    }
}
