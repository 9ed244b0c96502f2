//! Commit: everything to all participants at once, then the coordinator's word.
//!
//! Which answers are final (U4). A commit needs the yes of *every* participant,
//! and a Commit is valid only in the term it names (T4). So the attempt is
//! certainly aborted as soon as one participant
//!
//! - refuses it in the named term (it remembers the no), or
//! - refuses it in a later term without knowing it (`WrongTerm`, last word), or
//! - refuses the time in its id (no copy of it is ever let in), or
//! - refuses what breaks a bound (every copy would be refused the same way), or
//! - was never sent a copy that could have been handled, and none will be sent.
//!
//! Everything else decides nothing: a lost connection, `NotLeader`, a change
//! of the range. Then the coordinator shard is asked by its anchor, until it
//! answers; only if that fails until the deadline the outcome is unknown.

use crate::client::buffer::check_stored;
use crate::client::transaction::{Awaited, Phase};
use crate::client::{Committed, Done, Reply, Routes, Transaction, TransactionError};
use crate::hashing::Hashing;
use crate::request::{CommitRequest, Refusal, Request, Response};
use crate::settings::MAX_PARTICIPANTS_BYTES;
use crate::types::{AbortReason, Key, MAX_PARTICIPANTS, Outcome, Participant, Span, Write};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use synod_paxos::{GroupId, Term};

/// Pause before the first repeated question; doubles up to the longest.
const FIRST_PAUSE_NANOS: u64 = 10_000_000;
/// The longest pause between two questions.
const LONGEST_PAUSE_NANOS: u64 = 500_000_000;
/// Every so many questions answered "pending" a Commit that was never
/// acknowledged by the coordinator is sent again.
const RESEND_EVERY: u32 = 4;

/// What will be sent, while terms are still looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    parts: BTreeMap<GroupId, Part>,
    coordinator: GroupId,
    timeout_millis: u32,
}

/// A participant to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    term: Option<Term>,
    /// The hashed directory that its keys lie in.
    hashing: Option<Hashing>,
    writes: Vec<Write>,
    reads: Vec<Span>,
}

/// A commit under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommitStep {
    parts: Vec<CommitRequest>,
    /// What the keys of each part were mapped by.
    hashings: Vec<Option<Hashing>>,
    /// All who take part, in the order of `parts`.
    participants: Vec<Participant>,
    coordinator: usize,
    /// The coordinator has the Commit.
    staged: bool,
    /// Questions asked so far.
    questions: u32,
    /// Copies of the Commit sent to each part beyond the first.
    repeats: Vec<u32>,
}

impl Transaction {
    /// Commit. `prefer` orders shards by nearness for the choice of the
    /// coordinator among the shards written to (default: the first of them).
    /// Participants give up after `timeout_millis`; let it end well before the
    /// caller's deadline, so that there is time to hear the outcome.
    ///
    /// # Errors
    /// At once: a bound, `NoRoute`, or why the transaction ended.
    pub fn commit(
        &mut self,
        routes: &Routes,
        prefer: &[GroupId],
        timeout_millis: u32,
    ) -> Result<(), TransactionError> {
        self.ready()?;
        if self.buffer.is_empty() {
            self.validate();
            return Ok(());
        }
        let begun = self.begin_commit(routes, prefer, timeout_millis);
        if let Err(error) = &begun {
            self.fail(error.clone());
        }
        begun
    }

    fn begin_commit(
        &mut self,
        routes: &Routes,
        prefer: &[GroupId],
        timeout_millis: u32,
    ) -> Result<(), TransactionError> {
        let mut plan = self.plan(routes, prefer, timeout_millis)?;
        let unknown = plan.parts.iter().filter(|(_, part)| part.term.is_none());
        let unknown = unknown.map(|(&shard, part)| (shard, part.hashing.clone()));
        let unknown: Vec<_> = unknown.collect();
        if unknown.is_empty() {
            self.send_commits(&mut plan);
            return Ok(());
        }
        self.phase = Phase::Locate(plan);
        for (shard, hashing) in unknown {
            let awaited = Awaited::Locate { shard };
            self.send_mapped(shard, 0, hashing, Request::Locate, Some(awaited));
        }
        Ok(())
    }

