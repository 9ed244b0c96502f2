//! A Commit from its arrival to its entry.
//!
//! It is valid in exactly one term per participant, the one it names (T4). It
//! is answered from state if it was met before; else it takes its write locks,
//! and in the step that has the last of them it takes timestamp and slot (K3).

use super::memory::No;
use super::office::{Active, Callers, Coordination, Phase, Progress, Proposed, Queued, Timer};
use super::read::Waiting;
use super::times::of_nanos;
use super::{Cx, Group, checks};
use crate::command::{Command, Intent};
use crate::locks::{Stage, Verdict, Wants};
use crate::peer::{PeerBody, Vote};
use crate::request::{CommitRequest, LockMode, Refusal, Response};
use crate::settings::{MAX_TIMEOUT_MILLIS, TERM_INCREMENT};
use crate::types::{AbortReason, AttemptId, Caller, Outcome, Priority};
use smallvec::smallvec;
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::Timestamp;
use synod_probe::{Mark, Mutation, mark, mutated};

/// Why a Commit is not let in.
enum Unfit {
    /// A final no.
    No(AbortReason),
    /// A final no, for the time in its id.
    Untimely,
    /// It may have been met and forgotten: nothing can be said.
    Forgotten,
}

impl Group {
    pub(super) fn handle_commit(&mut self, cx: &Cx, from: Caller, request: CommitRequest) {
        if let Err(why) = checks::commit(self.shard, &request) {
            return self.refuse(from, Refusal::Invalid(why));
        }
        let Some(current) = self.term() else { return };
        let named = request.participants[request.here as usize].term;
        if self.is_unknown_term(cx, named, current) {
            // Not a term of this leader's: whoever issued it knows more.
            return self.refuse(from, Refusal::NotLeader { hint: None });
        }
        let attempt = request.attempt;
        let one_shard = request.participants.len() == 1;
        let ahead = self.is_ahead(cx, attempt, one_shard);
        if self.answer_again(from, &request, ahead) {
            return;
        }
        if ahead {
            return self.refuse_untimely(cx, from, &request);
        }
        if named != current && !mutated(Mutation::AcceptOtherTerm) {
            mark(Mark::EarlierTerm);
            let last_word = attempt.millis() >= self.floor_of(&request);
            let refusal = Refusal::WrongTerm { current, last_word };
            if !last_word {
                return self.refuse(from, refusal);
            }
            return self.turn_down(from, &request, AbortReason::TermEnded, refusal);
        }
        match self.admit(&request) {
            Ok(()) => {}
            Err(Unfit::No(reason)) => {
                let refusal = Refusal::Aborted(reason);
                return self.turn_down(from, &request, reason, refusal);
            }
            Err(Unfit::Untimely) => return self.refuse_untimely(cx, from, &request),
            // It may be a copy of a Commit that was forgotten (T7): neither
            // committed nor aborted can be said, and the client asks for the status.
            Err(Unfit::Forgotten) => {
                mark(Mark::BelowFloor);
                return self.refuse(from, Refusal::NotLeader { hint: None });
            }
        }
        if self.disk_full && request.writes.iter().any(|w| w.value.is_some()) {
            let reason = AbortReason::DiskFull;
            return self.turn_down(from, &request, reason, Refusal::Aborted(reason));
        }
        let merged = self.names_merged(&request);
        if (self.refuses_joint && !one_shard) || merged {
            mark(Mark::JointRefused);
            let reason = AbortReason::Moved;
            return self.turn_down(from, &request, reason, Refusal::Aborted(reason));
        }
        let busy = self
            .office
            .as_deref()
            .is_some_and(|o| o.proposed >= self.settings.proposed);
        if busy || self.waiting.len() >= self.settings.waiters {
            return self.overloaded(from);
        }
        self.enqueue(cx, from, request);
    }

    /// Whether a Commit of this attempt was let in before: another one is a copy of it.
    #[must_use]
    pub fn has_met(&self, attempt: AttemptId) -> bool {
        let office = self.office.as_deref();
        let is_under_way = office.is_some_and(|office| {
            let active = office.active.get(&attempt).map(|active| &active.progress);
            office.coordinations.contains_key(&attempt)
                || active.is_some_and(|progress| !matches!(progress, Progress::Running))
        });
        is_under_way || self.state.knows(attempt)
    }

