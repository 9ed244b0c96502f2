//! What became of an attempt? Asked by clients and by participants.

use super::office::Progress;
use super::waiting::Waiting;
use super::{Cx, Group};
use crate::effect::{Effect, EngineRows, ReadToken};
use crate::peer::PeerBody;
use crate::request::{Refusal, Response};
use crate::types::{AbortReason, AttemptId, Caller, Key, Outcome, Participant};
use synod_paxos::{GroupId, Term, Timestamp};
use synod_probe::{Mark, Mutation, mark, mutated};

/// Versions of the anchor key a status query looks at, newest first.
const LOOKUP_STEPS: u32 = 32;

impl Group {
    /// A client's question, after it lost its answer (U4).
    pub(super) fn handle_status(
        &mut self,
        cx: &Cx,
        from: Caller,
        attempt: AttemptId,
        anchor: Key,
        named: Term,
    ) {
        let Some(current) = self.term() else { return };
        if self.is_unknown_term(cx, named, current) {
            return self.refuse(from, Refusal::NotLeader { hint: None });
        }
        let one = self.state.one_shard.get(attempt).map(Outcome::Committed);
        if let Some(outcome) = one.or_else(|| self.told(attempt)) {
            return self.answer_outcome(from, outcome, 0);
        }
        let Some(office) = self.office.as_deref() else {
            return;
        };
        if office.coordinations.contains_key(&attempt) || self.state.knows(attempt) {
            mark(Mark::StatusPending);
            return self.respond(from, Response::Pending);
        }
        match office.active.get(&attempt).map(|a| &a.progress) {
            None | Some(Progress::Running) => {}
            Some(_) => return self.respond(from, Response::Pending),
        }
        let forgotten = attempt.millis() < self.state.unknown_below();
        let no = office.noes.get(attempt).filter(|_| !forgotten);
        if let Some(no) = no {
            mark(Mark::StatusNo);
            if named == current {
                self.remember_no(attempt, no.reason);
            }
            return self.answer_outcome(from, Outcome::Aborted(no.reason), 0);
        }
        let dropped = named == current && office.noes.may_have_forgotten(attempt);
        // Floors only rise: below the one it began with, this term let nobody in.
        let never = named == current && attempt.millis() < office.start.forget_floor;
        if (forgotten || dropped) && !never {
            mark(Mark::StatusLookedUp);
            return self.look_up(from, attempt, anchor);
        }
        if named == current && self.is_early(cx, attempt) {
            // Its Commit may come, and is answered; what is asked for is not denied
            // before its time, or floors would lie ahead of everybody's.
            mark(Mark::StatusPending);
            return self.respond(from, Response::Pending);
        }
        // Neither intent nor record nor outcome: no, and for good (T4). Of an earlier
        // term that holds by itself.
        mark(Mark::StatusFinalNo);
        let reason = if named == current {
            AbortReason::NeverStaged
        } else {
            AbortReason::TermEnded
        };
        self.drop_active(attempt, reason);
        if named == current {
            self.remember_no(attempt, reason);
        }
        self.answer_outcome(from, Outcome::Aborted(reason), 0);
    }

    /// A version at the anchor key that names the attempt proves a yes, and only a yes (T7).
    fn look_up(&mut self, from: Caller, attempt: AttemptId, anchor: Key) {
        let at = self.last();
        if let Some(version) = self.overlay.get(&anchor)
            && version.attempt == attempt
        {
            return self.answer_outcome(from, Outcome::Committed(version.timestamp), 0);
        }
        if self.waiting.is_full(&self.settings) {
            return self.overloaded(from, 0);
        }
        self.read_anchor(from, attempt, anchor, LOOKUP_STEPS, at);
    }

    fn read_anchor(
        &mut self,
        from: Caller,
        attempt: AttemptId,
        anchor: Key,
        steps: u32,
        at: Timestamp,
    ) {
        let id = self.new_request();
        let keys = vec![anchor.clone()];
        let waiting = Waiting::Lookup {
            from,
            attempt,
            anchor,
            steps,
        };
        self.waiting.insert(id, waiting);
        self.effects.push(Effect::Read {
            token: ReadToken(id),
            keys,
            scan: None,
            at,
        });
    }

    pub(super) fn looked_up(
        &mut self,
        from: Caller,
        attempt: AttemptId,
        anchor: Key,
        steps: u32,
        engine: EngineRows,
    ) {
        let version = engine.versions.into_iter().next().flatten();
        match version {
            Some(v) if v.attempt == attempt => {
                self.answer_outcome(from, Outcome::Committed(v.timestamp), 0);
            }
            Some(v) if steps > 0 && v.timestamp > self.state.horizon => {
                let at = Timestamp(v.timestamp.0.saturating_sub(1));
                self.read_anchor(from, attempt, anchor, steps - 1, at);
            }
            _ => {
                mark(Mark::StatusExpired);
                self.respond(from, Response::Expired);
            }
        }
    }

