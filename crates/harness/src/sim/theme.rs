//! Themes: what a run pulls into one direction, so that states which need
//! several things to come together are common (the idea of swarm testing).
//!
//! A theme bends limits and timings, and adds *gambits* to the plan: faults that
//! follow each other closely, as a short story that a random plan tells once in
//! thousands of runs. Each run draws none, one or two of them; what it does
//! besides stays as it is.

mod gambits;

use super::config::{MS, SimConfig};
use super::fault::{Down, Fault, Kind, Planned};
use super::model::Beyond;
use super::random::Random;
use gambits::{doubt, members, splits, storage, strays};
use serde::{Deserialize, Serialize};

/// Runs in a thousand that have a theme, and of those, that have two.
const THEMED: u64 = 600;
const TWO: u64 = 250;
/// Runs in a thousand whose shards change their members, besides.
const MEMBERS: u64 = 150;
/// The same of splits.
const SPLITS: u64 = 200;
/// Runs in a thousand without any whose clocks' rates are beyond the bound.
const BEYOND: u64 = 60;

/// Runs with shorter leases have no idle stretch; nanoseconds.
const SHORT_LEASE: u64 = 400 * MS;

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Theme {
    /// Leaders that nobody supports, deaf or hearing everything too late, while
    /// clients go on asking them.
    Lonely,
    /// Clients that fall asleep in mid-transaction for longer than their session lasts.
    Asleep,
    /// Memories for a handful of attempts and windows of milliseconds, under late
    /// copies of everything.
    Forgetful,
    /// Commits in doubt: coordinators lost, participants that hear nothing, and
    /// intents that ask early.
    Doubt,
    /// Windows so small that a sync takes many messages, under changing leaders.
    Trickle,
    /// Frames that come again in another term, after logs were cut.
    Strays,
    /// Logs trimmed all the time on slow disks, under power cuts in quick succession.
    Storage,
    /// Nodes away for long, and engines that die while they install a snapshot.
    Snapshots,
    /// Shards change their members all the time, two that share transactions at once.
    Members,
    /// Shards are split, while something goes wrong.
    Splits,
}

