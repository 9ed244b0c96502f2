//! How full the nodes are, and which of them is to take the next replica.

use crate::strength::Placed;
use crate::topology::Topology;
use crate::view::Role;
use std::collections::BTreeSet;

/// What a replica costs its node besides its bytes: its log, its memory, its part in what nodes
/// tell each other all the time. So empty replicas are evened out by their number, and full ones
/// by what they hold.
const REPLICA_BYTES: u64 = 16 << 20;

/// A node of ordinary weight has so much of it.
const ORDINARY: u64 = 1_000;

/// Of its capacity a node is filled up to so many percent; the rest is for
/// replicas that arrive before others have gone.
pub(crate) const FILLED_PERCENT: u64 = 90;

/// Fullest last: what replicas cost by weight, the node.
pub(crate) type Key = (u64, usize);

/// How full the nodes are.
pub(crate) struct Fill {
    weights: Vec<u64>,
    /// The highest of them.
    heaviest: u64,
    limits: Vec<u64>,
    replicas: Vec<u64>,
    bytes: Vec<u64>,
    /// The tier by whose places the nodes are sorted below.
    tier: usize,
    /// For each place of that tier, its nodes by fill.
    sorted: Vec<BTreeSet<Key>>,
}

impl Fill {
    /// Empty nodes.
    pub(crate) fn new(topology: &Topology) -> Fill {
        let capacities = topology.nodes.iter().filter_map(|node| node.capacity);
        let known: Vec<u64> = capacities.filter(|capacity| *capacity > 0).collect();
        let sum: u128 = known.iter().map(|c| u128::from(*c)).sum();
        let mean = (sum / known.len().max(1) as u128).max(1);
        let weight = |capacity: Option<u64>| match capacity {
            None | Some(0) => ORDINARY,
            Some(bytes) => {
                let weight = u128::from(bytes) * u128::from(ORDINARY) / mean;
                weight.clamp(1, 1_000_000) as u64
            }
        };
        let limit = |capacity: Option<u64>| match capacity {
            None => u64::MAX,
            Some(bytes) => (u128::from(bytes) * u128::from(FILLED_PERCENT) / 100) as u64,
        };
        let count = topology.nodes.len();
        let tiers = 0..topology.tiers.len();
        let several = tiers.clone().find(|tier| topology.names[*tier].len() > 1);
        let tier = several.unwrap_or(0);
        let places = topology.names.get(tier).map_or(1, Vec::len);
        let weights: Vec<u64> = topology.nodes.iter().map(|n| weight(n.capacity)).collect();
        let mut fill = Fill {
            heaviest: weights.iter().copied().max().unwrap_or(ORDINARY),
            weights,
            limits: topology.nodes.iter().map(|n| limit(n.capacity)).collect(),
            replicas: vec![0; count],
            bytes: vec![0; count],
            tier,
            sorted: vec![BTreeSet::new(); places],
        };
        for node in 0..count {
            let place = fill.place(topology, node);
            let key = fill.key(node);
            fill.sorted[place].insert(key);
        }
        fill
    }

    fn place(&self, topology: &Topology, node: usize) -> usize {
        topology.places[node].get(self.tier).copied().unwrap_or(0)
    }

    /// What the replicas of a node cost, and so many bytes more.
    fn cost(&self, node: usize, more: u64) -> u64 {
        let replicas = self.replicas[node].saturating_mul(REPLICA_BYTES);
        replicas.saturating_add(self.bytes[node].saturating_add(more))
    }

    /// How full the node is.
    pub(crate) fn key(&self, node: usize) -> Key {
        (by_weight(self.cost(node, 0), self.weights[node]), node)
    }

    /// How full the node would be with this replica more.
    pub(crate) fn with_one_more(&self, node: usize, role: Role, bytes: u64) -> u64 {
        let more = REPLICA_BYTES.saturating_add(stored(role, bytes));
        by_weight(self.cost(node, more), self.weights[node])
    }

    /// By how much it makes any node fuller, at least; see [`Self::with_one_more`].
    pub(crate) fn least_more(&self, role: Role, bytes: u64) -> u64 {
        let more = REPLICA_BYTES.saturating_add(stored(role, bytes));
        by_weight(more, self.heaviest)
    }

    /// How full the nodes are on average.
    pub(crate) fn mean(&self, nodes: impl Iterator<Item = usize> + Clone) -> u64 {
        let costs = nodes.clone().map(|n| self.cost(n, 0));
        let costs = costs.fold(0, u64::saturating_add);
        let weights: u64 = nodes.map(|n| self.weights[n]).sum();
        by_weight(costs, weights.max(1))
    }

    /// The node takes in no more than so many bytes besides those counted so far, of which
    /// so many are not there.
    pub(crate) fn limit(&mut self, node: usize, absent: u64, room: u64) {
        let limit = self.bytes[node].saturating_sub(absent).saturating_add(room);
        self.limits[node] = self.limits[node].min(limit);
    }

    /// Whether so many bytes more fit on the node.
    pub(crate) fn fits(&self, node: usize, role: Role, bytes: u64) -> bool {
        !role.stores() || self.bytes[node].saturating_add(bytes) <= self.limits[node]
    }

    /// Whether the node holds more than it should.
    pub(crate) fn overflows(&self, node: usize) -> bool {
        self.bytes[node] > self.limits[node]
    }

    /// Counts a replica, or no longer.
    pub(crate) fn count(
        &mut self,
        topology: &Topology,
        node: usize,
        role: Role,
        bytes: u64,
        more: bool,
    ) {
        let place = self.place(topology, node);
        let before = self.key(node);
        self.sorted[place].remove(&before);
        let bytes = stored(role, bytes);
        if more {
            self.replicas[node] += 1;
            self.bytes[node] += bytes;
        } else {
            self.replicas[node] -= 1;
            self.bytes[node] -= bytes;
        }
        let after = self.key(node);
        self.sorted[place].insert(after);
    }

    /// Counts all replicas of a shard, or no longer.
    pub(crate) fn count_all(
        &mut self,
        topology: &Topology,
        placed: &Placed,
        bytes: u64,
        more: bool,
    ) {
        for (node, role) in &placed.replicas {
            self.count(topology, *node, *role, bytes, more);
        }
    }

    /// The least full node below `limit` for which `fits` holds; whole places
    /// that `open` rules out are not looked at.
    pub(crate) fn least(
        &self,
        limit: Key,
        open: impl Fn(usize, usize) -> bool,
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut best = limit;
        let mut found = None;
        for (place, sorted) in self.sorted.iter().enumerate() {
            if sorted.first().is_none_or(|first| *first >= best) || !open(self.tier, place) {
                continue;
            }
            let below = sorted.range(..best);
            let fitting = below.map(|key| (*key, key.1)).find(|(_, node)| fits(*node));
            if let Some((key, node)) = fitting {
                (best, found) = (key, Some(node));
            }
        }
        found
    }
}

/// What a replica of this role stores of so many bytes.
fn stored(role: Role, bytes: u64) -> u64 {
    if role.stores() { bytes } else { 0 }
}

/// For a node of ordinary weight, the cost itself.
fn by_weight(cost: u64, weight: u64) -> u64 {
    let scaled = u128::from(cost) * u128::from(ORDINARY) / u128::from(weight);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
