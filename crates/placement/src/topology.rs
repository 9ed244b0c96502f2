//! The cluster's nodes by number, and the places they are in.

use crate::caps::Places;
use crate::locality::Locality;
use crate::tiers::Tiers;
use crate::view::{Node, View, ViewError};
use std::collections::BTreeMap;
use synod_paxos::NodeId;

/// Nodes are numbered by rising id; places are numbered in each tier.
pub(crate) struct Topology<'a> {
    pub(crate) nodes: Vec<&'a Node>,
    pub(crate) tiers: Tiers,
    /// For each node, the number of its place in each tier.
    pub(crate) places: Places,
    /// For each tier, the places by number.
    pub(crate) names: Vec<Vec<Locality>>,
    numbers: BTreeMap<NodeId, usize>,
}

impl<'a> Topology<'a> {
    pub(crate) fn of(view: &'a View) -> Result<Topology<'a>, ViewError> {
        let tiers = view.check()?;
        let mut nodes: Vec<&Node> = view.nodes.iter().collect();
        nodes.sort_by_key(|node| node.id);
        let mut places = vec![Vec::with_capacity(tiers.len()); nodes.len()];
        let mut names = Vec::with_capacity(tiers.len());
        for tier in 0..tiers.len() {
            // Nodes that do not tell a tier are taken to be in one place of it.
            // What is told of wider tiers only does not tell two places apart,
            // so the values are compared with their gaps.
            let mut seen = BTreeMap::new();
            let mut told = Vec::new();
            for (number, node) in nodes.iter().enumerate() {
                let values = tiers.names().take(tier + 1).map(|t| node.locality.get(t));
                let next = seen.len();
                let place = *seen.entry(values.collect::<Vec<_>>()).or_insert(next);
                if place == next {
                    told.push(tiers.through(&node.locality, tier));
                }
                places[number].push(place);
            }
            names.push(told);
        }
        let numbers = nodes.iter().enumerate().map(|(n, node)| (node.id, n));
        let numbers = numbers.collect();
        Ok(Topology {
            nodes,
            tiers,
            places,
            names,
            numbers,
        })
    }

    /// The number of a node that the view has.
    pub(crate) fn number(&self, id: NodeId) -> usize {
        self.numbers[&id]
    }

    /// The place of a node in a tier; behind the last tier each node is its own.
    pub(crate) fn place(&self, node: usize, tier: usize) -> usize {
        self.places[node].get(tier).copied().unwrap_or(node)
    }

    /// The tiers, that of single nodes included.
    pub(crate) fn depth(&self) -> usize {
        self.tiers.len() + 1
    }

    /// How many tiers, from the widest, a node shares with a place.
    pub(crate) fn nearness(&self, node: usize, place: &Locality) -> u64 {
        let locality = &self.nodes[node].locality;
        let shared = |tier: &&str| {
            let value = place.get(tier);
            value.is_some() && value == locality.get(tier)
        };
        self.tiers.names().take_while(shared).count() as u64
    }
}
