//! The loop: drain everything that came, step the shards once, carry out what
//! they want, wait. One log batch and one frame per peer a turn; turns that
//! find more in the inbox batch more, so no timer ever waits to fill a batch.

use super::certificates::Certificates;
use super::clients::{self, Clients};
use super::connections::Connections;
use super::copies::{Pulse, Rates};
use super::engine_thread::EngineThread;
use super::farewell::Farewell;
use super::gauge::{Gauge, SharedWeights};
use super::gossip::Gossip;
use super::intake::Intake;
use super::keeper::Keeper;
use super::lanes::{Counts, RealLanes};
use super::merger::{self, Merger};
use super::pacer::Pacer;
use super::records::Reading;
use super::rows::Rows;
use super::space::Space;
use super::splitter::{self, Splitter};
use super::{Fatal, StartError, recovery};
use crate::config::NodeConfig;
use crate::identity::Directory;
use crate::lane::EngineEvent;
use crate::log::{LogEvent, LogThread};
use crate::machine::{Machine, MachineSettings};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use synod_paxos::NodeId;
use synod_rpc::{
    ClientFrame, Endpoint, EndpointOptions, Event, EventQueue, ServerFrame, TlsIdentity,
};
use synod_shard::{Bootstrap, Input, NodeMessage, Shard, ShardReply, ShardRequest};
use synod_txn::request::Refusal;
use synod_txn::{Caller, Response};
use tokio::sync::{mpsc, watch};

/// What the other threads report.
pub(super) enum Done {
    Log(LogEvent),
    Engine(Vec<EngineEvent>),
}

/// What the engine's thread reports without waking the loop.
type Unhurried = Arc<Mutex<Vec<EngineEvent>>>;

/// Nobody panics while holding it.
fn lock(events: &Mutex<Vec<EngineEvent>>) -> MutexGuard<'_, Vec<EngineEvent>> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node's parts.
pub(super) struct Driver {
    pub(super) config: NodeConfig,
    pub(super) address: SocketAddr,
    pub(super) machine: Machine,
    pub(super) lanes: RealLanes,
    pub(super) bootstrap: Option<Bootstrap>,
    pub(super) space: Space,
    pub(super) gossip: Gossip,
    pub(super) rows: Rows,
    pub(super) reading: Reading,
    pub(super) keeper: Keeper,
    pub(super) splitter: Splitter,
    pub(super) merger: Merger,
    pub(super) gauge: Gauge,
    pub(super) intake: Intake,
    pub(super) rates: Rates,
    pub(super) pulse: Pulse,
    /// The log holds something although this node belongs to no cluster.
    pub(super) has_past: bool,
    /// And that this node has promised something in one of them.
    pub(super) has_promised: bool,
    certificates: Certificates,
    events: EventQueue,
    inbox: mpsc::UnboundedReceiver<Done>,
    unhurried: Unhurried,
    /// Last, as fields are dropped in their order: the directory is this process's until the log's
    /// thread has written what it has.
    pub(super) directory: Directory,
}

