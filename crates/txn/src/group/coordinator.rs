//! The coordinator: from staged to outcome, and until everybody knows it.
//!
//! A leader that proposed Staged itself may still have an abort decided while
//! it has told nobody *committed* (T3). One that inherited Staged must not: its
//! predecessor may have told the client. It asks every participant, and
//! reaches the decision its predecessor would have reached.

use super::office::{Callers, Coordination, Phase, Timer};
use super::{Cx, Group};
use crate::command::Command;
use crate::peer::{PeerBody, Vote};
use crate::records::Record;
use crate::request::Refusal;
use crate::types::{AbortReason, AttemptId, Key, Outcome, Participant, Priority};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{GroupId, Term, Timestamp};
use synod_probe::{Mark, Mutation, mark, mutated};

impl Group {
    /// Taking office: polls for what is staged, Resolves for what is decided and not acked.
    pub(super) fn adopt_records(&mut self, cx: &Cx) {
        let records: Vec<(AttemptId, Coordination)> = self
            .state
            .records
            .unsettled()
            .map(|(attempt, record)| (attempt, self.inherit(attempt, record)))
            .collect();
        for (attempt, coordination) in records {
            mark(match coordination.phase {
                Phase::Voting => Mark::StagedInherited,
                _ => Mark::OutcomeInherited,
            });
            self.with_office(|_, office, _| {
                office.coordinations.insert(attempt, coordination);
            });
            if mutated(Mutation::AbortInherited) {
                self.start_abort(attempt, AbortReason::TermEnded);
            }
            self.try_commit(attempt);
            self.press(cx, attempt);
        }
    }

    fn inherit(&self, attempt: AttemptId, record: &Record) -> Coordination {
        let intent = self.own_intent(attempt);
        let mut coordination = Coordination {
            own: false,
            staged: true,
            priority: intent.map_or(Priority::default(), |i| i.priority),
            participants: record.participants.clone(),
            anchor: record.anchor.clone(),
            yes: BTreeMap::new(),
            acked: BTreeSet::new(),
            callers: Callers::new(),
            phase: record.outcome.map_or(Phase::Voting, Phase::Finished),
            tries: 0,
        };
        if let (Some(intent), Some(at)) = (intent, coordination.index_of(&record.anchor)) {
            coordination.yes.insert(at, intent.timestamp);
        }
        for anchor in &record.acked {
            if let Some(at) = coordination.index_of(anchor) {
                coordination.acked.insert(at);
            }
        }
        coordination
    }

    /// Staged is decided: the coordinator's own yes.
    pub(super) fn staged_applied(&mut self, attempt: AttemptId) {
        let timestamp = self.own_intent(attempt).map(|i| i.timestamp);
        self.with_office(|_, office, _| {
            if let (Some(coordination), Some(timestamp)) =
                (office.coordinations.get_mut(&attempt), timestamp)
            {
                coordination.staged = true;
                if let Some(at) = coordination.index_of(&coordination.anchor) {
                    coordination.yes.insert(at, timestamp);
                }
            }
        });
        self.try_commit(attempt);
    }

    pub(super) fn count_early_votes(&mut self, attempt: AttemptId, anchor: Key) {
        let votes = self.with_office(|_, office, _| office.early.take(attempt));
        for (from, vote, term) in votes.unwrap_or_default() {
            mark(Mark::EarlyVote);
            self.handle_vote(attempt, anchor.clone(), from, vote, term);
        }
    }

