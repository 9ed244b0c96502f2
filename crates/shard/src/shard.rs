//! One shard: consensus below, transactions above, and the steps between them.
//!
//! Every input is followed by a pump, which carries effects from one
//! machine to the other until both are quiet; what is left for the outside is
//! put into the worker's [`crate::Output`].

mod backlog;
mod hash;
mod members;
mod merge;
mod recover;
pub(crate) mod split;
mod straight;
mod version;
mod waiting;

pub use hash::HashError;
use hash::Rehash;
pub use members::Members;
use merge::Merges;
pub use merge::{MergeError, Merging};
use split::Cut;
pub use split::{SplitError, Splitting};
pub use version::Halt;
use waiting::Queue;

use crate::input::Versions;
use crate::outbox::{Outbox, SnapshotTask};
use crate::wire::{NodeMessage, ShardDescriptor, ShardReply, ShardRequest, SnapshotState};
use backlog::Backlog;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use synod_paxos::lease::NodeLease;
use synod_paxos::replica::{Cx as PaxosCx, FollowerProgress, Replica, Urgency};
use synod_paxos::{
    ClusterVersion, Effect as PaxosEffect, Entry, GroupId, Mono, NodeId, Round, Slot, SnapshotId,
    Term, VersionRange,
};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::request::Refusal;
use synod_txn::state::State;
use synod_txn::{
    AttemptId, Caller, Command, Cx as TxnCx, Effect as TxnEffect, Group, GroupSettings, Hashing,
    Interval, Key, Request, Response, Scratch, Span, Unencoded,
};

/// Bytes of versions that the engine has not applied yet, at most; past it
/// commits are refused as overloaded.
const MAX_UNAPPLIED_BYTES: usize = 64 << 20;
/// A commit is refused as overloaded while one proposed this long ago is not
/// decided: what is admitted is then served in about that time. Well above a
/// round trip around the world and the sync of any disk that works; nanoseconds.
const MAX_BACKLOG_NANOS: u64 = 500_000_000;
/// Retry hint of an overload answer; milliseconds.
const OVERLOAD_RETRY_MILLIS: u32 = 20;

/// Time as the driver read it at the start of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// The node's monotonic clock.
    pub mono: Mono,
    /// The node's wall clock.
    pub clock: Interval,
}

fn paxos_cx(now: Now, leases: &NodeLease) -> PaxosCx<'_> {
    PaxosCx {
        now: now.mono,
        leases,
    }
}

/// A replica of one shard on this node.
#[derive(Clone, Serialize)]
pub struct Shard {
    pub(crate) descriptor: ShardDescriptor,
    pub(crate) replica: Replica,
    pub(crate) group: Group,
    settings: GroupSettings,
    supports: VersionRange,
    /// The version that this term has proposed to go on in.
    raising: ClusterVersion,
    halted: Option<Halt>,
    /// The cluster's version is one that this program does not know.
    overtaken: bool,
    /// Everything up to here went through [`Group::apply`].
    applied: Slot,
    /// Everything up to here is in the engine.
    engine_applied: Slot,
    /// The term in which the group machine is in office.
    office: Option<Term>,
    waiting: Queue,
    /// What the transaction machine wanted proposed while the members change: in
    /// this order it goes on with, if the term does.
    held: VecDeque<(Command, bool)>,
    /// From proposing a stop-sign until the term goes on after it.
    suspended: bool,
    /// Confirming rounds it wanted meanwhile.
    unconfirmed: Vec<u64>,
    rounds: BTreeMap<Round, Vec<u64>>,
    /// Between the last staged chunk and the installed snapshot nothing is applied.
    installing: bool,
    /// False in quarantine (K2): no timestamp is picked.
    clock_usable: bool,
    /// When what is not decided yet was proposed.
    backlog: Backlog,
    /// Where commands are encoded.
    #[serde(skip)]
    scratch: Scratch,
    /// Between a transfer and the end of the term nothing new is proposed.
    handing_over: bool,
    /// Whether the descriptor changed since the node's map last took it over.
    members_news: bool,
    /// See [`Shard::is_behind`].
    is_behind: bool,
    /// A split that was asked for and is not over.
    cut: Option<Cut>,
    /// Why the last one did not come about, until somebody asks.
    uncut: Option<(GroupId, SplitError)>,
    /// A change of how keys are stored that was asked for and is not over.
    rehash: Option<Rehash>,
    /// Why the last one did not come about, until somebody asks.
    unhashed: Option<(Option<Hashing>, HashError)>,
    /// How many splits there were in its line when its children were last looked for.
    reviewed: Option<u64>,
    /// Where the data of another replica on this node begins: one that was split off, while
    /// this one has not come as far again.
    clip: Option<Key>,
    /// Whether the engine holds all that is other replicas' from there on.
    parts_whole: bool,
    merges: Merges,
}