    /// Answers a Commit that was met before, from state (T1, T7).
    fn answer_again(&mut self, from: Caller, request: &CommitRequest, ahead: bool) -> bool {
        let attempt = request.attempt;
        if let Some(timestamp) = self.state.one_shard.get(attempt)
            && !mutated(Mutation::NoCommitDedup)
        {
            mark(Mark::AgainOneShard);
            self.answer_outcome(from, Outcome::Committed(timestamp), 0);
            return true;
        }
        let Some(office) = self.office.as_deref_mut() else {
            return true;
        };
        if let Some(coordination) = office.coordinations.get_mut(&attempt) {
            mark(Mark::AgainCoordinated);
            match coordination.phase {
                Phase::Voting | Phase::Aborting(_) => coordination.callers.push(from),
                Phase::Committing(at) => self.answer_outcome(from, Outcome::Committed(at), 0),
                Phase::Finished(outcome) => self.answer_outcome(from, outcome, 0),
            }
            return true;
        }
        if let Some(record) = self.state.records.get(&attempt) {
            mark(Mark::AgainRecorded);
            match record.outcome {
                Some(outcome) => self.answer_outcome(from, outcome, 0),
                None => self.refuse(from, Refusal::NotLeader { hint: None }),
            }
            return true;
        }
        if self.refuse_joined(from, request) {
            return true;
        }
        let Some(office) = self.office.as_deref_mut() else {
            return true;
        };
        if let Some(active) = office.active.get_mut(&attempt) {
            match &mut active.progress {
                Progress::Running => return false,
                Progress::Queued(queued) => {
                    mark(Mark::AgainActive);
                    queued.callers.push(from);
                }
                Progress::OneShard(callers) => callers.push(from),
                Progress::Intent(_) => self.respond(from, Response::Voting),
            }
            return true;
        }
        if self.state.intents.contains_key(&attempt) {
            mark(Mark::AgainIntent);
            self.respond(from, Response::Voting);
            self.send_vote(attempt);
            return true;
        }
        if self.state.resolutions.contains_key(&attempt) {
            mark(Mark::AgainResolved);
            self.respond(from, Response::Voting);
            return true;
        }
        let ended = office.noes.get(attempt).or_else(|| {
            let no = No {
                reason: AbortReason::SessionEnded,
                session: None,
            };
            office.validated.contains(attempt).then_some(no)
        });
        // Of an attempt whose outcome may be forgotten, a no may be younger than
        // the outcome, unless this Commit names the very session that it ended.
        let old = attempt.millis() < self.floor_of(request);
        let ended =
            ended.filter(|no| !old || (request.session.is_some() && request.session == no.session));
        let ended = ended.filter(|no| {
            no.reason != AbortReason::SessionEnded || !mutated(Mutation::IgnoreEndedSession)
        });
        // While it lies too far ahead, nothing becomes an entry for it.
        let ended = ended.filter(|_| !ahead);
        if let Some(No { reason, .. }) = ended {
            mark(Mark::AgainAfterNo);
            self.turn_down(from, request, reason, Refusal::Aborted(reason));
        }
        ended.is_some()
    }

    /// Whether the Commit's session, floors and early votes allow it.
    fn admit(&mut self, request: &CommitRequest) -> Result<(), Unfit> {
        let attempt = request.attempt;
        let below = attempt.millis() < self.floor_of(request);
        let forgotten = attempt.millis() < self.state.forget_floor;
        let never = self.was_never_let_in(request);
        let Some(office) = self.office.as_deref_mut() else {
            return Err(Unfit::Forgotten);
        };
        let live = office.active.get(&attempt).and_then(|a| a.session);
        let named = request.participants[request.here as usize].term;
        let let_in = mutated(Mutation::IgnoreEndedSession)
            || mutated(Mutation::AcceptOtherTerm) && named < office.term;
        if request.session.is_some() && request.session == live {
            // A live session proves that no Commit of it was met; yet once
            // outcomes of its age are forgotten, nobody could be told its end.
            if forgotten {
                return Err(Unfit::No(AbortReason::Deadline));
            }
        } else if never {
            return Err(Unfit::Untimely);
        } else if below || office.noes.may_have_forgotten(attempt) {
            // The attempt may have been met and forgotten, even if a session is
            // open: a late read may have opened it afterwards.
            return Err(Unfit::Forgotten);
        } else if request.session.is_some() && !let_in {
            mark(Mark::SessionEnded);
            return Err(Unfit::No(AbortReason::SessionEnded));
        }
        let no = office.early.no(attempt, &request.participants);
        match no {
            Some(reason) if request.here == request.coordinator => {
                mark(Mark::EarlyNo);
                Err(Unfit::No(reason))
            }
            _ => Ok(()),
        }
    }