    pub(super) fn handle_vote(
        &mut self,
        attempt: AttemptId,
        anchor: Key,
        from: Key,
        vote: Vote,
        term: Term,
    ) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(coordination) = office.coordinations.get_mut(&attempt) else {
            return self.vote_without_work(attempt, anchor, from, vote, term);
        };
        let Some(index) = coordination.index_of(&from) else {
            if let Phase::Aborting(_) = coordination.phase {
                // Told as soon as the abort is decided, as those are whose vote
                // came before somebody demanded it.
                let bound = self.settings.early_votes;
                return office.early.insert(attempt, from, vote, term, bound);
            }
            return self.answer_stranger(attempt, anchor, from);
        };
        if coordination.participants[index].term != term {
            self.counters.strays += 1;
            return;
        }
        match (coordination.phase, vote) {
            (Phase::Voting, Vote::Yes(timestamp)) => {
                let before = *coordination.yes.entry(index).or_insert(timestamp);
                // ts_i never changes (T1); a resolved participant says s, which is
                // the maximum and not below it.
                coordination.yes.insert(index, before.max(timestamp));
                self.try_commit(attempt);
            }
            (Phase::Voting, Vote::No(_) | Vote::Forgotten) => {
                if let Some(reason) = vote.denies() {
                    self.start_abort(attempt, reason);
                }
            }
            (Phase::Aborting(_), _) => {}
            (Phase::Committing(at), Vote::Yes(_)) => {
                let outcome = Outcome::Committed(at);
                self.resolve_one(attempt, index, outcome, false);
            }
            (Phase::Finished(outcome), Vote::Yes(_)) => {
                self.resolve_one(attempt, index, outcome, true);
            }
            (_, Vote::No(_) | Vote::Forgotten) => {}
        }
    }

    /// A vote for which this leader has nothing to do: the record is done, or
    /// the Commit has not come or waits for its locks.
    fn vote_without_work(
        &mut self,
        attempt: AttemptId,
        anchor: Key,
        from: Key,
        vote: Vote,
        term: Term,
    ) {
        if let Some(record) = self.state.records.get(&attempt) {
            let outcome = record.outcome;
            let known = record.participants.iter().find(|p| p.anchor == from);
            match (known.cloned(), outcome, vote) {
                (Some(to), Some(outcome), Vote::Yes(_)) => {
                    let body = PeerBody::Resolve {
                        outcome,
                        recorded: true,
                    };
                    self.tell(&to, &anchor, attempt, body);
                }
                (None, ..) => self.answer_stranger(attempt, anchor, from),
                _ => {}
            }
            return;
        }
        let queued = self.queued_participants(attempt);
        let meant = |p: &Participant| p.anchor == from && p.term == term;
        if let (Some(participants), Some(reason)) = (&queued, vote.denies())
            && participants.iter().any(meant)
        {
            mark(Mark::EarlyNo);
            return self.drop_active(attempt, reason);
        }
        let bound = self.settings.early_votes;
        self.with_office(|_, office, _| office.early.insert(attempt, from, vote, term, bound));
    }

    /// Who is not on the Staged list is answered aborted (T5). An abort of what was
    /// never staged knows only those whom somebody named who asked for it: others
    /// learn of it when they vote or ask, once it is decided.
    pub(super) fn answer_stranger(&mut self, attempt: AttemptId, anchor: Key, from: Key) {
        if let Some(Phase::Aborting(_)) = self.phase(attempt) {
            return;
        }
        let reason = match self.told(attempt) {
            Some(Outcome::Aborted(reason)) => {
                mark(Mark::UnnamedToldAborted);
                reason
            }
            _ => {
                self.counters.strays += 1;
                AbortReason::Malformed
            }
        };
        let body = PeerBody::Resolve {
            outcome: Outcome::Aborted(reason),
            recorded: true,
        };
        self.tell_anchor(GroupId(0), from, anchor, attempt, body);
    }

    /// T2: all yes and the own entry decided ⇒ committed at the maximum.
    fn try_commit(&mut self, attempt: AttemptId) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(coordination) = office.coordinations.get_mut(&attempt) else {
            return;
        };
        let all = coordination.yes.len() == coordination.participants.len()
            || mutated(Mutation::CommitWithoutVote) && !coordination.own;
        let at = coordination.yes.values().copied().max().unwrap_or_default();
        if coordination.phase != Phase::Voting || !coordination.staged || !all {
            if mutated(Mutation::AnswerBeforeStaged) && all && coordination.phase == Phase::Voting {
                for caller in std::mem::take(&mut coordination.callers) {
                    self.answer_outcome(caller, Outcome::Committed(at), 1);
                }
            }
            return;
        }
        if !coordination.own {
            mark(Mark::InheritedCommitted);
        }
        coordination.phase = Phase::Committing(at);
        let callers = std::mem::take(&mut coordination.callers);
        let anchor = coordination.anchor.clone();
        let others: Vec<usize> = coordination.others().map(|(index, _)| index).collect();
        office.timers.disarm(Timer::Deadline(attempt));
        let outcome = Outcome::Committed(at);
        debug_assert!(
            self.own_intent(attempt).is_some_and(|i| i.timestamp <= at),
            "T2: committed without a decided intent of its own"
        );
        for caller in callers {
            self.answer_outcome(caller, outcome, 1);
        }
        for index in others {
            self.resolve_one(attempt, index, outcome, false);
        }
        if !mutated(Mutation::AbortAfterAnswer) {
            self.record_commit(attempt, outcome, anchor);
        }
    }

    /// The locks pass on in the step that gives the outcome its slot: whoever
    /// gets them writes into later ones.
    fn record_commit(&mut self, attempt: AttemptId, outcome: Outcome, anchor: Key) {
        self.pass_on(attempt, outcome);
        let command = Command::Outcome {
            attempt,
            outcome,
            participants: Vec::new(),
            anchor,
        };
        self.propose(command, true);
    }

    /// Proposes an Abort, if T3 lets this leader, for a Staged it knows of.
    pub(super) fn start_abort(&mut self, attempt: AttemptId, reason: AbortReason) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(coordination) = office.coordinations.get_mut(&attempt) else {
            return;
        };
        let told = matches!(coordination.phase, Phase::Committing(_));
        if coordination.phase != Phase::Voting && !(told && mutated(Mutation::AbortAfterAnswer)) {
            return;
        }
        if !coordination.own {
            mark(Mark::InheritedAborted);
        }
        coordination.phase = Phase::Aborting(reason);
        office.timers.disarm(Timer::Deadline(attempt));
        let command = Command::Outcome {
            attempt,
            outcome: Outcome::Aborted(reason),
            participants: coordination.participants.clone(),
            anchor: coordination.anchor.clone(),
        };
        self.propose(command, false);
    }

    /// Has an abort decided for an attempt that was never staged here and,
    /// once that is, never will be (T5); meanwhile a Commit meets the work begun.
    pub(super) fn abort_unstaged(
        &mut self,
        attempt: AttemptId,
        anchor: Key,
        participants: Vec<Participant>,
        reason: AbortReason,
    ) {
        // Of an anchor that went to another shard, that one decides (T10).
        if self.state.knows(attempt) || !self.state.lineage.owns(&anchor) {
            return;
        }
        self.note_no(attempt, reason);
        let started = self.with_office(|_, office, _| {
            if office.coordinations.contains_key(&attempt) {
                return false;
            }
            let coordination = Coordination {
                own: true,
                staged: false,
                priority: Priority::default(),
                participants,
                anchor,
                yes: BTreeMap::new(),
                acked: BTreeSet::new(),
                callers: Callers::new(),
                phase: Phase::Voting,
                tries: 0,
            };
            office.coordinations.insert(attempt, coordination);
            true
        });
        if started == Some(true) {
            mark(Mark::AbortedUnstaged);
            self.start_abort(attempt, reason);
        }
    }

    fn resolve_one(&mut self, attempt: AttemptId, index: usize, outcome: Outcome, recorded: bool) {
        let Some(coordination) = self
            .office
            .as_deref()
            .and_then(|o| o.coordinations.get(&attempt))
        else {
            return;
        };
        if coordination.acked.contains(&index) {
            return;
        }
        let to = coordination.participants[index].clone();
        let anchor = coordination.anchor.clone();
        let body = PeerBody::Resolve { outcome, recorded };
        self.tell(&to, &anchor, attempt, body);
    }

    /// An outcome entry was decided.
    pub(super) fn outcome_applied(&mut self, cx: &Cx, attempt: AttemptId, fresh: bool) {
        let outcome = self.state.records.get(&attempt).and_then(|r| r.outcome);
        let Some(outcome) = outcome.filter(|_| fresh) else {
            // The attempt had an outcome of another kind first; what was begun
            // here for it ends with it.
            let known = self.state.records.contains_key(&attempt);
            let gone = self.with_office(|_, office, _| match known {
                true => None,
                false => office.coordinations.remove(&attempt),
            });
            for caller in gone.flatten().map(|c| c.callers).unwrap_or_default() {
                self.refuse(caller, Refusal::NotLeader { hint: None });
            }
            return;
        };
        let callers = self.with_office(|_, office, _| {
            office.locks.release(attempt);
            office.wounds.remove(&attempt);
            let coordination = office.coordinations.get_mut(&attempt)?;
            debug_assert!(
                !matches!(
                    (coordination.phase, outcome),
                    (Phase::Committing(_), Outcome::Aborted(_))
                ),
                "T3: an abort was decided after a commit was told"
            );
            coordination.phase = Phase::Finished(outcome);
            coordination.tries = 0;
            Some(std::mem::take(&mut coordination.callers))
        });
        for caller in callers.flatten().unwrap_or_default() {
            self.answer_outcome(caller, outcome, 2);
        }
        if let Outcome::Aborted(_) = outcome {
            self.tell_early_voters(attempt);
        }
        self.press(cx, attempt);
    }

    /// An abort of what was never staged is decided: whoever voted and is not
    /// named by it learns of it now, not when it votes again.
    fn tell_early_voters(&mut self, attempt: AttemptId) {
        let unnamed = self.with_office(|_, office, _| {
            let votes = office.early.take(attempt);
            let coordination = office.coordinations.get(&attempt)?;
            let anchor = coordination.anchor.clone();
            let unnamed = votes.into_iter().filter(|(from, vote, _)| {
                vote.denies().is_none() && coordination.index_of(from).is_none()
            });
            Some((anchor, unnamed.map(|(from, ..)| from).collect::<Vec<_>>()))
        });
        let Some((anchor, unnamed)) = unnamed.flatten() else {
            return;
        };
        for from in unnamed {
            self.answer_stranger(attempt, anchor.clone(), from);
        }
    }

    /// Asks or tells again whoever has not answered; arms the next time (T9).
    pub(super) fn press(&mut self, cx: &Cx, attempt: AttemptId) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(coordination) = office.coordinations.get_mut(&attempt) else {
            return;
        };
        let tries = coordination.tries;
        coordination.tries = tries.saturating_add(1);
        let phase = coordination.phase;
        let missing: Vec<(usize, Participant)> = coordination
            .others()
            .filter(|(index, _)| match phase {
                Phase::Voting => !coordination.yes.contains_key(index),
                Phase::Finished(_) => !coordination.acked.contains(index),
                Phase::Aborting(_) | Phase::Committing(_) => false,
            })
            .map(|(index, participant)| (index, participant.clone()))
            .collect();
        let anchor = coordination.anchor.clone();
        match phase {
            Phase::Finished(outcome) => {
                if missing.is_empty() {
                    return self.all_acked(attempt);
                }
                for (index, _) in missing {
                    self.resolve_one(attempt, index, outcome, true);
                }
            }
            // A participant whose leader was lost before its intent was decided
            // votes no more by itself: nobody there knows of the attempt.
            Phase::Voting => {
                for (_, to) in missing {
                    let body = PeerBody::Poll { term: to.term };
                    self.tell(&to, &anchor, attempt, body);
                }
            }
            Phase::Committing(_) if mutated(Mutation::AbortAfterAnswer) && tries == 0 => {}
            Phase::Committing(at) if mutated(Mutation::AbortAfterAnswer) => {
                return self.record_commit(attempt, Outcome::Committed(at), anchor);
            }
            _ => return,
        }
        let again = cx.now.plus(self.settings.backoff(tries));
        self.arm(again, Timer::Coordinator(attempt));
    }

    pub(super) fn handle_ack(&mut self, attempt: AttemptId, from: &Key) {
        let done = self.with_office(|_, office, _| {
            let Some(coordination) = office.coordinations.get_mut(&attempt) else {
                return false;
            };
            let Some(index) = coordination.index_of(from) else {
                return false;
            };
            if !matches!(coordination.phase, Phase::Finished(_)) {
                return false;
            }
            coordination.acked.insert(index);
            coordination
                .others()
                .all(|(index, _)| coordination.acked.contains(&index))
        });
        if done == Some(true) {
            self.all_acked(attempt);
        }
    }

    /// Everybody knows. One lazy entry says so, so that the record may go (T6).
    fn all_acked(&mut self, attempt: AttemptId) {
        let gone = self.with_office(|_, office, _| {
            office.timers.disarm(Timer::Coordinator(attempt));
            office.coordinations.remove(&attempt)
        });
        let Some(coordination) = gone.flatten() else {
            return;
        };
        let participants: Vec<Key> = coordination
            .others()
            .map(|(_, p)| p.anchor.clone())
            .collect();
        if !participants.is_empty() {
            let command = Command::Acked {
                attempt,
                participants,
            };
            self.propose(command, true);
        }
    }

    /// An older transaction waits elsewhere for this one's locks.
    pub(super) fn handle_wound(
        &mut self,
        attempt: AttemptId,
        anchor: Key,
        from: Key,
        by: Priority,
    ) {
        let Some(office) = self.office.as_deref() else {
            return;
        };
        if let Some(coordination) = office.coordinations.get(&attempt) {
            let known = coordination.index_of(&from);
            let (phase, own) = (coordination.phase, coordination.own);
            let late = mutated(Mutation::AbortAfterAnswer) && coordination.tries > 0;
            let older = by < coordination.priority;
            match (phase, known) {
                (_, None) => self.answer_stranger(attempt, anchor, from),
                (Phase::Voting, Some(_)) if !own && !mutated(Mutation::WoundInherited) => {
                    mark(Mark::WoundInherited);
                }
                (Phase::Committing(_), Some(_)) if older && late => {
                    self.start_abort(attempt, AbortReason::Wounded);
                }
                (Phase::Voting, Some(_)) if older => {
                    mark(Mark::WoundedStaged);
                    self.start_abort(attempt, AbortReason::Wounded);
                }
                (Phase::Committing(at), Some(index)) => {
                    self.resolve_one(attempt, index, Outcome::Committed(at), false);
                }
                (Phase::Finished(outcome), Some(index)) => {
                    self.resolve_one(attempt, index, outcome, true);
                }
                _ => {}
            }
            return;
        }
        if self.state.knows(attempt) {
            return;
        }
        // Queued, still reading, or not come yet: the no is remembered, and a
        // Commit that comes has the abort decided.
        let one_shard = office
            .active
            .get(&attempt)
            .is_some_and(|active| matches!(active.progress, super::Progress::OneShard(_)));
        if !one_shard {
            mark(Mark::WoundUnstaged);
            self.drop_active(attempt, AbortReason::Wounded);
            self.note_no(attempt, AbortReason::Wounded);
        }
    }

    /// Where a commit stands, for whoever may hear it now.
    pub(super) fn told(&self, attempt: AttemptId) -> Option<Outcome> {
        match self.phase(attempt) {
            Some(Phase::Committing(at)) => Some(Outcome::Committed(at)),
            Some(Phase::Finished(outcome)) => Some(outcome),
            Some(Phase::Voting | Phase::Aborting(_)) => None,
            None => self.state.records.get(&attempt).and_then(|r| r.outcome),
        }
    }

    /// The participants of a Commit that waits for its locks here, as coordinator.
    pub(super) fn queued_participants(&self, attempt: AttemptId) -> Option<Vec<Participant>> {
        let active = self.office.as_deref()?.active.get(&attempt)?;
        match &active.progress {
            super::Progress::Queued(queued)
                if queued.request.here == queued.request.coordinator =>
            {
                Some(queued.request.participants.clone())
            }
            _ => None,
        }
    }

    /// The timestamp a commit was told at, for the views.
    #[must_use]
    pub fn committed_at(&self, attempt: AttemptId) -> Option<Timestamp> {
        let one = self.state.one_shard.get(attempt);
        one.or_else(|| match self.told(attempt) {
            Some(Outcome::Committed(at)) => Some(at),
            _ => None,
        })
    }
}
