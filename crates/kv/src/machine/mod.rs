//! The node without its threads and sockets: the loop's body over ring 0, and
//! what goes with it (checkpoints, log trims, the watch over the disk).
//!
//! The machine hands its work to [`Lanes`]: the real ones are threads, files
//! and a QUIC endpoint, the simulator's are queues in simulated time. What comes
//! back goes in by [`Machine::input`], [`Machine::log_synced`] and
//! [`Machine::engine_event`]; then [`Machine::turn`] does everything that can be done now.

mod applies;
mod recovery;
mod upkeep;

pub use recovery::{Assembly, RecoveryError, Replayed, assemble, first_records, replay, seed_meta};

use crate::engine::{Engine, EngineError};
use crate::lane::{EngineEvent, EngineWork};
use crate::log::LogRecord;
use applies::Applies;
use std::time::Duration;
use synod_paxos::{
    ClusterVersion, Epoch, GroupId, Holds, NodeId, ReconfigureError, RecoverError, Slot,
};
use synod_shard::{
    EngineRead, HashError, Input, Members, MergeError, Merging, NodeMessage, NodeRecord, NodeRow,
    Now, Output, ShardReply, SplitError, Splitting, Worker,
};
use synod_txn::effect::EngineRows;
use synod_txn::{Caller, Hashing, Key};
use upkeep::Upkeep;

/// With nothing to do, the loop still looks at clocks and disk this often.
const IDLE: Duration = Duration::from_millis(250);

/// How messages to a peer travel: never consensus behind bulk (§10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Consensus, leases, transactions.
    Consensus,
    /// Snapshots.
    Bulk,
}

/// What a node's machine hands its work to.
pub trait Lanes {
    /// Both clocks, read anew: a lease is judged by them.
    fn now(&mut self) -> Now;

    /// Has records written and synced, in the order of submission; then
    /// [`Machine::log_synced`] is told `number` or a later one.
    fn submit_log(&mut self, records: Vec<LogRecord>, number: u64);

    /// Nothing submitted before `number` is needed any more.
    fn trim_log(&mut self, number: u64);

    /// Bytes the log holds; 0 while a trim is on its way.
    fn log_bytes(&self) -> u64;

    /// How long the sync in hand has been going on.
    fn log_waits(&self) -> Option<Duration>;

    /// The engine, for one read. Its own lane goes on meanwhile.
    fn engine(&mut self) -> &dyn Engine;

    /// Work for the engine, done in the order of submission.
    fn submit_engine(&mut self, work: EngineWork);

    /// Messages to another node, in order per channel, or lost.
    fn send(&mut self, to: NodeId, channel: Channel, messages: Vec<NodeMessage>);

    /// An answer to a client.
    fn reply(&mut self, to: Caller, reply: ShardReply);
}

/// The limits a machine keeps.
#[derive(Clone, Copy, Debug)]
pub struct MachineSettings {
    /// The log is trimmed once it holds this many bytes more than what no trim can free.
    pub log_trim_bytes: u64,
    /// A log sync that takes longer than this beyond what its bytes take is a stalled disk (L6).
    pub stall: Duration,
    /// In a checkpoint, shards that know so many attempts, together, have their states copied in one turn;
    /// at least one has. Outcomes of one-shard transactions do not count, as copies share them.
    pub attempts_per_turn: usize,
    /// Entries that one turn of a checkpoint drops from logs, or repeats at a log's end, about; at least 1.
    pub trims_per_turn: u64,
}

impl MachineSettings {
    /// What a node takes for [`MachineSettings::attempts_per_turn`]: half a millisecond at most.
    pub const ATTEMPTS_PER_TURN: usize = 1 << 15;
    /// What a node takes for [`MachineSettings::trims_per_turn`].
    pub const TRIMS_PER_TURN: u64 = 2048;
}

/// A node's machine.
pub struct Machine {
    worker: Option<Worker>,
    upkeep: Upkeep,
    applies: Applies,
    fatal: Option<String>,
}

impl Machine {
    /// A machine over a recovered worker; none if the node belongs to no
    /// cluster yet.
    #[must_use]
    pub fn new(worker: Option<Worker>, settings: MachineSettings) -> Machine {
        Machine {
            worker,
            upkeep: Upkeep::new(settings),
            applies: Applies::default(),
            fatal: None,
        }
    }

    /// The worker, once there is one.
    #[must_use]
    pub fn worker(&self) -> Option<&Worker> {
        self.worker.as_ref()
    }

