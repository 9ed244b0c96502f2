//! Where every replica is to be: state of the planner, and its rounds.

use crate::class::Class;
use crate::fill::Fill;
use crate::step::Aim;
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
    /// For each shard, the bytes of each replica that stores it; those of which it is not known
    /// count as the others do on average.
    pub(crate) bytes: Vec<u64>,
    /// For each node, the shards with a replica there.
    pub(crate) on: Vec<BTreeSet<usize>>,
    /// Shards that were moved because their policy wants it.
    pub(crate) improved: BTreeSet<usize>,
    /// Those that were moved to even out, with their places in the order of these moves.
    pub(crate) evened: BTreeMap<usize, usize>,
    /// Those whose leadership was handed on to even out, likewise.
    pub(crate) handed: BTreeMap<usize, usize>,
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
        let bytes = bytes_of(&shards);
        let mut on = vec![BTreeSet::new(); topology.nodes.len()];
        for (number, (bytes, placed)) in bytes.iter().zip(&start).enumerate() {
            fill.count_all(&topology, placed, *bytes, true);
            for (node, _) in &placed.replicas {
                on[*node].insert(number);
            }
        }
        for (number, node) in topology.nodes.iter().enumerate() {
            if let Some(room) = node.room {
                // What it refused is not there.
                let refused = on[number]
                    .iter()
                    .filter(|s| node.refuses.contains(&shards[**s].id));
                let refused = refused.map(|shard| bytes[*shard]).sum();
                fill.limit(number, refused, room);
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
            bytes,
            on,
            improved: BTreeSet::new(),
            evened: BTreeMap::new(),
            handed: BTreeMap::new(),
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
                if self.improve(shard) {
                    self.improved.insert(shard);
                    changed = true;
                }
            }
            changed |= self.balance();
            // Who leads decides which replicas go first.
            changed |= self.choose_leaders();
            if !changed {
                break;
            }
        }
    }

    /// Shards whose loss is nearest first; those that are moved to even out in the order of
    /// these moves.
    pub(crate) fn by_urgency(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.now.len()).collect();
        order.sort_by_key(|shard| {
            let (moved, handed) = (self.evened.get(shard), self.handed.get(shard));
            (self.base[*shard].margin, moved, handed, *shard)
        });
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
        let bytes = self.bytes[shard];
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
        let stored = self.now[shard].role(node).is_some_and(Role::stores);
        let refused = role.stores() && self.refuses(shard, node);
        !refused && (stored || self.fill.fits(node, role, self.bytes[shard]))
    }

    /// Whether a node has refused a copy of the shard lately.
    pub(crate) fn refuses(&self, shard: usize, node: usize) -> bool {
        let refuses = &self.topology.nodes[node].refuses;
        refuses.contains(&self.shards[shard].id)
    }

    /// What the steps of a shard are for.
    pub(crate) fn aim(&self, shard: usize) -> Aim {
        let replicas = self.now[shard].replicas != self.start[shard].replicas;
        if self.improved.contains(&shard) {
            Aim::Policy
        } else if replicas && self.evened.contains_key(&shard) {
            Aim::Fill
        } else if self.leads_rightly(shard) {
            Aim::Load
        } else {
            Aim::Policy
        }
    }
}

/// More than any shard has: sums of these do not overflow.
const MOST_BYTES: u64 = 1 << 44;

/// The bytes of each shard, as far as it has to be guessed the mean of the others.
fn bytes_of(shards: &[&Shard]) -> Vec<u64> {
    let told = |shard: &&Shard| shard.bytes.map(|bytes| bytes.min(MOST_BYTES));
    let known = || shards.iter().filter_map(told);
    let sum: u128 = known().map(u128::from).sum();
    let mean = sum / known().count().max(1) as u128;
    let mean = u64::try_from(mean).unwrap_or(u64::MAX);
    let bytes = shards.iter().map(|shard| told(shard).unwrap_or(mean));
    bytes.collect()
}
