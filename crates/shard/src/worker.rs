//! Steps many shards of one node. The driver drains its inbox into
//! [`Worker::handle`], then calls [`Worker::finish`] once and carries out the
//! [`Output`]: one batch for the log, one frame per peer. The real node and
//! the simulator drive this same machine.

mod births;
mod merges;
mod version;

use crate::clock::{ClockMonitor, ClockVerdict};
use crate::input::{Input, Setup, Versions};
use crate::outbox::{Outbox, Output, Pending};
use crate::records::{NodeRow, Roster};
use crate::shard::split::first_descriptor;
use crate::shard::{Members, Now, Recovered, Shard};
use crate::wire::{NodeMessage, ShardDescriptor, ShardMap, ShardReply, ShardRequest};
use births::{Coming, is_of_split};
use merges::{MergeView, SnapshotHead};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::lease::{Hearing, LeaseEffect, LeaseMessage, LeaseRecord, NodeLease};
use synod_paxos::{
    Configuration, Durable, Epoch, GroupId, Holds, Message, Mono, NodeId, ReconfigureError,
    RecoverError, Replica, Slot,
};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::peer::{PeerBody, Vote};
use synod_txn::request::{Refusal, Response};
use synod_txn::{Caller, GroupSettings, Key, Outcome, PeerMessage, RestoreError, Unencoded};

/// How often a transaction message may be passed on before it is dropped; its
/// owner repeats it (T9).
const MAX_HOPS: u8 = 3;
/// 2^64 over the golden ratio: its multiples spread evenly over any number of
/// members, also if only every second or third is looked at.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
/// Rounds of local deliveries within one step; what is left waits for the next.
const MAX_LOCAL_ROUNDS: usize = 64;

/// What replicas are made with.
#[derive(Clone, Serialize)]
struct Making {
    paxos: synod_paxos::Settings,
    txn: GroupSettings,
    versions: Versions,
    seed: u64,
}

impl Making {
    fn shard(&self, me: NodeId, recovered: Recovered, now: Mono) -> Result<Shard, RestoreError> {
        let mut paxos = self.paxos.clone();
        paxos.priority = u16::from(recovered.descriptor.preferred_leader == me);
        let id = recovered.descriptor.id;
        let seed = self.seed ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Shard::new(
            recovered,
            me,
            paxos,
            self.txn.clone(),
            self.versions,
            seed,
            now,
        )
    }
}

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
    /// Counts messages for shards whose leader is not known here.
    asked: u64,
    /// Counts what was learned about members of shards.
    map_changes: u64,
}

impl Worker {
    /// A worker over recovered shards. What is decided but not applied is
    /// applied in the first step.
    ///
    /// # Errors
    /// A checkpoint that cannot be read.
    pub fn new(setup: Setup, now: Now) -> Result<Worker, RestoreError> {
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
            let shard = making.shard(setup.me, recovered, now.mono)?;
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
        Ok(worker)
    }

    /// The map this worker routes by.
    #[must_use]
    pub fn map(&self) -> &ShardMap {
        &self.map
    }

    /// All nodes, and what each is meant to be.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// A number that two nodes share if they know the same of all shards, nodes and the
    /// cluster's version, and hardly otherwise.
    #[must_use]
    pub fn map_digest(&self) -> u64 {
        let rest = self.roster.digest().wrapping_add(self.version_digest());
        self.map.digest().wrapping_add(rest)
    }

    /// Rises whenever the map, the roster or the cluster's version changes.
    #[must_use]
    pub fn map_changes(&self) -> u64 {
        self.map_changes
    }

    /// The support exchange, for status.
    #[must_use]
    pub fn leases(&self) -> &NodeLease {
        &self.leases
    }

    /// How suspect the silence of other nodes is.
    #[must_use]
    pub fn hearing(&self) -> &Hearing {
        &self.hearing
    }

    /// The clock's state, for status.
    #[must_use]
    pub fn clock(&self) -> &ClockMonitor {
        &self.clock
    }