    /// Group the writes, and add the shards that were only read from: their
    /// read locks must hold until the outcome, so they vote too.
    fn plan(
        &self,
        routes: &Routes,
        prefer: &[GroupId],
        timeout_millis: u32,
    ) -> Result<Plan, TransactionError> {
        let mut parts: BTreeMap<GroupId, Part> = BTreeMap::new();
        let mut first_written = None;
        for (key, value) in self.buffer.writes() {
            let place = routes
                .place(key)
                .ok_or_else(|| TransactionError::NoRoute { key: key.clone() })?;
            check_stored(&place.stored)?;
            let part = parts.entry(place.route.shard).or_insert_with(|| Part {
                term: place.route.term,
                ..Part::default()
            });
            first_written.get_or_insert(place.route.shard);
            part.hashing = place.hashing.cloned().or(part.hashing.take());
            part.writes.push(Write {
                key: place.stored,
                value: value.clone(),
            });
        }
        for part in parts.values_mut().filter(|part| part.hashing.is_some()) {
            part.writes.sort_by(|a, b| a.key.cmp(&b.key));
        }
        let preferred = prefer.iter().copied().find(|id| parts.contains_key(id));
        let Some(coordinator) = preferred.or(first_written) else {
            return Err(TransactionError::Invalid("nothing to commit".to_owned()));
        };
        for (&shard, held) in &self.held {
            let Some((term, _)) = held.session else {
                continue;
            };
            // What was split off took no locks along: it is read again where it is now.
            let stays = |span: &Span| {
                let route = routes.of_key(&span.start).filter(|r| r.shard == shard);
                route.is_some_and(|route| route.clip(span) == *span)
            };
            if !held.reads.iter().all(stays) {
                return Err(self.aborted(AbortReason::Moved));
            }
            let part = parts.entry(shard).or_default();
            part.term = Some(term);
            let first = held.reads.first();
            let hashing = first.and_then(|span| routes.hashing_of(&span.start));
            part.hashing = hashing.cloned().or(part.hashing.take());
            part.reads = held
                .reads
                .iter()
                .filter(|span| !covers(&part.writes, span))
                .cloned()
                .collect();
        }
        if parts.len() > MAX_PARTICIPANTS {
            return Err(TransactionError::Invalid(format!(
                "one transaction touches at most {MAX_PARTICIPANTS} shards, this one {}",
                parts.len()
            )));
        }
        // The shards that do not coordinate would let it in: they see two names.
        let anchors = parts.values().filter_map(anchor);
        let bytes: usize = anchors
            .map(|anchor| Participant::weight_with(&anchor))
            .sum();
        if bytes > MAX_PARTICIPANTS_BYTES {
            return Err(TransactionError::Invalid(format!(
                "the first keys of the transaction's shards take {bytes} bytes, more than \
                 {MAX_PARTICIPANTS_BYTES}; use shorter keys or fewer shards"
            )));
        }
        if parts.len() == 1 {
            // One entry, no intent: nothing will hold the read locks beyond it.
            parts.values_mut().for_each(|part| part.reads.clear());
        }
        Ok(Plan {
            parts,
            coordinator,
            timeout_millis,
        })
    }

    pub(super) fn handle_locate(&mut self, routes: &Routes, shard: GroupId, reply: Reply) {
        if self.may_ask_elsewhere(shard, &reply)
            && let Phase::Locate(plan) = &self.phase
        {
            let (coordinator, timeout_millis) = (plan.coordinator, plan.timeout_millis);
            self.awaited.clear();
            if let Err(error) = self.begin_commit(routes, &[coordinator], timeout_millis) {
                self.fail(error);
            }
            return;
        }
        let term = match self.answer(shard, reply) {
            Ok(Response::Located { term, .. }) => term,
            Ok(_) => return self.fail(Self::protocol(shard, "no location")),
            Err(error) => return self.fail(error),
        };
        let Phase::Locate(plan) = &mut self.phase else {
            return;
        };
        if let Some(part) = plan.parts.get_mut(&shard) {
            part.term = Some(term);
        }
        if self.awaited.is_empty() {
            let mut plan = plan.clone();
            self.send_commits(&mut plan);
        }
    }

