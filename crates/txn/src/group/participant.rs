//! A shard with an intent: votes, resolutions, polls.

use super::office::{Active, Open, Phase, Progress, Timer};
use super::{Cx, Group};
use crate::command::{Command, Intent};
use crate::locks::{Age, Stage};
use crate::peer::{PeerBody, Vote};
use crate::types::{AbortReason, AttemptId, Key, Outcome};
use synod_paxos::{GroupId, Term};
use synod_probe::{Mark, Mutation, mark, mutated};

impl Group {
    /// Taking office, first: locks of open intents, writes and reads (T1).
    pub(super) fn adopt_locks(&mut self) {
        self.with_office(|_, office, state| {
            for (attempt, intent) in &state.intents {
                mark(Mark::IntentAdopted);
                let age = Age::new(intent.priority, *attempt);
                let (mut writes, mut reads) = (&intent.writes[..], &intent.reads[..]);
                if mutated(Mutation::DropWriteLocks) {
                    writes = &[];
                }
                if mutated(Mutation::DropReadLocks) {
                    reads = &[];
                }
                office.locks.adopt(age, writes, reads);
            }
        });
    }

    /// Taking office, last: votes of unresolved intents again.
    pub(super) fn adopt_intents(&mut self, cx: &Cx) {
        let mine: Vec<AttemptId> = self
            .state
            .intents
            .values()
            .filter(|intent| intent.here != intent.coordinator)
            .map(|intent| intent.attempt)
            .collect();
        for attempt in mine {
            self.open_intent(cx, attempt);
        }
    }

    fn open_intent(&mut self, cx: &Cx, attempt: AttemptId) {
        let at = cx.now.plus(self.settings.backoff(0));
        self.with_office(|_, office, _| {
            let open = Open {
                since: cx.now,
                tries: 0,
                moved: false,
                resolved: None,
            };
            office.open.insert(attempt, open);
            office.timers.arm(at, Timer::Participant(attempt));
        });
        self.send_vote(attempt);
    }

