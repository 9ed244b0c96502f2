//! A simulated node: the real machine over simulated lanes, and what outlives
//! its process: disk, engine, clock.

use super::clock::Clock;
use super::config::SimConfig;
use super::lanes::SimLanes;
use super::random::Random;
use super::topology::CLUSTER;
use crate::rules::Stored;
use std::time::Duration;
use synod_kv::engine::{Engine, MemoryEngine};
use synod_kv::lane::EngineEvent;
use synod_kv::log::{LogError, LogOptions, MemoryDisk};
use synod_kv::machine::{
    Assembly, Machine, MachineSettings, assemble, first_records, replay, seed_meta,
};
use synod_paxos::lease::LeaseSettings;
use synod_paxos::{GroupId, Incarnation, NodeId, Timestamp, VersionRange};
use synod_shard::{Bootstrap, Input, Worker};
use synod_txn::{GroupSettings, Key};

/// What waits for the next turn.
#[allow(clippy::large_enum_variant)] // Nearly all are inputs.
pub(super) enum Inbound {
    Input(Input),
    Synced(u64),
    Engine(EngineEvent),
}

/// A running process.
pub(super) struct Process {
    pub(super) machine: Machine,
    pub(super) lanes: SimLanes,
    pub(super) inbox: Vec<Inbound>,
}

/// Why a node is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// It will be started again.
    Down,
    /// It refuses to start, as it must: its log is damaged or gone.
    Lost(String),
}

/// Why a start came to nothing.
pub(super) enum NotStarted {
    /// The disk is full or fails; it is tried again.
    Disk(String),
    /// It must not be.
    Wrong(String),
}

/// A node.
pub(super) struct SimNode {
    pub(super) id: NodeId,
    pub(super) process: Option<Process>,
    pub(super) absence: Absence,
    pub(super) clock: Clock,
    pub(super) disk: MemoryDisk,
    engine: MemoryEngine,
    incarnation: u64,
    /// Events of an earlier life are dropped by this number.
    pub(super) life: u64,
    pub(super) busy_until: u64,
    pub(super) paused_until: u64,
    pub(super) slow: u64,
    /// Until then no sync returns.
    pub(super) stalled_until: u64,
    pub(super) engine_busy: bool,
    /// Whether the log's disk stalls, as of the last turn.
    pub(super) stalls: bool,
    /// A fault makes this node's storage fail, so it may end by itself.
    pub(super) storage_faults: bool,
    /// What was synced on its disk was damaged, so it may refuse to start.
    pub(super) damaged: bool,
    /// How it dies when its fuse has burnt down.
    pub(super) burns_with_power: bool,
}

impl SimNode {
    /// A new node, whose directory holds what `synod init` left there.
    pub(super) fn new(
        id: NodeId,
        bootstrap: &Bootstrap,
        config: &SimConfig,
        random: &mut Random,
    ) -> Result<SimNode, String> {
        let within =
            |random: &mut Random, most: u64| random.range(0, 2 * most + 1) as i64 - most as i64;
        let offset = within(random, config.clock_offset);
        let rate = within(random, config.clock_rate);
        let node = SimNode {
            id,
            process: None,
            absence: Absence::Down,
            clock: Clock::new(offset, rate),
            disk: MemoryDisk::new(),
            engine: MemoryEngine::new(),
            incarnation: 0,
            life: 0,
            busy_until: 0,
            paused_until: 0,
            slow: 1,
            stalled_until: 0,
            engine_busy: false,
            stalls: false,
            storage_faults: false,
            damaged: false,
            burns_with_power: false,
        };
        let options = options(config, random);
        let text = |error: LogError| error.to_string();
        let opened = replay(node.disk.clone(), options, CLUSTER, None, id);
        let (mut log, _) = opened.map_err(text)?;
        log.append(&first_records(bootstrap, id)).map_err(text)?;
        log.sync().map_err(text)?;
        seed_meta(&node.engine, bootstrap).map_err(|error| error.to_string())?;
        Ok(node)
    }

    pub(super) fn worker(&self) -> Option<&Worker> {
        self.process.as_ref()?.machine.worker()
    }

    /// Whether it has died in the middle of a turn and is about to be taken down.
    pub(super) fn is_dying(&self) -> bool {
        self.process.as_ref().is_some_and(|p| p.lanes.is_burnt())
    }

