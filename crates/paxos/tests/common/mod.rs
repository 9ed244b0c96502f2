//! A virtual cluster of one group: network, disks, engines and clocks in one
//! thread, with real lease machines between the nodes. The golden scripts and
//! the randomized test drive it.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod oracle;

use bytes::Bytes;
use oracle::Oracle;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use synod_paxos::lease::{LeaseEffect, LeaseMessage, LeaseRecord, LeaseSettings, NodeLease};
use synod_paxos::{
    Began, Configuration, Cx, Durable, Effect, Entry, GroupId, Incarnation, Message, Mono, NodeId,
    PersistSeq, Record, RecoverError, Replica, Seal, Settings, Slot, SnapshotId, Timestamp,
    Urgency,
};

/// The wall clock when the virtual time is 0, so that no timestamp is negative or tiny.
pub const EPOCH: u64 = 1_000_000_000;

/// One message on the way.
#[derive(Clone, Debug)]
pub struct Packet {
    pub from: NodeId,
    pub to: NodeId,
    pub body: Body,
}

/// What it carries.
#[derive(Clone, Debug)]
pub enum Body {
    Paxos(Message),
    Lease(LeaseMessage),
}

/// A persist effect whose sync has not finished.
pub struct Pending {
    pub records: Vec<Record>,
    pub release: Vec<(NodeId, Message)>,
    pub seq: PersistSeq,
}

/// The same of a lease record: what to write, what may leave then, its number.
pub type PendingLease = (LeaseRecord, Vec<(NodeId, LeaseMessage)>, u64);

/// What a node keeps through a crash.
pub struct Disk {
    pub durable: Durable,
    pub leases: Vec<LeaseRecord>,
    pub incarnation: u64,
    /// The engine as it was last synced: all commands applied, in order.
    pub engine: Vec<Entry>,
    pub engine_lost: bool,
}

/// A running node.
pub struct Running {
    pub replica: Replica,
    pub leases: NodeLease,
    pub pending: VecDeque<Pending>,
    pub lease_pending: VecDeque<PendingLease>,
    /// The engine in memory: entries 1..=applied.
    pub engine: Vec<Entry>,
    pub staged: Option<(SnapshotId, Vec<u8>)>,
    pub opened: BTreeMap<NodeId, (SnapshotId, Vec<u8>)>,
}

/// A node, running or not.
pub struct Node {
    pub id: NodeId,
    pub disk: Disk,
    pub run: Option<Running>,
    pub settings: Settings,
    /// Persists finish at once.
    pub auto: bool,
    pub skew_ppm: i64,
    pub offset: u64,
}

/// The cluster.
pub struct Sim {
    pub now: u64,
    pub nodes: BTreeMap<NodeId, Node>,
    pub net: VecDeque<Packet>,
    /// One-way cuts.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub leases: LeaseSettings,
    pub configuration: Configuration,
    /// Lease messages arrive at once (scripts), or travel like others.
    pub instant_leases: bool,
    pub chunk: usize,
    pub seed: u64,
    pub trace: Vec<String>,
    pub oracle: Oracle,
}

/// The configuration that the state machine names.
pub fn configured(engine: &[Entry]) -> Option<Began> {
    let found = engine.iter().enumerate().rev().find_map(|(i, e)| match e {
        Entry::StopSign(stop) => Some((i as u64 + 1, stop)),
        _ => None,
    });
    found.map(|(slot, stop)| Began {
        configuration: stop.successor.clone(),
        after: Slot(slot),
        left: stop.left.clone(),
    })
}

impl Node {
    /// This node's monotonic clock at virtual time `now`.
    pub fn mono(&self, now: u64) -> Mono {
        let skew = i128::from(now) * i128::from(self.skew_ppm) / 1_000_000;
        Mono(u64::try_from(i128::from(now) + skew).unwrap() + self.offset)
    }
}

