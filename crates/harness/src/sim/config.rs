//! What one seed makes of a run.

use super::random::Random;

const MS: u64 = 1_000_000;

/// A run's sizes, timings and faults; times in nanoseconds, chances in 1/1000.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The seed everything comes from.
    pub seed: u64,
    /// Nodes, one data centre each.
    pub nodes: usize,
    /// User shards besides the meta shard.
    pub shards: usize,
    /// Clients, each with one transaction at a time.
    pub clients: usize,
    /// Lists the clients append to.
    pub keys: u64,
    /// How long faults and new transactions go on.
    pub active: u64,
    /// How long everything may take to come to rest afterwards.
    pub quiet: u64,
    /// One-way latency between nodes, at most.
    pub latency: u64,
    /// Frames lost.
    pub loss: u64,
    /// Frames delivered twice.
    pub duplication: u64,
    /// A sync takes this long at most.
    pub sync: u64,
    /// Mean time between crashes of a node; 0 = never.
    pub crash_every: u64,
    /// Mean time between cuts of the network; 0 = never.
    pub cut_every: u64,
    /// Mean time between pauses of a node; 0 = never.
    pub pause_every: u64,
    /// Wall clocks are off by this much at most, either way.
    pub clock_offset: u64,
    /// Mean time between checkpoints of a node's engine; 0 = never.
    pub checkpoint_every: u64,
    /// Lease length.
    pub lease: u64,
}

impl SimConfig {
    /// Derives a run from its seed: small, fast-changing, with faults mixed at random.
    #[must_use]
    pub fn from_seed(seed: u64) -> SimConfig {
        let mut random = Random::new(seed ^ 0x5eed);
        let sometimes = |random: &mut Random, low: u64, high: u64| {
            if random.chance(600) {
                random.range(low, high)
            } else {
                0
            }
        };
        SimConfig {
            seed,
            nodes: if random.chance(800) { 3 } else { 5 },
            shards: random.range(1, 5) as usize,
            clients: random.range(2, 9) as usize,
            keys: random.range(2, 9),
            active: random.range(4_000, 10_000) * MS,
            quiet: 60_000 * MS,
            latency: random.range(1, 12) * MS,
            loss: sometimes(&mut random, 1, 60),
            duplication: sometimes(&mut random, 1, 60),
            sync: random.range(1, 8) * MS,
            crash_every: sometimes(&mut random, 700, 4_000) * MS,
            cut_every: sometimes(&mut random, 500, 4_000) * MS,
            pause_every: sometimes(&mut random, 500, 4_000) * MS,
            clock_offset: sometimes(&mut random, 1, 400) * MS,
            checkpoint_every: sometimes(&mut random, 200, 2_000) * MS,
            lease: random.range(150, 700) * MS,
        }
    }
}
