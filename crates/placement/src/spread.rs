//! How many replicas of a shard one domain may hold, and choosing nodes under that.
//!
//! The domains of all tiers are nested, so sets of nodes that keep within a
//! cap for each domain form a *laminar matroid*: taking nodes greedily, each
//! one that breaks no cap, always ends with a largest such set, and with the
//! one of least load if nodes are taken by rising load (Edmonds, "Matroids
//! and the greedy algorithm", 1971). So nothing here needs to search.

use crate::locality::TIERS;
use crate::plan::NodeView;
use std::collections::BTreeMap;

/// The nodes' domains of every tier, and the most replicas that a domain of
/// the tier gets.
pub(crate) struct Spread {
    /// For each node, the number of its domain in each tier.
    domains: Vec<[usize; TIERS.len()]>,
    /// For each tier, how many domains it has.
    counts: [usize; TIERS.len()],
    caps: [usize; TIERS.len()],
    replicas: usize,
}

impl Spread {
    /// Finds the caps for `replicas` replicas on `nodes`, of which there are
    /// enough. In this order, and each only where it can still be met:
    ///
    /// 1. No domain holds a majority; wider tiers first.
    /// 2. One replica for each domain, of the widest tier where that works.
    /// 3. As few replicas in one domain as can be; wider tiers first.
    pub(crate) fn new(nodes: &[NodeView], replicas: usize) -> Spread {
        let mut spread = Spread {
            domains: vec![[0; TIERS.len()]; nodes.len()],
            counts: [0; TIERS.len()],
            caps: [replicas; TIERS.len()],
            replicas,
        };
        for tier in 0..TIERS.len() {
            // Nodes that do not tell a tier are taken to be in one domain of it.
            let mut numbers = BTreeMap::new();
            for (node, view) in nodes.iter().enumerate() {
                let path: Vec<_> = TIERS
                    .iter()
                    .take(tier + 1)
                    .map(|t| view.locality.get(t))
                    .collect();
                let next = numbers.len();
                spread.domains[node][tier] = *numbers.entry(path).or_insert(next);
            }
            spread.counts[tier] = numbers.len();
        }
        let minority = (replicas - 1) / 2;
        for tier in 0..TIERS.len() {
            spread.lower(tier, minority);
        }
        let _widest = (0..TIERS.len()).find(|tier| spread.lower(*tier, 1));
        for tier in 0..TIERS.len() {
            let _least = (1..=replicas).find(|cap| spread.lower(tier, *cap));
        }
        spread
    }

    /// Lowers one cap if enough nodes can still be chosen. Returns whether they can.
    fn lower(&mut self, tier: usize, cap: usize) -> bool {
        let before = self.caps[tier];
        self.caps[tier] = before.min(cap);
        let all = (0..self.domains.len()).collect::<Vec<_>>();
        let enough = self.choose(&all).len() == self.replicas;
        if !enough {
            self.caps[tier] = before;
        }
        enough
    }

    /// Takes nodes in this order, each that breaks no cap, until there are enough.
    pub(crate) fn choose(&self, order: &[usize]) -> Vec<usize> {
        let mut used = self.counts.map(|count| vec![0; count]);
        let mut chosen = Vec::with_capacity(self.replicas);
        for &node in order {
            if chosen.len() == self.replicas {
                break;
            }
            let domains = self.domains[node];
            let fits = (0..TIERS.len()).all(|tier| used[tier][domains[tier]] < self.caps[tier]);
            if fits {
                for tier in 0..TIERS.len() {
                    used[tier][domains[tier]] += 1;
                }
                chosen.push(node);
            }
        }
        chosen
    }

    /// The nodes in the order in which they are to get replicas, given how many
    /// each has: fewest first; between equal ones, those in wide domains with
    /// the fewest replicas for a node. Else domains that get the odd replica of
    /// a shard would get it again, until no choice under the caps evens it out.
    pub(crate) fn order(&self, load: &[usize]) -> Vec<usize> {
        let mut totals = self.counts.map(|count| vec![(0_u64, 0_u64); count]);
        for (domains, load) in self.domains.iter().zip(load) {
            for tier in 0..TIERS.len() {
                let (replicas, nodes) = &mut totals[tier][domains[tier]];
                *replicas += *load as u64;
                *nodes += 1;
            }
        }
        let density = |node: usize| -> [u64; TIERS.len()] {
            std::array::from_fn(|tier| {
                let (replicas, nodes) = totals[tier][self.domains[node][tier]];
                (replicas << 20) / nodes
            })
        };
        let mut order: Vec<usize> = (0..self.domains.len()).collect();
        order.sort_by_cached_key(|node| (load[*node], density(*node), *node));
        order
    }

    /// The widest tier of which no domain holds two replicas; none if only nodes differ.
    pub(crate) fn separate(&self) -> Option<&'static str> {
        let tier = self.caps.iter().position(|cap| *cap == 1)?;
        Some(TIERS[tier])
    }

    /// The most replicas in one domain of `tier`, and how many domains there are.
    pub(crate) fn density(&self, tier: usize) -> (usize, usize) {
        (self.caps[tier], self.counts[tier])
    }
}