    /// Below this millisecond, a Commit that is not known may have been forgotten.
    pub(super) fn floor_of(&self, request: &CommitRequest) -> u64 {
        if mutated(Mutation::IgnoreForgetFloor) {
            0
        } else if request.participants.len() == 1 {
            self.state.unknown_below()
        } else {
            self.state.forget_floor
        }
    }

    /// Refuses a Commit for good.
    fn turn_down(
        &mut self,
        from: Caller,
        request: &CommitRequest,
        reason: AbortReason,
        refusal: Refusal,
    ) {
        let attempt = request.attempt;
        self.drop_active(attempt, reason);
        // It names a session that has ended, or a term: no copy is ever let in.
        let term = request.participants[request.here as usize].term;
        if request.session.is_none() && Some(term) == self.term() {
            self.remember_no(attempt, reason);
        } else {
            self.note_no(attempt, reason);
        }
        self.refuse(from, refusal);
        self.vote_down(request, reason);
    }

    /// Remembers a no that is told: it leaves a floor when it is forgotten (T4, T7).
    pub(super) fn remember_no(&mut self, attempt: AttemptId, reason: AbortReason) {
        let bound = self.settings.ended;
        if let Some(office) = self.office.as_deref_mut() {
            let (session, now_millis) = (None, of_nanos(office.last));
            let no = office.noes.get(attempt);
            let no = no.unwrap_or(No { reason, session });
            office.noes.tell(attempt, no, bound, now_millis);
        }
    }

    /// Notes a no that nobody was told, or that holds without being remembered.
    pub(super) fn note_no(&mut self, attempt: AttemptId, reason: AbortReason) {
        let bound = self.settings.ended;
        if let Some(office) = self.office.as_deref_mut()
            && office.noes.get(attempt).is_none()
        {
            let session = None;
            office.noes.note(attempt, No { reason, session }, bound);
        }
    }

    /// Makes a no known to whoever else takes part: a participant votes, the
    /// coordinator has the abort decided (T5).
    pub(super) fn vote_down(&mut self, request: &CommitRequest, reason: AbortReason) {
        if request.participants.len() < 2 {
            return;
        }
        let here = &request.participants[request.here as usize];
        if request.here == request.coordinator {
            let anchor = here.anchor.clone();
            if !self.state.lineage.owns(&anchor) {
                return self.tell_moved(request);
            }
            self.abort_unstaged(
                request.attempt,
                anchor,
                request.participants.clone(),
                reason,
            );
            return;
        }
        let coordinator = &request.participants[request.coordinator as usize];
        let body = PeerBody::Vote {
            vote: Vote::No(reason),
            term: here.term,
        };
        self.tell(coordinator, &here.anchor, request.attempt, body);
    }

    /// The coordinator's anchor is another shard's by now, which decides (T10) and has never
    /// heard of this Commit: whoever has an intent is to ask it for an end.
    fn tell_moved(&mut self, request: &CommitRequest) {
        let anchor = &request.participants[request.here as usize].anchor;
        for (index, participant) in request.participants.iter().enumerate() {
            if index != request.here as usize {
                self.tell(participant, anchor, request.attempt, PeerBody::Moved);
            }
        }
    }

