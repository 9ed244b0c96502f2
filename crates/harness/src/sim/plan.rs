//! From a seed to the faults of a run, all of them known before it starts, so that
//! they can be printed and left out one by one.

use super::config::{MS, SECOND, SimConfig};
use super::fault::{Down, Fault, Kind, Planned};
use super::random::Random;
use synod_paxos::ClusterVersion;

/// The faults of a run that is derived from its seed.
#[must_use]
pub fn plan(config: &SimConfig) -> Vec<Planned> {
    let mut planner = Planner {
        random: Random::new(config.seed ^ 0xfa17),
        config,
        fragile: Vec::new(),
    };
    planner.choose_fragile();
    let mut faults = planner.faults();
    faults.extend(super::theme::gambits(config));
    faults.extend(raise(config));
    faults.sort_by_key(|planned| planned.at);
    faults
}

/// An older cluster is raised at some time, by a stream of chance of its own.
fn raise(config: &SimConfig) -> Option<Planned> {
    let at = Random::new(config.seed ^ 0x4a15_e0d1).range(50, 900);
    (config.begins_at < ClusterVersion::NEWEST).then(|| Planned {
        at: config.active() / 1_000 * at,
        fault: Fault::Raise,
    })
}

struct Planner<'a> {
    random: Random,
    config: &'a SimConfig,
    /// Nodes whose disks may be damaged: less than a majority of any group.
    fragile: Vec<usize>,
}

