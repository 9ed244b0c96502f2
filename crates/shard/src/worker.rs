//! Steps many shards of one node. The driver drains its inbox into
//! [`Worker::handle`], then calls [`Worker::finish`] once and carries out the
//! [`Output`]: one batch for the log, one frame per peer. The real node and
//! the simulator drive this same machine.

mod births;
mod clients;
mod health;
mod members;
mod merges;
mod replicas;
mod routing;
mod unfilled;
mod version;
mod views;

use crate::clock::ClockMonitor;
use crate::input::{Input, Setup};
use crate::outbox::{Outbox, Output, Pending};
use crate::records::{NodeRow, Roster};
use crate::shard::split::first_descriptor;
use crate::shard::{Now, Shard};
use crate::wire::{NodeMessage, ShardDescriptor, ShardMap};
use births::Coming;
use merges::{MergeView, SnapshotHead};
use replicas::Making;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::lease::{Hearing, LeaseMessage, NodeLease};
use synod_paxos::{GroupId, Message, Mono, NodeId};
use synod_probe::{Mark, mark};
use unfilled::Unfilled;

/// Rounds of local deliveries within one step; what is left waits for the next.
const MAX_LOCAL_ROUNDS: usize = 64;

/// The worker. `Clone` and encodable, so that states can be compared and hashed.
#[derive(Clone, Serialize)]
pub struct Worker {
    me: NodeId,
    map: ShardMap,
    roster: Roster,
    leases: NodeLease,
    /// How long each other node has been silent, by its own measure.
    hearing: Hearing,
    clock: ClockMonitor,
    disk_healthy: bool,
    disk_full: bool,
    making: Making,
    shards: BTreeMap<GroupId, Shard>,
    outbox: Outbox,
    /// Shards touched in this step.
    dirty: BTreeSet<GroupId>,
    /// Shards with commits that wait for a higher limit.
    parked: BTreeSet<GroupId>,
    /// Shards split off, whose replicas begin once the engine is ready.
    births: BTreeMap<GroupId, Coming>,
    /// Whether the range of any replica here goes beyond where another one's data begins.
    clips: bool,
    /// Since when leaders' messages for such shards wait for their birth.
    awaited: BTreeMap<GroupId, Mono>,
    merges: MergeView,
    timers: BTreeSet<(Mono, GroupId)>,
    timer_of: BTreeMap<GroupId, Mono>,
    /// When the logs of replicas without data were summed up, and whether they are full.
    unfilled: Unfilled,
    /// Counts messages for shards whose leader is not known here.
    asked: u64,
    /// Counts what was learned about members of shards.
    map_changes: u64,
}

impl Worker {
    /// A worker over recovered shards. What is decided but not applied is
    /// applied in the first step.
    #[must_use]
    pub fn new(setup: Setup, now: Now) -> Worker {
        let mut map = setup.map;
        let first = map.nodes.iter().cloned().map(NodeRow::first);
        let roster = Roster::new(first.chain(setup.nodes));
        map.nodes = roster.nodes().cloned().collect();
        let peers = map.nodes.iter().map(|n| n.id).collect();
        let hearing = Hearing::new(setup.lease.lease_nanos);
        let leases = NodeLease::new(
            setup.lease,
            setup.me,
            setup.incarnation,
            peers,
            setup.leases,
            now.mono,
        );
        let making = Making {
            paxos: setup.paxos,
            txn: setup.txn,
            versions: setup.versions,
            seed: setup.seed,
        };
        let mut shards = BTreeMap::new();
        let mut outbox = Outbox::default();
        for recovered in setup.shards {
            if recovered.is_new {
                mark(Mark::ChildAfterRestart);
                outbox.base(&recovered.descriptor, recovered.durable.clone());
            }
            let shard = making.shard(setup.me, recovered, now.mono);
            note(&mut map, &shard);
            for child in &shard.group.state().lineage.children {
                map.learn(&first_descriptor(child));
            }
            shards.insert(shard.descriptor.id, shard);
        }
        let mut worker = Worker {
            me: setup.me,
            clock: ClockMonitor::new(now),
            map,
            roster,
            leases,
            hearing,
            making,
            disk_healthy: true,
            disk_full: false,
            dirty: shards.keys().copied().collect(),
            shards,
            outbox,
            parked: BTreeSet::new(),
            births: BTreeMap::new(),
            clips: false,
            awaited: BTreeMap::new(),
            merges: MergeView::default(),
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            unfilled: Unfilled::default(),
            asked: 0,
            map_changes: 0,
        };
        worker.review_clips();
        let eras = worker.map.shards.iter();
        let forced = eras.filter(|d| d.configuration.epoch.era() > 0);
        let forced: Vec<ShardDescriptor> = forced.cloned().collect();
        worker.review_eras(now, &forced);
        worker.review_versions(now);
        worker.begin_merges(now);
        worker
    }