/// What recovery hands to a shard.
pub struct Recovered {
    /// The shard.
    pub descriptor: ShardDescriptor,
    /// What the log said.
    pub durable: synod_paxos::Durable,
    /// The replicated state as the engine has it last, and its slot.
    pub checkpoint: Option<(Slot, State)>,
    /// The slot up to which the engine holds versions.
    pub engine_applied: Slot,
    /// Whether the log does not know it yet: a shard whose birth a crash cut short.
    pub is_new: bool,
}

impl Shard {
    /// A shard as recovery found it.
    pub(crate) fn new(
        recovered: Recovered,
        me: NodeId,
        paxos: synod_paxos::Settings,
        settings: GroupSettings,
        versions: Versions,
        seed: u64,
        now: Mono,
    ) -> Shard {
        let Recovered {
            descriptor,
            durable,
            checkpoint,
            engine_applied,
            is_new: _,
        } = recovered;
        let known = checkpoint.is_some();
        let (applied, group) = match checkpoint {
            Some((slot, state)) => (
                slot,
                Group::with_state(descriptor.id, settings.clone(), state),
            ),
            None => {
                let group = Group::new(descriptor.id, settings.clone());
                (Slot(0), group.begun_at(versions.first))
            }
        };
        let skips = mutated(Mutation::SkipAfterRestart) && applied < durable.decided;
        let applied = if skips { applied.next() } else { applied };
        // Data older than the log's first entry cannot be brought up to date from
        // the log: the replica votes as a witness until a snapshot arrives (§8).
        let holds_data = applied >= durable.trimmed;
        let replica = Replica::new(
            descriptor.id,
            me,
            paxos,
            durable,
            applied,
            group.state().began.as_ref(),
            holds_data,
            seed,
            now,
        );
        let mut shard = Shard {
            descriptor,
            replica,
            group,
            settings,
            supports: versions.supports,
            raising: ClusterVersion::default(),
            halted: None,
            overtaken: versions.raised > versions.supports.newest,
            applied,
            engine_applied,
            office: None,
            waiting: Queue::default(),
            held: VecDeque::new(),
            suspended: false,
            unconfirmed: Vec::new(),
            rounds: BTreeMap::new(),
            installing: false,
            clock_usable: true,
            backlog: Backlog::default(),
            scratch: Scratch::default(),
            handing_over: false,
            members_news: false,
            is_behind: false,
            cut: None,
            uncut: None,
            rehash: None,
            unhashed: None,
            reviewed: None,
            clip: None,
            parts_whole: false,
            merges: Merges::default(),
        };
        if known {
            // The log's descriptor may be of a range that the state comes to again.
            let epoch = u64::from(shard.descriptor.configuration.epoch.0);
            let splits = shard.group.state().lineage.splits;
            shard.descriptor.generation = epoch.saturating_add(splits);
        }
        shard.review_descriptor();
        shard.review_halt();
        shard
    }

