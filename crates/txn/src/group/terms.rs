//! How the time in office begins, pauses and ends.

use super::office::{Office, Progress};
use super::{Cx, Group};
use crate::effect::Effect;
use crate::overlay::Overlay;
use crate::types::{Caller, Outcome};
use synod_paxos::Term;
use synod_probe::{Mark, Mutation, mark, mutated};

impl Group {
    /// Takes office (P6): everything up to this term's first entry is applied.
    /// Locks of open intents, then coordinator state, then votes again.
    pub fn take_office(&mut self, cx: &Cx, term: Term) {
        self.leave_office();
        if mutated(Mutation::ForgetOverlay) {
            self.overlay = Overlay::default();
        }
        let start = self.start(cx);
        self.office = Some(Box::new(Office::new(term, start, self.state.last)));
        self.adopt_locks();
        self.adopt_records(cx);
        self.adopt_intents(cx);
        self.arm_housekeeping(cx);
        self.settle(cx);
    }

    /// The shard's members are about to change, or it is about to be split. Until [`Group::resume`], or the end of
    /// the term, no timestamp is assigned: `last` rises with the stop-sign, and whatever
    /// comes after it must lie above (K3). Other proposals may still come.
    pub fn suspend(&mut self) {
        self.suspended = true;
    }

    /// The term goes on, perhaps in another configuration, or with fewer keys.
    pub fn resume(&mut self, cx: &Cx) {
        self.suspended = false;
        self.refuses_joint = false;
        self.settle(cx);
    }

    /// Drops everything that only a leader has. Its callers are left to [`Group::take_orphans`].
    pub fn leave_office(&mut self) {
        self.suspended = false;
        self.refuses_joint = false;
        let Some(office) = self.office.take() else {
            return;
        };
        self.overlay.drop_provisional();
        for waiting in std::mem::take(&mut self.waiting).into_all() {
            self.orphans.extend(waiting.caller());
        }
        for active in office.active.into_values() {
            match active.progress {
                Progress::Queued(queued) => self.orphans.extend(queued.callers),
                Progress::OneShard(callers) if mutated(Mutation::AnswerUndecided) => {
                    for caller in callers {
                        self.answer_outcome(caller, Outcome::Committed(office.last), 1);
                    }
                }
                Progress::OneShard(callers) => self.orphans.extend(callers),
                Progress::Running | Progress::Intent(_) => {}
            }
        }
        for coordination in office.coordinations.into_values() {
            self.orphans.extend(coordination.callers);
        }
        if !self.orphans.is_empty() {
            mark(Mark::OrphansLeft);
        }
        // What the old term still wanted proposed, read or said to other shards
        // ends with it; answers already given stand.
        self.effects
            .retain(|e| matches!(e, Effect::Write(_) | Effect::Respond { .. }));
    }

    /// Callers whose answer ended with the term; the driver answers `NotLeader`.
    pub fn take_orphans(&mut self) -> Vec<Caller> {
        std::mem::take(&mut self.orphans)
    }
}
