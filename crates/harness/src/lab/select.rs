//! Which nodes and clients a fault is about.

use super::topology::{NodePlan, Topology};
use crate::relay::End;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::fmt;
use synod_placement::{Locality, nearest};

/// A part of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All nodes, and the clients of all sites.
    All,
    /// These nodes.
    Nodes(Vec<String>),
    /// A data centre's nodes and clients.
    Dc(String),
    /// A region's nodes and clients.
    Region(String),
    /// The nodes of a place, such as `dc=eu-1,rack=r2`.
    Place(Locality),
    /// A data centre's clients.
    Clients(String),
    /// The data centre that leads most shards at that moment, with its clients.
    LeadersDc,
    /// The node that leads this shard at that moment; 1 is the meta shard.
    LeaderOf(u64),
}

/// A part of the cluster, or some of its nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// The part.
    pub part: Part,
    /// Only this share of its nodes, at least one, drawn by chance; then no clients.
    pub share: Option<f64>,
}

impl Select {
    /// Of this part all.
    #[must_use]
    pub fn of(part: Part) -> Select {
        Select { part, share: None }
    }

    /// Everything.
    #[must_use]
    pub fn all() -> Select {
        Select::of(Part::All)
    }

    /// One node.
    pub fn node(name: impl Into<String>) -> Select {
        Select::of(Part::Nodes(vec![name.into()]))
    }

    /// A data centre with its clients.
    pub fn dc(name: impl Into<String>) -> Select {
        Select::of(Part::Dc(name.into()))
    }

    /// A data centre's clients.
    pub fn clients(dc: impl Into<String>) -> Select {
        Select::of(Part::Clients(dc.into()))
    }

    /// Only this share of its nodes, at least one, drawn by chance.
    #[must_use]
    pub fn share(mut self, share: f64) -> Select {
        self.share = Some(share);
        self
    }

    /// Whether who leads has to be known to resolve it.
    #[must_use]
    pub fn needs_leaders(&self) -> bool {
        matches!(self.part, Part::LeadersDc | Part::LeaderOf(_))
    }

    /// Whether there is such a part.
    ///
    /// # Errors
    /// What there is instead.
    pub fn check(&self, topology: &Topology, shards: usize) -> Result<(), String> {
        let dcs = || topology.dcs.iter().map(|dc| dc.name.as_str());
        match &self.part {
            Part::All | Part::LeadersDc => {}
            Part::Nodes(names) => {
                if names.is_empty() {
                    return Err("no node is named".to_owned());
                }
                let nodes = topology.nodes();
                for name in names {
                    known("node", name, nodes.iter().map(|n| n.name.as_str()))?;
                }
            }
            Part::Dc(name) => known("data centre", name, dcs())?,
            Part::Clients(name) => {
                known("data centre", name, dcs())?;
                if self.share.is_some() {
                    return Err("`share` is of nodes; it does not go with `clients`".to_owned());
                }
            }
            Part::Region(name) => {
                known(
                    "region",
                    name,
                    topology.dcs.iter().map(|d| d.region.as_str()),
                )?;
            }
            Part::Place(place) => {
                let nodes = topology.nodes();
                if !nodes.iter().any(|node| node.locality.within(place)) {
                    let place = String::from(place.clone());
                    return Err(format!(
                        "no node is in `{place}`; nodes are in places such as `{}`",
                        nodes
                            .first()
                            .map(|n| String::from(n.locality.clone()))
                            .unwrap_or_default()
                    ));
                }
            }
            Part::LeaderOf(shard) => {
                let last = shards as u64 + 1;
                if !(1..=last).contains(shard) {
                    return Err(format!(
                        "there is no shard {shard}; shards are 1 (the meta shard) to {last}"
                    ));
                }
            }
        }
        match self.share {
            Some(share) if !(share > 0.0 && share <= 1.0) => Err(format!(
                "a share of {share} is none; it is above 0 and at most 1"
            )),
            _ => Ok(()),
        }
    }

    /// The ends that are meant now. `leaders` tells the node that leads each shard.
    pub(super) fn resolve(
        &self,
        topology: &Topology,
        nodes: &[NodePlan],
        leaders: &BTreeMap<u64, usize>,
        random: &mut StdRng,
    ) -> Vec<End> {
        let among = |is: &dyn Fn(&NodePlan) -> bool| -> Vec<End> {
            let numbered = nodes.iter().enumerate();
            numbered
                .filter(|(_, n)| is(n))
                .map(|(i, _)| End::Node(i))
                .collect()
        };
        let of_sites = |is: &dyn Fn(usize) -> bool| -> Vec<End> {
            let mut ends = among(&|node| is(node.site));
            ends.extend((0..topology.dcs.len()).filter(|s| is(*s)).map(End::Site));
            ends
        };
        let ends = match &self.part {
            Part::All => topology.ends(),
            Part::Nodes(names) => among(&|node| names.contains(&node.name)),
            Part::Dc(name) => of_sites(&|site| topology.dcs[site].name == *name),
            Part::Region(name) => of_sites(&|site| topology.dcs[site].region == *name),
            Part::Place(place) => among(&|node| node.locality.within(place)),
            Part::Clients(name) => topology.dc(name).map(End::Site).into_iter().collect(),
            Part::LeadersDc => {
                let mut led = vec![0; topology.dcs.len()];
                // The meta shard's leader alone decides nothing.
                for (_, node) in leaders.iter().filter(|(shard, _)| **shard != 1) {
                    led[nodes[*node].site] += 1;
                }
                let most = led
                    .iter()
                    .enumerate()
                    .max_by_key(|(site, n)| (**n, usize::MAX - site));
                let most = most.filter(|(_, led)| **led > 0).map(|(site, _)| site);
                of_sites(&|site| Some(site) == most)
            }
            Part::LeaderOf(shard) => {
                let leader = leaders.get(shard);
                leader.map(|node| End::Node(*node)).into_iter().collect()
            }
        };
        match self.share {
            None => ends,
            Some(share) => some_of(&ends, share, random),
        }
    }
}

