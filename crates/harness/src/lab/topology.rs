//! Where nodes and clients are, and the links between them without faults.

use crate::cluster::Place;
use crate::relay::{End, Link};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use synod_placement::Locality;

/// The path between two places.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path {
    /// There and back.
    pub rtt: Duration,
    /// Each packet is late by up to this much, each way.
    pub jitter: Duration,
    /// Share of packets lost, each way, 0 to 1.
    pub loss: f64,
    /// Bytes a second, each way and pair of ends; none = any number.
    pub bandwidth: Option<u64>,
}

impl Path {
    /// One direction of it.
    fn link(&self) -> Link {
        Link {
            latency: self.rtt / 2,
            jitter: self.jitter,
            loss: self.loss,
            bandwidth: self.bandwidth,
            ..Link::default()
        }
    }
}

/// A data centre.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dc {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Racks, `r1`, `r2` …
    pub racks: usize,
    /// Nodes in each of them.
    pub nodes_per_rack: usize,
    /// Clients that work there.
    pub clients: usize,
}

/// A node, as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Its name, `n1`, `n2` … in the order of the data centres.
    pub name: String,
    /// The number of its data centre.
    pub site: usize,
    /// Its place.
    pub locality: Locality,
}

/// All data centres and the paths between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// The data centres; each is a site of clients too.
    pub dcs: Vec<Dc>,
    /// Between data centres, unless `paths` says otherwise.
    pub between: Path,
    /// Within a data centre, its clients included.
    pub within: Path,
    /// Between two data centres, the lower number first.
    pub paths: BTreeMap<(usize, usize), Path>,
}

impl Topology {
    /// The nodes; their place in the list is their number everywhere.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodePlan> {
        let mut nodes = Vec::new();
        for (site, dc) in self.dcs.iter().enumerate() {
            for rack in 1..=dc.racks {
                for _ in 0..dc.nodes_per_rack {
                    let name = format!("n{}", nodes.len() + 1);
                    let tiers = [
                        ("region", dc.region.clone()),
                        ("dc", dc.name.clone()),
                        ("rack", format!("r{rack}")),
                        ("host", name.clone()),
                    ];
                    let tiers = tiers.map(|(tier, value)| (tier.to_owned(), value));
                    nodes.push(NodePlan {
                        name,
                        site,
                        locality: Locality(tiers.into()),
                    });
                }
            }
        }
        nodes
    }

    /// The same for a cluster of processes.
    pub(super) fn places(&self) -> Vec<Place> {
        let place = |node: NodePlan| Place {
            locality: String::from(node.locality),
            name: node.name,
        };
        self.nodes().into_iter().map(place).collect()
    }

    /// The number of a data centre.
    #[must_use]
    pub fn dc(&self, name: &str) -> Option<usize> {
        self.dcs.iter().position(|dc| dc.name == name)
    }

    /// The locality of a site's clients.
    pub(super) fn clients_locality(&self, site: usize) -> String {
        let dc = &self.dcs[site];
        format!("region={},dc={}", dc.region, dc.name)
    }

    /// The path between two data centres, or within one.
    #[must_use]
    pub fn path(&self, a: usize, b: usize) -> &Path {
        if a == b {
            return &self.within;
        }
        let pair = (a.min(b), a.max(b));
        self.paths.get(&pair).unwrap_or(&self.between)
    }

    /// All nodes and sites.
    pub(super) fn ends(&self) -> Vec<End> {
        let nodes = (0..self.nodes().len()).map(End::Node);
        nodes.chain((0..self.dcs.len()).map(End::Site)).collect()
    }

    /// One direction of a link without faults. Whoever belongs to no site (who looks
    /// at the cluster, and the programs that administer it) has perfect ones.
    pub(super) fn link(&self, nodes: &[NodePlan], from: End, to: End) -> Link {
        let site = |end: End| match end {
            End::Node(node) => nodes.get(node).map(|node| node.site),
            End::Site(site) => Some(site),
            End::Clients => None,
        };
        match (site(from), site(to)) {
            (Some(from), Some(to)) => self.path(from, to).link(),
            _ => Link::default(),
        }
    }

    /// What reports call an end.
    pub(super) fn name(&self, nodes: &[NodePlan], end: End) -> String {
        match end {
            End::Node(node) => nodes[node].name.clone(),
            End::Site(site) => self.dcs[site].name.clone(),
            End::Clients => "other clients".to_owned(),
        }
    }
}

/// The loopback address from which a site's clients send.
pub(super) fn clients_address(site: usize) -> IpAddr {
    let last = u8::try_from(site + 1).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(127, 0, 1, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dc(name: &str, region: &str) -> Dc {
        Dc {
            name: name.to_owned(),
            region: region.to_owned(),
            racks: 2,
            nodes_per_rack: 1,
            clients: 1,
        }
    }

    #[test]
    fn nodes_and_clients_have_the_links_of_their_site() {
        let path = |millis| Path {
            rtt: Duration::from_millis(millis),
            ..Path::default()
        };
        let topology = Topology {
            dcs: vec![dc("a", "eu"), dc("b", "eu"), dc("c", "us")],
            between: path(20),
            within: path(2),
            paths: BTreeMap::from([((0, 2), path(80))]),
        };
        let nodes = topology.nodes();
        assert_eq!(nodes.len(), 6);
        let text = String::from(nodes[3].locality.clone());
        assert_eq!(text, "region=eu,dc=b,rack=r2,host=n4");
        let one_way = |from, to| topology.link(&nodes, from, to).latency.as_millis();
        assert_eq!(one_way(End::Node(0), End::Node(1)), 1);
        assert_eq!(one_way(End::Node(0), End::Node(2)), 10);
        assert_eq!(one_way(End::Node(5), End::Node(0)), 40);
        assert_eq!(one_way(End::Site(2), End::Node(1)), 40);
        assert_eq!(one_way(End::Site(2), End::Node(4)), 1);
        assert_eq!(one_way(End::Clients, End::Node(4)), 0);
        assert_eq!(topology.ends().len(), 9);
    }
}
