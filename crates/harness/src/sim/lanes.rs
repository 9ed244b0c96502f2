//! The simulated lanes behind a node's machine: queues instead of threads and
//! sockets, the real log over a disk in memory, the real engine lane.

use super::clock::Clock;
use super::dying::Dying;
use super::random::Random;
use std::collections::VecDeque;
use std::time::Duration;
use synod_kv::Staging;
use synod_kv::engine::{Engine, MemoryEngine, Recent};
use synod_kv::lane::{EngineEvent, EngineLane, EngineWork};
use synod_kv::log::{Log, LogError, LogRecord, MemoryDisk, TicketedLog};
use synod_kv::machine::{Channel, Lanes};
use synod_paxos::{Mono, NodeId};
use synod_shard::{NodeMessage, Now, ShardReply};
use synod_txn::Caller;

/// Submissions merged into one sync, at most; as in the log's thread.
const MAX_GROUP: usize = 4 << 10;
/// Memory for versions read lately: so little that it is full most of the time.
const RECENT_BYTES: usize = 16 << 10;

/// What leaves the node in one turn.
#[derive(Default)]
pub(super) struct Out {
    pub(super) sent: Vec<(NodeId, Vec<NodeMessage>)>,
    pub(super) replies: Vec<(Caller, ShardReply)>,
}

enum LogWork {
    Append(Vec<LogRecord>, u64),
    Trim(u64),
}

/// The lanes of one life of a node.
pub(super) struct SimLanes {
    now: Now,
    pub(super) out: Out,
    /// Effects that are still carried out; then the node dies in mid-turn.
    pub(super) fuse: Option<u32>,
    log: TicketedLog<MemoryDisk>,
    log_queue: VecDeque<LogWork>,
    /// The highest ticket that the sync under way covers, and since when.
    syncing: Option<(u64, Mono)>,
    trims: u64,
    /// What was read lately, in front of an engine that may die in mid-work.
    engine: Recent<Dying>,
    engine_lane: EngineLane,
    engine_queue: VecDeque<EngineWork>,
    /// What the engine's lane reported while the loop was reading.
    pub(super) engine_events: Vec<EngineEvent>,
    random: Random,
}

impl SimLanes {
    pub(super) fn new(
        log: Log<MemoryDisk>,
        engine: MemoryEngine,
        now: Now,
        mut random: Random,
    ) -> SimLanes {
        let engine = Recent::new(Dying::new(engine), RECENT_BYTES, random.next());
        SimLanes {
            now,
            out: Out::default(),
            fuse: None,
            log: TicketedLog::new(log),
            log_queue: VecDeque::new(),
            syncing: None,
            trims: 0,
            engine,
            engine_lane: EngineLane::new(Staging::Memory),
            engine_queue: VecDeque::new(),
            engine_events: Vec::new(),
            random,
        }
    }

    /// The clocks that the next turn reads.
    pub(super) fn set_now(&mut self, clock: &Clock, t: u64) {
        self.now = clock.now(t);
    }

    /// Whether this effect still happens.
    fn burns(&mut self) -> bool {
        match &mut self.fuse {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    pub(super) fn is_burnt(&self) -> bool {
        self.fuse == Some(0) || self.is_engine_dead()
    }

    pub(super) fn is_engine_dead(&self) -> bool {
        self.engine.engine().is_dead()
    }

    /// The engine dies after so many more changes, and the node with it.
    pub(super) fn set_engine_fuse(&mut self, calls: u32) {
        self.engine.engine().dies_after(calls);
    }

    /// It does not, after all.
    pub(super) fn mend_engine(&mut self) {
        self.engine.engine().lives();
    }

    /// Begins the next sync if there is something to sync and none under way:
    /// writes everything that waits. Returns whether one began.
    pub(super) fn begin_sync(&mut self) -> Result<bool, LogError> {
        if self.syncing.is_some() || self.log_queue.is_empty() {
            return Ok(false);
        }
        let mut highest = None;
        for work in self.log_queue.drain(..self.log_queue.len().min(MAX_GROUP)) {
            match work {
                LogWork::Append(records, ticket) => {
                    if !records.is_empty() {
                        self.log.append(&records, ticket)?;
                    }
                    highest = Some(ticket);
                }
                LogWork::Trim(ticket) => {
                    self.log.trim_before(ticket);
                    self.trims -= 1;
                }
            }
        }
        self.log.write()?;
        self.syncing = Some((highest.unwrap_or(0), self.now.mono));
        Ok(true)
    }

    /// The sync under way has come to its end; returns the ticket it covered.
    pub(super) fn end_sync(&mut self) -> Result<Option<u64>, LogError> {
        let Some((ticket, _)) = self.syncing.take() else {
            return Ok(None);
        };
        self.log.sync()?;
        Ok((ticket > 0).then_some(ticket))
    }

    pub(super) fn has_engine_work(&self) -> bool {
        !self.engine_queue.is_empty() || self.engine_lane.is_syncing()
    }

    /// Does the oldest piece of engine work, or the oldest few; if there is none, looks after a
    /// checkpoint that is being made durable.
    pub(super) fn engine_work(&mut self) {
        let events = match self.engine_queue.pop_front() {
            Some(work) => self.work(work),
            None => self.engine_lane.poll(&self.engine),
        };
        if !self.is_engine_dead() {
            self.engine_events.extend(events);
        }
    }

    fn work(&mut self, mut work: EngineWork) -> Vec<EngineEvent> {
        while let Some(next) = self.engine_queue.pop_front() {
            if let Some(next) = work.absorb(next) {
                self.engine_queue.push_front(next);
                break;
            }
        }
        self.engine_lane.work(&self.engine, work)
    }
}

impl Lanes for SimLanes {
    fn now(&mut self) -> Now {
        self.now
    }

    fn submit_log(&mut self, records: Vec<LogRecord>, number: u64) {
        if self.burns() {
            self.log_queue.push_back(LogWork::Append(records, number));
        }
    }

    fn trim_log(&mut self, number: u64) {
        if self.burns() {
            self.trims += 1;
            self.log_queue.push_back(LogWork::Trim(number));
        }
    }

    fn log_bytes(&self) -> u64 {
        if self.trims > 0 {
            0
        } else {
            self.log.log().bytes()
        }
    }

    fn log_waits(&self) -> Option<Duration> {
        let (_, since) = self.syncing?;
        Some(Duration::from_nanos(self.now.mono.since(since)))
    }

    fn engine(&mut self) -> &dyn Engine {
        // The engine's lane goes on while the loop reads.
        while !self.engine_queue.is_empty() && !self.is_engine_dead() && self.random.chance(250) {
            self.engine_work();
        }
        &self.engine
    }

    fn submit_engine(&mut self, work: EngineWork) {
        if self.burns() {
            self.engine_queue.push_back(work);
        }
    }

    fn send(&mut self, to: NodeId, _: Channel, messages: Vec<NodeMessage>) {
        if self.burns() {
            self.out.sent.push((to, messages));
        }
    }

    fn reply(&mut self, to: Caller, reply: ShardReply) {
        if self.burns() {
            self.out.replies.push((to, reply));
        }
    }
}