impl Theme {
    /// Every theme.
    pub const ALL: &'static [Theme] = &[
        Theme::Lonely,
        Theme::Asleep,
        Theme::Forgetful,
        Theme::Doubt,
        Theme::Trickle,
        Theme::Strays,
        Theme::Storage,
        Theme::Snapshots,
        Theme::Members,
        Theme::Splits,
    ];

    /// Mean time between two of its gambits; nanoseconds.
    const fn every(self) -> u64 {
        match self {
            Theme::Lonely => 1_100 * MS,
            Theme::Asleep => 60 * MS,
            Theme::Forgetful => 1_500 * MS,
            Theme::Doubt => 350 * MS,
            Theme::Trickle => 300 * MS,
            Theme::Strays => 1_500 * MS,
            Theme::Storage => 350 * MS,
            Theme::Snapshots => 900 * MS,
            Theme::Members => 250 * MS,
            Theme::Splits => 400 * MS,
        }
    }

    /// Bends a run's limits and timings.
    fn bend(self, c: &mut SimConfig, r: &mut Random) {
        match self {
            Theme::Lonely => {
                c.far = c.far.min(12 * MS);
                c.lease = r.range(150, 220) * MS;
                // Who is deserted gives up after ten of these: late, or soon.
                c.election = if r.chance(600) {
                    r.range(90, 150) * MS + 2 * c.far
                } else {
                    r.range(20, 60) * MS + 2 * c.far
                };
                c.readers = true;
                c.hot = r.chance(600);
                c.clients = c.clients.clamp(15, 60);
            }
            Theme::Asleep => {
                c.far = c.far.min(20 * MS);
                c.session = r.range(150, 500) * MS + 8 * c.far;
                c.clients = c.clients.clamp(10, 40);
                c.hot = true;
            }
            Theme::Forgetful => {
                c.ended = r.range(1, 4) as usize;
                c.window = r.range(20, 300) * MS;
                c.duplication = r.range(50, 300);
                // Noes for what was given up, before it comes.
                c.tardy = r.range(10, 100);
                c.retry = r.range(10, 60) * MS;
                c.clients = c.clients.clamp(10, 60);
                c.hot = r.chance(600);
                // Terms that last: what is forgotten in one is to come again in it.
                if r.chance(700) {
                    for phase in &mut c.phases {
                        phase.fault_every = 0;
                    }
                }
            }
            Theme::Doubt => {
                c.shards = c.shards.max(r.range(3, 7) as usize);
                c.staged_timeout = r.range(10, 150) * MS;
                c.retry = r.range(5, 80) * MS;
                c.far = r.range(4, 25) * MS;
                c.lease = c.lease.max(8 * c.far);
                c.hot = true;
                // So little that what waited for one lock is refused its slots together.
                if r.chance(200) {
                    c.undecided_bytes = r.range(100, 500) as usize;
                }
            }
            Theme::Trickle => {
                c.window_bytes = r.range(100, 800) as usize;
                c.message_bytes = *r.pick(&[100, 150, 400]);
                c.undecided_bytes = 64 << 10;
                // What repeats by itself must fit through such a window.
                c.window = c.window.max(5_000 * MS);
                c.far = c.far.min(8 * MS);
                c.sync = c.sync.min(8 * MS);
            }
            Theme::Strays => {
                c.reordering = true;
                c.duplication = r.range(300, 900);
                // The second copies come when the next leader has just begun: nodes
                // that all restart abstain for a lease, and then elect one.
                c.far = c.far.min(8 * MS);
                c.lease = r.range(120, 200) * MS;
                c.election = r.range(20, 50) * MS + 2 * c.far;
                c.late = c.lease + r.range(300, 700) * MS;
                c.clients = c.clients.clamp(30, 80);
                (c.sites, c.racks, c.nodes_per_rack, c.replicas) = (3, 1, 1, 3);
                // Slow enough that something comes between a leader's own sync and
                // its followers'.
                c.sync = r.range(20, 120) * MS;
            }
            Theme::Storage => {
                c.segment_bytes = *r.pick(&[4 << 10, 8 << 10, 16 << 10]);
                c.trim_bytes = r.range(4, 24) << 10;
                c.sync = if r.chance(500) {
                    r.range(10, 60) * MS
                } else {
                    c.sync.min(8 * MS)
                };
                if r.chance(400) {
                    c.engine = r.range(50, 300) * MS;
                }
                c.stall = r.range(60, 300) * MS + 2 * c.sync;
            }
            Theme::Snapshots => {
                c.segment_bytes = *r.pick(&[4 << 10, 8 << 10, 16 << 10]);
                c.trim_bytes = r.range(4, 16) << 10;
            }
            Theme::Splits => {
                if r.chance(500) {
                    c.trim_bytes = r.range(4, 16) << 10;
                    c.segment_bytes = *r.pick(&[4 << 10, 8 << 10, 16 << 10]);
                }
                // Splits that are not decided soon, among questions that come again and again:
                // some wait until it is over, and are then another shard's to answer.
                if r.chance(400) {
                    c.sync = r.range(20, 120) * MS;
                    c.retry = r.range(5, 40) * MS;
                    c.staged_timeout = r.range(20, 150) * MS;
                    c.duplication = r.range(100, 500);
                    c.late = r.range(50, 400) * MS;
                }
            }
            Theme::Members => {
                // Somewhere to go.
                (c.sites, c.racks) = (3, 1);
                c.nodes_per_rack = c.nodes_per_rack.max(2);
                c.replicas = 3;
                if r.chance(500) {
                    c.trim_bytes = r.range(4, 16) << 10;
                    c.segment_bytes = *r.pick(&[4 << 10, 8 << 10, 16 << 10]);
                }
            }
        }
    }

    /// What goes wrong together, from `t` on.
    fn gambit(self, c: &SimConfig, t: u64, r: &mut Random, plan: &mut Vec<Planned>) {
        let mut add = |at: u64, fault: Fault| plan.push(Planned { at, fault });
        let shard = r.range(0, c.shards as u64 + 1) as usize;
        let node = r.range(0, c.nodes() as u64) as usize;
        let other = (node + 1 + r.range(0, c.nodes() as u64 - 1) as usize) % c.nodes();
        let how = if r.chance(600) {
            Down::Power
        } else {
            Down::Process
        };
        let cut = |hears, lasts| Fault::CutLeader {
            shard,
            hears,
            heard: false,
            with: 0,
            lasts,
        };
        match self {
            Theme::Lonely if r.chance(500) => add(t, cut(false, r.range(600, 3_000) * MS)),
            // It hears late, so it has no lease; then nobody hears it, another one
            // leads, and what was said before still arrives.
            Theme::Lonely => {
                let extra = r.range(500, 1_200) * MS;
                let lasts = c.lease + r.range(0, 120) * MS;
                add(
                    t,
                    Fault::SlowLeader {
                        shard,
                        extra,
                        lasts: lasts + extra,
                    },
                );
                add(t + lasts, cut(true, r.range(400, 1_500) * MS));
            }
            Theme::Asleep => add(
                t,
                Fault::PauseClient {
                    client: r.range(0, c.clients as u64) as usize,
                    lasts: c.session + r.range(0, 2 * c.session / MS) * MS,
                },
            ),
            Theme::Forgetful => add(t, Fault::Transfer { shard, to: node }),
            Theme::Doubt => doubt(c, t, (shard, node, other), r, &mut add),
            Theme::Trickle => add(
                t,
                match r.range(0, 4) {
                    0 => Fault::StepDown { node },
                    1 => Fault::Transfer { shard, to: node },
                    2 => cut(r.chance(500), r.range(100, 600) * MS),
                    _ => Fault::CrashLeader {
                        shard,
                        how,
                        down: r.range(5, 500) * MS,
                    },
                },
            ),
            Theme::Strays => strays(c, t, node, r, &mut add),
            Theme::Storage => storage(c, t, node, r, &mut add),
            Theme::Members => members(c, t, (shard, node), r, &mut add),
            Theme::Splits => splits(c, t, (shard, node), r, &mut add),
            Theme::Snapshots => {
                let down = r.range(500, 1_500) * MS;
                add(t, Fault::Crash { node, how, down });
                add(
                    t + down + r.range(0, 60) * MS,
                    Fault::EngineDies {
                        node,
                        calls: r.range(0, 16) as u32,
                        how: if r.chance(600) {
                            Down::Process
                        } else {
                            Down::Power
                        },
                        down: r.range(5, 200) * MS,
                    },
                );
            }
        }
    }
}

