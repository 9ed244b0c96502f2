//! The tiers of a whole cluster, in the one order that its localities agree on.

use crate::locality::{Locality, NODE_TIER, TIERS};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::NodeId;

/// Names of a cluster's tiers, widest first, without [`NODE_TIER`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiers(Vec<String>);

/// Two localities order two tiers differently, directly or through others.
/// Nothing was changed; correct the locality of one of the nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the localities disagree about which tier is the wider one: node {node} ({locality}) \
     puts `{wider}` before `{narrower}`, the other nodes put it after; \
     write the tiers in one order, widest first"
)]
pub struct TierOrderError {
    /// The first node, by id, that does not fit those before it.
    pub node: NodeId,
    /// Its locality.
    pub locality: Locality,
    /// The tier it gives first.
    pub wider: String,
    /// The tier it gives later.
    pub narrower: String,
}

impl Tiers {
    /// The order of the tiers of all these localities. Where none of them gives
    /// two tiers together the usual order ([`TIERS`]) decides, then the name.
    ///
    /// # Errors
    ///
    /// There is no such order: see [`TierOrderError`].
    pub fn of<'a>(
        nodes: impl IntoIterator<Item = (NodeId, &'a Locality)>,
    ) -> Result<Tiers, TierOrderError> {
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        nodes.sort_by_key(|(id, _)| *id);
        // For each tier, those that some locality gives right before it.
        let mut wider = BTreeMap::<&str, BTreeSet<&str>>::new();
        for (node, locality) in nodes {
            for (tier, _) in &locality.0 {
                wider.entry(tier).or_default();
            }
            for pair in locality.0.windows(2) {
                let (first, second) = (pair[0].0.as_str(), pair[1].0.as_str());
                if is_wider(&wider, second, first) {
                    return Err(TierOrderError {
                        node,
                        locality: locality.clone(),
                        wider: first.to_owned(),
                        narrower: second.to_owned(),
                    });
                }
                wider.entry(second).or_default().insert(first);
            }
        }
        let usual = |tier: &str| TIERS.iter().position(|t| *t == tier);
        let mut order: Vec<String> = Vec::with_capacity(wider.len());
        // No tier is wider than itself, so there is always one that is free.
        while let Some(tier) = wider
            .iter()
            .filter(|(_, before)| before.iter().all(|t| !wider.contains_key(t)))
            .map(|(tier, _)| *tier)
            .min_by_key(|tier| (usual(tier).unwrap_or(TIERS.len()), *tier))
        {
            wider.remove(tier);
            order.push(tier.to_owned());
        }
        Ok(Tiers(order))
    }

    /// The names, widest first.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator {
        self.0.iter().map(String::as_str)
    }

    /// How many there are, [`NODE_TIER`] not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no node tells anything of its place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The position of a tier, 0 for the widest; [`NODE_TIER`] comes last.
    #[must_use]
    pub fn position(&self, tier: &str) -> Option<usize> {
        let own = self.0.iter().position(|name| name == tier);
        own.or_else(|| (tier == NODE_TIER).then_some(self.0.len()))
    }

    /// The name of the tier at a position; [`NODE_TIER`] behind the last.
    #[must_use]
    pub fn name(&self, position: usize) -> &str {
        self.0.get(position).map_or(NODE_TIER, String::as_str)
    }

    /// The place as far as the tiers up to `position` tell it.
    #[must_use]
    pub fn through(&self, locality: &Locality, position: usize) -> Locality {
        let tiers = self.0.iter().take(position + 1);
        let told = tiers.filter_map(|t| Some((t.clone(), locality.get(t)?.to_owned())));
        Locality(told.collect())
    }
}

/// Whether `tier` is wider than `than`, by what is known so far.
fn is_wider(wider: &BTreeMap<&str, BTreeSet<&str>>, tier: &str, than: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![than];
    while let Some(next) = open.pop() {
        if next == tier {
            return true;
        }
        if seen.insert(next) {
            open.extend(wider.get(next).into_iter().flatten());
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(places: &[&str]) -> Result<Tiers, TierOrderError> {
        let places: Vec<Locality> = places
            .iter()
            .map(|text| text.parse().expect("a locality"))
            .collect();
        Tiers::of((1..).map(NodeId).zip(&places))
    }

    fn names(places: &[&str]) -> String {
        let tiers = tiers(places).expect("one order");
        tiers.names().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn localities_tell_the_order_of_their_tiers() {
        assert_eq!(names(&[]), "");
        assert_eq!(
            names(&["planet=e,hall=1", "hall=2,row=3,shelf=4"]),
            "planet hall row shelf"
        );
        assert_eq!(names(&["zone=a,aisle=1", "aisle=2"]), "zone aisle");
    }

    #[test]
    fn what_no_locality_orders_is_ordered_as_usual() {
        assert_eq!(
            names(&["rack=1", "dc=1", "host=7", "region=eu"]),
            "region dc rack host"
        );
        assert_eq!(names(&["rack=1", "hall=1", "attic=1"]), "rack attic hall");
    }

    #[test]
    fn another_order_than_the_usual_one_is_as_good() {
        assert_eq!(names(&["rack=1,dc=2", "rack=1,region=3"]), "rack region dc");
    }

    #[test]
    fn contradictions_are_errors_that_name_the_node() {
        let error = tiers(&["dc=a,rack=1", "region=r", "rack=1,dc=a"]).expect_err("refused");
        assert!(
            error
                .to_string()
                .contains("node n3 (rack=1,dc=a) puts `rack` before `dc`")
        );
        let round = tiers(&["a=1,b=1", "b=1,c=1", "c=1,a=1"]).expect_err("refused");
        assert_eq!((round.node, round.wider.as_str()), (NodeId(3), "c"));
        let skipped = tiers(&["a=1,b=1,c=1", "c=1,a=1"]);
        assert!(skipped.is_err());
    }

    #[test]
    fn the_node_itself_is_the_last_tier() {
        let tiers = tiers(&["dc=a,rack=1"]).expect("one order");
        assert_eq!(tiers.position("dc"), Some(0));
        assert_eq!(tiers.position("node"), Some(2));
        assert_eq!(tiers.position("region"), None);
        assert_eq!((tiers.name(1), tiers.name(2)), ("rack", "node"));
    }
}