impl Planner<'_> {
    fn choose_fragile(&mut self) {
        let most = (self.config.replicas - 1) / 2;
        for _ in 0..most {
            let node = self.node();
            if !self.fragile.contains(&node) {
                self.fragile.push(node);
            }
        }
    }

    fn faults(&mut self) -> Vec<Planned> {
        let total: u64 = self.config.weights.iter().sum();
        let mut faults = Vec::new();
        let mut t = 0;
        let end = self.config.active();
        if total == 0 {
            return faults;
        }
        while let Some(phase) = self.config.phase(t) {
            if phase.fault_every == 0 {
                t = phase.until;
                continue;
            }
            t += self
                .random
                .range(phase.fault_every / 8, phase.fault_every * 2)
                .max(MS);
            if t >= end {
                break;
            }
            let kind = self.kind(total);
            if let Some(fault) = self.fault(kind) {
                faults.push(Planned { at: t, fault });
            }
        }
        faults
    }

    fn kind(&mut self, total: u64) -> Kind {
        let mut left = self.random.range(0, total);
        for (kind, weight) in Kind::ALL.iter().zip(&self.config.weights) {
            if left < *weight {
                return *kind;
            }
            left -= weight;
        }
        Kind::Crash
    }

    fn node(&mut self) -> usize {
        self.random.range(0, self.config.nodes() as u64) as usize
    }

    fn shard(&mut self) -> usize {
        self.random.range(0, self.config.shards as u64 + 1) as usize
    }

    fn client(&mut self) -> usize {
        self.random.range(0, self.config.clients as u64) as usize
    }

    fn how(&mut self) -> Down {
        if self.random.chance(600) {
            Down::Power
        } else {
            Down::Process
        }
    }

    /// Mostly short, sometimes long against every timer.
    fn while_(&mut self) -> u64 {
        if self.random.chance(150) {
            self.random.range(2, 12) * SECOND
        } else {
            self.random.range(20, 1_500) * MS
        }
    }

    fn some_nodes(&mut self) -> Vec<usize> {
        let nodes = self.config.nodes();
        match self.random.range(0, 3) {
            0 => {
                let site = self.random.range(0, self.config.sites as u64) as usize;
                (0..nodes)
                    .filter(|n| self.config.site_of(*n) == site)
                    .collect()
            }
            1 => vec![self.node()],
            _ => (0..nodes).filter(|_| self.random.chance(400)).collect(),
        }
    }

    fn fault(&mut self, kind: Kind) -> Option<Fault> {
        let node = self.node();
        let lasts = self.while_();
        let down = self.random.range(5, 1_500) * MS;
        let how = self.how();
        let fragile = (!self.fragile.is_empty()).then(|| *self.random.pick(&self.fragile));
        Some(match kind {
            Kind::Crash => Fault::Crash { node, how, down },
            Kind::CrashAtEffect => Fault::CrashAtEffect {
                node,
                how,
                effects: self.random.range(0, 12) as u32,
                down,
            },
            Kind::CrashLeader => Fault::CrashLeader {
                shard: self.shard(),
                how,
                down,
            },
            Kind::CrashMany => Fault::CrashMany {
                nodes: if self.random.chance(500) {
                    (0..self.config.nodes()).collect()
                } else {
                    self.some_nodes()
                },
                how,
                down,
            },
            Kind::LoseEngine => Fault::LoseEngine {
                node: fragile?,
                down,
            },
            Kind::FlipBits => Fault::FlipBits {
                node: fragile?,
                bits: self.random.range(1, 4),
                down,
            },
            // Only scenarios ask for it: the node never comes back.
            Kind::Wipe => return None,
            Kind::DiskFails => Fault::DiskFails {
                node,
                calls: self.random.range(0, 60),
            },
            Kind::DiskFull => Fault::DiskFull { node, lasts },
            Kind::DiskStall => Fault::DiskStall { node, lasts },
            Kind::Slow => Fault::Slow {
                node,
                factor: self.random.range(5, 200),
                lasts,
            },
            Kind::Pause => Fault::Pause {
                node,
                lasts: if self.random.chance(30) {
                    60 * SECOND
                } else {
                    lasts
                },
            },
            Kind::ClockRate => return self.rate(node),
            other => return self.network(other, node, lasts),
        })
    }

    fn network(&mut self, kind: Kind, node: usize, lasts: u64) -> Option<Fault> {
        Some(match kind {
            Kind::Cut => {
                let from = self.some_nodes();
                let to = (0..self.config.nodes())
                    .filter(|n| !from.contains(n) && self.random.chance(750))
                    .collect();
                Fault::Cut {
                    from,
                    to,
                    both: self.random.chance(500),
                    lasts,
                }
            }
            Kind::CutLeader => {
                let hears = self.random.chance(500);
                Fault::CutLeader {
                    shard: self.shard(),
                    hears,
                    heard: !hears && self.random.chance(500),
                    with: self.random.range(0, 2) as usize,
                    lasts,
                }
            }
            Kind::Chain => Fault::Chain { lasts },
            Kind::Bridge => Fault::Bridge { node, lasts },
            Kind::BadLinks => Fault::BadLinks {
                nodes: self.some_nodes(),
                loss: self.random.range(0, 600),
                extra: self.random.range(0, 300) * MS,
                lasts,
            },
            Kind::Reset => Fault::Reset { node },
            Kind::ClockJump => Fault::ClockJump {
                node,
                by: self.jump(),
            },
            Kind::ClockJumpAll => Fault::ClockJumpAll { by: self.jump() },
            Kind::Vanish => Fault::Vanish {
                client: self.client(),
                back: if self.random.chance(800) { lasts } else { 0 },
            },
            Kind::PauseClient => Fault::PauseClient {
                client: self.client(),
                lasts,
            },
            Kind::Transfer => Fault::Transfer {
                shard: self.shard(),
                to: node,
            },
            Kind::StepDown => Fault::StepDown { node },
            Kind::Stop => Fault::Stop {
                node,
                down: self.random.range(5, 1_500) * MS,
            },
            _ => return None,
        })
    }

    fn jump(&mut self) -> i64 {
        let size = match self.random.range(0, 3) {
            0 => self.random.range(1, 400) * MS,
            1 => self.random.range(400, 5_000) * MS,
            _ => self.random.range(5, 4_000) * SECOND,
        } as i64;
        if self.random.chance(500) { size } else { -size }
    }

    /// Within the bound, unless the run is one beyond the promises.
    fn rate(&mut self, node: usize) -> Option<Fault> {
        let most = if self.config.beyond.contains(&super::model::Beyond::Rate) {
            super::model::RATE_BEYOND
        } else {
            480
        };
        let ppm = self.random.range(0, 2 * most + 1) as i64 - most as i64;
        Some(Fault::ClockRate { node, ppm })
    }
}
