//! The server side of transactions in one shard: participant, coordinator,
//! lock table and reads, behind one log.
//!
//! Call order: every decided entry goes through [`Group::apply`],
//! [`Group::apply_term_start`] or [`Group::apply_noop`], in slot order, on all
//! replicas. Requests and peers' messages are handed in only between
//! [`Group::take_office`] and [`Group::leave_office`]. After every call,
//! [`Group::drain_effects`] gives what is to be done, in order; a
//! [`Effect::Propose`] takes the next slot in that same step (K3).
//!
//! | file | subject |
//! |---|---|
//! | `office` | what only a leader knows |
//! | `memory` | what it remembers of attempts it said no about |
//! | `read` | lock-free and locked reads, merged from overlay and engine |
//! | `session` | sessions, clients, wounds, validation |
//! | `commit` | a Commit from its arrival to its entry |
//! | `participant` | votes, resolutions, polls |
//! | `coordinator` | staged to outcome, acks |
//! | `inquiry` | status, asks: what became of an attempt? |
//! | `split` | what a leader lets go of when the end of its range becomes another shard's |
//! | `merge` | what it lets go of before its shard is merged with another |
//! | `timeouts` | everything that is repeated or given up |
//! | `checks`, `bounds` | what a request may ask, by itself and with what is held |
//! | `times` | which times an attempt's id may have |
//!
//! Not done here: optimistic commits, bounded clock mode (commit wait,
//! snapshots at a timestamp).

mod bounds;
mod checks;
mod commit;
mod coordinator;
mod inquiry;
mod memory;
mod merge;
mod office;
mod participant;
mod read;
mod session;
mod split;
mod timeouts;
mod times;
mod views;

use crate::checkpoint::{RestoreError, Unencoded};
use crate::command::Command;
use crate::effect::{Effect, ReadToken, WriteBatch};
use crate::lineage::Birth;
use crate::overlay::Overlay;
use crate::peer::{PeerBody, PeerMessage};
use crate::request::{Refusal, Request, Response};
use crate::settings::{GroupSettings, TERM_INCREMENT};
use crate::state::{Applied, State};
use crate::types::{AttemptId, Caller, Interval, Key, Outcome, Participant};
use bytes::Bytes;
use office::{Office, Phase, Progress, Timer};
use read::Waiting;
use serde::Serialize;
use std::collections::BTreeMap;
use synod_paxos::{ClusterVersion, GroupId, Mono, Slot, StopSign, Term, TermStart, Timestamp};
use synod_probe::{Mark, Mutation, mark, mutated};

/// What a step knows of the world around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cx {
    /// Monotonic time.
    pub now: Mono,
    /// Wall time.
    pub clock: Interval,
    /// The highest timestamp that may be used (L4); 0 if none was granted.
    pub limit: Timestamp,
    /// Whether this leader holds the lease.
    pub lease: bool,
}

/// Counts of what should never, or seldom, happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Messages that contradict the replicated state, refused (T5).
    pub contradictions: u64,
    /// Messages that named a term or an attempt they have no business with.
    pub strays: u64,
    /// Sessions ended by an older transaction.
    pub wounds: u64,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    shard: GroupId,
    settings: GroupSettings,
    state: State,
    overlay: Overlay,
    office: Option<Box<Office>>,
    /// Requests that wait for something; also names lock waiters, engine reads and rounds.
    waiting: BTreeMap<u64, Waiting>,
    next_request: u64,
    orphans: Vec<Caller>,
    /// Its members or its range change: no timestamp is assigned meanwhile.
    suspended: bool,
    /// Meanwhile commits of several shards are turned down.
    refuses_joint: bool,
    effects: Vec<Effect>,
    counters: Counters,
    /// Only deletes are let in.
    disk_full: bool,
    /// What was split off and nobody has taken over yet.
    births: Vec<Birth>,
}

