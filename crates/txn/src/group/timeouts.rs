//! Everything that is repeated or given up, and the slow housekeeping.

use super::office::{Phase, Progress, Timer};
use super::times::NANOS_PER_MILLI;
use super::{Cx, Group};
use crate::command::Command;
use crate::settings::FUTURE_SLACK_MILLIS;
use crate::types::{AbortReason, AttemptId};
use synod_paxos::{Mono, Timestamp};
use synod_probe::{Mark, mark};

/// How soon a commit that waits for a timestamp limit looks again; nanoseconds.
pub(super) const LIMIT_NANOS: u64 = 5_000_000;

impl Group {
    /// When [`Group::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Mono> {
        self.office.as_deref().and_then(|o| o.timers.next())
    }

    /// Whether commits wait for a higher limit on timestamps (K1).
    #[must_use]
    pub fn waits_for_limit(&self) -> bool {
        self.office.as_deref().is_some_and(|o| !o.parked.is_empty())
    }

    /// Does what is due at `cx.now`.
    pub fn handle_timeout(&mut self, cx: &Cx) {
        while let Some(timer) = self
            .office
            .as_deref_mut()
            .and_then(|o| o.timers.pop(cx.now))
        {
            match timer {
                Timer::Client(client) => self.check_client(cx, client),
                Timer::Deadline(attempt) => self.deadline(attempt),
                Timer::Participant(attempt) => self.repeat_vote(cx, attempt),
                Timer::Coordinator(attempt) => self.press(cx, attempt),
                Timer::Wound(attempt) => self.repeat_wound(cx, attempt),
                Timer::Housekeeping => self.housekeeping(cx),
                Timer::Limit => self.repeat_limit(cx),
            }
        }
        self.settle(cx);
    }

    /// A Commit took too long: queued, it is dropped; staged, it is aborted if T3 allows.
    fn deadline(&mut self, attempt: AttemptId) {
        let Some(office) = self.office.as_deref() else {
            return;
        };
        let queued = office
            .active
            .get(&attempt)
            .is_some_and(|a| matches!(a.progress, Progress::Queued(_)));
        let voting = office
            .coordinations
            .get(&attempt)
            .is_some_and(|c| c.own && c.phase == Phase::Voting);
        if queued {
            mark(Mark::DeadlineQueued);
            self.drop_active(attempt, AbortReason::Deadline);
        } else if voting {
            mark(Mark::DeadlineStaged);
            self.start_abort(attempt, AbortReason::Deadline);
        }
    }

    fn repeat_limit(&mut self, cx: &Cx) {
        self.unpark(cx);
        if self.waits_for_limit() {
            self.arm(cx.now.plus(LIMIT_NANOS), Timer::Limit);
        }
    }

    pub(super) fn arm_housekeeping(&mut self, cx: &Cx) {
        let settings = &self.settings;
        // Looks more often where it may soon be too much.
        let now_millis = self.id_time(cx).0 / NANOS_PER_MILLI;
        let half = self.state.millis_of_newest(settings.enough / 2, now_millis);
        let crowded = half.is_some();
        let window = if crowded {
            settings.least_window()
        } else {
            settings.window_millis
        };
        let shortest = window.min(settings.horizon_millis);
        let pause = (shortest / 10).max(1).saturating_mul(NANOS_PER_MILLI);
        self.arm(cx.now.plus(pause), Timer::Housekeeping);
    }

    /// The floor for this time: a window below it, less of one where there is too much to remember.
    fn forget_below(&self, time_millis: u64) -> u64 {
        let settings = &self.settings;
        let floor_millis = time_millis.saturating_sub(settings.window_millis);
        let least_millis = time_millis.saturating_sub(settings.least_window());
        let newest_millis = self.state.millis_of_newest(settings.enough, time_millis);
        match newest_millis {
            Some(newest_millis) => newest_millis.min(least_millis).max(floor_millis),
            None => floor_millis,
        }
    }

    /// Raises floor and horizon by entries, where there is something to drop.
    /// Both stay for good, so they follow `last`, which no clock raises above
    /// the limit (K1), and not a clock alone. Where clocks fell behind, `last`
    /// stands still, and the floor follows the monotonic clock, at a distance.
    fn housekeeping(&mut self, cx: &Cx) {
        let now = cx.clock.earliest.min(self.state.last);
        let used_millis = self.used(cx).0 / NANOS_PER_MILLI;
        let now_millis = now.0 / NANOS_PER_MILLI;
        let time_millis = now_millis.max(used_millis.saturating_sub(FUTURE_SLACK_MILLIS));
        let floor_millis = self.forget_below(time_millis);
        let kept = self.settings.horizon_millis.saturating_mul(NANOS_PER_MILLI);
        let horizon = Timestamp(now.0.saturating_sub(kept));
        // One of each under way: where entries are slow to be decided, more of them
        // would only lengthen the queue.
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let forget = office.forgetting <= self.state.forget_floor
            && floor_millis > self.state.forget_floor
            && self.state.has_below(floor_millis);
        if forget {
            office.forgetting = floor_millis;
        }
        let raise = office.raising <= self.state.horizon && horizon > self.state.horizon;
        if raise {
            office.raising = horizon;
        }
        if forget {
            mark(Mark::Forgotten);
            if time_millis - floor_millis < self.settings.window_millis {
                mark(Mark::ForgottenEarly);
            }
            self.propose(Command::Forget { floor_millis }, true);
        }
        if raise {
            self.propose(Command::Horizon { horizon }, true);
        }
        self.arm_housekeeping(cx);
    }
}
