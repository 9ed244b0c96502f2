//! What all scenarios share: a realistic cluster, a steady load, a little noise.

use crate::sim::config::{MS, Phase, SECOND, SimConfig};
use crate::sim::fault::{Fault, Planned};
use crate::sim::random::Random;

/// The load before the failure, at full speed.
const BEFORE: u64 = 3 * SECOND;
/// The load after it, at full speed.
const AFTER: u64 = 4 * SECOND;

/// A scenario in the making.
pub(super) struct Stage {
    pub(super) random: Random,
    pub(super) config: SimConfig,
    plan: Vec<Planned>,
    /// When the failure begins.
    pub(super) begin: u64,
    length: u64,
}

impl Stage {
    pub(super) fn new(seed: u64) -> Stage {
        let mut random = Random::new(seed ^ 0x5ce0_a210);
        let config = cluster(seed, &mut random);
        let begin = BEFORE + random.range(0, 500) * MS;
        Stage {
            random,
            config,
            plan: Vec::new(),
            begin,
            length: 0,
        }
    }

    /// A length between so many seconds, for the failure as a whole.
    pub(super) fn long(&mut self, least: u64, most: u64) -> u64 {
        let length = self.random.range(least * 1_000, most * 1_000) * MS;
        self.length = self.length.max(length);
        length
    }

    /// Between so many milliseconds.
    pub(super) fn millis(&mut self, least: u64, most: u64) -> u64 {
        self.random.range(least, most) * MS
    }

    /// A fault so long after the failure began.
    pub(super) fn fault(&mut self, after: u64, fault: Fault) {
        let at = self.begin + after;
        self.plan.push(Planned { at, fault });
    }

    /// All nodes but these.
    pub(super) fn others(&self, than: &[usize]) -> Vec<usize> {
        (0..self.config.nodes())
            .filter(|n| !than.contains(n))
            .collect()
    }

    /// Nothing gets to these nodes or away from them.
    pub(super) fn cut_off(&mut self, after: u64, nodes: Vec<usize>, lasts: u64) {
        let to = self.others(&nodes);
        let fault = Fault::Cut {
            from: nodes,
            to,
            both: true,
            lasts,
        };
        self.fault(after, fault);
    }

    /// The nodes of a site chosen at random.
    pub(super) fn site(&mut self) -> Vec<usize> {
        let site = self.random.range(0, self.config.sites as u64) as usize;
        let nodes = 0..self.config.nodes();
        nodes.filter(|n| self.config.site_of(*n) == site).collect()
    }

    /// The nodes of a rack chosen at random.
    pub(super) fn rack(&mut self) -> Vec<usize> {
        let racks = (self.config.sites * self.config.racks) as u64;
        let rack = self.random.range(0, racks) as usize;
        let nodes = 0..self.config.nodes();
        nodes.filter(|n| self.config.rack_of(*n) == rack).collect()
    }

    pub(super) fn node(&mut self) -> usize {
        self.random.range(0, self.config.nodes() as u64) as usize
    }

    /// The run: full load, the failure under a lighter one, full load again.
    pub(super) fn end(mut self) -> (SimConfig, Vec<Planned>) {
        let think = self.random.range(100, 600) * MS;
        let during = self.begin + self.length.max(SECOND);
        let phase = |until, think| Phase {
            until,
            think,
            fault_every: 0,
        };
        self.config.phases = vec![
            phase(self.begin, None),
            phase(during, Some(think)),
            phase(during + AFTER, None),
        ];
        self.noise(during);
        self.plan.sort_by_key(|p| p.at);
        (self.config, self.plan)
    }

    /// What happens everywhere all the time: none of it takes a node away for long.
    fn noise(&mut self, until: u64) {
        let mut at = 0;
        loop {
            at += self.random.range(1_000, 20_000) * MS;
            if at >= until {
                return;
            }
            let node = self.node();
            let lasts = self.random.range(50, 500) * MS;
            let fault = match self.random.range(0, 5) {
                0 => Fault::Reset { node },
                1 => Fault::Slow {
                    node,
                    factor: self.random.range(2, 20),
                    lasts,
                },
                2 => Fault::Pause { node, lasts },
                3 => Fault::BadLinks {
                    nodes: vec![node],
                    loss: self.random.range(0, 50),
                    extra: self.random.range(0, 20) * MS,
                    lasts,
                },
                _ => Fault::Transfer {
                    shard: self.random.range(0, self.config.shards as u64 + 1) as usize,
                    to: node,
                },
            };
            self.plan.push(Planned { at, fault });
        }
    }
}

/// Sizes and timings as in use, small only where that shortens the run.
fn cluster(seed: u64, r: &mut Random) -> SimConfig {
    let (sites, racks, nodes_per_rack) =
        *r.pick(&[(3, 2, 1), (3, 2, 1), (3, 2, 2), (4, 2, 1), (5, 2, 1)]);
    let far = r.range(4_000, 40_000) * MS / 1_000;
    SimConfig {
        sites,
        racks,
        nodes_per_rack,
        replicas: *r.pick(&[3, 3, 5]),
        shards: r.range(3, 7) as usize,
        clients: r.range(8, 25) as usize,
        near: r.range(300, 1_000) * MS / 1_000,
        far,
        loss: r.range(0, 3),
        quiet_loss: 0,
        duplication: r.range(0, 3),
        sync: r.range(2, 6) * MS,
        turn: 100_000,
        engine: 5 * MS,
        clock_offset: r.range(1, 100) * MS,
        clock_rate: 200,
        lease: (600 * MS).max(8 * far),
        election: r.range(50, 100) * MS + 2 * far,
        staged_timeout: (SECOND).max(20 * far),
        session: 4 * SECOND,
        window: 20 * SECOND,
        ended: 200,
        entry_bytes: 8 << 20,
        window_bytes: 16 << 20,
        // Whoever is away for long comes back to logs that are trimmed.
        segment_bytes: 64 << 10,
        trim_bytes: 200 << 10,
        beyond: Vec::new(),
        ..SimConfig::plain(seed)
    }
}
