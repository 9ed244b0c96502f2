//! Spreading the shards of a new cluster: the caps of [`crate::caps`], and the
//! order in which nodes are taken under them.

use crate::caps::{self, Places, Wanted};
use crate::plan::NodeView;
use crate::tiers::Tiers;
use std::collections::BTreeMap;

/// The nodes' domains of every tier, and the most replicas that a domain of
/// the tier gets.
pub(crate) struct Spread {
    /// For each node, the number of its domain in each tier.
    domains: Places,
    /// For each tier, how many domains it has.
    counts: Vec<usize>,
    caps: Vec<usize>,
    replicas: usize,
}

impl Spread {
    /// Finds the caps for `replicas` replicas on `nodes`, of which there are enough.
    pub(crate) fn new(nodes: &[NodeView], tiers: &Tiers, replicas: usize) -> Spread {
        let depth = tiers.len();
        let mut spread = Spread {
            domains: vec![vec![0; depth]; nodes.len()],
            counts: vec![0; depth],
            caps: vec![replicas; depth],
            replicas,
        };
        for tier in 0..depth {
            // Nodes that do not tell a tier are taken to be in one domain of it.
            let mut numbers = BTreeMap::new();
            for (node, view) in nodes.iter().enumerate() {
                let path: Vec<_> = tiers
                    .names()
                    .take(tier + 1)
                    .map(|t| view.locality.get(t))
                    .collect();
                let next = numbers.len();
                spread.domains[node][tier] = *numbers.entry(path).or_insert(next);
            }
            spread.counts[tier] = numbers.len();
        }
        let all: Vec<usize> = (0..nodes.len()).collect();
        let wanted = Wanted {
            all: &all,
            voters: replicas,
            data: &all,
            storing: replicas,
        };
        let tiers: Vec<usize> = (0..depth).collect();
        spread.caps = caps::find(&spread.domains, &wanted, None, &tiers);
        spread
    }

    /// Takes nodes in this order, each that breaks no cap, until there are enough.
    pub(crate) fn choose(&self, order: &[usize]) -> Vec<usize> {
        caps::choose(&self.domains, &self.caps, order, self.replicas)
    }

    /// The nodes in the order in which they are to get replicas, given how many
    /// each has: fewest first; between equal ones, those in wide domains with
    /// the fewest replicas for a node. Else domains that get the odd replica of
    /// a shard would get it again, until no choice under the caps evens it out.
    pub(crate) fn order(&self, load: &[usize]) -> Vec<usize> {
        let depth = self.caps.len();
        let mut totals: Vec<Vec<(u64, u64)>> =
            self.counts.iter().map(|n| vec![(0, 0); *n]).collect();
        for (domains, load) in self.domains.iter().zip(load) {
            for tier in 0..depth {
                let (replicas, nodes) = &mut totals[tier][domains[tier]];
                *replicas += *load as u64;
                *nodes += 1;
            }
        }
        let density = |node: usize| -> Vec<u64> {
            let of_tier = |tier: usize| {
                let (replicas, nodes) = totals[tier][self.domains[node][tier]];
                (replicas << 20) / nodes
            };
            (0..depth).map(of_tier).collect()
        };
        let mut order: Vec<usize> = (0..self.domains.len()).collect();
        order.sort_by_cached_key(|node| (load[*node], density(*node), *node));
        order
    }

    /// The widest tier of which no domain holds two replicas; none if only nodes differ.
    pub(crate) fn separate(&self) -> Option<usize> {
        self.caps.iter().position(|cap| *cap == 1)
    }

    /// The most replicas in one domain of `tier`, and how many domains there are.
    pub(crate) fn density(&self, tier: usize) -> (usize, usize) {
        (self.caps[tier], self.counts[tier])
    }
}