impl Driver {
    /// Recovers what is on disk, and listens.
    pub(super) async fn start(config: NodeConfig) -> Result<Driver, StartError> {
        let certificates = Certificates::of(&config);
        let tls = TlsIdentity::from_files(&config.ca, &config.cert, &config.key)?;
        let directory = super::open_directory(&config, &tls)?;
        let bootstrap = directory.bootstrap()?;
        if let Some(bootstrap) = &bootstrap {
            let known = bootstrap.version.max(directory.version());
            super::check_version(&config.data_dir, known, config.supports)?;
        }
        let (log, replayed) = recovery::open_log(&config, &directory, bootstrap.as_ref())?;
        let is_new = replayed.is_empty();
        let has_past = bootstrap.is_none() && !is_new;
        let has_promised = bootstrap.is_none() && replayed.has_promised();
        let engine = recovery::open_engine(&config, &directory, !is_new)?;
        let worker = match &bootstrap {
            Some(bootstrap) => Some(recovery::worker(
                &config, &directory, bootstrap, replayed, &*engine,
            )?),
            None => None,
        };
        if let Some(worker) = &worker {
            // What the engine has may be ahead of what was heard.
            super::check_version(&config.data_dir, worker.version(), config.supports)?;
        }
        let (report, inbox) = mpsc::unbounded_channel();
        let log_report = report.clone();
        let log = LogThread::start(log, move |event| {
            let _ = log_report.send(Done::Log(event));
        })
        .map_err(|source| StartError::Io {
            action: "start the log's thread",
            source,
        })?;
        let staging = directory.join("staging");
        let unhurried = Unhurried::default();
        let quiet = unhurried.clone();
        let weights = SharedWeights::default();
        let gauge_report = report.clone();
        let thread_weights = weights.clone();
        let engine_thread =
            EngineThread::start(engine.clone(), staging, thread_weights, move |events| {
                if events.iter().any(EngineEvent::is_urgent) {
                    let _ = report.send(Done::Engine(events));
                } else {
                    lock(&quiet).extend(events);
                }
            })
            .map_err(|source| StartError::Io {
                action: "start the engine's thread",
                source,
            })?;
        let gauge = Gauge::start(engine.clone(), weights, Instant::now(), move |error| {
            let reason = format!("the engine cannot be read: {error}");
            let _ = gauge_report.send(Done::Engine(vec![EngineEvent::Fatal(reason)]));
        })
        .map_err(|source| StartError::Io {
            action: "start the gauge's thread",
            source,
        })?;
        let identity = directory.identity();
        let options = EndpointOptions::new(identity.node, identity.incarnation);
        let (endpoint, address) = Endpoint::bind(config.listen, &tls, options)?;
        let events = endpoint.events();
        let settings = MachineSettings {
            log_trim_bytes: spread(config.log_trim_bytes),
            stall: config.stall,
            attempts_per_turn: MachineSettings::ATTEMPTS_PER_TURN,
            trims_per_turn: MachineSettings::TRIMS_PER_TURN,
        };
        let space = Space::new(
            config.data_dir.clone(),
            config.disk_reserve_bytes,
            Instant::now(),
        );
        let asking = Connections::new(&config);
        let (splitter, splits) = splitter::new(&config, asking.share());
        let (merger, merges) = merger::new(&config, asking.share());
        let (rates, telling) = Rates::new(&config);
        let chores = (splits, merges);
        let keeper = Keeper::start(&config, Instant::now(), asking, chores, telling);
        let keeper = keeper.map_err(|source| StartError::Io {
            action: "start the keeper's thread",
            source,
        })?;
        let mut driver = Driver {
            machine: Machine::new(worker, settings),
            lanes: RealLanes {
                endpoint,
                engine,
                log,
                engine_thread,
                clients: Clients::default(),
                peers: BTreeMap::new(),
                riders: BTreeMap::new(),
                counts: Counts::default(),
                pacer: Pacer::new(Instant::now()),
                own: Vec::new(),
            },
            config,
            directory,
            address,
            bootstrap,
            space,
            gossip: Gossip::new(Instant::now()),
            rows: Rows::new(Instant::now()),
            reading: Reading::new(Instant::now()),
            keeper,
            splitter,
            merger,
            gauge,
            intake: Intake::default(),
            rates,
            pulse: Pulse::default(),
            has_past,
            has_promised,
            certificates,
            events,
            inbox,
            unhurried,
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
        let mut farewell: Option<Farewell> = None;
        loop {
            let begun = Instant::now();
            self.turn(&mut events);
            if let Some(reason) = self.machine.take_fatal() {
                tracing::error!(%reason, "the node stops");
                self.lanes.endpoint.close().await;
                return Err(Fatal(reason));
            }
            let now = Instant::now();
            self.certificates.look(now, &self.lanes.endpoint);
            if let Some(full) = self.space.look(now) {
                self.input(Input::DiskSpace { full });
            }
            self.look_for_room(now);
            self.pace_copies(begun, now);
            self.gossip(now);
            self.keep_rows(now);
            self.read_records(now);
            self.instruct_keeper(now);
            self.gauge(now);
            if farewell.is_none() && *stopping.borrow() {
                tracing::info!("stopping: handing leaderships over");
                farewell = Some(Farewell::begin(now));
            }
            let mut wait = self.machine.wait(&mut self.lanes);
            wait = wait.min(self.copies_due_in(now).unwrap_or(wait));
            if let Some(farewell) = &mut farewell {
                self.input(Input::StepDown);
                self.machine.settle(&mut self.lanes);
                let quiet = self.is_handed_over() && self.lanes.clients.waiting() == 0;
                match farewell.goes_on(quiet, Instant::now()) {
                    Some(pause) => wait = wait.min(pause),
                    None => break,
                }
            }
            if !self.events.is_empty() {
                // More clients ask than one turn takes. Those who read and write
                // the sockets, on this same thread, have their turn in between.
                tokio::task::yield_now().await;
                continue;
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
        self.lanes.endpoint.close().await;
        self.lanes.engine_thread.stop();
        self.lanes.log.stop();
        Ok(())
    }

    /// Whether every shard with a replica here is led by another node, as far
    /// as this one knows. Where there is no other node, there is nothing to hand over.
    fn is_handed_over(&self) -> bool {
        let is_led_elsewhere = |shard: &Shard| {
            let replica = shard.replica();
            let alone = replica.configuration().majority() == 1;
            let behind = replica.left_behind_by().is_some();
            let left_out = behind || !shard.is_member() || shard.is_gone();
            left_out || alone || replica.leader().is_some_and(|l| l != replica.me())
        };
        let worker = self.machine.worker();
        worker.is_none_or(|w| w.shards().all(is_led_elsewhere))
    }

    /// Everything that has come, then one step, then what is due for the engine.
    fn turn(&mut self, events: &mut Vec<Event>) {
        self.events.drain(events);
        for event in events.drain(..) {
            self.event(event);
        }
        // Before what was reported later, and urgently.
        self.take_unhurried();
        while let Ok(done) = self.inbox.try_recv() {
            self.done(done);
        }
        self.machine.turn(&mut self.lanes);
    }

    pub(super) fn input(&mut self, input: Input) {
        self.machine.input(&mut self.lanes, input);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::PeerFrame { from, messages, .. } => {
                if !self.lanes.peers.contains_key(&from) {
                    return self.answer_stranger(from, &messages);
                }
                for message in &messages {
                    if let NodeMessage::MapDigest(digest) = message {
                        self.compare_maps(from, *digest);
                    }
                }
                let now = Instant::now();
                let pressed = self.lanes.pacer.yields(now);
                let heard = messages.into_iter();
                let heard = heard.filter_map(|m| self.intake.take(now, from, m, pressed));
                let inputs = heard.map(|message| Input::Peer { from, message });
                self.machine.inputs(&mut self.lanes, inputs);
            }
            Event::Client {
                connection,
                user,
                frame,
                ..
            } => self.client_frame(connection, &user, frame),
            Event::ClientGone { connection } => {
                let (callers, client) = self.lanes.clients.gone(connection);
                if !callers.is_empty() {
                    self.input(Input::Cancel { callers });
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
        let caller = |request| Caller {
            connection,
            request,
        };
        match frame {
            ClientFrame::Request { id, request } => self.client_request(caller(id), user, request),
            ClientFrame::Hashed {
                id,
                hashing,
                mut request,
            } => {
                request.hashing = Some(Box::new(hashing));
                self.client_request(caller(id), user, request);
            }
            ClientFrame::KeepAlive { client, live } => {
                self.lanes.clients.seen(connection, client);
                self.input(Input::ClientSeen { client, live });
            }
            ClientFrame::Node { id, request } => {
                let response = self.administer(user, request);
                self.lanes
                    .endpoint
                    .reply(connection, &ServerFrame::Node { id, response });
            }
            ClientFrame::Cancel { id } => {
                let caller = caller(id);
                if self.lanes.clients.answered(caller) {
                    let callers = BTreeSet::from([caller]);
                    self.input(Input::Cancel { callers });
                }
            }
        }
    }

    fn client_request(&mut self, caller: Caller, user: &str, request: ShardRequest) {
        self.lanes.counts.requests += 1;
        let refused = if self.machine.worker().is_none() {
            Some(Response::Refused(Refusal::NotLeader { hint: None }))
        } else {
            clients::authorize(user, &request).err().map(|r| *r)
        };
        if let Some(response) = refused {
            self.lanes.endpoint.reply(
                caller.connection,
                &ServerFrame::Response {
                    id: caller.request,
                    reply: ShardReply::Response(response),
                },
            );
            return;
        }
        self.sample(&request);
        let client = request.request.client();
        self.lanes.clients.asked(caller, client);
        self.input(Input::Client { caller, request });
    }

    fn take_unhurried(&mut self) {
        let events = std::mem::take(&mut *lock(&self.unhurried));
        for event in events {
            self.machine.engine_event(&mut self.lanes, event);
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Log(LogEvent::Synced { ticket }) => {
                self.machine.log_synced(&mut self.lanes, ticket);
            }
            Done::Log(LogEvent::Fatal(reason)) => self.machine.fail(format!(
                "the log failed: {reason}; nothing more is acknowledged"
            )),
            Done::Engine(events) => {
                self.count_copies(&events);
                self.take_unhurried();
                for event in events {
                    self.machine.engine_event(&mut self.lanes, event);
                }
            }
        }
    }

    pub(super) fn know_peers(&mut self) {
        let Some(worker) = self.machine.worker() else {
            return;
        };
        let me = self.directory.identity().node;
        let dc = |locality: &str| {
            let tier = locality.split(',').find(|t| t.trim().starts_with("dc="));
            tier.map(|t| t.trim().to_owned())
        };
        let here = dc(&self.config.locality.to_string());
        let gone = |id: &NodeId| worker.map().node(*id).is_none();
        let gone: Vec<NodeId> = self.lanes.peers.keys().copied().filter(gone).collect();
        for id in gone {
            self.lanes.peers.remove(&id);
            self.lanes.endpoint.forget_peer(id);
        }
        for node in worker.map().nodes.iter().filter(|n| n.id != me) {
            self.lanes.peers.insert(node.id, node.address);
            self.lanes.endpoint.know_peer(node.id, &node.name);
            if !self.config.testing_rtt.is_zero() && dc(&node.locality) != here {
                self.lanes
                    .endpoint
                    .set_delay(node.id, self.config.testing_rtt / 2);
            }
        }
    }
}

/// Up to a quarter more, as chance has it: replicas of the same shards fill their logs at the same
/// pace, and would all make their checkpoints at the same moment.
fn spread(bytes: u64) -> u64 {
    bytes + uuid::Uuid::new_v4().as_u128() as u64 % (bytes / 4).max(1)
}
