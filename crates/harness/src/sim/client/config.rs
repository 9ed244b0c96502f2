//! What the clients of one run do, and how patient they are.

use super::keys::Keyspace;
use super::table::Table;
use crate::sim::random::Random;
use std::sync::Arc;
use synod_shard::ShardMap;

const MS: u64 = 1_000_000;
/// Transactions that a crowd of clients runs each time it comes, about.
const CROWD: u64 = 300;

/// How often each workload is chosen, relative to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) struct Weights {
    /// Appends to lists, and reads of them.
    pub(in crate::sim) list: u64,
    /// Registers with unique values.
    pub(in crate::sim) register: u64,
    /// The one register that everybody wants.
    pub(in crate::sim) hot: u64,
    /// Transfers between accounts.
    pub(in crate::sim) bank: u64,
    /// Swaps of links in a ring.
    pub(in crate::sim) ring: u64,
    /// Counters whose increments leave markers.
    pub(in crate::sim) once: u64,
}

/// The clients of one run; times in nanoseconds, chances in 1/1000.
#[derive(Clone, Debug)]
pub(in crate::sim) struct ClientConfig {
    /// What is run how often.
    pub(in crate::sim) weights: Weights,
    /// Lists, spread over the shards.
    pub(in crate::sim) lists: u32,
    /// A list this long is left for a fresh one: no list grows without bound.
    pub(in crate::sim) longest_list: usize,
    /// Registers, the hot one included.
    pub(in crate::sim) registers: u32,
    /// Accounts; the first two are hot.
    pub(in crate::sim) accounts: u32,
    /// Links of the ring.
    pub(in crate::sim) links: u32,
    /// Counters.
    pub(in crate::sim) counters: u32,
    /// Pause between two transactions, at least.
    pub(in crate::sim) think_least: u64,
    /// Pause between two transactions, at most.
    pub(in crate::sim) think_most: u64,
    /// Where clients come in crowds: transactions after which the next one follows
    /// like anywhere else.
    pub(in crate::sim) series: u64,
    /// A transaction's deadline.
    pub(in crate::sim) deadline: u64,
    /// Transactions whose deadline is a tenth to a hundredth of that.
    pub(in crate::sim) hurried: u64,
    /// The final reads' deadline; and how long after `stop` they may be tried again.
    pub(in crate::sim) last_deadline: u64,
    /// One in so many clients reads everything at the end, the others only their own.
    pub(in crate::sim) thorough_every: u32,
    /// A silent leader is left alone so long; then the others are asked who leads.
    pub(in crate::sim) probe_after: u64,
    /// After a round over all replicas that found no leader the next one waits so
    /// long, twice as long after each further one.
    pub(in crate::sim) round_pause: u64,
    /// But not longer than this.
    pub(in crate::sim) longest_pause: u64,
    /// A request waits so long for its answer before it goes elsewhere.
    pub(in crate::sim) attempt_timeout: u64,
    /// Whether a third of the clients only reads, without locks, and has patience.
    pub(in crate::sim) readers: bool,
    /// Whether they take requests back that they no longer wait for.
    pub(in crate::sim) withdraws: bool,
    /// A transaction wounded more often than this starves: a finding.
    pub(in crate::sim) most_wounds: u32,
}

impl ClientConfig {
    /// Derives the clients' part of a run from its seed. `latency` is the
    /// longest one-way latency of the network, in nanoseconds.
    /// `clients` of them share the keys, and leaders are gone for about `outage`.
    pub(in crate::sim) fn from_seed(
        seed: u64,
        latency: u64,
        clients: usize,
        outage: u64,
    ) -> ClientConfig {
        let mut random = Random::new(seed ^ 0xc11e_0175);
        let weight = |random: &mut Random, most: u64| {
            // Now and then a workload is left out, so that others have the cluster.
            if random.chance(850) {
                random.range(most / 4, most + 1)
            } else {
                0
            }
        };
        let weights = Weights {
            list: weight(&mut random, 40).max(1),
            register: weight(&mut random, 40),
            hot: weight(&mut random, 6),
            bank: weight(&mut random, 20),
            ring: weight(&mut random, 10),
            once: weight(&mut random, 20),
        };
        // Many clients mostly have keys enough, so that they do not only wait.
        let many = clients > 10;
        let room = if many && random.chance(800) { 3 } else { 1 };
        let clients = clients as u64;
        ClientConfig {
            weights,
            lists: random.range(2, 33) as u32 * room,
            longest_list: random.range(4, 40) as usize,
            registers: random.range(3, 60) as u32 * room,
            accounts: random.range(3, 24) as u32,
            links: random.range(4, 16) as u32,
            counters: random.range(1, 8) as u32 * room,
            think_least: 0,
            think_most: if random.chance(500) {
                random.range(0, 3) * MS
            } else {
                random.range(0, 20) * MS
            },
            series: 1_000 - 1_000 / (CROWD / clients.max(1)).clamp(2, 12),
            deadline: random.range(3_000, 8_000) * MS,
            hurried: if random.chance(500) { 20 } else { 0 },
            last_deadline: 30_000 * MS,
            thorough_every: (clients / 8).max(1) as u32,
            probe_after: if many { 300 * MS } else { 100 * MS } + 3 * latency,
            // Many clients without a leader ask more than they do anything else.
            round_pause: MS * (clients / 5).clamp(2, 32),
            longest_pause: if many {
                (outage / 4).clamp(50 * MS, 400 * MS)
            } else {
                50 * MS
            },
            attempt_timeout: 300 * MS + 10 * latency,
            readers: false,
            withdraws: false,
            most_wounds: 100,
        }
    }

    /// Everybody wants the same few keys, in several shards at once.
    pub(in crate::sim) fn crowd(&mut self) {
        self.lists = self.lists.min(6);
        self.registers = self.registers.min(6);
        self.accounts = self.accounts.min(4);
        self.links = self.links.min(5);
        self.weights.hot = self.weights.hot.max(10);
        self.weights.bank = self.weights.bank.max(20);
    }
}

/// What all clients of a run share: their settings, and the keys they use.
#[derive(Debug)]
pub(in crate::sim) struct Workload {
    pub(super) config: ClientConfig,
    pub(super) keys: Keyspace,
    /// What a new process knows of the cluster.
    pub(super) table: Table,
}

impl Workload {
    /// Lays the workloads' keys out over the map's shards.
    pub(in crate::sim) fn new(map: &ShardMap, config: ClientConfig) -> Arc<Workload> {
        let keys = Keyspace::new(map, &config);
        let table = Table::new(map);
        Arc::new(Workload {
            config,
            keys,
            table,
        })
    }
}