    /// An Intent entry of this term was decided.
    pub(super) fn intent_applied(&mut self, cx: &Cx, attempt: AttemptId, fresh: bool) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let active: Option<Active> = office.end(attempt);
        if active.is_some() {
            office.proposed = office.proposed.saturating_sub(1);
        }
        if !fresh {
            // Something else of the attempt was decided first: it holds nothing.
            office.locks.release(attempt);
            return;
        }
        office.locks.set_stage(attempt, Stage::Decided);
        let Some(intent) = self.state.intents.get(&attempt) else {
            return;
        };
        if intent.here == intent.coordinator {
            return self.staged_applied(attempt);
        }
        // An abort that overtook the entry has its resolution in the log already.
        if !office.open.contains_key(&attempt) {
            self.open_intent(cx, attempt);
        }
    }

    /// Tells the coordinator about an intent that is decided (U3: durable).
    pub(super) fn send_vote(&mut self, attempt: AttemptId) {
        let resolved = self
            .office
            .as_deref()
            .and_then(|o| o.open.get(&attempt))
            .is_some_and(|open| open.resolved.is_some());
        let Some(intent) = self.state.intents.get(&attempt) else {
            return;
        };
        if resolved || intent.here == intent.coordinator {
            return;
        }
        let here = &intent.participants[intent.here as usize];
        let coordinator = intent.participants[intent.coordinator as usize].clone();
        let body = PeerBody::Vote {
            vote: Vote::Yes(intent.timestamp),
            term: here.term,
        };
        let anchor = here.anchor.clone();
        self.tell(&coordinator, &anchor, attempt, body);
    }

    /// A participant's timer fired: vote again; after a while, ask for an end (T5, T9).
    pub(super) fn repeat_vote(&mut self, cx: &Cx, attempt: AttemptId) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(open) = office.open.get_mut(&attempt) else {
            return;
        };
        if open.resolved.is_some() {
            return;
        }
        open.tries = open.tries.saturating_add(1);
        let mut again = cx.now.plus(self.settings.backoff(open.tries));
        let patience = open.since.plus(self.settings.staged_timeout_nanos);
        let impatient = open.moved || cx.now >= patience;
        if !impatient {
            again = again.min(patience);
        }
        office.timers.arm(again, Timer::Participant(attempt));
        self.send_vote(attempt);
        if impatient {
            self.ask_or_abort(attempt);
        }
    }

    /// The coordinator's anchor is another shard's than the one that the intent names, so a
    /// Commit that has not come to it never will (T4): there is no use in waiting before an
    /// end is asked for (T5). Whoever owns the anchor now may not be in office yet.
    pub(super) fn coordinator_moved(&mut self, cx: &Cx, attempt: AttemptId, from: &Key) {
        let names_other =
            |intent: &Intent| intent.here == intent.coordinator || intent.names_other(from);
        if self.own_intent(attempt).is_none_or(names_other) {
            return;
        }
        let at = cx.now.plus(self.settings.backoff(0));
        let begins = self.with_office(|_, office, _| {
            let open = office.open.get_mut(&attempt)?;
            if open.moved || open.resolved.is_some() {
                return None;
            }
            open.moved = true;
            open.tries = 0;
            office.timers.arm(at, Timer::Participant(attempt));
            Some(())
        });
        if begins.flatten().is_some() {
            mark(Mark::CoordinatorMoved);
            self.ask_or_abort(attempt);
        }
    }

    fn ask_or_abort(&mut self, attempt: AttemptId) {
        let Some(intent) = self.state.intents.get(&attempt) else {
            return;
        };
        mark(Mark::AskedOrAborted);
        let anchor = intent.anchor().clone();
        let coordinator = intent.participants[intent.coordinator as usize].clone();
        let body = PeerBody::AskOrAbort {
            participants: intent.participants.clone(),
        };
        self.tell(&coordinator, &anchor, attempt, body);
    }

    pub(super) fn handle_resolve(
        &mut self,
        cx: &Cx,
        attempt: AttemptId,
        anchor: Key,
        from: Key,
        outcome: Outcome,
        recorded: bool,
    ) {
        let own = self.state.records.get(&attempt);
        let ended = own.is_some_and(|record| record.outcome.is_some());
        let other = self
            .own_intent(attempt)
            .is_some_and(|i| i.names_other(&from));
        if other || ended {
            // Commits of one attempt that name different coordinators: a client that
            // lies. Each ends by itself, and who has ended must be able to forget.
            self.counters.contradictions += 1;
            if recorded {
                self.ack(attempt, anchor, from);
            }
            return;
        }
        if recorded {
            let names = (anchor.clone(), from.clone());
            self.with_office(|_, office, state| {
                let open = state.intents.contains_key(&attempt)
                    || state.resolutions.contains_key(&attempt)
                    || office.active.contains_key(&attempt);
                if open {
                    office.acks.insert(attempt, names);
                }
            });
        }
        if let Some(resolution) = self.state.resolutions.get(&attempt) {
            if !agree(resolution.outcome, outcome) {
                self.counters.contradictions += 1;
                if recorded {
                    self.ack_resolution(attempt);
                }
            } else if resolution.recorded {
                mark(Mark::ResolveAgain);
                self.ack_resolution(attempt);
            } else if recorded {
                mark(Mark::RecordedLater);
                self.record_resolution(attempt, outcome);
            }
            return;
        }
        if self.state.records.contains_key(&attempt) || self.coordinates(attempt) {
            // One's own coordinator needs no telling; somebody else's is confused.
            self.counters.strays += 1;
            return;
        }
        let proposed = self.progress_is_intent(attempt);
        if let Some(intent) = self.state.intents.get(&attempt) {
            let refused = matches!(outcome, Outcome::Committed(s) if s < intent.timestamp);
            if refused {
                self.counters.contradictions += 1;
                return;
            }
        } else if !proposed {
            return self.resolve_unknown(attempt, anchor, from, outcome, recorded);
        } else if matches!(outcome, Outcome::Committed(_)) {
            // A commit needs this shard's yes, which it has not given yet.
            self.counters.contradictions += 1;
            return;
        } else {
            mark(Mark::AbortOvertook);
        }
        self.resolve_intent(cx, attempt, outcome, recorded);
    }

    /// The coordinator has no record, and never will have: what is unresolved
    /// here was never staged there (T5). Without an intent it means nothing.
    pub(super) fn handle_forgotten(&mut self, cx: &Cx, attempt: AttemptId, from: &Key) {
        let asked = self
            .own_intent(attempt)
            .is_some_and(|i| i.here != i.coordinator && !i.names_other(from));
        if asked {
            mark(Mark::ForgottenAborted);
            let outcome = Outcome::Aborted(AbortReason::NeverStaged);
            self.resolve_intent(cx, attempt, outcome, true);
        }
    }

    /// The outcome of an attempt that has nothing here.
    fn resolve_unknown(
        &mut self,
        attempt: AttemptId,
        anchor: Key,
        from: Key,
        outcome: Outcome,
        recorded: bool,
    ) {
        let forgotten = attempt.millis() < self.state.forget_floor;
        match outcome {
            Outcome::Aborted(reason) => {
                // A Commit that comes later is refused: in this term by memory,
                // after it by its term (T4). No entry is needed. Were it forgotten, the
                // Commit's intent would be aborted again.
                if self.has_one_shard(attempt) {
                    self.counters.contradictions += 1;
                    return;
                }
                mark(Mark::ResolveUnknown);
                self.drop_active(attempt, reason);
                self.with_office(|_, office, _| office.acks.remove(&attempt));
                self.note_no(attempt, reason);
                if recorded {
                    self.ack(attempt, anchor, from);
                }
            }
            Outcome::Committed(_) if forgotten => {
                if recorded {
                    self.ack(attempt, anchor, from);
                }
            }
            Outcome::Committed(_) => self.counters.contradictions += 1,
        }
    }

    fn has_one_shard(&self, attempt: AttemptId) -> bool {
        self.state.one_shard.get(attempt).is_some()
            || self.office.as_deref().is_some_and(|o| {
                o.active
                    .get(&attempt)
                    .is_some_and(|a| matches!(a.progress, Progress::OneShard(_)))
            })
    }

    fn coordinates(&self, attempt: AttemptId) -> bool {
        self.office
            .as_deref()
            .is_some_and(|o| o.coordinations.contains_key(&attempt))
    }

    fn progress_is_intent(&self, attempt: AttemptId) -> bool {
        self.office.as_deref().is_some_and(|o| {
            o.active
                .get(&attempt)
                .is_some_and(|a| matches!(a.progress, Progress::Intent(_)))
        })
    }

    /// In one step: `last` rises, the resolution takes its slot, what was
    /// written becomes readable, and the locks pass on. Whoever gets them
    /// proposes into later slots, so nothing decided can rest on a resolution
    /// that was lost; and if this term ends first, the intent is still in the
    /// state and its locks are back before anybody reads.
    fn resolve_intent(&mut self, cx: &Cx, attempt: AttemptId, outcome: Outcome, recorded: bool) {
        let before = self.with_office(|_, office, _| {
            let open = office.open.entry(attempt).or_insert(Open {
                since: cx.now,
                tries: 0,
                moved: false,
                resolved: None,
            });
            let before = open.resolved;
            open.resolved = Some((outcome, recorded || before.is_some_and(|(_, r)| r)));
            office.timers.disarm(Timer::Participant(attempt));
            before
        });
        match before.flatten() {
            Some((known, _)) if !agree(known, outcome) => {
                self.counters.contradictions += 1;
                self.with_office(|_, office, _| {
                    if let Some(open) = office.open.get_mut(&attempt) {
                        open.resolved = before.flatten();
                    }
                });
                return;
            }
            // Proposed already, and nothing new in this one.
            Some((_, known_recorded)) if known_recorded || !recorded => return,
            Some(_) => {}
            None => self.pass_on(attempt, outcome),
        }
        let command = Command::Resolve {
            attempt,
            outcome,
            recorded,
        };
        self.propose(command, true);
        if recorded && mutated(Mutation::AckBeforeDecided) {
            self.ack_resolution(attempt);
        }
    }

    /// Makes an outcome readable and lets the locks go. For a participant the
    /// resolution, for a coordinator the outcome entry is proposed in this step.
    pub(super) fn pass_on(&mut self, attempt: AttemptId, outcome: Outcome) {
        if let Outcome::Committed(timestamp) = outcome
            && let Some(intent) = self.state.intents.get(&attempt)
        {
            for write in &intent.writes {
                let value = write.value.clone();
                self.overlay
                    .insert_provisional(&write.key, timestamp, attempt, value);
            }
            if let Some(office) = self.office.as_deref_mut()
                && !mutated(Mutation::FreeLocksBeforeLast)
            {
                office.last = office.last.max(timestamp);
            }
        }
        if let Some(office) = self.office.as_deref_mut() {
            office.locks.release(attempt);
            office.wounds.remove(&attempt);
            office.timers.disarm(Timer::Wound(attempt));
        }
    }

    /// Has a resolution decided as recorded, once (T6).
    fn record_resolution(&mut self, attempt: AttemptId, outcome: Outcome) {
        let first = self.with_office(|_, office, _| office.recording.insert(attempt));
        if first == Some(true) {
            let command = Command::Resolve {
                attempt,
                outcome,
                recorded: true,
            };
            self.propose(command, true);
        }
    }

    /// A resolution is decided: ack, once the outcome is recorded.
    pub(super) fn resolve_applied(&mut self, attempt: AttemptId) {
        let known = self.state.resolutions.get(&attempt);
        let Some(recorded) = known.map(|resolution| resolution.recorded) else {
            return;
        };
        let wanted = self.with_office(|_, office, _| {
            office.recording.remove(&attempt);
            office.locks.release(attempt);
            let recorded_follows = office
                .open
                .get(&attempt)
                .and_then(|open| open.resolved)
                .is_some_and(|(_, recorded)| recorded);
            if recorded || !recorded_follows {
                office.open.remove(&attempt);
                office.timers.disarm(Timer::Participant(attempt));
            }
        });
        if wanted.is_some() && recorded {
            self.ack_resolution(attempt);
        }
    }

    fn ack_resolution(&mut self, attempt: AttemptId) {
        let Some(names) = self.with_office(|_, office, _| office.acks.remove(&attempt)) else {
            return;
        };
        if let Some((anchor, from)) = names {
            self.ack(attempt, anchor, from);
        }
    }

    fn ack(&mut self, attempt: AttemptId, anchor: Key, to: Key) {
        let hint = self.coordinator_hint(attempt);
        self.tell_anchor(hint, to, anchor, attempt, PeerBody::Ack);
    }

    /// Where the coordinator was when last known; 0 if nothing is known of the
    /// attempt, then the driver looks its anchor up (T10).
    fn coordinator_hint(&self, attempt: AttemptId) -> GroupId {
        if let Some(intent) = self.state.intents.get(&attempt) {
            return intent.participants[intent.coordinator as usize].shard;
        }
        let resolution = self.state.resolutions.get(&attempt);
        resolution.map_or(GroupId(0), |r| r.coordinator)
    }

    /// A coordinator wants to know (T4): it inherited Staged, or votes do not come.
    pub(super) fn handle_poll(
        &mut self,
        cx: &Cx,
        attempt: AttemptId,
        anchor: Key,
        from: Key,
        named: Term,
    ) {
        let Some(current) = self.term() else { return };
        if named == current && self.is_freshly_queued(cx, attempt) {
            mark(Mark::PollQueued);
            return;
        }
        let answer = if !self.speaks_of(cx, named.group) {
            // No Commit that names it is ever let in here (T4). Who leads without a lease may not
            // know that its shard was split or absorbed, and that the anchor is another's since.
            cx.lease.then_some(Vote::No(AbortReason::Malformed))
        } else if self.is_unknown_term(cx, named, current) && !self.state.knows(attempt) {
            return self.bury(cx, attempt);
        } else {
            self.answer_poll(attempt, &anchor, &from, named == current)
        };
        if let Some(vote) = answer {
            let body = PeerBody::Vote { vote, term: named };
            let hint = self.coordinator_hint(attempt);
            self.tell_anchor(hint, from, anchor, attempt, body);
        }
    }

    /// Whether a Commit waits for its locks and has not waited long: its vote
    /// will come. A coordinator asks again; one that inherited Staged can
    /// be wounded by nobody, so in the end the queue gives way (T5).
    fn is_freshly_queued(&self, cx: &Cx, attempt: AttemptId) -> bool {
        let patience = self.settings.staged_timeout_nanos;
        let active = self.office.as_deref().and_then(|o| o.active.get(&attempt));
        active.is_some_and(|active| match &active.progress {
            Progress::Queued(queued) => cx.now < queued.since.plus(patience),
            _ => false,
        })
    }

    /// A poll names a term that does not exist, as no other leader can have begun
    /// one while this one holds the lease: its client lied. The term may still
    /// come, so a no would not be final; a decided resolution is, and the next
    /// poll finds it.
    fn bury(&mut self, cx: &Cx, attempt: AttemptId) {
        if cx.lease {
            self.record_resolution(attempt, Outcome::Aborted(AbortReason::Malformed));
        }
    }

    /// None: an entry of it is on its way; the vote follows its apply.
    fn answer_poll(
        &mut self,
        attempt: AttemptId,
        anchor: &Key,
        from: &Key,
        same_term: bool,
    ) -> Option<Vote> {
        if let Some(intent) = self.state.intents.get(&attempt) {
            if intent.names_other(from) {
                return Some(Vote::No(AbortReason::Malformed));
            }
            if intent.anchor() != anchor {
                // The intent holds what another participant writes. This one was another
                // shard, and is part of this one by now: an attempt has one intent here.
                return Some(Vote::No(AbortReason::Moved));
            }
            mark(Mark::PollYes);
            return Some(Vote::Yes(intent.timestamp));
        }
        if let Some(resolution) = self.state.resolutions.get(&attempt) {
            mark(Mark::PollYesResolved);
            // s is the maximum of all ts_i, so saying s gives the same maximum. By whichever
            // anchor it is resolved here: who decided a commit had the yes of each.
            return Some(match resolution.outcome {
                Outcome::Committed(s) => Vote::Yes(s),
                Outcome::Aborted(reason) => Vote::No(reason),
            });
        }
        if self.state.knows(attempt) {
            // Committed alone, or coordinated, by other Commits of the same attempt.
            return Some(Vote::No(AbortReason::Malformed));
        }
        let proposed = self.progress_is_intent(attempt) && !mutated(Mutation::NoWhileProposed);
        if proposed || self.has_one_shard(attempt) {
            mark(Mark::PollWaited);
            return None;
        }
        if attempt.millis() < self.state.forget_floor {
            // Of a late copy of a Poll the resolution may be forgotten: no is
            // true only for a coordinator that still has no outcome (T7).
            mark(Mark::PollBelowFloor);
            self.drop_active(attempt, AbortReason::NeverStaged);
            return Some(Vote::Forgotten);
        }
        mark(Mark::PollNo);
        self.drop_active(attempt, AbortReason::NeverStaged);
        if same_term {
            self.remember_no(attempt, AbortReason::NeverStaged);
        }
        let said = self
            .office
            .as_deref()
            .and_then(|o| o.noes.get(attempt))
            .map_or(AbortReason::TermEnded, |no| no.reason);
        Some(Vote::No(said))
    }

    /// The coordinator's own intent, as the participants of a record know it.
    pub(super) fn own_intent(&self, attempt: AttemptId) -> Option<&Intent> {
        self.state.intents.get(&attempt).map(|b| &**b)
    }

    /// Whether a coordinator has said how it ended, or may have.
    pub(super) fn phase(&self, attempt: AttemptId) -> Option<Phase> {
        self.office
            .as_deref()
            .and_then(|o| o.coordinations.get(&attempt))
            .map(|c| c.phase)
    }
}

/// Whether two outcomes are the same decision. Reasons may be told differently.
fn agree(a: Outcome, b: Outcome) -> bool {
    match (a, b) {
        (Outcome::Committed(x), Outcome::Committed(y)) => x == y,
        (Outcome::Aborted(_), Outcome::Aborted(_)) => true,
        _ => false,
    }
}
