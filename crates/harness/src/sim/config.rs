//! What one seed makes of a run: sizes, timings, network, limits.

use super::random::Random;
use serde::{Deserialize, Serialize};
use synod_paxos::ClusterVersion;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;

/// A stretch of the run with one pace. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// It ends at this time since the run's start.
    pub until: u64,
    /// A client's pause between transactions, at most; none = as its workload has it.
    pub think: Option<u64>,
    /// Mean time between two faults; 0 = none.
    pub fault_every: u64,
}

/// A run's sizes, timings and chances; times in nanoseconds, chances in 1/1000.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SimConfig {
    /// The seed everything comes from.
    pub seed: u64,
    /// Data centres.
    pub sites: usize,
    /// Racks in each.
    pub racks: usize,
    /// Nodes in each rack.
    pub nodes_per_rack: usize,
    /// Voters of each shard.
    pub replicas: usize,
    /// User shards besides the meta shard.
    pub shards: usize,
    /// Clients, spread over the sites; each runs one transaction at a time.
    pub clients: usize,
    /// Busy and idle stretches. With the last one the faults end.
    pub phases: Vec<Phase>,
    /// How long everything may take to come to rest afterwards.
    pub quiet: u64,
    /// One-way latency within a site, at most.
    pub near: u64,
    /// One-way latency between two sites, at most.
    pub far: u64,
    /// Frames lost while there are faults.
    pub loss: u64,
    /// Frames lost afterwards.
    pub quiet_loss: u64,
    /// Frames delivered twice.
    pub duplication: u64,
    /// Whether frames between two nodes overtake each other.
    pub reordering: bool,
    /// A sync takes this long at most.
    pub sync: u64,
    /// A turn of a node's loop takes this long at most.
    pub turn: u64,
    /// A piece of engine work takes this long at most.
    pub engine: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// The log is trimmed once it holds so many bytes.
    pub trim_bytes: u64,
    /// Wall clocks are off by this much at most, either way.
    pub clock_offset: u64,
    /// Clocks run wrong by this much at most, either way; parts per million.
    pub clock_rate: u64,
    /// How long nodes support each other.
    pub lease: u64,
    /// An election starts this long after the leader was missed.
    pub election: u64,
    /// An unresolved intent asks its coordinator to end it after this.
    pub staged_timeout: u64,
    /// A session ends this long after its client's last sign.
    pub session: u64,
    /// Records are kept this long.
    pub window: u64,
    /// Attempts that ended in a term without an entry, remembered at most.
    pub ended: usize,
    /// Bytes of one entry, at most.
    pub entry_bytes: usize,
    /// Bytes on the way to one follower, at most.
    pub window_bytes: usize,
    /// Bytes of entries in one message, at most.
    pub message_bytes: usize,
    /// Undecided bytes beyond which a leader admits nothing new.
    pub undecided_bytes: usize,
    /// How much later the second copy of a frame may come.
    pub late: u64,
    /// Requests that come up to one and a half seconds late.
    pub tardy: u64,
    /// A sync that takes longer than this is a stall.
    pub stall: u64,
    /// The first pause before something is repeated between shards.
    pub retry: u64,
    /// Whether some clients only read, without locks, and stay with whom they know.
    pub readers: bool,
    /// Whether clients tell nodes of requests that they no longer wait for.
    pub withdraws: bool,
    /// The cluster version that the run begins with; an older one is raised on the way.
    pub begins_at: ClusterVersion,
    /// Whether all clients want the same few keys.
    pub hot: bool,
    /// What the run pulls into one direction.
    pub themes: Vec<super::theme::Theme>,
    /// Faults beyond the promises that this run may see.
    pub beyond: Vec<super::model::Beyond>,
    /// How likely each kind of fault is, by [`super::fault::Kind`].
    pub weights: Vec<u64>,
}

