//! The longer ones of the themes' stories: what goes wrong together.

use crate::sim::config::{MS, SimConfig};
use crate::sim::fault::{Down, Fault, NEWEST};
use crate::sim::random::Random;

pub(super) fn doubt(
    c: &SimConfig,
    t: u64,
    (shard, node, other): (usize, usize, usize),
    r: &mut Random,
    add: &mut dyn FnMut(u64, Fault),
) {
    let lasts = r.range(200, 1_200) * MS;
    let crash = |shard, r: &mut Random| Fault::CrashLeader {
        shard,
        how: Down::Power,
        down: r.range(5, 800) * MS,
    };
    match r.range(0, 6) {
        0 => add(t, crash(shard, r)),
        // Two at once: who inherits what is staged waits for the other's vote.
        1 => {
            add(t, crash(shard, r));
            let second = (shard + 1) % (c.shards + 1);
            add(t + r.range(0, 30) * MS, crash(second, r));
        }
        // A participant that says everything and hears nothing.
        2 | 3 => add(
            t,
            Fault::Cut {
                from: vec![node],
                to: vec![other],
                both: false,
                lasts,
            },
        ),
        4 => add(
            t,
            Fault::SlowLeader {
                shard,
                extra: r.range(20, 300) * MS,
                lasts,
            },
        ),
        _ => add(t, Fault::Transfer { shard, to: node }),
    }
}

/// Leaders lose what they had not synced, and so does who else could lead; the only
/// one who has it stays away. The next log is shorter, under the same leader perhaps,
/// and what the one who is away said of the old one comes, late, while the new one
/// grows past it.
pub(super) fn strays(
    c: &SimConfig,
    t: u64,
    node: usize,
    r: &mut Random,
    add: &mut dyn FnMut(u64, Fault),
) {
    let stall = r.range(60, 200) * MS;
    let others = || (0..c.nodes()).filter(|other| *other != node);
    for other in others() {
        let lasts = stall + 20 * MS;
        add(t, Fault::DiskStall { node: other, lasts });
    }
    let t = t + stall;
    for other in others() {
        let crash = Fault::Crash {
            node: other,
            how: Down::Power,
            down: r.range(2, 20) * MS,
        };
        add(t, crash);
    }
    let away = Fault::Crash {
        node,
        how: Down::Process,
        down: c.lease + r.range(300, 900) * MS,
    };
    add(t, away);
}

/// A split, often one more soon after, and a merge later, and often with something that goes wrong: just
/// before, in the middle of it, at the birth, or while what was born elects its first leader.
pub(super) fn splits(
    c: &SimConfig,
    t: u64,
    (shard, node): (usize, usize),
    r: &mut Random,
    add: &mut dyn FnMut(u64, Fault),
) {
    // Of those that were split off, too.
    let shard = shard + r.range(0, 4) as usize;
    let pick = r.range(0, 1 << 30);
    add(t, Fault::Split { shard, pick });
    // Before some a directory is hashed; no number is drawn for it.
    if !pick.is_multiple_of(3) {
        add(t, Fault::Hash { shard, pick });
    }
    if r.chance(300) {
        let shard = shard + r.range(0, 2) as usize;
        let pick = r.range(0, 1 << 30);
        add(t + r.range(0, 50) * MS, Fault::Split { shard, pick });
    }
    for _ in 0..r.range(0, 3) {
        mishap(c, t, (shard, node), r, add);
    }
    if r.chance(600) {
        // Soon, while the new shard is hardly born, or once all is calm.
        let shard = if r.chance(700) { NEWEST } else { shard };
        let at = t + r.range(0, 10) * r.range(1, 200) * MS;
        add(at, Fault::Merge { shard });
        if r.chance(300) {
            add(at + r.range(0, 1_500) * MS, Fault::Merge { shard: NEWEST });
        }
        for _ in 0..r.range(0, 3) {
            mishap(c, at, (shard, node), r, add);
        }
    }
}

