//! The loop: drain everything that came, step the shards once, carry out what
//! they want, wait. One log batch and one frame per peer a turn; turns that
//! find more in the inbox batch more, so no timer ever waits to fill a batch.

use super::clients::{self, Clients};
use super::lane::{Applies, Lane, LaneEvent, LaneWork};
use super::upkeep::Upkeep;
use super::{Fatal, StartError, recovery, time};
use crate::config::NodeConfig;
use crate::engine::Engine;
use crate::identity::Directory;
use crate::log::{LogEvent, LogRecord, LogThread};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_paxos::NodeId;
use synod_rpc::{
    ClientFrame, Endpoint, EndpointOptions, Event, EventQueue, Lane as Stream, ServerFrame,
    TlsIdentity,
};
use synod_shard::{
    Bootstrap, EngineRead, Input, NodeRecord, Output, ShardReply, ShardRequest, Worker,
};
use synod_txn::effect::EngineRows;
use synod_txn::request::Refusal;
use synod_txn::{Caller, Response};
use tokio::sync::{mpsc, watch};

/// With nothing to do, the loop still looks at clocks and disk this often.
const IDLE: Duration = Duration::from_millis(250);
/// How long an orderly stop waits for its last messages to leave.
const FAREWELL: Duration = Duration::from_millis(150);

/// What the other threads report.
pub(super) enum Done {
    Log(LogEvent),
    Lane(LaneEvent),
}

/// A node's parts.
pub(super) struct Driver {
    pub(super) config: NodeConfig,
    pub(super) directory: Directory,
    pub(super) endpoint: Endpoint,
    pub(super) address: SocketAddr,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) log: LogThread,
    pub(super) worker: Option<Worker>,
    pub(super) bootstrap: Option<Bootstrap>,
    pub(super) upkeep: Upkeep,
    pub(super) counts: Counts,
    events: EventQueue,
    lane: Lane,
    applies: Applies,
    inbox: mpsc::UnboundedReceiver<Done>,
    clients: Clients,
    peers: BTreeMap<NodeId, SocketAddr>,
    fatal: Option<String>,
}

/// Totals since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) commits: u64,
    pub(super) aborts: u64,
}

