//! The links: as declared, and what is wrong with them now.

use crate::lab::action::{Links, Worse};
use crate::lab::select::Select;
use crate::lab::topology::{NodePlan, Topology};
use crate::relay::{End, Link, Relay};
use std::collections::BTreeSet;

/// What is late or comes twice is so by up to this much.
const LATE: std::time::Duration = std::time::Duration::from_millis(20);

/// One direction of a link.
pub(super) type Pair = (End, End);

/// Faults of links that hold now.
#[derive(Debug, Default)]
pub(super) struct Network {
    active: Vec<Active>,
}

#[derive(Debug)]
struct Active {
    id: u64,
    name: Option<String>,
    pairs: BTreeSet<Pair>,
    worse: Worse,
}

/// Whether there is such a link: one end at least is a node.
fn is_link((from, to): Pair) -> bool {
    from != to && (matches!(from, End::Node(_)) || matches!(to, End::Node(_)))
}

/// The links that are meant, with parts resolved by `ends`.
pub(super) fn pairs(
    links: &Links,
    all: &[End],
    mut ends: impl FnMut(&Select) -> Vec<End>,
) -> BTreeSet<Pair> {
    let mut pairs = BTreeSet::new();
    let mut one_way = |from: &[End], to: &[End]| {
        let product = from
            .iter()
            .flat_map(|from| to.iter().map(|to| (*from, *to)));
        pairs.extend(product.filter(|pair| is_link(*pair)));
    };
    let others = |of: &[End]| -> Vec<End> {
        all.iter()
            .filter(|end| !of.contains(end))
            .copied()
            .collect()
    };
    match links {
        Links::Around(on) => {
            let on = ends(on);
            // All are around everything: every link is meant.
            let rest = if on.len() == all.len() {
                all.to_vec()
            } else {
                others(&on)
            };
            one_way(&on, &rest);
            one_way(&rest, &on);
        }
        Links::Between(a, b) => {
            let (a, b) = (ends(a), ends(b));
            one_way(&a, &b);
            one_way(&b, &a);
        }
        Links::OneWay(from, to) => {
            let from = from.as_ref().map(&mut ends);
            let to = to.as_ref().map(&mut ends);
            match (from, to) {
                (Some(from), Some(to)) => one_way(&from, &to),
                (Some(from), None) => one_way(&from, &others(&from)),
                (None, Some(to)) => one_way(&others(&to), &to),
                (None, None) => {}
            }
        }
    }
    pairs
}

/// A link with one more thing wrong with it.
fn worsen(mut link: Link, worse: &Worse) -> Link {
    let both = |a: f64, b: f64| 1.0 - (1.0 - a) * (1.0 - b);
    link.cut |= worse.cut;
    link.latency += worse.delay;
    link.jitter += worse.jitter;
    link.loss = both(link.loss, worse.loss);
    link.duplicate = both(link.duplicate, worse.duplicate);
    link.reorder = both(link.reorder, worse.reorder);
    if link.duplicate > 0.0 || link.reorder > 0.0 {
        link.late = LATE;
    }
    link.bandwidth = match (link.bandwidth, worse.bandwidth) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    link
}

impl Network {
    /// Sets all links as declared.
    pub(super) fn declare(relay: &Relay, topology: &Topology, nodes: &[NodePlan]) {
        let ends = topology.ends();
        for from in &ends {
            for to in ends.iter().filter(|to| is_link((*from, **to))) {
                relay.set(*from, *to, topology.link(nodes, *from, *to));
            }
        }
    }

    /// Something goes wrong.
    pub(super) fn begin(
        &mut self,
        id: u64,
        name: Option<String>,
        pairs: BTreeSet<Pair>,
        worse: Worse,
    ) -> BTreeSet<Pair> {
        let changed = pairs.clone();
        self.active.push(Active {
            id,
            name,
            pairs,
            worse,
        });
        changed
    }

    /// It ends; the links that change.
    pub(super) fn end(&mut self, id: u64) -> BTreeSet<Pair> {
        let index = self.active.iter().position(|active| active.id == id);
        index.map_or_else(BTreeSet::new, |index| self.active.remove(index).pairs)
    }

    /// The numbers of what holds now, of this name or all.
    pub(super) fn named(&self, name: Option<&str>) -> Vec<u64> {
        let active = self.active.iter();
        let meant = active.filter(|a| name.is_none_or(|name| a.name.as_deref() == Some(name)));
        meant.map(|active| active.id).collect()
    }

    /// What a link is like now.
    pub(super) fn link(&self, declared: Link, pair: Pair) -> Link {
        let active = self
            .active
            .iter()
            .filter(|active| active.pairs.contains(&pair));
        active.fold(declared, |link, active| worsen(link, &active.worse))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ALL: [End; 5] = [
        End::Node(0),
        End::Node(1),
        End::Node(2),
        End::Site(0),
        End::Site(1),
    ];

    fn pairs_of(links: &Links) -> BTreeSet<Pair> {
        pairs(links, &ALL, |select| match select.to_string().as_str() {
            "a" => vec![End::Node(0), End::Site(0)],
            "b" => vec![End::Node(1), End::Node(2), End::Site(1)],
            _ => ALL.to_vec(),
        })
    }

    #[test]
    fn a_site_is_cut_off_with_its_clients_and_stays_whole() {
        let around = pairs_of(&Links::Around(Select::dc("a")));
        assert!(around.contains(&(End::Node(0), End::Node(1))));
        assert!(around.contains(&(End::Site(0), End::Node(2))));
        assert!(around.contains(&(End::Node(0), End::Site(1))));
        assert!(!around.contains(&(End::Site(0), End::Node(0))));
        assert!(!around.contains(&(End::Site(0), End::Site(1))));
        let between = Links::Between(Select::dc("a"), Select::dc("b"));
        assert_eq!(pairs_of(&between), around);
        let one_way = pairs_of(&Links::OneWay(Some(Select::dc("a")), None));
        assert!(
            one_way
                .iter()
                .all(|(from, _)| matches!(from, End::Node(0) | End::Site(0)))
        );
        assert_eq!(one_way.len() * 2, around.len());
        // Three nodes among each other, and with two sites.
        assert_eq!(pairs_of(&Links::Around(Select::all())).len(), 6 + 12);
    }

    #[test]
    fn faults_add_up_and_end_one_by_one() {
        let mut network = Network::default();
        let pair = (End::Node(0), End::Node(1));
        let slow = |delay, loss| Worse {
            delay: Duration::from_millis(delay),
            loss,
            ..Worse::default()
        };
        network.begin(1, None, BTreeSet::from([pair]), slow(10, 0.5));
        network.begin(
            2,
            Some("x".to_owned()),
            BTreeSet::from([pair]),
            slow(5, 0.5),
        );
        let declared = Link::of_latency(Duration::from_millis(1));
        let link = network.link(declared.clone(), pair);
        assert_eq!(link.latency, Duration::from_millis(16));
        assert!((link.loss - 0.75).abs() < 1e-9);
        assert_eq!(network.link(declared.clone(), (pair.1, pair.0)), declared);
        assert_eq!(network.named(Some("x")), [2]);
        assert_eq!(network.end(1), BTreeSet::from([pair]));
        assert_eq!(
            network.link(declared.clone(), pair).latency,
            Duration::from_millis(6)
        );
        network.end(2);
        assert_eq!(network.link(declared.clone(), pair), declared);
    }
}