impl Sim {
    pub fn new(
        configuration: Configuration,
        spares: &[NodeId],
        settings: &Settings,
        seed: u64,
    ) -> Sim {
        let nodes = configuration
            .members()
            .chain(spares.iter().copied())
            .map(|id| {
                let first = if spares.contains(&id) {
                    Configuration::outside()
                } else {
                    configuration.clone()
                };
                let node = Node {
                    id,
                    disk: Disk {
                        durable: Durable::new(first),
                        leases: Vec::new(),
                        incarnation: 0,
                        engine: Vec::new(),
                        engine_lost: false,
                    },
                    run: None,
                    settings: settings.clone(),
                    auto: true,
                    skew_ppm: 0,
                    offset: 0,
                };
                (id, node)
            })
            .collect();
        Sim {
            now: 0,
            nodes,
            net: VecDeque::new(),
            cut: BTreeSet::new(),
            leases: LeaseSettings::default(),
            oracle: Oracle::new(&configuration),
            configuration,
            instant_leases: true,
            chunk: 16,
            seed,
            trace: Vec::new(),
        }
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub fn up(&self, id: NodeId) -> Option<&Running> {
        self.nodes[&id].run.as_ref()
    }

    pub fn replica(&self, id: NodeId) -> &Replica {
        &self.up(id).expect("the node runs").replica
    }

    pub fn wall(&self) -> (Timestamp, Timestamp) {
        (Timestamp(EPOCH + self.now), Timestamp(EPOCH + self.now))
    }

    /// Starts a node from its disk.
    pub fn start(&mut self, id: NodeId) {
        let wall = self.wall();
        let members: Vec<NodeId> = self.ids();
        let (leases, group) = (self.leases, GroupId(7));
        let seed = self.seed ^ (id.0 << 32);
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(node.run.is_none(), "{id} runs already");
        let now = node.mono(self.now);
        node.disk.incarnation += 1;
        let incarnation = Incarnation(node.disk.incarnation);
        let engine = node.disk.engine.clone();
        let applied = Slot(engine.len() as u64);
        let replica = Replica::new(
            group,
            id,
            node.settings.clone(),
            node.disk.durable.clone(),
            applied,
            configured(&engine).as_ref(),
            !node.disk.engine_lost,
            seed + incarnation.0,
            now,
        );
        self.oracle.restarted(&replica);
        let records = node.disk.leases.clone();
        let mut leases = NodeLease::new(leases, id, incarnation, members, records, now);
        leases.handle_timeout(now, wall);
        node.run = Some(Running {
            replica,
            leases,
            pending: VecDeque::new(),
            lease_pending: VecDeque::new(),
            engine,
            staged: None,
            opened: BTreeMap::new(),
        });
        self.settle(id);
    }

    /// Stops a node; what was not synced is gone. `engine_ahead`: what the engine
    /// applied happens to be on disk although nobody synced it.
    pub fn crash(&mut self, id: NodeId, engine_ahead: bool) {
        let node = self.nodes.get_mut(&id).unwrap();
        if let Some(run) = node.run.take()
            && engine_ahead
            && run.replica.holds_data()
        {
            node.disk.engine = run.engine;
        }
    }

    /// One input to a replica, and everything that follows from it on its node.
    pub fn with<T>(&mut self, id: NodeId, f: impl FnOnce(&mut Replica, &Cx<'_>) -> T) -> Option<T> {
        let result = self.with_quietly(id, f)?;
        self.settle(id);
        Some(result)
    }

    fn with_quietly<T>(
        &mut self,
        id: NodeId,
        f: impl FnOnce(&mut Replica, &Cx<'_>) -> T,
    ) -> Option<T> {
        let node = self.nodes.get_mut(&id)?;
        let now = node.mono(self.now);
        let run = node.run.as_mut()?;
        let cx = Cx {
            now,
            leases: &run.leases,
        };
        Some(f(&mut run.replica, &cx))
    }

    /// A survivor goes on alone, by its own account of what it holds.
    pub fn recover(&mut self, id: NodeId, seal: Seal, behind: bool) -> Result<Slot, RecoverError> {
        let act = |r: &mut Replica, cx: &Cx<'_>| {
            let mut holds = r.holds();
            if behind {
                holds.last = holds.last.prev();
            }
            r.recover(cx, holds, holds.epoch.next_era(), seal)
        };
        let slot = self.with_quietly(id, act).expect("it runs")?;
        self.oracle
            .recovers(&self.nodes[&id].run.as_ref().unwrap().replica);
        self.settle(id);
        Ok(slot)
    }

    pub fn with_leases<T>(
        &mut self,
        id: NodeId,
        f: impl FnOnce(&mut NodeLease, Mono, (Timestamp, Timestamp)) -> T,
    ) -> Option<T> {
        let wall = self.wall();
        let node = self.nodes.get_mut(&id)?;
        let now = node.mono(self.now);
        let run = node.run.as_mut()?;
        let result = f(&mut run.leases, now, wall);
        self.settle(id);
        Some(result)
    }

    /// Flushes and carries out effects until the node is quiet.
    pub fn settle(&mut self, id: NodeId) {
        for _ in 0..10_000 {
            self.with_quietly(id, Replica::flush);
            let Some(node) = self.nodes.get_mut(&id) else {
                return;
            };
            let Some(run) = &mut node.run else { return };
            let effects = run.replica.drain_effects();
            let lease_effects = run.leases.drain_effects();
            let changed = run.leases.take_changed();
            if effects.is_empty() && lease_effects.is_empty() && !changed {
                self.check(id);
                return;
            }
            for effect in effects {
                self.carry_out(id, effect);
            }
            for effect in lease_effects {
                self.carry_out_lease(id, effect);
            }
            if changed {
                self.with_quietly(id, Replica::handle_lease_change);
            }
        }
        panic!("{id} never becomes quiet");
    }

    fn check(&mut self, id: NodeId) {
        self.oracle.check_one(self.now, &self.nodes, id);
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.oracle
            .sent(&self.nodes[&from].disk.durable, from, to, &message);
        self.trace.push(format!("{from}→{to} {message}"));
        self.net.push_back(Packet {
            from,
            to,
            body: Body::Paxos(message),
        });
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(id, to, message),
            Effect::Persist {
                records,
                release,
                seq,
            } => {
                let node = self.nodes.get_mut(&id).unwrap();
                let run = node.run.as_mut().unwrap();
                run.pending.push_back(Pending {
                    records,
                    release,
                    seq,
                });
                if node.auto {
                    self.persist(id, usize::MAX);
                } else if let Some(last) = run.pending.back() {
                    let records = last.records.iter().map(|r| format!(" [{r}]"));
                    let line = format!("{id} submits {}{}", seq, records.collect::<String>());
                    self.trace.push(line);
                }
            }
            Effect::Decided { through } => {
                self.trace.push(format!("{id} decided {through}"));
                self.apply(id);
            }
            Effect::ReadSnapshot {
                to,
                id: snapshot,
                chunk,
            } => {
                self.read_snapshot(id, to, snapshot, chunk);
            }
            Effect::CloseSnapshot { to } => {
                self.trace
                    .push(format!("{id} closes the snapshot for {to}"));
                let run = self.nodes.get_mut(&id).unwrap().run.as_mut().unwrap();
                run.opened.remove(&to);
            }
            Effect::StageSnapshot {
                id: snapshot,
                chunk,
                data,
                done,
            } => self.stage(id, snapshot, chunk, &data, done),
            Effect::Confirmed { round } => {
                self.oracle.confirmed(id, round);
                self.trace.push(format!("{id} confirmed {round}"));
            }
            Effect::Destroy => {
                self.trace.push(format!("{id} destroys its data"));
                self.oracle.destroyed(&self.nodes, id);
                let node = self.nodes.get_mut(&id).unwrap();
                node.disk.engine.clear();
                node.disk.engine_lost = false;
                let run = node.run.as_mut().unwrap();
                run.engine.clear();
                run.staged = None;
                self.with_quietly(id, |r, cx| r.handle_destroyed(cx));
            }
            effect @ Effect::Deposed { .. } => self.trace.push(format!("{id} {effect}")),
        }
    }

    /// Finishes up to `count` of the syncs that run on a node.
    pub fn persist(&mut self, id: NodeId, count: usize) {
        for _ in 0..count {
            let node = self.nodes.get_mut(&id).unwrap();
            let Some(run) = &mut node.run else { return };
            let Some(done) = run.pending.pop_front() else {
                return;
            };
            for record in done.records {
                node.disk.durable.replay(record);
            }
            for (to, message) in done.release {
                self.send(id, to, message);
            }
            self.with(id, |r, cx| r.handle_persisted(cx, done.seq));
        }
    }

    fn apply(&mut self, id: NodeId) {
        let run = self.nodes.get_mut(&id).unwrap().run.as_mut().unwrap();
        if !run.replica.holds_data() || run.replica.installing().is_some() {
            return;
        }
        let decided = run.replica.decided();
        while (run.engine.len() as u64) < decided.0 {
            let slot = Slot(run.engine.len() as u64 + 1);
            let entry = run.replica.entry(slot).expect("decided entries are held");
            run.engine.push(entry.clone());
        }
        self.with_quietly(id, |r, cx| r.handle_applied(cx, decided));
    }

    fn read_snapshot(&mut self, id: NodeId, to: NodeId, snapshot: Option<SnapshotId>, chunk: u64) {
        let size = self.chunk;
        let run = self.nodes.get_mut(&id).unwrap().run.as_mut().unwrap();
        if snapshot.is_none() {
            let opened = SnapshotId {
                slot: Slot(run.engine.len() as u64),
                nonce: id.0,
            };
            let image = postcard::to_allocvec(&run.engine).unwrap();
            run.opened.insert(to, (opened, image));
        }
        let Some((opened, image)) = run.opened.get(&to) else {
            return;
        };
        let from = (chunk as usize * size).min(image.len());
        let through = (from + size).min(image.len());
        let data = Bytes::copy_from_slice(&image[from..through]);
        let (opened, done) = (*opened, through == image.len());
        self.with_quietly(id, |r, cx| {
            r.handle_snapshot_read(cx, to, opened, chunk, data, done);
        });
    }

    fn stage(&mut self, id: NodeId, snapshot: SnapshotId, chunk: u64, data: &[u8], done: bool) {
        let node = self.nodes.get_mut(&id).unwrap();
        let run = node.run.as_mut().unwrap();
        if chunk == 0 {
            run.staged = Some((snapshot, Vec::new()));
        }
        let (staged, image) = run.staged.as_mut().expect("chunk 0 came first");
        assert_eq!(*staged, snapshot);
        image.extend_from_slice(data);
        if done {
            let engine: Vec<Entry> = postcard::from_bytes(image).expect("the image is whole");
            assert_eq!(engine.len() as u64, snapshot.slot.0);
            if engine.len() > run.engine.len() || !run.replica.holds_data() {
                node.disk.engine.clone_from(&engine);
                node.disk.engine_lost = false;
                run.engine = engine;
            }
            self.trace
                .push(format!("{id} installs snapshot {snapshot}"));
            self.with_quietly(id, |r, cx| r.handle_snapshot_installed(cx, snapshot));
            self.apply(id);
        }
    }

    /// Syncs the engine and trims the log below it.
    pub fn trim(&mut self, id: NodeId, through: Slot) -> Option<Slot> {
        let node = self.nodes.get_mut(&id)?;
        let run = node.run.as_mut()?;
        if run.replica.holds_data() {
            node.disk.engine.clone_from(&run.engine);
        }
        self.with(id, |r, cx| r.trim(cx, through))
    }

    fn carry_out_lease(&mut self, id: NodeId, effect: LeaseEffect) {
        match effect {
            LeaseEffect::Send { to, message } => self.send_lease(id, to, message),
            LeaseEffect::Persist {
                record,
                release,
                seq,
            } => {
                let run = self.nodes.get_mut(&id).unwrap().run.as_mut().unwrap();
                run.lease_pending.push_back((record, release, seq));
                if self.instant_leases {
                    self.persist_lease(id);
                }
            }
        }
    }

    pub fn persist_lease(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let now = node.mono(self.now);
        let Some(run) = &mut node.run else { return };
        let Some((record, release, seq)) = run.lease_pending.pop_front() else {
            return;
        };
        node.disk.leases.retain(|r| r.holder != record.holder);
        node.disk.leases.push(record);
        run.leases.handle_persisted(now, seq);
        for (to, message) in release {
            self.send_lease(id, to, message);
        }
        if !self.instant_leases {
            self.settle(id);
        }
    }

    fn send_lease(&mut self, from: NodeId, to: NodeId, message: LeaseMessage) {
        let packet = Packet {
            from,
            to,
            body: Body::Lease(message),
        };
        if self.instant_leases || from == to {
            self.deliver(packet);
        } else {
            self.net.push_back(packet);
        }
    }

    /// A packet arrives, unless its link is cut or its receiver is down.
    pub fn deliver(&mut self, packet: Packet) {
        let Packet { from, to, body } = packet;
        if self.cut.contains(&(from, to)) || self.nodes.get(&to).is_none_or(|n| n.run.is_none()) {
            return;
        }
        match body {
            Body::Paxos(message) => {
                self.with(to, |r, cx| r.handle_message(cx, from, message));
            }
            Body::Lease(message) => {
                self.with_leases(to, |l, now, wall| {
                    l.handle_message(now, wall, from, message);
                });
            }
        }
    }

    /// Fires all timers that are due on a node.
    pub fn fire(&mut self, id: NodeId) {
        let now = self.nodes[&id].mono(self.now);
        if self
            .up(id)
            .is_some_and(|r| r.leases.next_timeout().is_some_and(|t| t <= now))
        {
            self.with_leases(id, |l, now, wall| {
                // Scripts are timed by renewals each L/4.
                l.note_use(now);
                l.handle_timeout(now, wall);
            });
        }
        if self
            .up(id)
            .is_some_and(|r| r.replica.next_timeout().is_some_and(|t| t <= now))
        {
            self.with(id, Replica::handle_timeout);
            let again = self.up(id).and_then(|r| r.replica.next_timeout());
            assert!(
                again.is_none_or(|t| t > now),
                "{id}: a fired timer stays due"
            );
        }
    }

    /// When some timer fires next (without skew).
    pub fn next_timeout(&self) -> Option<u64> {
        self.nodes
            .values()
            .filter_map(|n| n.run.as_ref())
            .flat_map(|r| [r.replica.next_timeout(), r.leases.next_timeout()])
            .flatten()
            .map(|t| t.0)
            .min()
    }

    pub fn propose(&mut self, id: NodeId, text: &str, urgency: Urgency) -> Result<Slot, String> {
        let bytes = text.as_bytes().into();
        self.with(id, |r, cx| r.propose(cx, bytes, urgency))
            .ok_or_else(|| "it is down".to_owned())?
            .map_err(|e| e.to_string())
    }

    pub fn confirm(&mut self, id: NodeId) -> Result<synod_paxos::Round, String> {
        let round = self
            .with_quietly(id, |r, cx| r.confirm(cx))
            .ok_or_else(|| "it is down".to_owned())?
            .map_err(|e| e.to_string())?;
        let run = self.nodes[&id].run.as_ref().unwrap();
        self.oracle.asked(&run.replica, round);
        self.settle(id);
        Ok(round)
    }
}