    fn send_commits(&mut self, plan: &mut Plan) {
        let mut parts: Vec<(GroupId, Key, Part)> = std::mem::take(&mut plan.parts)
            .into_iter()
            .filter_map(|(shard, part)| Some((shard, anchor(&part)?, part)))
            .collect();
        parts.sort_by(|a, b| a.1.cmp(&b.1));
        let participants: Vec<Participant> = parts
            .iter()
            .map(|(shard, anchor, part)| Participant {
                anchor: anchor.clone(),
                shard: *shard,
                term: part.term.unwrap_or_default(),
            })
            .collect();
        let coordinator = parts
            .iter()
            .position(|(shard, ..)| *shard == plan.coordinator)
            .unwrap_or(0);
        self.coordinator = participants.get(coordinator).cloned();
        let held = &self.held;
        let hashings = parts.iter().map(|(_, _, part)| part.hashing.clone());
        let hashings = hashings.collect();
        let requests: Vec<CommitRequest> = parts
            .into_iter()
            .enumerate()
            .map(|(here, (shard, _, part))| {
                let session = held.get(&shard).and_then(|held| held.session);
                let (participants, here, coordinator) =
                    CommitRequest::participants_for(&participants, here, coordinator);
                CommitRequest {
                    attempt: self.begin.attempt,
                    priority: self.begin.priority,
                    client: self.begin.client,
                    session: session.map(|(_, session)| session),
                    writes: part.writes,
                    reads: part.reads,
                    participants,
                    here,
                    coordinator,
                    timeout_millis: plan.timeout_millis,
                    snapshot: None,
                }
            })
            .collect();
        let count = requests.len();
        self.phase = Phase::Commit(CommitStep {
            parts: requests,
            hashings,
            participants,
            coordinator,
            staged: false,
            questions: 0,
            repeats: vec![0; count],
        });
        // The coordinator first: it has the most to do.
        self.send_commit(coordinator, 0);
        for part in (0..count).filter(|&part| part != coordinator) {
            self.send_commit(part, 0);
        }
    }

    fn send_commit(&mut self, part: usize, after_nanos: u64) {
        let Phase::Commit(step) = &self.phase else {
            return;
        };
        let shard = step.participants[part].shard;
        self.send_commit_to(shard, part, after_nanos);
    }

    fn send_commit_to(&mut self, shard: GroupId, part: usize, after_nanos: u64) {
        let Phase::Commit(step) = &self.phase else {
            return;
        };
        let request = Request::Commit(Box::new(step.parts[part].clone()));
        let awaited = Awaited::Commit { part: part as u32 };
        let hashing = step.hashings[part].clone();
        self.send_mapped(shard, after_nanos, hashing, request, Some(awaited));
    }