    fn enqueue(&mut self, cx: &Cx, from: Caller, request: CommitRequest) {
        let attempt = request.attempt;
        let wants = Wants {
            points: request
                .writes
                .iter()
                .map(|w| (w.key.clone(), LockMode::Exclusive))
                .collect(),
            spans: Vec::new(),
        };
        let timeout_millis = request.timeout_millis.min(MAX_TIMEOUT_MILLIS);
        let deadline = cx.now.plus(u64::from(timeout_millis) * 1_000_000);
        let waiter = self.new_request();
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let priority = arrival_or(request.priority, cx, attempt);
        let active = office.active.entry(attempt).or_insert_with(|| Active {
            priority,
            client: None,
            session: None,
            progress: Progress::Running,
            touched: cx.now,
            requests: BTreeSet::new(),
        });
        let age = crate::locks::Age::new(active.priority, attempt);
        active.progress = Progress::Queued(Box::new(Queued {
            request,
            callers: smallvec![from],
            since: cx.now,
            deadline,
            waiter: Some(waiter),
        }));
        match office.locks.lock(waiter, age, wants) {
            Verdict::Granted => self.commit_granted(cx, attempt),
            Verdict::Blocked(wounds) => {
                mark(Mark::CommitQueued);
                office.timers.arm(deadline, Timer::Deadline(attempt));
                self.waiting.insert(waiter, Waiting::Commit(attempt));
                self.wound_all(cx, age, &wounds);
            }
        }
    }