    /// A participant asks; asking never aborts (T5).
    pub(super) fn handle_ask(&mut self, attempt: AttemptId, anchor: Key, from: Key) {
        let recorded = self
            .state
            .records
            .get(&attempt)
            .is_some_and(|r| r.outcome.is_some());
        let list = self.known_participants(attempt);
        let asker = list.iter().find(|p| p.anchor == from);
        if !list.is_empty() && asker.is_none() {
            return self.answer_stranger(attempt, anchor, from);
        }
        let hint = asker.map_or(GroupId(0), |p| p.shard);
        let body = match self.told(attempt) {
            Some(outcome) => PeerBody::Resolve { outcome, recorded },
            None => {
                if mutated(Mutation::AskAborts) {
                    self.start_abort(attempt, AbortReason::NeverStaged);
                }
                PeerBody::Pending
            }
        };
        self.tell_anchor(hint, from, anchor, attempt, body);
    }

    fn known_participants(&self, attempt: AttemptId) -> Vec<Participant> {
        let work = self
            .office
            .as_deref()
            .and_then(|o| o.coordinations.get(&attempt))
            .map(|c| c.participants.clone());
        work.or_else(|| {
            let record = self.state.records.get(&attempt)?;
            Some(record.participants.clone())
        })
        .unwrap_or_default()
    }

    /// A participant with an unresolved intent wants it ended (T5).
    pub(super) fn handle_ask_or_abort(
        &mut self,
        cx: &Cx,
        attempt: AttemptId,
        anchor: Key,
        from: Key,
        participants: Vec<Participant>,
    ) {
        let Some(office) = self.office.as_deref() else {
            return;
        };
        let progress = office.active.get(&attempt).map(|a| &a.progress);
        // A proposed Commit counts as a record.
        let proposed = matches!(progress, Some(Progress::Intent(_) | Progress::OneShard(_)));
        let known = office.coordinations.contains_key(&attempt)
            || self.state.records.contains_key(&attempt);
        if known || proposed {
            mark(if proposed {
                Mark::AskMetProposed
            } else {
                Mark::AskMetRecord
            });
            return self.handle_ask(attempt, anchor, from);
        }
        if self.state.knows(attempt) {
            // An entry that names another coordinator, or none: the Commits of
            // the attempt contradict each other, and this asker's leads nowhere.
            return self.answer_stranger(attempt, anchor, from);
        }
        let listed = participants
            .binary_search_by(|p| p.anchor.cmp(&from))
            .is_ok();
        let owned = participants.iter().any(|p| p.anchor == anchor);
        if !listed || !owned {
            self.counters.strays += 1;
            return;
        }
        if let Some(list) = self.queued_participants(attempt) {
            mark(Mark::AskMetQueued);
            // Dropping it remembers the no and has the abort decided for its own list.
            self.drop_active(attempt, AbortReason::NeverStaged);
            if !list.iter().any(|p| p.anchor == from) {
                self.answer_stranger(attempt, anchor, from);
            }
            return;
        }
        if attempt.millis() < self.state.forget_floor {
            // A record that was forgotten had an ack of everybody on its list,
            // and no Commit of that age is let in any more: an intent that is
            // still unresolved never had one. A late copy of the question comes
            // here too, so the outcome itself cannot be told.
            mark(Mark::AskBelowFloor);
            return self.tell_anchor(GroupId(0), from, anchor, attempt, PeerBody::Forgotten);
        }
        if self.is_ahead(cx, attempt, false) {
            // No record is made by an id that no Commit may have: it would stay until
            // its time. Once the no is remembered, none ever will be in this term, and
            // none by this Commit in a later one (T4).
            self.drop_active(attempt, AbortReason::Deadline);
            // Who leads without a lease may not know of a later term, whose clock is ahead of its own
            // and in which a Commit of that id was let in.
            if cx.lease && self.may_deny(cx, attempt) {
                self.tell_anchor(GroupId(0), from, anchor, attempt, PeerBody::Forgotten);
            }
            return;
        }
        mark(Mark::AskMetNothing);
        self.drop_active(attempt, AbortReason::NeverStaged);
        let reason = AbortReason::NeverStaged;
        self.abort_unstaged(attempt, anchor, participants, reason);
    }
}