    pub(super) fn handle_commit(&mut self, routes: &Routes, part: usize, reply: Reply) {
        if reply == Reply::Moved && self.bring(routes, part) {
            return;
        }
        let Phase::Commit(step) = &mut self.phase else {
            return;
        };
        let coordinates = part == step.coordinator;
        match reply {
            Reply::Answer(Response::Outcome { outcome, syncs }) => self.ended(outcome, syncs),
            Reply::Answer(Response::Voting) if !coordinates => {}
            Reply::Answer(Response::Voting | Response::Pending) => {
                step.staged |= coordinates;
                self.ask(routes);
            }
            // Only the first copy tells: an earlier one may have come before the change.
            Reply::Answer(Response::Refused(Refusal::OtherSharding { .. }))
                if step.repeats[part] == 0 =>
            {
                self.fail_commit(self.aborted(AbortReason::Moved));
            }
            Reply::Answer(Response::Refused(refusal)) => match final_no(&refusal) {
                Some(Ok(reason)) => self.fail_commit(self.aborted(reason)),
                Some(Err(what)) => self.fail_commit(TransactionError::Invalid(what)),
                None if coordinates => self.ask(routes),
                None => self.repeat(part),
            },
            Reply::Lost | Reply::Moved if coordinates => self.ask(routes),
            Reply::Lost | Reply::Moved => self.repeat(part),
            // Only the first copy tells: an earlier one may have been handled.
            Reply::Unsent if step.repeats[part] == 0 => {
                self.fail_commit(self.aborted(AbortReason::Deadline));
            }
            Reply::Unsent if coordinates => self.ask(routes),
            Reply::Unsent => {}
            Reply::Answer(_) => self.ask(routes),
        }
    }

    /// The participant's anchor is in another shard by now. Brought there the Commit is turned down,
    /// as its term is over, unless it was met before: a coordinator's then names all who may have
    /// an intent, and they are told (asked how it ended, the shard could tell only the client);
    /// another's brings its coordinator the no that it would have to poll for. Returns whether it is.
    fn bring(&mut self, routes: &Routes, part: usize) -> bool {
        let Phase::Commit(step) = &mut self.phase else {
            return false;
        };
        let named = &step.participants[part];
        let owner = owner(routes, named);
        // Once; and where it is alone, nobody waits for it.
        if owner == named.shard || step.repeats[part] > 0 || step.parts.len() < 2 {
            return false;
        }
        step.repeats[part] = 1;
        self.send_commit_to(owner, part, 0);
        true
    }

    /// Send a participant its Commit again: known copies are recognised (T7).
    fn repeat(&mut self, part: usize) {
        if let Phase::Commit(step) = &mut self.phase {
            step.repeats[part] += 1;
            let pause = pause(step.repeats[part]);
            self.send_commit(part, pause);
        }
    }

    /// Ask the coordinator shard how it ended, unless that is being asked.
    fn ask(&mut self, routes: &Routes) {
        let asking = |awaited: &Awaited| matches!(awaited, Awaited::Status);
        let Phase::Commit(step) = &mut self.phase else {
            return;
        };
        if self.awaited.values().any(asking) {
            return;
        }
        let attempt = self.begin.attempt;
        let coordinator = &step.participants[step.coordinator];
        let shard = owner(routes, coordinator);
        let status = Request::Status {
            attempt,
            anchor: coordinator.anchor.clone(),
            term: coordinator.term,
        };
        let pause = if step.questions == 0 {
            0
        } else {
            pause(step.questions)
        };
        step.questions += 1;
        self.send(shard, pause, status, Some(Awaited::Status));
    }

    pub(super) fn handle_status(&mut self, routes: &Routes, reply: Reply) {
        let Phase::Commit(step) = &mut self.phase else {
            return;
        };
        match reply {
            Reply::Answer(Response::Outcome { outcome, syncs }) => self.ended(outcome, syncs),
            Reply::Answer(Response::Expired) | Reply::Lost | Reply::Unsent => self.unknown(),
            Reply::Answer(Response::Refused(refusal)) => match final_no(&refusal) {
                Some(Ok(reason)) => self.fail_commit(self.aborted(reason)),
                _ => self.ask(routes),
            },
            Reply::Answer(_) | Reply::Moved => {
                let part = step.coordinator;
                if !step.staged && step.questions.is_multiple_of(RESEND_EVERY) {
                    self.repeat(part);
                }
                self.ask(routes);
            }
        }
    }

