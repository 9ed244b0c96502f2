//! The network: a latency for each pair of sites, and links that are cut, slow
//! or lossy for a while.

use super::config::SimConfig;
use super::random::Random;

/// How late the latest frames are; nanoseconds.
const STRAY: u64 = 3_000_000_000;

/// One direction between two nodes.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Cuts in force.
    cuts: u32,
    /// Added by faults in force: chance of loss (1/1000), and latency.
    loss: u64,
    extra: u64,
    /// Frames of earlier connections are lost.
    connection: u64,
    /// When the frame before arrives.
    last: u64,
}

/// What a fault does to a link while it lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkFault {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) cut: bool,
    pub(super) loss: u64,
    pub(super) extra: u64,
}

impl LinkFault {
    pub(super) fn cut(from: usize, to: usize) -> LinkFault {
        LinkFault {
            from,
            to,
            cut: true,
            loss: 0,
            extra: 0,
        }
    }
}

/// The links.
pub(super) struct Net {
    nodes: usize,
    links: Vec<Link>,
    /// One-way latency by pair of sites, at most.
    latency: Vec<u64>,
    sites: usize,
    near: u64,
    ordered: bool,
}

impl Net {
    pub(super) fn new(config: &SimConfig, random: &mut Random) -> Net {
        let (nodes, sites) = (config.nodes(), config.sites);
        let mut latency = vec![config.near; sites * sites];
        for a in 0..sites {
            for b in 0..a {
                let one = random.range(config.far / 4, config.far);
                latency[a * sites + b] = one;
                latency[b * sites + a] = one;
            }
        }
        Net {
            nodes,
            links: vec![Link::default(); nodes * nodes],
            latency,
            sites,
            near: config.near,
            ordered: !config.reordering,
        }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.nodes + to]
    }

    /// Mostly close to the latency, now and then far above it.
    fn travel(most: u64, stray: bool, random: &mut Random) -> u64 {
        let base = random.range(most / 2, most);
        match random.range(0, 1_000) {
            // A stray may come when nobody expects it any more.
            0 if stray => base + random.range(0, STRAY),
            1..10 => base + random.range(0, most * 8),
            _ => base,
        }
    }

    /// When a frame sent now arrives, and on which connection; none if it is lost.
    pub(super) fn send(
        &mut self,
        t: u64,
        (from, to): (usize, usize),
        sites: (usize, usize),
        random: &mut Random,
    ) -> Option<(u64, u64)> {
        let most = self.latency[sites.0 * self.sites + sites.1];
        let ordered = self.ordered;
        let link = self.link(from, to);
        if link.cuts > 0 || (link.loss > 0 && random.chance(link.loss)) {
            return None;
        }
        let mut at = t + link.extra + Net::travel(most, !ordered, random);
        if ordered {
            at = at.max(link.last + 1);
            link.last = at;
        }
        Some((at, link.connection))
    }

    /// Whether a frame of that connection still arrives.
    pub(super) fn arrives(&mut self, from: usize, to: usize, connection: u64) -> bool {
        let link = self.link(from, to);
        link.connection == connection && link.cuts == 0
    }

    /// Between a client's site and a node.
    pub(super) fn client_travel(
        &self,
        t: u64,
        client_site: usize,
        site: usize,
        random: &mut Random,
    ) -> u64 {
        let most = self.latency[client_site * self.sites + site].max(self.near);
        t + Net::travel(most, false, random)
    }

    /// Whether a node is cut off from more than half of the others, so that its
    /// clients elsewhere do not reach it either.
    pub(super) fn is_dark(&self, node: usize) -> bool {
        let others = self.nodes - 1;
        let cut = (0..self.nodes)
            .filter(|n| *n != node && self.links[n * self.nodes + node].cuts > 0)
            .count();
        others > 0 && cut == others
    }

    pub(super) fn begin(&mut self, faults: &[LinkFault]) {
        for fault in faults {
            let link = self.link(fault.from, fault.to);
            link.cuts += u32::from(fault.cut);
            link.loss += fault.loss;
            link.extra += fault.extra;
        }
    }

    pub(super) fn end(&mut self, faults: &[LinkFault]) {
        for fault in faults {
            let link = self.link(fault.from, fault.to);
            link.cuts -= u32::from(fault.cut);
            link.loss -= fault.loss;
            link.extra -= fault.extra;
        }
    }

    /// All connections of a node end.
    pub(super) fn reset(&mut self, node: usize) {
        for other in 0..self.nodes {
            self.link(node, other).connection += 1;
            self.link(other, node).connection += 1;
        }
    }
}
