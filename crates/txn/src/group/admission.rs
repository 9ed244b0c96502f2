//! Whether an attempt to commit may begin: copies are answered as their originals were, what
//! cannot be is turned down before anything is proposed.

use super::Group;
use super::memory::No;
use super::office::{Phase, Progress};
use super::times::of_nanos;
use crate::peer::{PeerBody, Vote};
use crate::request::{CommitRequest, Refusal, Response};
use crate::types::{AbortReason, AttemptId, Caller, Outcome};
use synod_probe::{Mark, Mutation, mark, mutated};

/// Why a Commit is not let in.
pub(super) enum Unfit {
    /// A final no.
    No(AbortReason),
    /// A final no, for the time in its id.
    Untimely,
    /// It may have been met and forgotten: nothing can be said.
    Forgotten,
}

impl Group {
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
    pub(super) fn answer_again(
        &mut self,
        from: Caller,
        request: &CommitRequest,
        ahead: bool,
    ) -> bool {
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
        let floor = self.floor_of(request);
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
        // the outcome, unless this Commit names the very session that it ended: one of
        // this term, as each term counts its sessions from the beginning.
        let old = attempt.millis() < floor;
        let of_this_term = request.participants[request.here as usize].term == office.term;
        let names_it =
            |no: &No| of_this_term && request.session.is_some() && request.session == no.session;
        let ended = ended.filter(|no| !old || names_it(no));
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
    pub(super) fn admit(&mut self, request: &CommitRequest) -> Result<(), Unfit> {
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
    pub(super) fn turn_down(
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
    pub(super) fn tell_moved(&mut self, request: &CommitRequest) {
        let anchor = &request.participants[request.here as usize].anchor;
        for (index, participant) in request.participants.iter().enumerate() {
            if index != request.here as usize {
                self.tell(participant, anchor, request.attempt, PeerBody::Moved);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Cx;
    use crate::request::{LockMode, Request};
    use crate::settings::{GroupSettings, ONE_SHARD_MEMORY};
    use crate::types::{ClientId, Interval, Key, Participant, Priority, SessionId};
    use crate::{Effect, Write};
    use synod_paxos::{Ballot, GroupId, Mono, NodeId, Slot, Term, Timestamp};

    const SHARD: GroupId = GroupId(1);
    const NOW: u64 = 1_000_000_000_000;
    const NOBODY: Caller = Caller {
        connection: 1,
        request: 1,
    };

    fn term(round: u64) -> Term {
        Term {
            group: SHARD,
            ballot: Ballot {
                round,
                node: NodeId(round),
                ..Ballot::default()
            },
        }
    }

    fn attempt(millis: u64, number: u64) -> AttemptId {
        AttemptId(u128::from(millis) << 80 | u128::from(number))
    }

    fn cx() -> Cx {
        let wall = Timestamp(NOW);
        Cx {
            now: Mono(0),
            clock: Interval {
                earliest: wall,
                latest: wall,
            },
            limit: wall.plus(NOW),
            lease: true,
        }
    }

    fn answers(group: &mut Group, request: Request) -> Vec<Response> {
        group.handle_request(&cx(), NOBODY, request);
        let effects = group.drain_effects().into_iter();
        let answers = effects.filter_map(|effect| match effect {
            Effect::Respond { response, .. } => Some(response),
            _ => None,
        });
        answers.collect()
    }

    /// Each term counts its sessions from one. A Commit of an earlier term that names a session by the
    /// number of one which ended in this term may be a copy of what committed then and is forgotten.
    #[test]
    fn a_session_of_another_term_proves_nothing_by_its_number() {
        let millis = NOW / 1_000_000;
        let (old, key) = (attempt(millis - 2, 7), Key::from_static(b"k"));
        let mut group = Group::new(SHARD, GroupSettings::default());
        for number in 0..=ONE_SHARD_MEMORY as u64 {
            let after = attempt(millis - 1, number);
            group.state.one_shard.insert(after, Timestamp(number + 1));
        }
        assert!(group.state.unknown_below() > old.millis());
        group.state.applied = Slot(1);
        group.take_office(&cx(), term(2));
        let priority = Priority {
            start: Timestamp(1),
            first: old,
        };
        let late_read = Request::LockedRead {
            attempt: old,
            priority,
            client: ClientId(1),
            session: None,
            keys: vec![key.clone()],
            scan: None,
            mode: LockMode::Shared,
        };
        answers(&mut group, late_read);
        let session = group.office.as_deref().map(|office| office.sessions);
        assert_eq!((group.sessions(), session), (1, Some(1)));
        group.handle_client_gone(&cx(), ClientId(1));
        group.drain_effects();
        assert_eq!(group.sessions(), 0);
        let copy_of = |round| CommitRequest {
            attempt: old,
            priority,
            client: ClientId(1),
            session: Some(SessionId(1)),
            writes: vec![Write {
                key: key.clone(),
                value: None,
            }],
            reads: Vec::new(),
            participants: vec![Participant {
                anchor: key.clone(),
                shard: SHARD,
                term: term(round),
            }],
            here: 0,
            coordinator: 0,
            timeout_millis: 1_000,
            snapshot: None,
        };
        let of_the_earlier = answers(&mut group, Request::Commit(Box::new(copy_of(1))));
        let undecided = Refusal::WrongTerm {
            current: term(2),
            last_word: false,
        };
        assert_eq!(of_the_earlier, [Response::Refused(undecided)]);
        let of_this = answers(&mut group, Request::Commit(Box::new(copy_of(2))));
        let ended = matches!(
            of_this[..],
            [Response::Refused(Refusal::Aborted(
                AbortReason::SessionEnded
            ))]
        );
        assert!(ended, "{of_this:?}");
    }
}