/// Draws a run's themes, and bends it.
pub(super) fn draw(config: &mut SimConfig) {
    draw_most(config);
    // By itself, so that other seeds stay as they are.
    let mut random = Random::new(config.seed ^ 0x3e3b_e257);
    if config.beyond.is_empty() && random.chance(MEMBERS) {
        config.themes.push(Theme::Members);
        Theme::Members.bend(config, &mut random);
    }
    let mut random = Random::new(config.seed ^ 0x5b11_7e0d);
    if config.beyond.is_empty() && random.chance(SPLITS) {
        config.themes.push(Theme::Splits);
        Theme::Splits.bend(config, &mut random);
    }
}

fn draw_most(config: &mut SimConfig) {
    let mut random = Random::new(config.seed ^ 0x7e3e_0b17);
    let r = &mut random;
    if !r.chance(THEMED) {
        if r.chance(BEYOND) {
            config.beyond.push(Beyond::Rate);
            let rate = Kind::ALL.iter().position(|k| *k == Kind::ClockRate);
            config.weights[rate.unwrap_or_default()] += 20;
        }
        return;
    }
    let others = &Theme::ALL[..Theme::ALL.len() - 2];
    let first = *r.pick(others);
    config.themes.push(first);
    if r.chance(TWO) {
        let second = *r.pick(others);
        if second != first {
            config.themes.push(second);
        }
    }
    // In this order: what a theme needs of a later one's limits holds.
    config
        .themes
        .sort_unstable_by_key(|theme| *theme == Theme::Trickle);
    for theme in config.themes.clone() {
        theme.bend(config, r);
    }
    // Idle hours under a lease this short would be nothing but renewals.
    if config.lease < SHORT_LEASE {
        config.phases.truncate(1);
    }
}

/// The gambits of a run's themes, in its busy stretches.
pub(super) fn gambits(config: &SimConfig) -> Vec<Planned> {
    let mut random = Random::new(config.seed ^ 0x6a3b_17a1);
    let mut plan = Vec::new();
    let end = config.active();
    for theme in &config.themes {
        let mut t = 0;
        while let Some(phase) = config.phase(t) {
            if phase.think.is_some() {
                t = phase.until;
                continue;
            }
            t += random.range(theme.every() / 4, theme.every() * 7 / 4);
            if t < phase.until {
                theme.gambit(config, t, &mut random, &mut plan);
            }
        }
    }
    plan.retain(|planned| planned.at < end);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_theme_is_drawn_and_tells_its_story() {
        let mut told = BTreeSet::new();
        let mut plain = 0;
        let mut beyond = 0;
        for seed in 1..400 {
            let config = SimConfig::from_seed(seed);
            let gambits = gambits(&config);
            assert!(gambits.iter().all(|p| p.at < config.active()));
            plain += u32::from(config.themes.is_empty());
            beyond += u32::from(!config.beyond.is_empty());
            assert!(config.themes.is_empty() || config.beyond.is_empty());
            if !gambits.is_empty() {
                told.extend(config.themes);
            }
        }
        assert_eq!(told.len(), Theme::ALL.len(), "{told:?}");
        assert!((80..240).contains(&plain), "{plain} without a theme");
        assert!((1..40).contains(&beyond), "{beyond} beyond the promises");
    }

    #[test]
    fn a_theme_leaves_the_rest_of_the_seed_as_it_is() {
        let themed = |seed: &u64| !SimConfig::from_seed(*seed).themes.is_empty();
        let seed = (1..100).find(themed).expect("a themed seed");
        let (bent, plain) = (SimConfig::from_seed(seed), SimConfig::plain(seed));
        assert_eq!(bent.weights, plain.weights);
        assert_eq!(bent.active(), plain.active());
    }
}