/// What goes wrong around a split at `t`.
fn mishap(
    c: &SimConfig,
    t: u64,
    (shard, node): (usize, usize),
    r: &mut Random,
    add: &mut dyn FnMut(u64, Fault),
) {
    let at = t + r.range(0, 4 * c.far / MS + 40) * MS;
    let shard = if r.chance(400) { NEWEST } else { shard };
    let lasts = r.range(50, 1_500) * MS;
    let how = if r.chance(500) {
        Down::Power
    } else {
        Down::Process
    };
    let down = r.range(5, 800) * MS;
    let pick = r.range(0, 1 << 30);
    match r.range(0, 11) {
        0 | 1 => add(at, Fault::CrashLeader { shard, how, down }),
        2 => add(at, Fault::Crash { node, how, down }),
        3 => {
            let share = *r.pick(&[400, 700, 1_000]);
            let nodes = (0..c.nodes()).filter(|_| r.chance(share)).collect();
            add(at, Fault::CrashMany { nodes, how, down });
        }
        4 => {
            let (hears, with) = (r.chance(500), r.range(0, 2) as usize);
            add(
                at,
                Fault::CutLeader {
                    shard,
                    hears,
                    heard: false,
                    with,
                    lasts,
                },
            );
        }
        5 => add(at, Fault::Transfer { shard, to: node }),
        6 | 7 => {
            let calls = r.range(0, 12) as u32;
            add(
                at,
                Fault::EngineDies {
                    node,
                    calls,
                    how,
                    down,
                },
            );
        }
        8 => add(at, Fault::Members { shard, pick }),
        9 => {
            let before = t.saturating_sub(r.range(0, 60) * MS);
            add(before, Fault::Members { shard, pick });
        }
        _ => add(at, Fault::DiskStall { node, lasts }),
    }
}

/// A change, often of two shards that share transactions at the same moment, and
/// often with something that goes wrong in the middle of it.
pub(super) fn members(
    c: &SimConfig,
    t: u64,
    (shard, node): (usize, usize),
    r: &mut Random,
    add: &mut dyn FnMut(u64, Fault),
) {
    let pick = r.range(0, 1 << 30);
    add(t, Fault::Members { shard, pick });
    if r.chance(400) {
        let shard = (shard + 1) % (c.shards + 1);
        let pick = r.range(0, 1 << 30);
        add(t + r.range(0, 3) * MS, Fault::Members { shard, pick });
    }
    let at = t + r.range(0, 4 * c.far / MS + 10) * MS;
    let lasts = r.range(50, 1_500) * MS;
    match r.range(0, 8) {
        0 => add(
            at,
            Fault::CrashLeader {
                shard,
                how: Down::Power,
                down: lasts,
            },
        ),
        1 => add(
            at,
            Fault::CutLeader {
                shard,
                hears: r.chance(500),
                heard: r.chance(300),
                with: r.range(0, 2) as usize,
                lasts,
            },
        ),
        2 => add(
            at,
            Fault::Crash {
                node,
                how: Down::Process,
                down: lasts,
            },
        ),
        3 => add(at, Fault::Transfer { shard, to: node }),
        4 => add(
            at,
            Fault::CrashAtEffect {
                node,
                how: Down::Power,
                effects: r.range(0, 10) as u32,
                down: lasts,
            },
        ),
        _ => {}
    }
}

pub(super) fn storage(
    c: &SimConfig,
    t: u64,
    node: usize,
    r: &mut Random,
    add: &mut dyn FnMut(u64, Fault),
) {
    let power = |down| Fault::Crash {
        node,
        how: Down::Power,
        down,
    };
    match r.range(0, 8) {
        0..=1 => add(t, power(r.range(2, 100) * MS)),
        // Again, before what the first one left is written over.
        2..=4 => {
            let down = r.range(1, 5) * MS;
            add(t, power(down));
            let mut again = t + down;
            for _ in 0..r.range(1, 4) {
                again += r.range(1, 40) * MS;
                add(
                    again,
                    Fault::CrashAtEffect {
                        node,
                        how: if r.chance(500) {
                            Down::Process
                        } else {
                            Down::Power
                        },
                        effects: r.range(0, 10) as u32,
                        down,
                    },
                );
            }
        }
        5 => add(
            t,
            Fault::CrashMany {
                nodes: (0..c.nodes()).collect(),
                how: Down::Power,
                down: r.range(2, 100) * MS,
            },
        ),
        _ => add(
            t,
            Fault::DiskStall {
                node,
                lasts: r.range(50, 1_200) * MS,
            },
        ),
    }
}