/// A share of the nodes among these ends, at least one.
fn some_of(ends: &[End], share: f64, random: &mut StdRng) -> Vec<End> {
    let mut nodes: Vec<End> = ends.to_vec();
    nodes.retain(|end| matches!(end, End::Node(_)));
    let wanted = ((nodes.len() as f64 * share).round() as usize).max(1);
    while nodes.len() > wanted {
        nodes.remove(random.random_range(0..nodes.len()));
    }
    nodes
}

/// Whether a name is known; the error tells what is.
fn known<'a>(
    kind: &str,
    name: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), String> {
    if names.clone().any(|known| known == name) {
        return Ok(());
    }
    let mut all: Vec<&str> = names.clone().collect();
    all.dedup();
    let meant =
        nearest(name, names).map_or_else(String::new, |right| format!("; did you mean `{right}`?"));
    Err(format!(
        "there is no {kind} `{name}`, only {}{meant}",
        all.join(", ")
    ))
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(share) = self.share {
            write!(f, "{} % of ", share * 100.0)?;
        }
        match &self.part {
            Part::All => f.write_str("everything"),
            Part::Nodes(names) => f.write_str(&names.join(", ")),
            Part::Dc(name) => f.write_str(name),
            Part::Region(name) => write!(f, "region {name}"),
            Part::Place(place) => f.write_str(&String::from(place.clone())),
            Part::Clients(name) => write!(f, "the clients of {name}"),
            Part::LeadersDc => f.write_str("the data centre that leads most"),
            Part::LeaderOf(shard) => write!(f, "the leader of shard {shard}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::topology::Dc;
    use super::*;
    use rand::SeedableRng;

    fn topology() -> Topology {
        let dc = |name: &str| Dc {
            name: name.to_owned(),
            region: "eu".to_owned(),
            racks: 2,
            nodes_per_rack: 2,
            clients: 1,
        };
        Topology {
            dcs: vec![dc("eu-1"), dc("eu-2"), dc("eu-3")],
            ..Topology::default()
        }
    }

    fn resolve(select: &Select) -> Vec<End> {
        let topology = topology();
        let leaders = BTreeMap::from([(1, 0), (2, 4), (3, 5), (4, 0)]);
        let mut random = StdRng::seed_from_u64(1);
        assert_eq!(select.check(&topology, 3), Ok(()));
        select.resolve(&topology, &topology.nodes(), &leaders, &mut random)
    }

    #[test]
    fn parts_are_found() {
        let nodes = |range: std::ops::Range<usize>| range.map(End::Node);
        let of_second: Vec<End> = nodes(4..8).chain([End::Site(1)]).collect();
        assert_eq!(resolve(&Select::dc("eu-2")), of_second);
        assert_eq!(resolve(&Select::of(Part::LeadersDc)), of_second);
        assert_eq!(resolve(&Select::node("n3")), [End::Node(2)]);
        assert_eq!(resolve(&Select::clients("eu-3")), [End::Site(2)]);
        assert_eq!(resolve(&Select::of(Part::LeaderOf(3))), [End::Node(5)]);
        assert_eq!(resolve(&Select::all()).len(), 15);
        let rack = "dc=eu-3,rack=r2".parse().expect("a locality");
        let rack = resolve(&Select::of(Part::Place(rack)));
        assert_eq!(rack, nodes(10..12).collect::<Vec<End>>());
    }

    #[test]
    fn a_share_is_of_nodes_and_at_least_one() {
        assert_eq!(resolve(&Select::dc("eu-1").share(0.5)).len(), 2);
        let one = resolve(&Select::all().share(0.01));
        assert!(matches!(one[..], [End::Node(_)]), "{one:?}");
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        let check = |select: Select| select.check(&topology(), 3).expect_err("there is none");
        let text = check(Select::dc("eu-4"));
        assert!(text.contains("only eu-1, eu-2, eu-3"), "{text}");
        assert!(check(Select::node("n13")).contains("did you mean `n1"));
        assert!(check(Select::of(Part::LeaderOf(5))).contains("1 (the meta shard) to 4"));
        let rack = "rack=r3".parse().expect("a locality");
        assert!(check(Select::of(Part::Place(rack))).contains("rack=r1"));
        assert!(check(Select::all().share(0.0)).contains("above 0"));
    }
}