    /// All shards with a replica here.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    /// One shard.
    #[must_use]
    pub fn shard(&self, group: GroupId) -> Option<&Shard> {
        self.shards.get(&group)
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

    /// The replicated state of a shard and its slot, for a checkpoint of the engine. None if
    /// there is no such replica, or its data is not all there.
    #[must_use]
    pub fn checkpoint(&self, group: GroupId) -> Option<(Slot, Unencoded)> {
        self.shards.get(&group)?.checkpoint()
    }

    /// Everything durable of every replica, and of the lease exchange: what a
    /// log must repeat before its older part may go.
    #[must_use]
    pub fn bases(&self) -> (Vec<(&ShardDescriptor, Durable)>, Vec<LeaseRecord>) {
        let groups = self
            .shards
            .values()
            .map(|shard| (&shard.descriptor, shard.replica.durable()))
            .collect();
        (groups, self.leases.records())
    }

    /// Messages dropped for a named reason, over all shards.
    #[must_use]
    pub fn ignored(&self) -> Vec<(String, u64)> {
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for shard in self.shards.values() {
            for (reason, count) in shard.replica.ignored() {
                *all.entry(format!("{reason:?}")).or_default() += count;
            }
        }
        all.into_iter().collect()
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
            Input::Cancel { caller } => {
                let leases = &self.leases;
                for (id, shard) in &mut self.shards {
                    shard.cancel(now, leases, caller);
                    self.dirty.insert(*id);
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

    /// Nodes have joined, or are meant to be something else. Who was retired is neither
    /// asked for support nor given any.
    pub fn learn_nodes(&mut self, now: Now, rows: &[NodeRow]) {
        let news = rows.iter().filter(|row| self.roster.learn(row)).count();
        if news == 0 {
            return;
        }
        self.map.nodes = self.roster.nodes().cloned().collect();
        self.map_changes += 1;
        let peers = self.map.nodes.iter().map(|n| n.id).collect();
        let map = &self.map;
        self.hearing.retain(|node| map.node(node).is_some());
        self.leases.set_peers(peers);
        self.lease_step(now);
    }

    /// A leader sends a shard's entries or state to a node without a replica of it:
    /// this node is a member by now. It begins outside of the group, and becomes
    /// part of it with the state that a configuration begins with (G1).
    fn make(&mut self, now: Now, from: NodeId, group: GroupId, message: &Message) -> bool {
        match message {
            Message::Accept { .. } | Message::SnapshotChunk { .. } => {}
            // The first leader of what was split off may need this node's vote, which
            // it has once it is brought to where the others began.
            Message::PreVote { .. } | Message::Prepare { .. } if self.is_founder(from, group) => {}
            Message::Held { began, .. } => {
                let epoch = began.configuration.epoch;
                let message = Message::Gone { epoch };
                self.outbox
                    .send(from, NodeMessage::Group { group, message });
                return false;
            }
            _ => return false,
        }
        let Some(descriptor) = self.map.shard(group).cloned() else {
            return false;
        };
        self.pass_split_of(now, &descriptor);
        if self.will_be_born(now, &descriptor) {
            return false;
        }
        mark(Mark::ReplicaMade);
        if is_of_split(&descriptor) {
            self.make_empty_later(descriptor);
            return false;
        }
        // What else this state consists of a node's driver knows only at a start.
        self.make_empty(now, descriptor).is_some()
    }

    /// A replica without data, outside of its group, until a snapshot brings it.
    fn make_empty(&mut self, now: Now, descriptor: ShardDescriptor) -> Option<&mut Shard> {
        let recovered = Recovered {
            descriptor,
            durable: Durable::new(Configuration::outside()),
            checkpoint: None,
            engine_applied: Slot(0),
            is_new: true,
        };
        let shard = self.add(now, recovered)?;
        shard.replica.lose_data();
        Some(shard)
    }

    /// Takes a replica in that begins now.
    fn add(&mut self, now: Now, recovered: Recovered) -> Option<&mut Shard> {
        let (descriptor, durable) = (recovered.descriptor.clone(), recovered.durable.clone());
        let id = descriptor.id;
        let mut shard = self.making.shard(self.me, recovered, now.mono).ok()?;
        shard.group.set_disk_full(self.disk_full);
        shard.set_clock_usable(now, &self.leases, self.clock.quarantine().is_none());
        self.outbox.base(&descriptor, durable);
        self.shards.insert(id, shard);
        self.awaited.remove(&id);
        self.dirty.insert(id);
        // Ranges overlap only where there was a split; a node that is filled up has thousands.
        if self.shards.values().any(|s| is_of_split(&s.descriptor)) {
            self.review_clips();
        }
        self.shards.get_mut(&id)
    }

    /// Asks the shard's leader, if it is here, for other members; it then says so
    /// by [`crate::ShardDescriptor`] once that has happened.
    ///
    /// # Errors
    /// See [`ReconfigureError`]; nothing was proposed then.
    pub fn reconfigure(
        &mut self,
        now: Now,
        group: GroupId,
        members: Members,
    ) -> Result<Slot, ReconfigureError> {
        let Some(shard) = self.shards.get_mut(&group) else {
            return Err(ReconfigureError::NotLeader { leader: None });
        };
        let named = [&members.voters, &members.witnesses, &members.learners];
        if let Some(node) = named
            .into_iter()
            .flatten()
            .find(|n| self.map.node(**n).is_none())
        {
            return Err(ReconfigureError::UnknownNode { node: *node });
        }
        // What has its timestamp takes its slot before the stop-sign (K3).
        shard.pump(now, &self.leases, &mut self.outbox);
        let slot = shard.reconfigure(now, &self.leases, members)?;
        self.dirty.insert(group);
        Ok(slot)
    }

    /// A replica here goes on alone; see [`synod_paxos::Replica::recover`].
    ///
    /// # Errors
    /// See [`RecoverError`]; nothing was changed then.
    pub fn recover(
        &mut self,
        now: Now,
        group: GroupId,
        holds: Holds,
        epoch: Epoch,
    ) -> Result<Slot, RecoverError> {
        let shard = self.shards.get_mut(&group);
        let shard = shard.ok_or(RecoverError::NoReplica)?;
        let slot = shard.recover(now, &self.leases, holds, epoch)?;
        self.dirty.insert(group);
        Ok(slot)
    }

    /// Shards that went on in another era, with a survivor alone: what a replica here holds of
    /// the earlier one counts for nothing, and it must not lead by it.
    fn review_eras(&mut self, now: Now, descriptors: &[ShardDescriptor]) {
        for descriptor in descriptors {
            let era = descriptor.configuration.epoch.era();
            let older = |s: &&mut Shard| s.replica.configuration().epoch.era() < era;
            if let Some(shard) = self.shards.get_mut(&descriptor.id).filter(older) {
                shard.overrule(now, &self.leases, &descriptor.configuration);
                self.dirty.insert(descriptor.id);
            }
        }
    }

    fn handle_client(&mut self, now: Now, caller: Caller, request: ShardRequest) {
        let id = request.shard;
        let is_behind = |shard: &Shard| {
            // Whoever serves knows better than whoever told it so.
            shard.replica.left_behind_by().is_some() && !shard.in_office()
        };
        let has_turned = |shard: &Shard| shard.is_gone() || is_behind(shard);
        let turned = self.shards.get(&id).is_some_and(has_turned);
        if let Some(reply) = turned.then(|| self.reply_elsewhere(now, id)).flatten() {
            self.outbox.reply_wrong_node(caller, reply);
        } else if let Some(shard) = self.shards.get_mut(&id).filter(|s| s.is_member()) {
            shard.handle_request(now, &self.leases, caller, request, &mut self.outbox);
            // At once, so that the next request's admission sees what this one proposed.
            shard.pump(now, &self.leases, &mut self.outbox);
            self.dirty.insert(id);
        } else {
            let known = self.map.shard(id).cloned().map(Box::new);
            self.outbox
                .reply_wrong_node(caller, ShardReply::WrongNode(known));
        }
    }

    /// What a client is told where the replica here is of no use to it any more.
    fn reply_elsewhere(&mut self, now: Now, id: GroupId) -> Option<ShardReply> {
        let gone = self.shards.get(&id).is_some_and(Shard::is_gone);
        let absorbed = gone.then(|| self.reply_of_absorbed(id)).flatten();
        absorbed.or_else(|| self.reply_left_behind(now, id))
    }

    /// What a client is told where a replica was left behind: the members of long ago, whom its log
    /// names, may all be gone, and the client may know no others.
    fn reply_left_behind(&mut self, now: Now, id: GroupId) -> Option<ShardReply> {
        let replica = &self.shards.get(&id)?.replica;
        let told = replica.left_behind_by()?.epoch;
        if let Some(mapped) = self.map.shard(id)
            && mapped.configuration.epoch >= told
        {
            return Some(ShardReply::WrongNode(Some(Box::new(mapped.clone()))));
        }
        // Whoever told this replica told it of members only: it makes no descriptor of that, as it
        // does not know what range goes with them.
        let hint = self.any_member(id, now.mono);
        let refusal = Refusal::NotLeader { hint };
        Some(ShardReply::Response(Response::Refused(refusal)))
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
        while let Some((at, group)) = self.timers.first().copied() {
            if at > now.mono {
                break;
            }
            set_timer(&mut self.timers, &mut self.timer_of, group, None);
            self.with(group, |s, leases, _| s.handle_timeout(now, leases));
        }
    }

    /// Carries out what the lease machine wants; a change of any view goes to all replicas,
    /// a higher limit to those that wait for one.
    fn lease_step(&mut self, now: Now) {
        loop {
            let effects = self.leases.drain_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    LeaseEffect::Send { to, message } if to == self.me => {
                        let wall = (now.clock.earliest, now.clock.latest);
                        self.leases.handle_message(now.mono, wall, to, message);
                    }
                    LeaseEffect::Send { to, message } => {
                        self.outbox.send(to, NodeMessage::Lease(message));
                    }
                    LeaseEffect::Persist {
                        record,
                        release,
                        seq,
                    } => self.outbox.persist_lease(record, release, seq),
                }
            }
        }
        let raised = self.leases.take_raised();
        if self.leases.take_changed() {
            for (id, shard) in &mut self.shards {
                shard.handle_lease_change(now, &self.leases);
                self.dirty.insert(*id);
            }
        } else if raised {
            for id in &self.parked {
                if let Some(shard) = self.shards.get_mut(id) {
                    shard.handle_lease_change(now, &self.leases);
                    self.dirty.insert(*id);
                }
            }
        }
    }

    fn clock_verdict(&mut self, now: Now, verdict: ClockVerdict) {
        if mutated(Mutation::IgnoreQuarantine) {
            return;
        }
        let usable = verdict == ClockVerdict::Usable;
        for (id, shard) in &mut self.shards {
            shard.set_clock_usable(now, &self.leases, usable);
            self.dirty.insert(*id);
        }
        self.review_health(now);
    }

    /// A node with a stalled disk (L6) or a clock in quarantine (K2) asks nobody
    /// for support, so it neither keeps leaderships nor wins new ones.
    fn review_health(&mut self, now: Now) {
        let disk = self.disk_healthy || mutated(Mutation::RenewOnStalledDisk);
        let healthy = disk && self.clock.quarantine().is_none();
        self.leases.set_healthy(now.mono, healthy);
        self.lease_step(now);
    }

    fn hand_over_all(&mut self, now: Now) {
        for (id, shard) in &mut self.shards {
            if shard.leads() {
                shard.hand_over(now, &self.leases, &mut self.outbox);
                self.dirty.insert(*id);
            }
        }
    }

    fn deliver_peers(&mut self, now: Now) {
        for _ in 0..self.outbox.peers.len() {
            let Some((shard, message)) = self.outbox.peers.pop_front() else {
                return;
            };
            self.note_moved(now, shard, &message);
            self.route_peer(now, shard, 0, message);
        }
    }

    /// A participant here votes to a shard that owns the coordinator's anchor no more, as this node's
    /// map says: it need not wait before it asks for an end.
    fn note_moved(&mut self, now: Now, named: GroupId, message: &PeerMessage) {
        let PeerBody::Vote {
            vote: Vote::Yes(_), ..
        } = message.body
        else {
            return;
        };
        let (anchor, from) = (&message.anchor, &message.from);
        let owner = self.map.shard_of(anchor);
        if owner.is_none_or(|owner| owner.id == named) {
            return;
        }
        // A map that lags does not know the shard that is named, or not yet.
        let former = self.map.shard(named);
        if former.is_none_or(|former| former.span.contains(anchor)) {
            return;
        }
        let Some(voter) = self.owner(from, GroupId(0)) else {
            return;
        };
        if let Some(shard) = self.shards.get_mut(&voter) {
            shard.coordinator_moved(now, &self.leases, message.attempt, anchor);
            self.dirty.insert(voter);
        }
    }

    /// To the leader of the shard that owns the message's anchor: here, or on
    /// the node that seems to have it.
    fn route_peer(&mut self, now: Now, hint: GroupId, hops: u8, message: PeerMessage) {
        let Some(owner) = self.owner(&message.anchor, hint) else {
            return;
        };
        if let Some(shard) = self.shards.get_mut(&owner)
            && shard.in_office()
        {
            shard.handle_peer(now, &self.leases, message);
            self.dirty.insert(owner);
            return;
        }
        if hops >= MAX_HOPS {
            mark(Mark::HopsExhausted);
            return;
        }
        if let Some(to) = self.whom_to_ask(owner, now.mono) {
            if hops > 0 {
                mark(Mark::MessagePassedOn);
            }
            // Nobody's locks or answers wait for these (T6); an abort's first
            // Resolve is a recorded one, and locks do wait for that.
            let unhurried = matches!(
                message.body,
                PeerBody::Ack
                    | PeerBody::Resolve {
                        outcome: Outcome::Committed(_),
                        recorded: true,
                    }
            );
            let message = NodeMessage::Transaction {
                shard: owner,
                hops: hops + 1,
                message,
            };
            if unhurried {
                self.outbox.send_unhurried(now.mono, to, message);
            } else {
                self.outbox.send(to, message);
            }
        }
    }

    /// Any member of a shard knows its leader, but this one or that may be gone for long:
    /// repetitions go to different ones (T9), of those that seem to be there if there are any.
    /// By a golden ratio, since those of one message may come in step with what else is asked.
    fn any_member(&mut self, shard: GroupId, now: Mono) -> Option<NodeId> {
        self.asked = self.asked.wrapping_add(GOLDEN_RATIO);
        let mapped = self.map.shard(shard).map(|s| &s.configuration);
        // The map follows the logs of the replicas here. One that was left behind was told of
        // members that its log does not know.
        let replica = self.shards.get(&shard).map(|s| &s.replica);
        let told = replica.and_then(Replica::left_behind_by);
        let youngest = mapped.into_iter().chain(told).max_by_key(|c| c.epoch)?;
        let others = youngest.voters.iter().copied().filter(|m| *m != self.me);
        let mut others: Vec<NodeId> = others.collect();
        if others.iter().any(|m| self.hearing.is_there(*m, now)) {
            others.retain(|m| self.hearing.is_there(*m, now));
        }
        let count = others.len().max(1) as u64;
        let at = ((self.asked >> 32) % count) as usize;
        others.get(at).copied()
    }

    fn owner(&self, anchor: &Key, hint: GroupId) -> Option<GroupId> {
        let known = self.shards.get(&hint);
        // Of one that was absorbed an empty one is left.
        let known = known.filter(|shard| shard.is_member() && !shard.is_gone());
        if known.is_some_and(|shard| shard.descriptor.span.contains(anchor)) {
            return Some(hint);
        }
        // Who was told of one half of a split only asks there for the other.
        self.map.nearest(anchor).map(|s| s.id)
    }
}

/// The map names the members that a replica here knows of. Returns whether that is news.
fn note(map: &mut ShardMap, shard: &Shard) -> bool {
    map.learn(&shard.descriptor)
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