    /// A start of the process. A log that refuses makes the node lost.
    pub(super) fn start(
        &mut self,
        t: u64,
        bootstrap: &Bootstrap,
        config: &SimConfig,
        random: &mut Random,
    ) -> Result<(), NotStarted> {
        self.incarnation += 1;
        self.life += 1;
        let options = options(config, random);
        let opened = replay(
            self.disk.clone(),
            options,
            CLUSTER,
            Some(bootstrap),
            self.id,
        );
        let (log, replayed) = match opened {
            Ok(opened) => opened,
            Err(error @ LogError::Io { .. }) => {
                // The disk is full or failing: the process ends and is started again.
                self.disk.kill();
                self.absence = Absence::Down;
                return Err(NotStarted::Disk(error.to_string()));
            }
            Err(error) => {
                self.absence = Absence::Lost(error.to_string());
                return Ok(());
            }
        };
        if log.has_rest().is_ok_and(|rest| rest) {
            return Err(NotStarted::Wrong(format!(
                "{} opened its log, and whole batches lie behind its end",
                self.id
            )));
        }
        let assembly = Assembly {
            me: self.id,
            incarnation: Incarnation(self.incarnation),
            bootstrap,
            nodes: Vec::new(),
            raised: bootstrap.version,
            supports: VersionRange::OWN,
            paxos: paxos(config),
            lease: lease(config),
            txn: txn(config),
            seed: config.seed ^ self.id.0 << 32 ^ self.incarnation,
        };
        let now = self.clock.now(t);
        let worker = assemble(assembly, replayed, &self.engine, now)
            .map_err(|error| NotStarted::Wrong(format!("{} cannot start: {error}", self.id)))?;
        let settings = MachineSettings {
            log_trim_bytes: config.trim_bytes,
            stall: Duration::from_nanos(config.stall),
            // So few that most checkpoints take several turns.
            attempts_per_turn: 4,
            trims_per_turn: 16,
        };
        self.process = Some(Process {
            machine: Machine::new(Some(worker), settings),
            lanes: SimLanes::new(log, self.engine.clone(), now, random.fork()),
            inbox: Vec::new(),
        });
        self.busy_until = t;
        self.engine_busy = false;
        self.stalls = false;
        Ok(())
    }

    /// The process is gone. With the power, unsynced writes are lost or torn.
    pub(super) fn stop(&mut self, power: bool, random: &mut Random) {
        self.process = None;
        self.life += 1;
        self.engine_busy = false;
        if power {
            self.disk.crash(random.next());
            let kept = random.range(0, self.engine.unsynced() as u64 + 1);
            self.engine.lose_unsynced(kept as usize);
        } else {
            self.disk.kill();
        }
    }

    /// The engine's files are gone.
    pub(super) fn lose_engine(&mut self) {
        self.engine = MemoryEngine::new();
    }

    /// All files are gone.
    pub(super) fn wipe(&mut self) {
        self.engine = MemoryEngine::new();
        self.disk = MemoryDisk::new();
        self.damaged = true;
    }

    /// Bits of the log flip, save in what was written last: damage there looks
    /// like a write that a power cut interrupted.
    pub(super) fn flip_bits(&mut self, bits: u64, random: &mut Random) {
        let files = self.disk.files();
        self.damaged = true;
        for _ in 0..bits {
            let (name, bytes) = random.pick(&files).clone();
            let offset = random.range(0, bytes as u64) as usize;
            let mask = 1 << random.range(0, 8);
            if !self.disk.is_last_write(&name, offset) {
                self.disk.damage(&name, offset, mask);
            }
        }
    }
}

impl Stored for SimNode {
    fn newest(&self, key: &Key, at: Timestamp) -> Option<Timestamp> {
        let found = self.engine.get(key, at).ok()?;
        found.map(|version| version.timestamp)
    }

    fn is_installing(&self, group: GroupId) -> bool {
        matches!(self.engine.installing(group), Ok(Some(_)))
    }
}

fn options(config: &SimConfig, random: &mut Random) -> LogOptions {
    LogOptions {
        segment_bytes: config.segment_bytes,
        spares: 2,
        salt: random.next(),
    }
}

pub(super) fn lease(config: &SimConfig) -> LeaseSettings {
    LeaseSettings::of_lease(config.lease)
}

pub(super) fn txn(config: &SimConfig) -> GroupSettings {
    GroupSettings {
        session_nanos: config.session,
        idle_nanos: config.session,
        staged_timeout_nanos: config.staged_timeout,
        retry_nanos: config.retry,
        window_millis: config.window / 1_000_000,
        least_window_millis: config.window / 4_000_000,
        enough: config.ended,
        ended: config.ended,
        // Where little is remembered little waits.
        queued_bytes: config.ended * 50,
        waiting_bytes: config.ended * 50,
        entry_bytes: config.entry_bytes,
        ..GroupSettings::default()
    }
}

fn paxos(config: &SimConfig) -> synod_paxos::Settings {
    synod_paxos::Settings {
        election_nanos: config.election,
        retry_nanos: (4 * config.far).max(synod_paxos::Settings::default().retry_nanos),
        window_bytes: config.window_bytes,
        message_bytes: config.message_bytes,
        undecided_bytes: config.undecided_bytes,
        // Of what is meant to be little, so little that a copy on its way is long enough.
        unfilled_bytes: (config.undecided_bytes / 8).max(500),
        entry_bytes: config.entry_bytes + (64 << 10),
        ..synod_paxos::Settings::default()
    }
}
