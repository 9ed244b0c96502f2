//! A Commit from its arrival to its entry.
//!
//! It is valid in exactly one term per participant, the one it names (T4). It
//! is answered from state if it was met before; else it takes its write locks,
//! and in the step that has the last of them it takes timestamp and slot (K3).

use super::admission::Unfit;
use super::office::{Active, Callers, Coordination, Phase, Progress, Proposed, Queued, Timer};
use super::waiting::Waiting;
use super::{Cx, Group, checks};
use crate::command::{Command, Intent};
use crate::locks::{Age, Stage, Verdict, Wants};
use crate::peer::{PeerBody, Vote};
use crate::request::{CommitRequest, LockMode, Refusal, Response};
use crate::settings::{MAX_TIMEOUT_MILLIS, TERM_INCREMENT};
use crate::types::{AbortReason, AttemptId, Caller, Outcome, Priority, Write};
use smallvec::smallvec;
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::Timestamp;
use synod_probe::{Mark, Mutation, mark, mutated};

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
        if busy {
            return self.overloaded(from, request.weight());
        }
        self.enqueue(cx, from, request);
    }

    fn enqueue(&mut self, cx: &Cx, from: Caller, mut request: CommitRequest) {
        // The lock table knows better what was read.
        request.reads = Vec::new();
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
        let bytes = request.writes.iter().map(Write::weight).sum();
        let weight = request.weight();
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
        let age = Age::new(active.priority, attempt);
        active.progress = Progress::Queued(Box::new(Queued {
            request,
            callers: smallvec![from],
            since: cx.now,
            deadline,
            waiter: Some(waiter),
            bytes,
            weight,
        }));
        office.queued_bytes += weight;
        match office.locks.lock(waiter, age, wants) {
            Verdict::Granted => self.commit_granted(cx, attempt),
            Verdict::Blocked(wounds) => {
                mark(Mark::CommitQueued);
                office.blocked.insert(age);
                office.timers.arm(deadline, Timer::Deadline(attempt));
                self.waiting.insert(waiter, Waiting::Commit(attempt));
                self.wound_all(cx, age, &wounds);
                self.bound_queue();
            }
        }
    }

    /// Turns away of the commits that wait for locks the youngest, until the others are within the bounds.
    /// Nobody is turned away that all others may wait for: not who gets its locks at once, and not
    /// the oldest, which has wounded what it could (T9).
    fn bound_queue(&mut self) {
        while let Some(office) = self.office.as_deref_mut()
            && let Some(youngest) = office.blocked.last().map(Age::attempt)
            && let Some(active) = office.active.get(&youngest)
            && let Progress::Queued(queued) = &active.progress
        {
            let others = office.queued_bytes - queued.weight;
            if others < self.settings.queued_bytes && self.waiting.len() <= self.settings.waiters {
                return;
            }
            mark(Mark::CommitNotQueued);
            let has_session = active.session.is_some();
            let Some(queued) = office.unqueue(youngest) else {
                return;
            };
            if !has_session {
                office.end(youngest);
            }
            office.timers.disarm(Timer::Deadline(youngest));
            if let Some(waiter) = queued.waiter {
                office.locks.cancel(waiter);
                self.waiting.remove(&waiter);
            }
            for caller in queued.callers {
                self.overloaded(caller, queued.weight);
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
        office.blocked.remove(&Age::new(active.priority, attempt));
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
        let Some(queued) = office.unqueue(attempt) else {
            return;
        };
        let Some(active) = office.active.get_mut(&attempt) else {
            return;
        };
        let client = active.client.take();
        active.session = None;
        let Queued {
            request,
            callers,
            deadline,
            bytes,
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
        let Some(active) = office.end(attempt) else {
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