    /// The deadline passed: end a commit with an unknown outcome, anything
    /// else with `Unreachable`. Leaves the result in `take_done`.
    pub fn give_up(&mut self) {
        match &self.phase {
            Phase::Ended => {}
            Phase::Open => self.fail(self.aborted(AbortReason::Deadline)),
            Phase::Commit(_) => self.unknown(),
            Phase::Get(_) | Phase::Scan(_) | Phase::Validate | Phase::Locate(_) => {
                let shard = match self.awaited.values().next() {
                    Some(
                        Awaited::Get { shard, .. }
                        | Awaited::Scan { shard, .. }
                        | Awaited::Slot { shard, .. }
                        | Awaited::Validate { shard }
                        | Awaited::Locate { shard },
                    ) => *shard,
                    _ => GroupId::default(),
                };
                self.fail(TransactionError::Unreachable { shard });
            }
        }
    }

    /// Certainly aborted: also tell the shards that were only written to.
    fn fail_commit(&mut self, error: TransactionError) {
        if let Phase::Commit(step) = &self.phase {
            for participant in &step.participants {
                self.held.entry(participant.shard).or_default();
            }
        }
        self.fail(error);
    }

    /// Free only what a read that nobody waited for may have locked in shards
    /// that take no part: elsewhere the locks are the commit's.
    fn forget_parts(&mut self) {
        self.held.retain(|_, held| held.session.is_none());
        if let Phase::Commit(step) = &self.phase {
            for participant in &step.participants {
                self.held.remove(&participant.shard);
            }
        }
        self.free(None);
    }

    fn unknown(&mut self) {
        self.forget_parts();
        let attempt = self.begin.attempt;
        self.finish(Err(TransactionError::Unknown { attempt }));
    }

    fn ended(&mut self, outcome: Outcome, syncs: u32) {
        let Phase::Commit(step) = &self.phase else {
            return;
        };
        let shards = step.parts.len() as u32;
        match outcome {
            Outcome::Committed(timestamp) => {
                self.forget_parts();
                self.finish(Ok(Done::Committed(Committed {
                    attempt: self.begin.attempt,
                    timestamp: Some(timestamp),
                    shards,
                    syncs,
                })));
            }
            Outcome::Aborted(reason) => self.fail_commit(self.aborted(reason)),
        }
    }
}

/// The shard that has the participant's anchor by now, as far as is known.
fn owner(routes: &Routes, participant: &Participant) -> GroupId {
    let route = routes.of_key(&participant.anchor);
    route.map_or(participant.shard, |route| route.shard)
}

/// Whether a refusal of a Commit or Status is the attempt's certain end: the
/// reason, or the bound it breaks.
fn final_no(refusal: &Refusal) -> Option<Result<AbortReason, String>> {
    match refusal {
        Refusal::Aborted(reason) => Some(Ok(*reason)),
        Refusal::WrongTerm {
            last_word: true, ..
        } => Some(Ok(AbortReason::TermEnded)),
        Refusal::AttemptTime { .. } => Some(Ok(AbortReason::Untimely)),
        Refusal::Invalid(what) => Some(Err(what.clone())),
        Refusal::WrongTerm { .. }
        | Refusal::NotLeader { .. }
        | Refusal::Overloaded { .. }
        | Refusal::WrongShard
        | Refusal::OtherSharding { .. }
        | Refusal::Clock => None,
    }
}

/// Whether the span is one key, and it is written: its exclusive lock says it all.
fn covers(writes: &[Write], span: &Span) -> bool {
    let found = writes.binary_search_by(|write| write.key.cmp(&span.start));
    found.is_ok_and(|index| *span == Span::of_key(&writes[index].key))
}

fn anchor(part: &Part) -> Option<Key> {
    match (part.writes.first(), part.reads.first()) {
        (Some(write), _) => Some(write.key.clone()),
        (None, Some(span)) => Some(span.start.clone()),
        (None, None) => None,
    }
}

const fn pause(repeat: u32) -> u64 {
    let doublings = if repeat > 16 { 16 } else { repeat };
    let pause = FIRST_PAUSE_NANOS << (doublings.saturating_sub(1));
    if pause > LONGEST_PAUSE_NANOS {
        LONGEST_PAUSE_NANOS
    } else {
        pause
    }
}