    /// When [`Input::Tick`] is wanted at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Mono> {
        let undelivered = !self.outbox.peers.is_empty() || !self.outbox.merges.is_empty();
        if !self.dirty.is_empty() || undelivered {
            // A step ended at its bound with work left.
            return Some(Mono(0));
        }
        let shards = self.timers.first().map(|(at, _)| *at);
        [
            shards,
            self.leases.next_timeout(),
            self.outbox.unhurried_due(),
            self.merges_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes one input. Effects are collected until [`Worker::finish`].
    pub fn handle(&mut self, now: Now, input: Input) {
        // Before anything rests on what the clock says (K2): the next tick may be far off.
        if let Some(verdict) = self.clock.check(now) {
            self.clock_verdict(now, verdict);
        }
        match input {
            Input::Peer { from, message } => self.handle_node(now, from, message),
            Input::Client { caller, request } => self.handle_client(now, caller, request),
            Input::Cancel { callers } => {
                let leases = &self.leases;
                for (id, shard) in &mut self.shards {
                    if shard.cancel(now, leases, &callers) {
                        self.dirty.insert(*id);
                    }
                }
            }
            Input::ClientSeen { client, live } => {
                for shard in self.shards.values_mut().filter(|s| s.in_office()) {
                    shard.group.handle_client_seen(now.mono, client, &live);
                }
            }
            Input::ClientGone { client } => {
                let leases = &self.leases;
                for (id, shard) in self.shards.iter_mut().filter(|(_, s)| s.in_office()) {
                    shard.client_gone(now, leases, client);
                    self.dirty.insert(*id);
                }
            }
            Input::Logged { ticket } => self.handle_logged(now, ticket),
            Input::ReadDone { group, token, rows } => {
                self.with(group, |s, leases, _| s.read_done(now, leases, token, rows));
            }
            Input::EngineApplied { group, slot } => {
                self.with(group, |s, _, _| s.handle_engine_applied(slot));
            }
            Input::Checkpointed { group, slot } => {
                if !self.keeps_for_children(group) {
                    self.with(group, |s, leases, _| s.trim(now, leases, slot));
                }
            }
            Input::SnapshotRead {
                group,
                to,
                id,
                chunk,
                data,
                done,
            } => self.with(group, |s, leases, _| {
                s.snapshot_read(now, leases, to, id, chunk, data, done);
            }),
            Input::SnapshotInstalled {
                group,
                id,
                span,
                state,
            } => {
                self.with(group, |s, leases, out| {
                    s.handle_snapshot_installed(now, leases, id, (span, &state), out);
                });
            }
            Input::Born { group } => self.handle_born(now, group),
            Input::Destroyed { group } => {
                self.with(group, |s, leases, out| s.handle_destroyed(now, leases, out));
                self.review_clips();
            }
            Input::DiskHealth { healthy } => {
                self.disk_healthy = healthy;
                self.review_health(now);
            }
            Input::DiskSpace { full } => {
                self.disk_full = full;
                for shard in self.shards.values_mut() {
                    shard.group.set_disk_full(full);
                }
            }
            Input::Transfer { group, to } => {
                self.with(group, |s, leases, out| s.transfer(now, leases, to, out));
            }
            Input::StepDown => self.hand_over_all(now),
            Input::Tick => self.handle_tick(now),
        }
    }

    /// Ends the step: pumps what was touched, flushes each shard once, delivers
    /// between local shards, and hands out everything to be done.
    pub fn finish(&mut self, now: Now) -> Output {
        if self.leases.next_timeout().is_some_and(|t| t <= now.mono) {
            self.handle_tick(now);
        }
        for _ in 0..MAX_LOCAL_ROUNDS {
            self.lease_step(now);
            let dirty = std::mem::take(&mut self.dirty);
            let mut news = Vec::new();
            let mut changed = false;
            for group in &dirty {
                if self.clips {
                    self.review_parts(*group);
                }
                self.apply_decided(now, *group);
                if let Some(shard) = self.shards.get_mut(group) {
                    shard.pump(now, &self.leases, &mut self.outbox);
                    shard.go_on_splitting(now, &self.leases);
                    shard.go_on_merging(now, &self.leases, &mut self.outbox);
                    shard.go_on_hashing(now, &self.leases);
                    shard.go_on_raising(now, &self.leases, self.making.versions.raised);
                    shard.flush(now, &self.leases, &mut self.outbox);
                    shard.review_descriptor();
                    if shard.take_members_news() && note(&mut self.map, shard) {
                        self.map_changes += 1;
                        changed |= shard.absorbed().is_some();
                    }
                    if shard.take_lineage_news() {
                        news.push(*group);
                    }
                    if shard.waits_for_limit() {
                        self.parked.insert(*group);
                    } else {
                        self.parked.remove(group);
                    }
                    let at = shard.next_timeout();
                    set_timer(&mut self.timers, &mut self.timer_of, *group, at);
                }
            }
            if changed {
                self.review_strays(now);
            }
            for group in &dirty {
                self.review_superseded(now, *group);
            }
            for group in &news {
                self.review_children(now, *group);
            }
            self.review_merges(now, &news);
            self.review_versions_of(now, &dirty);
            if let Some(pending) = self.outbox.seal() {
                self.complete(now, vec![pending]);
            }
            self.deliver_peers(now);
            self.deliver_merges(now);
            if self.dirty.is_empty() {
                break;
            }
        }
        if self.outbox.writes_groups() || !self.parked.is_empty() {
            self.leases.note_use(now.mono);
        }
        self.outbox.add_unhurried(now.mono);
        std::mem::take(&mut self.outbox.output)
    }

    fn with(&mut self, group: GroupId, f: impl FnOnce(&mut Shard, &NodeLease, &mut Outbox)) {
        if let Some(shard) = self.shards.get_mut(&group) {
            f(shard, &self.leases, &mut self.outbox);
            self.dirty.insert(group);
        }
    }

    fn handle_node(&mut self, now: Now, from: NodeId, message: NodeMessage) {
        match message {
            NodeMessage::Group { group, message } => {
                if !self.shards.contains_key(&group) && !self.make(now, from, group, &message) {
                    return;
                }
                let head = SnapshotHead::of(&message);
                if self.is_born_first(now, group, &message, head.as_ref()) {
                    return;
                }
                let chunk = matches!(message, Message::SnapshotChunk { .. });
                if chunk && self.shards.get(&group).is_some_and(Shard::is_superseded) {
                    return;
                }
                self.with(group, |s, leases, _| {
                    s.handle_message(now, leases, from, message);
                });
                if let Some(head) = head {
                    self.expect_merged(group, head);
                }
            }
            NodeMessage::Lease(message) => {
                let answers = matches!(message, LeaseMessage::Support { .. });
                if answers && from != self.me && self.map.node(from).is_some() {
                    self.hearing.heard(from, now.mono);
                }
                if let Some(verdict) = self.clock.compare(now, from, &message) {
                    self.clock_verdict(now, verdict);
                }
                let wall = (now.clock.earliest, now.clock.latest);
                self.leases.handle_message(now.mono, wall, from, message);
                self.lease_step(now);
            }
            NodeMessage::Transaction {
                shard,
                hops,
                message,
            } => self.route_peer(now, shard, hops, message),
            // Only routing rests on it: a replica here knows better, or will.
            NodeMessage::Shards(descriptors) => {
                if self.map.learn_all(&descriptors) {
                    self.map_changes += 1;
                    self.review_strays(now);
                }
                for descriptor in &descriptors {
                    self.pass_split_of(now, descriptor);
                }
                self.review_eras(now, &descriptors);
            }
            NodeMessage::Nodes(rows) => {
                self.learn_nodes(now, &rows);
            }
            NodeMessage::Version(version) => self.learn_version(now, version),
            NodeMessage::Merge {
                shard,
                hops,
                message,
            } => self.route_merge(now, shard, hops, *message),
            NodeMessage::Retired(shard) => self.handle_retired(now, shard),
            // The driver answers it.
            NodeMessage::MapDigest(_) => {}
        }
    }

    fn handle_logged(&mut self, now: Now, ticket: u64) {
        let ready = self.outbox.logged(ticket);
        self.complete(now, ready);
    }

    fn complete(&mut self, now: Now, ready: Vec<Pending>) {
        for pending in ready {
            for (to, message) in pending.release {
                if to == self.me {
                    self.handle_node(now, to, message);
                } else {
                    self.outbox.send(to, message);
                }
            }
            for seq in pending.leases {
                self.leases.handle_persisted(now.mono, seq);
            }
            for (group, seq) in pending.replicas {
                self.with(group, |s, leases, _| s.handle_persisted(now, leases, seq));
            }
        }
        self.lease_step(now);
    }

    fn handle_tick(&mut self, now: Now) {
        if self.leases.next_timeout().is_some_and(|t| t <= now.mono) {
            let wall = (now.clock.earliest, now.clock.latest);
            self.leases.handle_timeout(now.mono, wall);
            self.lease_step(now);
        }
        self.look_at_merges(now);
        self.review_unfilled(now);
        while let Some((at, group)) = self.timers.first().copied() {
            if at > now.mono {
                break;
            }
            set_timer(&mut self.timers, &mut self.timer_of, group, None);
            self.with(group, |s, leases, _| s.handle_timeout(now, leases));
        }
    }
}

/// The map names the range and the members that a replica here knows of, unless they are not of the
/// same time. Returns whether that is news.
fn note(map: &mut ShardMap, shard: &Shard) -> bool {
    !shard.is_behind() && map.learn(&shard.descriptor)
}

fn set_timer(
    timers: &mut BTreeSet<(Mono, GroupId)>,
    timer_of: &mut BTreeMap<GroupId, Mono>,
    group: GroupId,
    at: Option<Mono>,
) {
    let old = match at {
        Some(at) => timer_of.insert(group, at),
        None => timer_of.remove(&group),
    };
    if old == at {
        return;
    }
    if let Some(old) = old {
        timers.remove(&(old, group));
    }
    if let Some(at) = at {
        timers.insert((at, group));
    }
}