    /// The node has become part of a cluster.
    pub fn begin(&mut self, worker: Worker) {
        self.worker = Some(worker);
    }

    /// Whether the log's disk answers in time.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.upkeep.is_healthy()
    }

    /// Why the node must stop, if it must (§8: any storage error is fatal). The
    /// caller ends the process.
    pub fn take_fatal(&mut self) -> Option<String> {
        self.fatal.take()
    }

    /// Notes that the node must stop; the first reason counts.
    pub fn fail(&mut self, reason: String) {
        self.fatal.get_or_insert(reason);
    }

    /// One input for the worker.
    pub fn input(&mut self, lanes: &mut impl Lanes, input: Input) {
        self.inputs(lanes, [input]);
    }

    /// Inputs that came together, such as a frame's messages: the clocks are
    /// read once for all of them.
    pub fn inputs(&mut self, lanes: &mut impl Lanes, inputs: impl IntoIterator<Item = Input>) {
        if let Some(worker) = &mut self.worker {
            let now = lanes.now();
            for input in inputs {
                worker.handle(now, input);
            }
        }
    }

    /// Asks for other members of a shard; see [`Worker::reconfigure`].
    ///
    /// # Errors
    /// Why not; nothing was proposed then.
    pub fn reconfigure(
        &mut self,
        lanes: &mut impl Lanes,
        group: GroupId,
        members: Members,
    ) -> Result<Slot, ReconfigureError> {
        match &mut self.worker {
            Some(worker) => worker.reconfigure(lanes.now(), group, members),
            None => Err(ReconfigureError::NotLeader { leader: None }),
        }
    }

    /// A replica here goes on alone; see [`Worker::recover`].
    ///
    /// # Errors
    /// Why not; nothing was changed then.
    pub fn recover(
        &mut self,
        lanes: &mut impl Lanes,
        group: GroupId,
        holds: Holds,
        epoch: Epoch,
    ) -> Result<Slot, RecoverError> {
        match &mut self.worker {
            Some(worker) => worker.recover(lanes.now(), group, holds, epoch),
            None => Err(RecoverError::NoReplica),
        }
    }

    /// Asks for a split of a shard; see [`Worker::split`].
    ///
    /// # Errors
    /// Why not; nothing was proposed then.
    pub fn split(
        &mut self,
        lanes: &mut impl Lanes,
        group: GroupId,
        at: &Key,
        child: GroupId,
    ) -> Result<Splitting, SplitError> {
        match &mut self.worker {
            Some(worker) => worker.split(lanes.now(), group, at, child),
            None => Err(SplitError::NotLeader { leader: None }),
        }
    }

    /// Has two shards merged whose left one this node leads; see [`Worker::merge`].
    ///
    /// # Errors
    /// See [`MergeError`].
    pub fn merge(
        &mut self,
        lanes: &mut impl Lanes,
        left: GroupId,
        right: GroupId,
    ) -> Result<Merging, MergeError> {
        match &mut self.worker {
            Some(worker) => worker.merge(lanes.now(), left, right),
            None => Err(MergeError::NotLeader { leader: None }),
        }
    }

    /// Asks for another way to store a shard's keys; see [`Worker::hash`].
    ///
    /// # Errors
    /// Why not; nothing was proposed then.
    pub fn hash(
        &mut self,
        lanes: &mut impl Lanes,
        group: GroupId,
        hashing: Option<&Hashing>,
    ) -> Result<Splitting, HashError> {
        match &mut self.worker {
            Some(worker) => worker.hash(lanes.now(), group, hashing),
            None => Err(HashError::NotLeader { leader: None }),
        }
    }

    /// What the meta shard's rows say about nodes.
    pub fn learn_nodes(&mut self, lanes: &mut impl Lanes, rows: &[NodeRow]) {
        if let Some(worker) = &mut self.worker {
            worker.learn_nodes(lanes.now(), rows);
        }
    }

    /// What the meta shard's row says of the cluster's version.
    pub fn learn_version(&mut self, lanes: &mut impl Lanes, version: ClusterVersion) {
        if let Some(worker) = &mut self.worker {
            worker.learn_version(lanes.now(), version);
        }
    }

    /// Something the engine's lane reports.
    pub fn engine_event(&mut self, lanes: &mut impl Lanes, event: EngineEvent) {
        match event {
            EngineEvent::Input(input) => {
                if let Input::Destroyed { group } | Input::SnapshotInstalled { group, .. } = *input
                {
                    self.upkeep.forget(group);
                }
                self.input(lanes, *input);
            }
            EngineEvent::Checkpointed => self.upkeep.checkpointed(),
            EngineEvent::Fatal(reason) => self.fail(reason),
        }
    }

    /// Steps the shards once over everything that has come, and carries out
    /// what they want. One log batch and one frame per peer; what arrives
    /// meanwhile is the next turn's, so no timer ever waits to fill a batch.
    pub fn turn(&mut self, lanes: &mut impl Lanes) {
        self.upkeep(lanes);
        self.settle(lanes);
        if self.applies.is_waiting() && self.applies.is_due(lanes.now().mono) {
            self.flush_applies(lanes);
        }
    }

    /// How long the loop may wait for something to come.
    pub fn wait(&self, lanes: &mut impl Lanes) -> Duration {
        if self.upkeep.goes_on() {
            return Duration::ZERO;
        }
        let now = lanes.now().mono;
        let next = self.worker.as_ref().and_then(Worker::next_timeout);
        let wait = next.map_or(IDLE, |at| Duration::from_nanos(at.since(now)).min(IDLE));
        wait.min(self.applies.due_in(now).unwrap_or(IDLE))
    }

    /// Steps until no engine read is left to answer.
    pub fn settle(&mut self, lanes: &mut impl Lanes) {
        loop {
            let Some(worker) = &mut self.worker else {
                return;
            };
            let now = lanes.now();
            if worker.next_timeout().is_some_and(|at| at <= now.mono) {
                worker.handle(now, Input::Tick);
            }
            let output = worker.finish(now);
            let reads = self.carry_out(lanes, now, output);
            if reads.is_empty() {
                return;
            }
            for read in reads {
                self.read(lanes, read);
            }
        }
    }

    /// Everything but the reads, which the caller answers.
    fn carry_out(&mut self, lanes: &mut impl Lanes, now: Now, output: Output) -> Vec<EngineRead> {
        let Output {
            log,
            sends,
            bulk,
            replies,
            reads,
            writes,
            marks,
            snapshots,
            fatal,
        } = output;
        if let Some(batch) = log {
            let records = batch.records.into_iter().flat_map(records).collect();
            self.submit(lanes, records, Some(batch.ticket));
        }
        for (to, messages) in sends {
            lanes.send(to, Channel::Consensus, messages);
        }
        for (to, messages) in bulk {
            lanes.send(to, Channel::Bulk, messages);
        }
        for (caller, reply) in replies {
            lanes.reply(caller, reply);
        }
        self.applies.add(now.mono, writes, marks);
        if !snapshots.is_empty() {
            self.flush_applies(lanes);
        }
        for task in snapshots {
            lanes.submit_engine(EngineWork::Snapshot(task));
        }
        if let Some(reason) = fatal {
            self.fail(reason);
        }
        reads
    }

    /// Hands over what gathered for the engine.
    fn flush_applies(&mut self, lanes: &mut impl Lanes) {
        if let Some(work) = self.applies.take() {
            lanes.submit_engine(work);
        }
    }

    fn read(&mut self, lanes: &mut impl Lanes, read: EngineRead) {
        match rows(lanes, &read) {
            Ok(rows) => {
                let (group, token) = (read.group, read.token);
                self.input(lanes, Input::ReadDone { group, token, rows });
            }
            Err(error) => self.fail(format!("the engine cannot be read: {error}")),
        }
    }
}

fn records(record: NodeRecord) -> impl Iterator<Item = LogRecord> {
    let (first, second) = match record {
        NodeRecord::Group { group, record } => (LogRecord::Group { group, record }, None),
        NodeRecord::Lease(record) => (LogRecord::Lease(record), None),
        NodeRecord::Base {
            descriptor,
            durable,
        } => {
            let group = descriptor.id;
            let base = LogRecord::Base { group, durable };
            (LogRecord::Shard(descriptor), Some(base))
        }
    };
    std::iter::once(first).chain(second)
}

fn rows(lanes: &mut impl Lanes, read: &EngineRead) -> Result<EngineRows, EngineError> {
    let versions = read
        .keys
        .iter()
        .map(|key| lanes.engine().get(key, read.at))
        .collect::<Result<Vec<_>, _>>()?;
    let (rows, more) = match &read.scan {
        Some(scan) => lanes.engine().scan(scan, read.at)?,
        None => (Vec::new(), false),
    };
    Ok(EngineRows {
        versions,
        rows,
        more,
    })
}
