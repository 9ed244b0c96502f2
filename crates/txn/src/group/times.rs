//! Which times an attempt's id may have here (`docs/decisions/0008`).
//!
//! Ids carry their client's idea of the time, and what is forgotten leaves
//! floors in that time (T7). Clocks jump; floors stay. So a leader has a time
//! of its own for ids, which never lies below what the shard has used; tells it
//! with its answers; and refuses an id that lies outside its bounds by naming them.

use super::office::Start;
use super::{Cx, Group};
use crate::request::{CommitRequest, Refusal};
use crate::settings::{AHEAD_SLACK_MILLIS, FUTURE_SLACK_MILLIS, ONE_SHARD_MEMORY};
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
        let kept = if forget_floor == 0 {
            0
        } else {
            self.time_of_floor(forget_floor)
        };
        let used = of_millis(kept.max(unknown_below)).max(self.state.last);
        Start {
            at: cx.now,
            used,
            forget_floor,
            unknown_below,
        }
    }

    /// How far the time for ids had come when it left this floor: the floor follows at a distance.
    /// Where there was too much to remember, much is left, and the distance was shorter; then many
    /// ids tell. A few may lie ahead of any clock.
    fn time_of_floor(&self, floor_millis: u64) -> u64 {
        let settings = &self.settings;
        let furthest = floor_millis.saturating_add(settings.window_millis);
        let nearest = floor_millis.saturating_add(settings.least_window());
        let many = (settings.enough / 8).max(1);
        match self.state.millis_reached_by(many) {
            Some(reached) => furthest.min(nearest.max(reached)),
            None => furthest,
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
    pub(super) fn refuse_time(&self, cx: &Cx, one_shard: bool) -> Refusal {
        let mut least_millis = self.state.forget_floor;
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
    pub(super) fn session_floor(&self) -> u64 {
        if mutated(Mutation::IgnoreForgetFloor) {
            return 0;
        }
        self.state.forget_floor
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
        let now = of_nanos(self.id_time(cx).max(cx.limit));
        if !one_shard {
            return now.saturating_add(AHEAD_SLACK_MILLIS);
        }
        let floor = self.state.unknown_below();
        now.saturating_add(self.one_shard_slack())
            .max(floor.saturating_add(ABOVE_FLOOR_MILLIS))
    }

    /// How far ahead of the time what commits in one shard may lie. While half of
    /// the memory for it is free, as far as clocks may be off. After that hardly:
    /// then at most half of what is remembered lies ahead, and as the lowest id is
    /// dropped first, no floor ever does (T7), however much a client commits whose
    /// clock is ahead.
    fn one_shard_slack(&self) -> u64 {
        let proposed = self.office.as_deref().map_or(0, |o| o.proposed);
        if self.state.one_shard.len() + proposed < ONE_SHARD_MEMORY / 2 {
            FUTURE_SLACK_MILLIS
        } else {
            ABOVE_FLOOR_MILLIS
        }
    }

    /// Whether the attempt lies further ahead than what is told soon may: a no
    /// about it would be remembered, and then leave a floor, before its time.
    pub(super) fn is_early(&self, cx: &Cx, attempt: AttemptId) -> bool {
        let now = self.id_time(cx).max(cx.limit);
        attempt.millis() > of_nanos(now).saturating_add(ABOVE_FLOOR_MILLIS)
    }

    /// Whether a no for an attempt that lies too far ahead may be told. It is
    /// remembered then until its time has come: the memory for that has an end.
    pub(super) fn may_deny(&mut self, cx: &Cx, attempt: AttemptId) -> bool {
        let (most, now) = (self.most_millis(cx, true), of_nanos(self.last()));
        let bound = self.settings.ended;
        self.office
            .as_deref_mut()
            .is_some_and(|o| o.noes.tell_untimely(attempt, most, bound, now))
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
    /// the term began with is let in as little later, one that rests on a session
    /// has lost it, and any other one from the future is remembered; where it cannot
    /// be, nothing is said. Nothing becomes an entry for it: a record that is named by
    /// the far future would never be forgotten.
    pub(super) fn refuse_untimely(&mut self, cx: &Cx, from: Caller, request: &CommitRequest) {
        let attempt = request.attempt;
        let reason = AbortReason::Deadline;
        let one_shard = request.participants.len() == 1;
        let refusal = self.refuse_time(cx, one_shard);
        self.drop_active(attempt, reason);
        let known = self.was_never_let_in(request) || request.session.is_some();
        if !known && !self.may_deny(cx, attempt) {
            return self.overloaded(from, 0);
        }
        self.refuse(from, refusal);
        if request.here != request.coordinator {
            self.vote_down(request, reason);
        }
    }
}

fn of_millis(millis: u64) -> Timestamp {
    Timestamp(millis.saturating_mul(NANOS_PER_MILLI))
}

/// The millisecond of a timestamp.
pub(super) const fn of_nanos(timestamp: Timestamp) -> u64 {
    timestamp.0 / NANOS_PER_MILLI
}
