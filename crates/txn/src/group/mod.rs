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
//! | `apply` | what is decided goes through the state machine |
//! | `office`, `terms` | what only a leader knows; how it comes and goes |
//! | `memory` | what it remembers of attempts it said no about |
//! | `waiting` | requests that wait for something outside their step |
//! | `read` | lock-free and locked reads, merged from overlay and engine |
//! | `session` | sessions, clients, wounds, validation |
//! | `commit`, `admission` | a Commit from its arrival to its entry; whether it may begin at all |
//! | `participant` | votes, resolutions, polls |
//! | `coordinator` | staged to outcome, acks |
//! | `inquiry` | status, asks: what became of an attempt? |
//! | `split` | what a leader lets go of when the end of its range becomes another shard's |
//! | `merge` | what it lets go of before its shard is merged with another |
//! | `timeouts` | everything that is repeated or given up |
//! | `checks`, `bounds` | what a request may ask, by itself and with what is held |
//! | `times` | which times an attempt's id may have |
//! | `status`, `views` | what is seen from outside: by drivers, by those who check the rules |
//!
//! Not done here: optimistic commits, bounded clock mode (commit wait,
//! snapshots at a timestamp).

mod admission;
mod apply;
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
mod status;
mod terms;
mod timeouts;
mod times;
mod views;
mod waiting;

use crate::checkpoint::{RestoreError, Unencoded};
use crate::command::Command;
use crate::effect::{Effect, ReadToken};
use crate::lineage::Birth;
use crate::overlay::Overlay;
use crate::peer::{PeerBody, PeerMessage};
use crate::request::{Refusal, Request, Response};
use crate::settings::{GroupSettings, TERM_INCREMENT};
use crate::state::State;
use crate::types::{AttemptId, Caller, Interval, Key, Participant};
use bytes::Bytes;
use office::{Office, Progress, Timer};
use serde::Serialize;
use synod_paxos::{ClusterVersion, GroupId, Mono, Slot, Timestamp};
use synod_probe::{Mutation, mutated};
use waiting::Room;

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
    waiting: Room,
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
            waiting: Room::default(),
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

    /// Refuses a request of this weight ([`Request::weight`]).
    fn overloaded(&mut self, to: Caller, weight: usize) {
        let refusal = Refusal::overloaded(self.settings.overload_millis, weight);
        self.refuse(to, refusal);
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
}