impl Driver {
    /// Recovers what is on disk, and listens.
    pub(super) async fn start(config: NodeConfig) -> Result<Driver, StartError> {
        let tls = TlsIdentity::from_files(&config.ca, &config.cert, &config.key)?;
        let directory = super::open_directory(&config, &tls)?;
        let bootstrap = directory.bootstrap()?;
        let (log, replayed) = recovery::open_log(&config, &directory, bootstrap.as_ref())?;
        let engine = recovery::open_engine(&config, &directory)?;
        let worker = match &bootstrap {
            Some(bootstrap) => Some(recovery::worker(
                &config, &directory, bootstrap, replayed, &*engine,
            )?),
            None => None,
        };
        let (report, inbox) = mpsc::unbounded_channel();
        let log_report = report.clone();
        let log = LogThread::start(log, move |event| {
            let _ = log_report.send(Done::Log(event));
        })
        .map_err(|source| StartError::Io {
            action: "start the log's thread",
            source,
        })?;
        let lane = Lane::start(engine.clone(), directory.join("staging"), move |event| {
            let _ = report.send(Done::Lane(event));
        })
        .map_err(|source| StartError::Io {
            action: "start the engine's thread",
            source,
        })?;
        let identity = directory.identity();
        let options = EndpointOptions::new(identity.node, identity.incarnation);
        let (endpoint, address) = Endpoint::bind(config.listen, &tls, options)?;
        let events = endpoint.events();
        let mut driver = Driver {
            upkeep: Upkeep::new(config.log_trim_bytes, config.stall),
            config,
            directory,
            endpoint,
            address,
            engine,
            log,
            worker,
            bootstrap,
            counts: Counts::default(),
            events,
            lane,
            applies: Applies::default(),
            inbox,
            clients: Clients::default(),
            peers: BTreeMap::new(),
            fatal: None,
        };
        driver.know_peers();
        Ok(driver)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until told to stop, or until storage fails.
    pub(super) async fn run(mut self, mut stopping: watch::Receiver<bool>) -> Result<(), Fatal> {
        let mut events = Vec::new();
        let mut farewell: Option<Instant> = None;
        loop {
            self.turn(&mut events);
            if let Some(reason) = self.fatal.take() {
                tracing::error!(%reason, "the node stops");
                self.endpoint.close().await;
                return Err(Fatal(reason));
            }
            if farewell.is_none() && *stopping.borrow() {
                tracing::info!("stopping: handing leaderships over");
                farewell = Some(Instant::now() + FAREWELL);
                self.input(Input::StepDown);
                self.settle();
            }
            let mut wait = self.until_timeout();
            if let Some(end) = farewell {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                wait = wait.min(left);
            }
            tokio::select! {
                biased;
                () = self.events.wait() => {}
                done = self.inbox.recv() => {
                    if let Some(done) = done {
                        self.done(done);
                    }
                }
                _ = stopping.changed(), if farewell.is_none() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.endpoint.close().await;
        self.lane.stop();
        self.log.stop();
        Ok(())
    }

    /// Everything that has come, then one step, then what is due for the engine.
    fn turn(&mut self, events: &mut Vec<Event>) {
        self.events.drain(events);
        for event in events.drain(..) {
            self.event(event);
        }
        while let Ok(done) = self.inbox.try_recv() {
            self.done(done);
        }
        self.upkeep();
        self.settle();
        if self.applies.is_due() {
            self.flush_applies();
        }
    }

    fn until_timeout(&self) -> Duration {
        let next = self.worker.as_ref().and_then(Worker::next_timeout);
        let wait = next.map_or(IDLE, |at| {
            Duration::from_nanos(at.since(time::now().mono)).min(IDLE)
        });
        wait.min(self.applies.due_in().unwrap_or(IDLE))
    }

    /// Steps until no engine read is left to answer.
    pub(super) fn settle(&mut self) {
        loop {
            let Some(worker) = &mut self.worker else {
                return;
            };
            // Read anew each time: a lease is judged by this clock.
            let now = time::now();
            if worker.next_timeout().is_some_and(|at| at <= now.mono) {
                worker.handle(now, Input::Tick);
            }
            let output = worker.finish(now);
            let reads = self.carry_out(output);
            if reads.is_empty() {
                return;
            }
            for read in reads {
                self.read(read);
            }
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        if let Some(worker) = &mut self.worker {
            worker.handle(time::now(), input);
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::PeerFrame { from, messages, .. } => {
                if !self.peers.contains_key(&from) {
                    return;
                }
                let now = time::now();
                if let Some(worker) = &mut self.worker {
                    for message in messages {
                        worker.handle(now, Input::Peer { from, message });
                    }
                }
            }
            Event::Client {
                connection,
                user,
                frame,
                ..
            } => self.client_frame(connection, &user, frame),
            Event::ClientGone { connection } => {
                let (callers, client) = self.clients.gone(connection);
                for caller in callers {
                    self.input(Input::Cancel { caller });
                }
                if let Some(client) = client {
                    self.input(Input::ClientGone { client });
                }
            }
            Event::PeerUp { node, name, .. } => {
                tracing::debug!(node = node.0, %name, "a node reaches this one");
            }
            Event::PeerDown { node, .. } => {
                tracing::debug!(node = node.0, "a node's stream ended");
            }
        }
    }

    fn client_frame(&mut self, connection: u64, user: &str, frame: ClientFrame) {
        match frame {
            ClientFrame::Request { id, request } => {
                let caller = Caller {
                    connection,
                    request: id,
                };
                self.client_request(caller, user, request);
            }
            ClientFrame::KeepAlive { client, live } => {
                self.clients.seen(connection, client);
                self.input(Input::ClientSeen { client, live });
            }
            ClientFrame::Node { id, request } => {
                let response = self.administer(user, request);
                self.endpoint
                    .reply(connection, &ServerFrame::Node { id, response });
            }
            ClientFrame::Cancel { id } => {
                let caller = Caller {
                    connection,
                    request: id,
                };
                if self.clients.answered(caller) {
                    self.input(Input::Cancel { caller });
                }
            }
        }
    }

    fn client_request(&mut self, caller: Caller, user: &str, request: ShardRequest) {
        self.counts.requests += 1;
        let refused = if self.worker.is_none() {
            Some(Response::Refused(Refusal::NotLeader { hint: None }))
        } else {
            clients::authorize(user, &request).err().map(|r| *r)
        };
        if let Some(response) = refused {
            self.endpoint.reply(
                caller.connection,
                &ServerFrame::Response {
                    id: caller.request,
                    reply: ShardReply::Response(response),
                },
            );
            return;
        }
        self.clients.asked(caller);
        self.input(Input::Client { caller, request });
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Log(LogEvent::Synced { ticket }) => self.log_synced(ticket),
            Done::Log(LogEvent::Fatal(reason)) => {
                self.fatal.get_or_insert(format!(
                    "the log failed: {reason}; nothing more is acknowledged"
                ));
            }
            Done::Lane(event) => self.lane_event(event),
        }
    }

    fn lane_event(&mut self, event: LaneEvent) {
        match event {
            LaneEvent::Input(input) => self.input(*input),
            LaneEvent::Checkpointed { slots } => self.checkpointed(&slots),
            LaneEvent::Fatal(reason) => {
                self.fatal.get_or_insert(reason);
            }
        }
    }

    /// Everything but the reads, which the caller answers.
    fn carry_out(&mut self, output: Output) -> Vec<EngineRead> {
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
            let records = batch.records.into_iter().map(record).collect();
            self.submit(records, Some(batch.ticket));
        }
        for (lane, frames) in [(Stream::Consensus, sends), (Stream::Bulk, bulk)] {
            for (to, messages) in frames {
                if let Some(address) = self.peers.get(&to) {
                    self.endpoint.send_peer(to, *address, lane, &messages);
                }
            }
        }
        for (caller, reply) in replies {
            self.count(&reply);
            if self.clients.answered(caller) {
                let frame = ServerFrame::Response {
                    id: caller.request,
                    reply,
                };
                self.endpoint.reply(caller.connection, &frame);
            }
        }
        self.applies.add(writes, marks);
        if !snapshots.is_empty() {
            self.flush_applies();
        }
        for task in snapshots {
            self.lane.submit(LaneWork::Snapshot(task));
        }
        if let Some(reason) = fatal {
            self.fatal.get_or_insert(reason);
        }
        reads
    }

    /// Hands over what gathered for the engine.
    fn flush_applies(&mut self) {
        if let Some(work) = self.applies.take() {
            self.lane.submit(work);
        }
    }

    pub(super) fn submit_checkpoint(&mut self, states: Vec<Checkpoint>) {
        self.flush_applies();
        self.lane.submit(LaneWork::Checkpoint { states });
    }

    fn count(&mut self, reply: &ShardReply) {
        if let ShardReply::Response(Response::Outcome { outcome, .. }) = reply {
            match outcome {
                synod_txn::Outcome::Committed(_) => self.counts.commits += 1,
                synod_txn::Outcome::Aborted(_) => self.counts.aborts += 1,
            }
        }
    }

    fn read(&mut self, read: EngineRead) {
        match rows(&*self.engine, &read) {
            Ok(rows) => self.input(Input::ReadDone {
                group: read.group,
                token: read.token,
                rows,
            }),
            Err(error) => {
                self.fatal
                    .get_or_insert(format!("the engine cannot be read: {error}"));
            }
        }
    }

    pub(super) fn know_peers(&mut self) {
        let Some(bootstrap) = &self.bootstrap else {
            return;
        };
        let me = self.directory.identity().node;
        let dc = |locality: &str| {
            let tier = locality.split(',').find(|t| t.trim().starts_with("dc="));
            tier.map(|t| t.trim().to_owned())
        };
        let here = dc(&self.config.locality.to_string());
        for node in bootstrap.map.nodes.iter().filter(|n| n.id != me) {
            self.peers.insert(node.id, node.address);
            self.endpoint.know_peer(node.id, &node.name);
            if !self.config.testing_rtt.is_zero() && dc(&node.locality) != here {
                self.endpoint
                    .set_delay(node.id, self.config.testing_rtt / 2);
            }
        }
    }
}

/// A shard, a slot, and the replicated state after it.
pub(super) type Checkpoint = (synod_paxos::GroupId, synod_paxos::Slot, bytes::Bytes);

fn record(record: NodeRecord) -> LogRecord {
    match record {
        NodeRecord::Group { group, record } => LogRecord::Group { group, record },
        NodeRecord::Lease(record) => LogRecord::Lease(record),
    }
}

fn rows(engine: &dyn Engine, read: &EngineRead) -> Result<EngineRows, crate::engine::EngineError> {
    let versions = read
        .keys
        .iter()
        .map(|key| engine.get(key, read.at))
        .collect::<Result<Vec<_>, _>>()?;
    let (rows, more) = match &read.scan {
        Some(scan) => engine.scan(scan, read.at)?,
        None => (Vec::new(), false),
    };
    Ok(EngineRows {
        versions,
        rows,
        more,
    })
}