    /// All locks are held: take a timestamp and propose, in this step.
    pub(super) fn commit_granted(&mut self, cx: &Cx, attempt: AttemptId) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(active) = office.active.get_mut(&attempt) else {
            return;
        };
        let Progress::Queued(queued) = &mut active.progress else {
            return;
        };
        queued.waiter = None;
        let deadline = queued.deadline;
        office.parked.push_back(attempt);
        if office.parked.len() == 1 {
            self.unpark(cx);
        }
        if let Some(office) = self.office.as_deref_mut()
            && office.parked.back() == Some(&attempt)
        {
            office.timers.arm(deadline, Timer::Deadline(attempt));
            let soon = cx.now.plus(super::timeouts::LIMIT_NANOS);
            office.timers.arm(soon, Timer::Limit);
        }
    }

    /// Proposes commits that hold their locks, in order, while timestamps may be assigned.
    ///
    /// A clock above the bound stops nobody (unbounded mode, K1): the commit
    /// takes a lower timestamp, and leaves room below the bound for those after it.
    pub(super) fn unpark(&mut self, cx: &Cx) {
        loop {
            let bound = self.timestamp_bound(cx);
            let Some(office) = self.office.as_deref_mut() else {
                return;
            };
            let Some(attempt) = office.parked.front().copied() else {
                return;
            };
            let highest = Timestamp(bound.0.saturating_sub(TERM_INCREMENT));
            let mut wall = cx.clock.latest;
            if wall > bound {
                mark(Mark::ClockAboveLimit);
                wall = highest;
            }
            let mut timestamp = wall;
            if wall <= office.last && !mutated(Mutation::TimestampNotAboveLast) {
                mark(Mark::LastAboveClock);
                timestamp = office.last.plus(1);
            }
            if timestamp > bound {
                mark(Mark::LimitReached);
                return;
            }
            office.parked.pop_front();
            office.last = timestamp;
            office.timers.disarm(Timer::Deadline(attempt));
            self.propose_commit(cx, attempt, timestamp);
        }
    }

    fn propose_commit(&mut self, cx: &Cx, attempt: AttemptId, timestamp: Timestamp) {
        if self.is_too_large(attempt) {
            return self.drop_active(attempt, AbortReason::TooLarge);
        }
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(active) = office.active.get_mut(&attempt) else {
            return;
        };
        let client = active.client.take();
        active.session = None;
        let progress = std::mem::replace(&mut active.progress, Progress::Running);
        let Progress::Queued(queued) = progress else {
            return;
        };
        let Queued {
            request,
            callers,
            deadline,
            ..
        } = *queued;
        // Reads still on their way are of no use to a client that commits.
        let late = std::mem::take(&mut active.requests);
        office.forget_client(client, attempt);
        office.proposed += 1;
        office.locks.set_stage(attempt, Stage::Proposed);
        for id in &late {
            office.locks.cancel(*id);
        }
        for id in late {
            mark(Mark::ReadsOvertaken);
            if let Some(caller) = self.waiting.remove(&id).and_then(|w| w.caller()) {
                self.refuse(caller, Refusal::Aborted(AbortReason::SessionEnded));
            }
        }
        let bytes: usize = request.writes.iter().map(checks::weight).sum();
        if request.participants.len() == 1 && bytes <= self.settings.entry_bytes {
            self.set_progress(attempt, Progress::OneShard(callers));
            let term = request.participants[0].term;
            let writes = request.writes;
            let command = Command::OneShard {
                attempt,
                timestamp,
                term,
                writes,
            };
            return self.propose(command, false);
        }
        self.propose_intent(cx, request, callers, deadline, timestamp, bytes);
    }

    fn set_progress(&mut self, attempt: AttemptId, progress: Progress) {
        if let Some(office) = self.office.as_deref_mut()
            && let Some(active) = office.active.get_mut(&attempt)
        {
            active.progress = progress;
        }
    }

    fn propose_intent(
        &mut self,
        cx: &Cx,
        request: CommitRequest,
        callers: Callers,
        deadline: synod_paxos::Mono,
        timestamp: Timestamp,
        bytes: usize,
    ) {
        let attempt = request.attempt;
        let coordinates = request.here == request.coordinator;
        let anchor = request.anchor().clone();
        let coordinator = request.participants[request.coordinator as usize].clone();
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let reads = office.locks.read_spans(attempt, &request.writes);
        if coordinates {
            office.timers.arm(deadline, Timer::Deadline(attempt));
            let poll = cx.now.plus(self.settings.poll_nanos());
            office.timers.arm(poll, Timer::Coordinator(attempt));
            let mut yes = BTreeMap::new();
            if mutated(Mutation::AnswerBeforeStaged) {
                yes.insert(request.here as usize, timestamp);
            }
            let coordination = Coordination {
                own: true,
                staged: false,
                priority: request.priority,
                participants: request.participants.clone(),
                anchor: anchor.clone(),
                yes,
                acked: BTreeSet::new(),
                callers,
                phase: Phase::Voting,
                tries: 0,
            };
            office.coordinations.insert(attempt, coordination);
        } else {
            for caller in callers {
                self.respond(caller, Response::Voting);
            }
            if mutated(Mutation::VoteBeforeDecided) {
                let body = PeerBody::Vote {
                    vote: Vote::Yes(timestamp),
                    term: request.participants[request.here as usize].term,
                };
                self.tell(&coordinator, &anchor, attempt, body);
            }
        }
        self.set_progress(
            attempt,
            Progress::Intent(Box::new(Proposed {
                coordinator,
                anchor: anchor.clone(),
                coordinates,
            })),
        );
        let (parts, writes) = self.cut(request.writes, bytes, &reads, &request.participants);
        let count = parts.len() as u32;
        for (part, writes) in parts.into_iter().enumerate() {
            let part = part as u32;
            let command = Command::IntentPart {
                attempt,
                part,
                writes,
            };
            self.propose(command, false);
        }
        let intent = Intent {
            attempt,
            priority: request.priority,
            timestamp,
            writes,
            parts: count,
            reads,
            participants: request.participants,
            here: request.here,
            coordinator: request.coordinator,
        };
        self.propose(Command::Intent(Box::new(intent)), false);
        if coordinates {
            self.count_early_votes(attempt, anchor);
        }
    }

    /// A one-shard commit was decided: durable, so it may be told (U3).
    pub(super) fn one_shard_applied(&mut self, attempt: AttemptId, timestamp: Timestamp) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(active) = office.active.remove(&attempt) else {
            return;
        };
        office.proposed = office.proposed.saturating_sub(1);
        office.wounds.remove(&attempt);
        office.locks.release(attempt);
        if let Progress::OneShard(callers) = active.progress {
            for caller in callers {
                self.answer_outcome(caller, Outcome::Committed(timestamp), 1);
            }
        }
    }

    pub(super) fn answer_outcome(&mut self, to: Caller, outcome: Outcome, syncs: u32) {
        self.respond(to, Response::Outcome { outcome, syncs });
    }
}

/// The age that a transaction waits by: its own, in every shard.
pub(super) fn arrival_or(priority: Priority, cx: &Cx, attempt: AttemptId) -> Priority {
    if mutated(Mutation::QueueFirstCome) {
        return Priority {
            start: cx.clock.latest,
            first: attempt,
        };
    }
    priority
}