impl Group {
    /// An empty shard.
    #[must_use]
    pub fn new(shard: GroupId, settings: GroupSettings) -> Group {
        Group {
            shard,
            settings,
            state: State::default(),
            overlay: Overlay::default(),
            office: None,
            waiting: BTreeMap::new(),
            next_request: 1,
            orphans: Vec::new(),
            suspended: false,
            refuses_joint: false,
            effects: Vec::new(),
            counters: Counters::default(),
            disk_full: false,
            births: Vec::new(),
        }
    }

    /// The same, of a cluster that begins with this version (P8).
    #[must_use]
    pub fn begun_at(mut self, version: ClusterVersion) -> Group {
        if version > ClusterVersion::OLDEST {
            self.state.version = version;
        }
        self
    }

    /// The cluster version that the shard's log has come to: it allows the kinds of entries
    /// up to there (P8).
    #[must_use]
    pub fn version(&self) -> ClusterVersion {
        self.state.version.max(ClusterVersion::OLDEST)
    }

    /// While this node's disk is nearly full, a Commit with writes other than
    /// deletes is turned down for good; what was let in before goes on.
    pub fn set_disk_full(&mut self, full: bool) {
        self.disk_full = full;
    }

    /// The replicated state, encoded with a format number.
    #[must_use]
    pub fn checkpoint(&self) -> Bytes {
        self.state.encode()
    }

    /// The same, to be encoded elsewhere.
    #[must_use]
    pub fn checkpoint_unencoded(&self) -> Unencoded {
        self.state.to_encode()
    }

    /// A replica from a checkpoint; the engine must hold every version up to its slot.
    ///
    /// # Errors
    /// If the checkpoint is empty, damaged, or of a newer format.
    pub fn restore(
        shard: GroupId,
        settings: GroupSettings,
        checkpoint: &[u8],
    ) -> Result<Group, RestoreError> {
        let state = State::decode(shard, checkpoint)?;
        Ok(Group::with_state(shard, settings, state))
    }

    /// A replica that begins with this state; the engine must hold every version up to its slot.
    #[must_use]
    pub fn with_state(shard: GroupId, settings: GroupSettings, state: State) -> Group {
        Group {
            state,
            ..Group::new(shard, settings)
        }
    }

    /// Takes the place of another replica on the same node. It goes on with that
    /// one's numbering, so that an engine's late answer to its read is not taken
    /// for its own.
    pub fn number_after(&mut self, old: &Group) {
        self.next_request = self.next_request.max(old.next_request);
        self.disk_full = old.disk_full;
    }