    fn txn_cx(&self, now: Now, leases: &NodeLease) -> TxnCx {
        let cx = paxos_cx(now, leases);
        let leads = self.office.is_some() && !self.changes_members();
        TxnCx {
            now: now.mono,
            clock: now.clock,
            limit: if leads && self.clock_usable {
                self.replica.limit(&cx)
            } else {
                synod_paxos::Timestamp(0)
            },
            lease: leads
                && (self.replica.lease(&cx).is_some() || mutated(Mutation::ServeAfterLease)),
        }
    }

    /// Whether this replica leads and has taken office.
    #[must_use]
    pub fn in_office(&self) -> bool {
        self.office.is_some()
    }

    /// The term in which it is in office.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.office
    }

    /// The replica, for status.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The transaction machine, for status.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The descriptor.
    #[must_use]
    pub fn descriptor(&self) -> &ShardDescriptor {
        &self.descriptor
    }

    /// The slot up to which entries went through the state machine.
    #[must_use]
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// The slot up to which the engine holds versions.
    #[must_use]
    pub fn engine_applied(&self) -> Slot {
        self.engine_applied
    }

    /// When this shard next wants a tick.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Mono> {
        let group = self.group.next_timeout();
        match (
            self.replica.next_timeout(),
            group.filter(|_| !self.pauses()),
        ) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
        .into_iter()
        .chain(self.cut_timeout())
        .chain(self.merge_timeout())
        .chain(self.hash_timeout())
        .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Now, leases: &NodeLease) {
        let cx = paxos_cx(now, leases);
        if self.replica.next_timeout().is_some_and(|t| t <= now.mono) {
            self.replica.handle_timeout(&cx);
        }
        if self.group.next_timeout().is_some_and(|t| t <= now.mono) && !self.pauses() {
            let cx = self.txn_cx(now, leases);
            self.group.handle_timeout(&cx);
        }
    }

    pub(crate) fn handle_lease_change(&mut self, now: Now, leases: &NodeLease) {
        self.replica.handle_lease_change(&paxos_cx(now, leases));
        if self.office.is_some() && !self.pauses() {
            // A higher limit may free what was parked (K1).
            let cx = self.txn_cx(now, leases);
            self.group.handle_timeout(&cx);
        }
    }

    /// Whether commits wait for a higher limit.
    pub(crate) fn waits_for_limit(&self) -> bool {
        self.group.waits_for_limit()
    }

    /// Quarantine of the node's clock begins or ends (K2): a leader hands over.
    pub(crate) fn set_clock_usable(&mut self, now: Now, leases: &NodeLease, usable: bool) {
        self.clock_usable = usable;
        if !usable && self.leads() {
            self.step_down(now, leases);
        }
    }

    /// Relinquish leadership, if any; says which timestamps were used, so that
    /// the next leader need not wait for the limit.
    pub(crate) fn step_down(&mut self, now: Now, leases: &NodeLease) {
        let used = self.group.last();
        self.replica.relinquish(&paxos_cx(now, leases), used);
    }

    /// Hand leadership to `to` (a planned move, L4). From here on this replica
    /// proposes nothing and uses no timestamp; refused if it leads not, or `to`
    /// is not up to date.
    pub(crate) fn transfer(&mut self, now: Now, leases: &NodeLease, to: NodeId, out: &mut Outbox) {
        let used = self.group.last();
        if self
            .replica
            .transfer(&paxos_cx(now, leases), to, used)
            .is_ok()
        {
            self.handing_over = true;
            self.leave_office(out);
        }
    }

    /// Hands leadership, if any, to the follower that is best prepared: one that
    /// supports this node and holds most of the log. Which of several equals
    /// differs from shard to shard, so that one node's shards go to all others.
    /// Without such a follower it is given up. May be repeated until this replica
    /// leads no more.
    pub(crate) fn hand_over(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        if !self.leads() || self.handing_over {
            return;
        }
        let progress = self.replica.progress();
        let fit = |f: &&FollowerProgress| {
            self.replica.configuration().is_voter(f.node)
                && !f.snapshot
                && leases.held_from(f.node, now.mono).is_some()
        };
        let most = progress.iter().filter(fit).map(|f| f.matched).max();
        let equals: Vec<NodeId> = progress
            .iter()
            .filter(fit)
            .filter(|f| Some(f.matched) == most)
            .map(|f| f.node)
            .collect();
        let turn = usize::try_from(self.descriptor.id.0).unwrap_or_default();
        // A term between two configurations cannot be carried to another node.
        if let Some(to) = equals.get(turn % equals.len().max(1))
            && !self.replica.changes_members()
        {
            self.transfer(now, leases, *to, out);
        }
        if !self.handing_over {
            self.step_down(now, leases);
        }
    }

    /// A client's request. Answered at once, later, or (when the term ends) as
    /// not leader.
    pub(crate) fn handle_request(
        &mut self,
        now: Now,
        leases: &NodeLease,
        caller: Caller,
        request: ShardRequest,
        out: &mut Outbox,
    ) {
        if !self.owns(&request.request) {
            out.reply_wrong_node(caller, Shard::wrong_node(Some(&self.descriptor)));
            return;
        }
        // Only who is in office knows what was proposed: before, this may be a copy of an entry that
        // was, in an earlier term.
        if self.office.is_some()
            && let Some(refusal) = self.refuse(now, &request.request)
        {
            out.reply(caller, refusal);
            return;
        }
        if let Some(response) = self.answer_before_end(&request.request) {
            return out.reply(caller, response);
        }
        if self.office.is_some() && !self.pauses() {
            let hashing = request.hashing.as_deref();
            if let Some(refusal) = self.check_mapping(hashing, &request.request) {
                return out.reply(caller, Response::Refused(refusal));
            }
            let cx = self.txn_cx(now, leases);
            self.group.handle_request(&cx, caller, request.request);
        } else if self.leads() && self.waiting.has_room() {
            mark(Mark::WaitedForOffice);
            self.waiting.push_request(caller, request);
        } else {
            out.reply(caller, self.not_leader());
        }
    }

    /// Whether messages of other shards' leaders are for this replica: it is in office or about to be,
    /// as far as it knows.
    pub(crate) fn takes_peers(&self) -> bool {
        let is_about_to = || {
            let goes_on = !self.handing_over && !self.has_ended();
            self.leads() && goes_on && self.replica.left_behind_by().is_none()
        };
        self.office.is_some() || is_about_to()
    }

    /// A message of another shard's leader; one that comes before the office waits for it.
    pub(crate) fn handle_peer(
        &mut self,
        now: Now,
        leases: &NodeLease,
        message: synod_txn::PeerMessage,
    ) {
        if self.office.is_none() || self.pauses() {
            // Where there is no room its owner's next one will do.
            if self.waiting.push_peer(message) && self.office.is_none() {
                mark(Mark::PeerWaitedForOffice);
            }
            return;
        }
        if !self.is_anchor_here(&message) {
            return;
        }
        let cx = self.txn_cx(now, leases);
        self.group.handle_peer(&cx, message);
    }

    /// The anchor of an attempt's coordinator is another shard's than its intent here names.
    pub(crate) fn coordinator_moved(
        &mut self,
        now: Now,
        leases: &NodeLease,
        attempt: AttemptId,
        anchor: &Key,
    ) {
        // Else the next vote tells.
        if self.office.is_some() && !self.pauses() {
            let cx = self.txn_cx(now, leases);
            self.group.handle_coordinator_moved(&cx, attempt, anchor);
        }
    }

    fn not_leader(&self) -> Response {
        let hint = self.replica.leader().filter(|n| *n != self.replica.me());
        Response::Refused(Refusal::NotLeader { hint })
    }

    /// What is refused before the transaction machine sees it.
    fn refuse(&mut self, now: Now, request: &Request) -> Option<Response> {
        let Request::Commit(commit) = request else {
            return None;
        };
        let late = self.backlog.age(self.replica.decided(), now.mono) > MAX_BACKLOG_NANOS;
        let full = self.replica.undecided_full();
        let overloaded = late || full || self.group.overlay_bytes() > MAX_UNAPPLIED_BYTES;
        // It says that nothing was proposed: of a copy that is not true.
        if overloaded && !self.group.has_met(commit.attempt) {
            return Some(Response::Refused(Refusal::Overloaded {
                retry_after_millis: OVERLOAD_RETRY_MILLIS,
            }));
        }
        None
    }

    /// Carries effects between the two machines until both are quiet.
    pub(crate) fn pump(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        loop {
            let paxos = self.replica.drain_effects();
            let txn = self.group.drain_effects();
            if paxos.is_empty() && txn.is_empty() {
                return;
            }
            for effect in paxos {
                self.carry_out_paxos(now, leases, effect, out);
            }
            for effect in txn {
                self.carry_out_txn(now, leases, effect, out);
            }
        }
    }

    /// End of a step: everything proposed in it goes out as one batch.
    pub(crate) fn flush(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        self.replica.flush(&paxos_cx(now, leases));
        self.pump(now, leases, out);
    }

    fn carry_out_paxos(
        &mut self,
        now: Now,
        leases: &NodeLease,
        effect: PaxosEffect,
        out: &mut Outbox,
    ) {
        let group = self.descriptor.id;
        match effect {
            PaxosEffect::Send { to, message } => {
                out.send(to, NodeMessage::Group { group, message });
            }
            PaxosEffect::Persist {
                records,
                release,
                seq,
            } => out.persist(group, records, release, seq),
            PaxosEffect::Decided { .. } => self.apply_decided(now, leases, out),
            PaxosEffect::Deposed { .. } => {
                self.handing_over = false;
                if !mutated(Mutation::KeepOffice) {
                    self.leave_office(out);
                }
            }
            PaxosEffect::Confirmed { round } => {
                let later = self.rounds.split_off(&Round(round.0 + 1));
                let ready = std::mem::replace(&mut self.rounds, later);
                let cx = self.txn_cx(now, leases);
                for token in ready.into_values().flatten() {
                    self.group.handle_confirmed(&cx, token);
                }
            }
            PaxosEffect::ReadSnapshot { to, id, chunk } => match id {
                Some(id) => out.read_snapshot(group, to, id, chunk),
                // Part of the range is another replica's by now, and gone; once the split is
                // applied here again there is something to send.
                None if self.is_clipped() && !self.parts_whole => {}
                // What is left of it here is another shard's, and perhaps not all of it there.
                None if self.merges.superseded && !self.has_ended() => {}
                None => {
                    let id = SnapshotId {
                        slot: self.applied,
                        nonce: now.mono.0,
                    };
                    let state = self.group.checkpoint();
                    let span = self.descriptor.span.clone();
                    let passed = self.passed();
                    let state = SnapshotState {
                        span,
                        passed,
                        state,
                    };
                    // Older programs cannot read these, and without merges nobody needs them.
                    let merges = self.version() >= Command::MERGE_SINCE;
                    let ancestors = self.group.state().lineage.ancestors.iter().copied();
                    let ancestors = ancestors.filter(|_| merges).collect();
                    out.open_snapshot(group, to, id, state, ancestors);
                }
            },
            PaxosEffect::CloseSnapshot { to } => out.close_snapshot(group, to),
            PaxosEffect::Destroy => {
                let absorbed = self.supersedes().to_vec();
                out.destroy(group, self.span_to_clear(), absorbed);
            }
            PaxosEffect::StageSnapshot {
                id,
                chunk,
                data,
                done,
            } => {
                self.installing |= done;
                out.stage_snapshot(SnapshotTask::Stage {
                    group,
                    span: self.data_span(),
                    clip: self.clip.clone(),
                    absorbed: self.supersedes().to_vec(),
                    id,
                    chunk,
                    data,
                    done,
                });
            }
        }
    }

    fn carry_out_txn(&mut self, now: Now, leases: &NodeLease, effect: TxnEffect, out: &mut Outbox) {
        match effect {
            TxnEffect::Propose { command, lazy } => {
                if self.pauses() || !self.held.is_empty() {
                    self.held.push_back((command, lazy));
                } else {
                    self.propose(now, leases, &command, lazy);
                }
            }
            TxnEffect::Respond { to, response } => self.answer(now, leases, to, response, out),
            TxnEffect::Peer { shard, message } => out.peer(shard, message),
            TxnEffect::Read {
                token,
                keys,
                scan,
                at,
            } => out.read(self.descriptor.id, token, keys, scan, at),
            TxnEffect::Write(batch) => {
                if batch.slot > self.engine_applied {
                    out.write(self.descriptor.id, self.clip_batch(batch));
                }
            }
            TxnEffect::Confirm { token } if self.changes_members() => {
                self.unconfirmed.push(token);
            }
            TxnEffect::Confirm { token } => {
                let cx = paxos_cx(now, leases);
                if let Ok(round) = self.replica.confirm(&cx) {
                    self.rounds.entry(round).or_default().push(token);
                }
            }
        }
    }

    /// Gives a command the next slot; none if consensus refuses it.
    fn try_propose(
        &mut self,
        now: Now,
        leases: &NodeLease,
        command: &Command,
        urgency: Urgency,
    ) -> Option<Slot> {
        assert!(
            command.since() <= self.version() || mutated(Mutation::ProposeEarly),
            "P8: an entry of version {} was about to be proposed in a shard of version {}",
            command.since().0,
            self.version().0
        );
        let bytes = self.scratch.encode(command).ok()?;
        let cx = paxos_cx(now, leases);
        self.replica.propose(&cx, bytes, urgency).ok()
    }

    fn propose(&mut self, now: Now, leases: &NodeLease, command: &Command, lazy: bool) {
        let urgency = if lazy { Urgency::Lazy } else { Urgency::Now };
        match self.try_propose(now, leases, command, urgency) {
            Some(slot) => self.backlog.add(slot, now.mono),
            None if self.leads() => {
                mark(Mark::ProposalRefused);
                // The machine above counts on its slot. It cannot have it, so this
                // term ends here rather than wait for an entry that never comes.
                self.step_down(now, leases);
            }
            None => {}
        }
    }

    /// Applies what is decided, in order; takes office once its entry is applied.
    pub(crate) fn apply_decided(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        if !self.is_whole() || self.merges.superseded {
            return;
        }
        let decided = self.replica.decided();
        if self.applied < decided && self.halted.is_none() {
            let cx = self.txn_cx(now, leases);
            let mut halt = None;
            while self.applied < decided {
                let slot = self.applied.next();
                let Some(entry) = self.replica.entry(slot) else {
                    break;
                };
                match entry {
                    Entry::Command(bytes) => match version::read(slot, bytes, self.supports) {
                        Ok(Command::Absorb(absorb)) if self.group.absorbs(&absorb) => {
                            let Some(right) = self.take_right(&absorb) else {
                                break;
                            };
                            self.group.absorb(&cx, slot, *absorb, &right);
                            self.absorbed_applied();
                            self.review_range();
                            self.applied = slot;
                            // What follows may write where the other replica did so far.
                            break;
                        }
                        Ok(command) => {
                            let resumes = matches!(command, Command::Resume { .. });
                            self.group.apply(&cx, slot, command);
                            self.review_range();
                            if resumes {
                                self.resume_applied();
                            }
                        }
                        Err(why) => {
                            halt = Some(why);
                            break;
                        }
                    },
                    Entry::TermStart(start) => self.group.apply_term_start(&cx, slot, **start),
                    Entry::StopSign(stop) => self.group.apply_stop_sign(slot, stop),
                    Entry::Noop => self.group.apply_noop(slot),
                }
                self.applied = slot;
            }
            out.mark(self.descriptor.id, self.applied);
            self.replica
                .handle_applied(&paxos_cx(now, leases), self.applied);
            self.end_cut(now, leases, out);
            self.review_merge(now, leases, out);
            self.end_hash(now, leases);
            if let Some(why) = halt {
                self.halt(now, leases, why);
            }
        }
        self.take_office(now, leases);
    }

    /// The replicated state and its slot, for the engine; none while the engine
    /// holds something else (§8).
    pub(crate) fn checkpoint(&self) -> Option<(Slot, Unencoded)> {
        let mut slot = self.applied;
        if mutated(Mutation::ApplyTwiceAfterRestart) {
            slot = slot.prev();
        }
        self.is_whole()
            .then(|| (slot, self.group.checkpoint_unencoded()))
    }

    /// Whether the engine holds this replica's data, and nothing else in its place.
    pub(crate) fn is_whole(&self) -> bool {
        !self.installing && self.replica.holds_data() && !self.replica.is_being_destroyed()
    }

    fn take_office(&mut self, now: Now, leases: &NodeLease) {
        if self.handing_over || !self.replica.in_office() || self.has_ended() {
            return;
        }
        if self.office.is_some() {
            return self.go_on(now, leases);
        }
        // A node in quarantine does not campaign, and gives up what it leads; should a
        // campaign begun before it still be won, the office is declined. So it is by one
        // whose program the cluster has overtaken.
        if !self.clock_usable || self.stands_back() {
            return self.step_down(now, leases);
        }
        let Some(ballot) = self.replica.term() else {
            return;
        };
        let term = Term {
            group: self.descriptor.id,
            ballot,
        };
        self.office = Some(term);
        let cx = self.txn_cx(now, leases);
        self.group.take_office(&cx, term);
        // Last in the order of P6: the requests that queued meanwhile.
        self.hand_in_waiting(now, leases);
    }

    fn leave_office(&mut self, out: &mut Outbox) {
        if self.office.take().is_some() {
            self.group.leave_office();
        }
        self.held.clear();
        self.suspended = false;
        self.cut = None;
        self.uncut = None;
        self.leave_merges();
        self.rehash = None;
        self.unhashed = None;
        self.raising = ClusterVersion::default();
        self.unconfirmed.clear();
        self.rounds.clear();
        self.backlog = Backlog::default();
        let answer = self.not_leader();
        for caller in self.group.take_orphans() {
            if caller != hash::LOOKING {
                out.reply(caller, answer.clone());
            }
        }
        for caller in std::mem::take(&mut self.waiting).into_callers() {
            out.reply(caller, answer.clone());
        }
    }

    /// The engine holds everything up to `slot`.
    pub(crate) fn handle_engine_applied(&mut self, slot: Slot) {
        self.engine_applied = self.engine_applied.max(slot);
        self.group.handle_engine_applied(slot);
    }

    /// A snapshot was installed in the engine; go on from it.
    pub(crate) fn handle_snapshot_installed(
        &mut self,
        now: Now,
        leases: &NodeLease,
        id: SnapshotId,
        (span, state): (Span, &[u8]),
        out: &mut Outbox,
    ) {
        match Group::restore(self.descriptor.id, self.settings.clone(), state) {
            Ok(mut group) => {
                // An engine's late answer must not meet a reused number.
                group.number_after(&self.group);
                self.group = group;
                self.reviewed = None;
                self.forget_awaited();
                self.applied = id.slot;
                self.engine_applied = id.slot;
                self.installing = false;
                self.replica
                    .handle_snapshot_installed(&paxos_cx(now, leases), id);
                // One made by a map that knew of splits which this state has still before it.
                self.descriptor.span = span;
                self.review_descriptor();
                self.review_halt();
                self.apply_decided(now, leases, out);
            }
            Err(error) => out.fatal(format!(
                "the snapshot of shard {} at slot {} cannot be read: {error}",
                self.descriptor.id.0, id.slot.0
            )),
        }
    }

    /// An answer for the driver's [`ShardReply`].
    #[must_use]
    pub fn wrong_node(descriptor: Option<&ShardDescriptor>) -> ShardReply {
        ShardReply::WrongNode(descriptor.cloned().map(Box::new))
    }
}
