//! Which times an attempt's id may have here (`docs/decisions/0008`).
//!
//! Ids carry their client's idea of the time, and what is forgotten leaves
//! floors in that time (T7). Clocks jump; floors stay. So a leader has a time
//! of its own for ids, which never lies below what the shard has used; tells it
//! with its answers; and refuses an id that lies outside its bounds by naming them.

use super::office::Start;
use super::{Cx, Group};
use crate::request::{CommitRequest, Refusal};
use crate::settings::{AHEAD_SLACK_MILLIS, FUTURE_SLACK_MILLIS};
use crate::types::{AbortReason, AttemptId, Caller};
use synod_paxos::Timestamp;
use synod_probe::{Mutation, mutated};

pub(super) const NANOS_PER_MILLI: u64 = 1_000_000;
/// What is always let in above the floor, however far behind the clock is: else
/// no id at all could do. Short, so that floors cannot be driven up by it.
const ABOVE_FLOOR_MILLIS: u64 = 1_000;

/// The time for ids passes by this part slower than monotonic time: more than
/// that may be off, so a wall clock that is right comes past it.
const SLOWER: u64 = 500;

impl Group {
    /// What a term begins with.
    pub(super) fn start(&self, cx: &Cx) -> Start {
        let forget_floor = self.state.forget_floor;
        let unknown_below = self.state.unknown_below();
        // The floor follows the time for ids at a distance: so far it had come.
        let kept = if forget_floor == 0 {
            0
        } else {
            forget_floor.saturating_add(self.settings.window_millis)
        };
        let used = of_millis(kept.max(unknown_below)).max(self.state.last);
        Start {
            at: cx.now,
            used,
            forget_floor,
            unknown_below,
        }
    }

    /// What the shard had used when the term began, and the time since.
    pub(super) fn used(&self, cx: &Cx) -> Timestamp {
        let Some(office) = self.office.as_deref() else {
            return self.state.last;
        };
        let passed = cx.now.since(office.start.at);
        office.start.used.plus(passed - passed / SLOWER)
    }

    /// The time for ids, as clients are told: the wall clock as far as a majority
    /// granted it (K1), unless that is behind what the shard has used. One wild
    /// clock must not leave floors that honest ids lie below.
    pub(super) fn id_time(&self, cx: &Cx) -> Timestamp {
        let granted = cx.clock.latest.min(self.granted(cx));
        granted.max(self.last()).max(self.used(cx))
    }

    /// The limit, or, while it cannot be renewed, where it would be by now.
    fn granted(&self, cx: &Cx) -> Timestamp {
        let known = self
            .office
            .as_deref()
            .map_or((cx.limit, cx.now), |o| o.granted);
        cx.limit.max(known.0.plus(cx.now.since(known.1)))
    }

    /// Keeps the limit in mind.
    pub(super) fn note_limit(&mut self, cx: &Cx) {
        if let Some(office) = self.office.as_deref_mut()
            && cx.limit > office.granted.0
        {
            office.granted = (cx.limit, cx.now);
        }
    }

    /// The refusal of an id that lies below its floor or too far ahead.
    pub(super) fn refuse_time(&self, cx: &Cx, attempt: AttemptId, one_shard: bool) -> Refusal {
        let mut least_millis = if self.is_ahead(cx, attempt, one_shard) {
            // Its own stretch of time is no matter to the next attempt.
            self.state.forget_floor
        } else {
            self.session_floor(attempt)
        };
        if one_shard {
            least_millis = least_millis.max(self.state.unknown_below());
        }
        Refusal::AttemptTime {
            now: self.id_time(cx).max(of_millis(least_millis)),
            least_millis,
            most_millis: self.most_millis(cx, one_shard).max(least_millis),
        }
    }

    /// The floor for opening a session; milliseconds.
    pub(super) fn session_floor(&self, attempt: AttemptId) -> u64 {
        let kept = self.office.as_deref().map_or(0, |office| {
            let ended = office.nos.floor_at(attempt);
            ended.max(office.validated.floor_at(attempt))
        });
        if mutated(Mutation::IgnoreForgetFloor) {
            return kept;
        }
        kept.max(self.state.forget_floor)
    }

    /// Whether the attempt lies further ahead than is let in. What commits in
    /// one shard is forgotten by number too, and leaves one replicated floor: an
    /// id from the future would put every honest one below it. Other ids only
    /// must not stay in the records for ever; they may have to be far ahead, as
    /// another shard's clocks were, and no id could do for both otherwise.
    pub(super) fn is_ahead(&self, cx: &Cx, attempt: AttemptId, one_shard: bool) -> bool {
        attempt.millis() > self.most_millis(cx, one_shard)
    }

    fn most_millis(&self, cx: &Cx, one_shard: bool) -> u64 {
        // The limit counts too: a majority granted it.
        let now = self.id_time(cx).max(cx.limit).0 / NANOS_PER_MILLI;
        if !one_shard {
            return now.saturating_add(AHEAD_SLACK_MILLIS);
        }
        let floor = self.state.unknown_below();
        now.saturating_add(FUTURE_SLACK_MILLIS)
            .max(floor.saturating_add(ABOVE_FLOOR_MILLIS))
    }

    /// Whether no copy of this Commit can have been let in: it names this term,
    /// rests on no session, and lies below a floor that the term began with.
    pub(super) fn was_never_let_in(&self, request: &CommitRequest) -> bool {
        let attempt = request.attempt;
        let Some(office) = self.office.as_deref() else {
            return false;
        };
        let floor = if request.participants.len() == 1 {
            office.start.unknown_below
        } else {
            office.start.forget_floor
        };
        let named = request.participants[request.here as usize].term;
        request.session.is_none()
            && named == office.term
            && attempt.millis() < floor.min(self.floor_of(request))
    }

    /// Says no to a Commit for its time. It is final: one below the floors that
    /// the term began with is let in as little later, and one from the future
    /// is remembered. Nothing becomes an entry for it: a record that is named by
    /// the far future would never be forgotten.
    pub(super) fn refuse_untimely(&mut self, cx: &Cx, from: Caller, request: &CommitRequest) {
        let attempt = request.attempt;
        let reason = AbortReason::Deadline;
        let one_shard = request.participants.len() == 1;
        let refusal = self.refuse_time(cx, attempt, one_shard);
        self.drop_active(attempt, reason);
        self.remember_no(attempt, reason);
        self.refuse(from, refusal);
        if request.here != request.coordinator {
            self.vote_down(request, reason);
        }
    }
}

fn of_millis(millis: u64) -> Timestamp {
    Timestamp(millis.saturating_mul(NANOS_PER_MILLI))
}