    /// A hash of the replicated state: equal on all replicas after the same slot.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.state.digest()
    }

    /// Applies a decided command.
    pub fn apply(&mut self, cx: &Cx, slot: Slot, command: Command) {
        if slot <= self.state.applied && !mutated(Mutation::ApplyTwiceAfterRestart) {
            return;
        }
        let (applied, versions) = self.state.apply(self.shard, slot, command);
        self.overlay.insert(slot, &versions);
        if !versions.is_empty() {
            self.effects
                .push(Effect::Write(WriteBatch { slot, versions }));
        }
        if let Applied::Split(Some(birth)) = applied {
            self.births.push(*birth);
            if self.office.is_some() {
                self.leave_range();
            }
            return self.settle(cx);
        }
        if self.office.is_none() {
            return;
        }
        self.with_office(|_, office, state| office.last = office.last.max(state.last));
        match applied {
            Applied::Quiet | Applied::Acked | Applied::Split(_) | Applied::Merge => {}
            Applied::OneShard(attempt, timestamp) => self.one_shard_applied(attempt, timestamp),
            Applied::Intent(attempt, fresh) => self.intent_applied(cx, attempt, fresh),
            Applied::Outcome(attempt, fresh) => self.outcome_applied(cx, attempt, fresh),
            Applied::Resolved(attempt) => self.resolve_applied(attempt),
            // The driver ends the term.
            Applied::Hashed(_) => {}
        }
        self.settle(cx);
    }

    /// Applies the entry that begins a term (K1, L4).
    pub fn apply_term_start(&mut self, _cx: &Cx, slot: Slot, start: TermStart) {
        if slot > self.state.applied || mutated(Mutation::ApplyTwiceAfterRestart) {
            self.state.apply_term_start(self.shard, slot, start);
            self.with_office(|_, office, state| office.last = office.last.max(state.last));
        }
    }

    /// Applies the entry that ends a configuration (G2). In office, the term may go
    /// on in the next one; until the driver knows, it hands in nothing.
    pub fn apply_stop_sign(&mut self, slot: Slot, stop: &StopSign) {
        if slot > self.state.applied || mutated(Mutation::ApplyTwiceAfterRestart) {
            self.state.apply_stop_sign(slot, stop);
            self.with_office(|_, office, state| office.last = office.last.max(state.last));
        }
    }

    /// Applies an entry that changes nothing.
    pub fn apply_noop(&mut self, slot: Slot) {
        self.state.applied = self.state.applied.max(slot);
    }

    /// Takes office (P6): everything up to this term's first entry is applied.
    /// Locks of open intents, then coordinator state, then votes again.
    pub fn take_office(&mut self, cx: &Cx, term: Term) {
        self.leave_office();
        if mutated(Mutation::ForgetOverlay) {
            self.overlay = Overlay::default();
        }
        let start = self.start(cx);
        self.office = Some(Box::new(Office::new(term, start, self.state.last)));
        self.adopt_locks();
        self.adopt_records(cx);
        self.adopt_intents(cx);
        self.arm_housekeeping(cx);
        self.settle(cx);
    }

    /// The shard's members are about to change, or it is about to be split. Until [`Group::resume`], or the end of
    /// the term, no timestamp is assigned: `last` rises with the stop-sign, and whatever
    /// comes after it must lie above (K3). Other proposals may still come.
    pub fn suspend(&mut self) {
        self.suspended = true;
    }

    /// The term goes on, perhaps in another configuration, or with fewer keys.
    pub fn resume(&mut self, cx: &Cx) {
        self.suspended = false;
        self.refuses_joint = false;
        self.settle(cx);
    }

    /// Drops everything that only a leader has. Its callers are left to [`Group::take_orphans`].
    pub fn leave_office(&mut self) {
        self.suspended = false;
        self.refuses_joint = false;
        let Some(office) = self.office.take() else {
            return;
        };
        self.overlay.drop_provisional();
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            self.orphans.extend(waiting.caller());
        }
        for active in office.active.into_values() {
            match active.progress {
                Progress::Queued(queued) => self.orphans.extend(queued.callers),
                Progress::OneShard(callers) if mutated(Mutation::AnswerUndecided) => {
                    for caller in callers {
                        self.answer_outcome(caller, Outcome::Committed(office.last), 1);
                    }
                }
                Progress::OneShard(callers) => self.orphans.extend(callers),
                Progress::Running | Progress::Intent(_) => {}
            }
        }
        for coordination in office.coordinations.into_values() {
            self.orphans.extend(coordination.callers);
        }
        if !self.orphans.is_empty() {
            mark(Mark::OrphansLeft);
        }
        // What the old term still wanted proposed, read or said to other shards
        // ends with it; answers already given stand.
        self.effects
            .retain(|e| matches!(e, Effect::Write(_) | Effect::Respond { .. }));
    }

    /// Callers whose answer ended with the term; the driver answers `NotLeader`.
    pub fn take_orphans(&mut self) -> Vec<Caller> {
        std::mem::take(&mut self.orphans)
    }

    /// Handles a client's request. Only in office.
    pub fn handle_request(&mut self, cx: &Cx, from: Caller, request: Request) {
        let Some(term) = self.term() else {
            return self.refuse(from, Refusal::NotLeader { hint: None });
        };
        match request {
            Request::Latest { keys, scan } => self.handle_latest(cx, from, keys, scan),
            Request::LockedRead { .. } => self.handle_locked_read(cx, from, request),
            Request::Commit(commit) => self.handle_commit(cx, from, *commit),
            Request::Validate {
                attempt,
                session,
                keep,
            } => self.handle_validate(cx, from, attempt, session, keep),
            Request::Release { attempt, .. } => self.handle_release(from, attempt),
            Request::Status {
                attempt,
                anchor,
                term,
            } => self.handle_status(cx, from, attempt, anchor, term),
            Request::Locate => self.respond(
                from,
                Response::Located {
                    term,
                    now: self.id_time(cx),
                },
            ),
        }
        self.settle(cx);
    }

    /// Handles another leader's message. Only in office.
    pub fn handle_peer(&mut self, cx: &Cx, message: PeerMessage) {
        if self.office.is_none() {
            return;
        }
        let PeerMessage {
            attempt,
            anchor,
            from,
            body,
        } = message;
        match body {
            PeerBody::Vote { vote, term } => {
                self.handle_vote(attempt, anchor, from, vote, term);
            }
            PeerBody::Resolve { outcome, recorded } => {
                self.handle_resolve(cx, attempt, anchor, from, outcome, recorded);
            }
            PeerBody::Ack => self.handle_ack(attempt, &from),
            PeerBody::Ask => self.handle_ask(attempt, anchor, from),
            PeerBody::AskOrAbort { participants } => {
                self.handle_ask_or_abort(cx, attempt, anchor, from, participants);
            }
            PeerBody::Poll { term } => self.handle_poll(cx, attempt, anchor, from, term),
            PeerBody::Wound { by } => self.handle_wound(attempt, anchor, from, by),
            PeerBody::Forgotten => self.handle_forgotten(cx, attempt, &from),
            // Go on asking.
            PeerBody::Pending => {}
            // The driver looks the anchor up again (T10).
            PeerBody::Moved => self.coordinator_moved(cx, attempt, &from),
        }
        self.settle(cx);
    }

    /// The node's map says that the anchor of an attempt's coordinator belongs to another shard than
    /// the one to which this participant has just sent its vote.
    pub fn handle_coordinator_moved(&mut self, cx: &Cx, attempt: AttemptId, anchor: &Key) {
        self.coordinator_moved(cx, attempt, anchor);
        self.settle(cx);
    }

    /// The engine answered a read.
    pub fn handle_read(&mut self, cx: &Cx, token: ReadToken, rows: crate::effect::EngineRows) {
        self.finish_read(cx, token.0, rows);
        self.settle(cx);
    }

    /// A confirming round that was asked for has ended well.
    pub fn handle_confirmed(&mut self, cx: &Cx, token: u64) {
        self.confirmed(cx, token);
        self.settle(cx);
    }

    /// The engine holds all versions up to `slot`.
    pub fn handle_engine_applied(&mut self, slot: Slot) {
        self.overlay.engine_applied(slot);
    }

    /// Takes everything to be done since the last call, in order.
    pub fn drain_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Tries again who can go on: granted waiters, and commits parked for a limit.
    fn settle(&mut self, cx: &Cx) {
        self.note_limit(cx);
        loop {
            let Some(office) = self.office.as_deref_mut() else {
                return;
            };
            if let Some(waiter) = office.locks.pop_ready() {
                self.retry_waiter(cx, waiter);
                continue;
            }
            self.unpark(cx);
            // A commit that was turned down for its size let its locks go.
            if self.office.as_deref().is_none_or(|o| !o.locks.has_ready()) {
                return;
            }
        }
    }

    /// The highest timestamp this step may assign (K1).
    fn timestamp_bound(&self, cx: &Cx) -> Timestamp {
        if mutated(Mutation::IgnoreLimit) {
            return Timestamp(u64::MAX);
        }
        if self.suspended {
            return Timestamp(0);
        }
        cx.limit.max(self.state.last.plus(TERM_INCREMENT))
    }

    fn with_office<R>(
        &mut self,
        run: impl FnOnce(&mut Vec<Effect>, &mut Office, &State) -> R,
    ) -> Option<R> {
        let office = self.office.as_deref_mut()?;
        Some(run(&mut self.effects, office, &self.state))
    }

    fn new_request(&mut self) -> u64 {
        let number = self.next_request;
        self.next_request += 1;
        number
    }

    fn respond(&mut self, to: Caller, response: Response) {
        self.effects.push(Effect::Respond { to, response });
    }

    /// Refuses a request that was not handed in, or waits.
    pub fn refuse(&mut self, to: Caller, refusal: Refusal) {
        self.respond(to, Response::Refused(refusal));
    }

    fn overloaded(&mut self, to: Caller) {
        let retry_after_millis = self.settings.overload_millis;
        self.refuse(to, Refusal::Overloaded { retry_after_millis });
    }

    fn propose(&mut self, command: Command, lazy: bool) {
        self.effects.push(Effect::Propose { command, lazy });
    }

    fn tell(&mut self, to: &Participant, from: &Key, attempt: AttemptId, body: PeerBody) {
        self.tell_anchor(to.shard, to.anchor.clone(), from.clone(), attempt, body);
    }

    fn tell_anchor(
        &mut self,
        shard: GroupId,
        anchor: Key,
        from: Key,
        attempt: AttemptId,
        body: PeerBody,
    ) {
        self.effects.push(Effect::Peer {
            shard,
            message: PeerMessage {
                attempt,
                anchor,
                from,
                body,
            },
        });
    }

    fn arm(&mut self, at: Mono, timer: Timer) {
        if let Some(office) = self.office.as_deref_mut() {
            office.timers.arm(at, timer);
        }
    }

    /// The term it is in office for.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.office.as_deref().map(|o| o.term)
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> GroupId {
        self.shard
    }

    /// The last slot applied.
    #[must_use]
    pub fn applied(&self) -> Slot {
        self.state.applied
    }

    /// The highest timestamp applied, assigned or served (K3).
    #[must_use]
    pub fn last(&self) -> Timestamp {
        self.office
            .as_deref()
            .map_or(self.state.last, |o| o.last.max(self.state.last))
    }

    /// The replicated state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Open intents, in the order of their attempts.
    pub fn open_intents(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.state.intents.keys().copied()
    }

    /// Records without an outcome: transactions in doubt.
    pub fn in_doubt(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.state.in_doubt().map(|(attempt, _)| attempt)
    }

    /// Attempts that read or commit here now.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.office.as_deref().map_or(0, |o| o.active.len())
    }

    /// Attempts that hold locks.
    #[must_use]
    pub fn locks(&self) -> usize {
        self.office.as_deref().map_or(0, |o| o.locks.holders())
    }

    /// Whether nothing is held, wanted, waiting or in doubt.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
            && self.state.intents.is_empty()
            && self.office.as_deref().is_none_or(|o| {
                o.locks.is_idle()
                    && o.active.is_empty()
                    && o.coordinations
                        .values()
                        .all(|c| matches!(c.phase, Phase::Finished(_)) && c.callers.is_empty())
            })
    }

    /// Bytes of versions the engine does not hold yet.
    #[must_use]
    pub fn overlay_bytes(&self) -> usize {
        self.overlay.bytes()
    }

    /// No new intent comes at or below this (R2).
    #[must_use]
    pub fn closed(&self) -> Timestamp {
        self.last()
    }

    /// Closed, and no intent is open at or below this (R2).
    #[must_use]
    pub fn resolved(&self) -> Timestamp {
        self.state
            .intents
            .values()
            .map(|intent| Timestamp(intent.timestamp.0.saturating_sub(1)))
            .min()
            .unwrap_or(self.state.last)
            .min(self.state.last)
    }

    /// The garbage horizon (R5).
    #[must_use]
    pub fn horizon(&self) -> Timestamp {
        self.state.horizon
    }

    /// The shard's replicated descriptor: generation and encoding.
    #[must_use]
    pub fn descriptor(&self) -> (u64, &Bytes) {
        (self.state.descriptor.0, &self.state.descriptor.1)
    }

    /// Counts of what should never, or seldom, happen.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