impl SimConfig {
    /// Derives a run from its seed: small, fast-changing, with faults mixed at
    /// random, and perhaps a theme.
    #[must_use]
    pub fn from_seed(seed: u64) -> SimConfig {
        let mut config = SimConfig::plain(seed);
        super::theme::draw(&mut config);
        // A theme may have added nodes.
        config.lease = config
            .lease
            .max(least_lease(&config.phases, config.nodes()));
        // By itself, so that other seeds stay as they are.
        if Random::new(seed ^ 0x01de_c1a5).chance(OLDER) {
            config.begins_at = ClusterVersion::OLDEST;
        }
        config.withdraws = Random::new(seed ^ WITHDRAWALS).chance(500);
        config
    }

    /// The same without a theme, and within the promises.
    #[must_use]
    pub(super) fn plain(seed: u64) -> SimConfig {
        let mut random = Random::new(seed ^ 0x5eed);
        let r = &mut random;
        let sites = *r.pick(&[1, 3, 3, 3, 4, 5]);
        let (racks, nodes_per_rack) = match sites {
            1 => (3, 1),
            3 => *r.pick(&[(1, 1), (1, 1), (1, 1), (2, 1), (1, 2)]),
            _ => (1, 1),
        };
        let nodes = sites * racks * nodes_per_rack;
        let replicas = if nodes >= 5 && r.chance(400) { 5 } else { 3 };
        let near = r.range(MS / 5, 2 * MS);
        let far = match r.range(0, 3) {
            0 => r.range(10 * MS, 40 * MS),
            _ => r.range(MS, 10 * MS),
        };
        let phases = phases(r);
        // Idle stretches are all lease traffic: not more of it where they are long
        // and between many nodes.
        let lease = if phases.len() > 1 {
            r.range(400, 4_000) * MS
        } else {
            r.range(150, 700) * MS
        };
        let lease = lease.max(least_lease(&phases, nodes)).max(8 * far);
        // Where it is idle for long many clients mostly ask each other's questions.
        let clients = if phases.len() > 1 {
            *r.pick(&[4, 10, 30, 60])
        } else {
            *r.pick(&[4, 10, 30, 60, 120, 200])
        };
        // Under load a turn takes many inputs.
        let least_turn = match clients {
            60.. => 1_500,
            10.. => 800,
            _ => 50,
        };
        SimConfig {
            seed,
            sites,
            racks,
            nodes_per_rack,
            replicas,
            shards: r.range(1, 6) as usize,
            clients,
            phases,
            quiet: 120 * SECOND,
            near,
            far,
            loss: sometimes(r, 1, 60),
            quiet_loss: if r.chance(200) { r.range(1, 20) } else { 0 },
            duplication: sometimes(r, 1, 60),
            reordering: r.chance(500),
            sync: if r.chance(200) {
                r.range(20, 120) * MS
            } else {
                r.range(1, 8) * MS
            },
            turn: r.range(least_turn, 3_000) * 1_000,
            engine: if r.chance(200) {
                r.range(50, 600) * MS
            } else {
                r.range(1, 20) * MS
            },
            segment_bytes: *r.pick(&[16 << 10, 32 << 10, 64 << 10, 256 << 10]),
            trim_bytes: *r.pick(&[64 << 10, 200 << 10, 1 << 20, 4 << 20]),
            clock_offset: sometimes(r, 1, 400) * MS,
            clock_rate: r.range(0, 480),
            lease,
            election: r.range(20, 100) * MS + 2 * far,
            staged_timeout: r.range(200, 1_000) * MS + 4 * far,
            session: r.range(1_200, 4_000) * MS,
            window: r.range(300, 20_000) * MS,
            ended: *r.pick(&[4, 20, 200]),
            entry_bytes: *r.pick(&[8 << 20, 64 << 10, 4 << 10]),
            window_bytes: *r.pick(&[16 << 20, 32 << 10, 4 << 10]),
            message_bytes: *r.pick(&[1 << 20, 1 << 20, 4 << 10, 150]),
            undecided_bytes: *r.pick(&[64 << 20, 64 << 20, 64 << 10, 3 << 10]),
            late: 0,
            tardy: 0,
            stall: SECOND,
            retry: 100 * MS,
            readers: false,
            withdraws: false,
            begins_at: ClusterVersion::NEWEST,
            hot: false,
            themes: Vec::new(),
            beyond: Vec::new(),
            weights: weights(r),
        }
    }

    /// Nodes in all.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.sites * self.racks * self.nodes_per_rack
    }

    /// The site of a node, counted from 0.
    #[must_use]
    pub fn site_of(&self, node: usize) -> usize {
        node / (self.racks * self.nodes_per_rack)
    }

    /// The site of a client, counted from 0.
    #[must_use]
    pub fn site_of_client(&self, client: usize) -> usize {
        client % self.sites
    }

    /// The rack of a node, counted over all sites.
    #[must_use]
    pub fn rack_of(&self, node: usize) -> usize {
        node / self.nodes_per_rack
    }

    /// When the faults end.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.phases.last().map_or(0, |p| p.until)
    }

    /// The phase at time `t`.
    #[must_use]
    pub fn phase(&self, t: u64) -> Option<&Phase> {
        self.phases.iter().find(|p| t < p.until)
    }
}

/// Makes of a seed that of all chance about requests that are taken back.
pub(super) const WITHDRAWALS: u64 = 0x0ca9_ce15;
/// Runs that begin with the oldest cluster version.
const OLDER: u64 = 120;

fn sometimes(random: &mut Random, low: u64, high: u64) -> u64 {
    if random.chance(600) {
        random.range(low, high)
    } else {
        0
    }
}

/// Renewals of leases between all pairs of nodes in an idle stretch, about, at most:
/// there are four of each pair in the time of a lease.
const MOST_RENEWALS: u64 = 16_000;

/// The shortest lease that keeps to that.
fn least_lease(phases: &[Phase], nodes: usize) -> u64 {
    let pairs = (nodes * (nodes - 1)) as u64;
    let idle = phases.windows(2).map(|pair| (pair[0].until, &pair[1]));
    let idle = idle.filter(|(_, phase)| phase.think.is_some());
    let idle: u64 = idle.map(|(begin, phase)| phase.until - begin).sum();
    4 * idle * pairs / MOST_RENEWALS
}

/// Runs in a thousand that are idle for long. Each costs as much as ten others, most of it
/// for what goes on without any transaction.
const IDLE: u64 = 200;

/// Short and busy; now and then with hours' worth of quiet between.
fn phases(r: &mut Random) -> Vec<Phase> {
    let mut until = 0;
    let mut phases = Vec::new();
    let mut add = |length: u64, think, fault_every| {
        until += length;
        phases.push(Phase {
            until,
            think,
            fault_every,
        });
    };
    let calm = r.chance(100);
    let every = if calm { 0 } else { r.range(100, 1_500) * MS };
    if r.chance(IDLE) {
        add(r.range(2_000, 7_000) * MS, None, every);
        let pause = r.range(300, 2_600) * SECOND;
        add(
            pause,
            Some(pause / r.range(8, 40)),
            r.range(10, 120) * SECOND,
        );
        add(r.range(1_000, 4_000) * MS, None, every);
    } else {
        add(r.range(4_000, 20_000) * MS, None, every);
    }
    phases
}

/// Each run prefers some kinds of faults and has none of others.
fn weights(r: &mut Random) -> Vec<u64> {
    let mut weights: Vec<u64> = super::fault::Kind::alone()
        .map(|_| if r.chance(500) { r.range(1, 10) } else { 0 })
        .collect();
    let some = r.range(0, weights.len() as u64) as usize;
    weights[some] += 5;
    // The others come only as parts of gambits.
    weights.resize(super::fault::Kind::ALL.len(), 0);
    weights
}
