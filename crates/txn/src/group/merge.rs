//! What a leader in office lets go of before its shard becomes part of another, or takes one in
//! (decision 19).

use super::office::Progress;
use super::{Cx, Group};
use crate::command::Intent;
use crate::merge::Absorb;
use crate::request::{CommitRequest, Refusal};
use crate::state::State;
use crate::types::{AbortReason, AttemptId, Caller};
use synod_paxos::Slot;
use synod_probe::{Mark, Mutation, mark, mutated};

impl Group {
    /// As [`Group::suspend`], before a merge. Commits of several shards do not wait for its end but
    /// are turned down: one that waits here, and has its intent in the shard that this one is
    /// merged with, would keep that one undecided.
    pub fn suspend_joint(&mut self) {
        self.suspend();
        self.refuses_joint = true;
        let joint = |progress: &Progress| match progress {
            Progress::Queued(queued) => queued.request.participants.len() > 1,
            _ => false,
        };
        let active = self.office.as_deref().map(|office| office.active.iter());
        let joint: Vec<AttemptId> = { active.into_iter().flatten() }
            .filter(|(_, active)| joint(&active.progress))
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in joint {
            self.drop_active(attempt, AbortReason::Moved);
        }
    }

    /// Whether a Commit names as two participants what is this one shard by now. It can have one
    /// intent here, not two, and not be its own coordinator besides.
    pub(super) fn names_merged(&self, request: &CommitRequest) -> bool {
        let Some(span) = &self.state.lineage.span else {
            return false;
        };
        let here = request.participants.iter();
        here.filter(|p| span.contains(&p.anchor)).count() > 1
    }

    /// Refuses a Commit for good if another participant of its attempt has its intent here, or is
    /// about to: both were shards of their own when the client named them, and are this one now.
    /// [`Group::names_merged`] cannot tell, as a Commit names only its own participant and the
    /// coordinator (decision 13). The attempt has one intent here, and this Commit is not in it.
    pub(super) fn refuse_joined(&mut self, from: Caller, request: &CommitRequest) -> bool {
        let attempt = request.attempt;
        let active = self.office.as_deref().and_then(|o| o.active.get(&attempt));
        let met = match active.map(|active| &active.progress) {
            Some(Progress::Queued(queued)) => Some(queued.request.anchor()),
            Some(Progress::Intent(proposed)) => Some(&proposed.anchor),
            _ => self.own_intent(attempt).map(Intent::anchor),
        };
        let coordinates = request.here == request.coordinator;
        if coordinates || met.is_none_or(|met| met == request.anchor()) {
            return false;
        }
        mark(Mark::JointRefused);
        let reason = AbortReason::Moved;
        self.refuse(from, Refusal::Aborted(reason));
        self.vote_down(request, reason);
        true
    }

    /// Whether a decided `Absorb` takes effect: then it needs the other shard's state.
    #[must_use]
    pub fn absorbs(&self, absorb: &Absorb) -> bool {
        self.state.absorbs(absorb)
    }

    /// Applies a decided `Absorb` with the state of the other shard as of its end. The term in office
    /// has no right to what it gained: the driver ends it.
    pub fn absorb(&mut self, cx: &Cx, slot: Slot, absorb: Absorb, right: &State) {
        self.state.applied = slot;
        self.state.apply_absorb(self.shard, absorb, right);
        self.with_office(|_, office, state| office.last = office.last.max(state.last));
        self.settle(cx);
    }

    /// Whether all versions are in the engine.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.overlay.bytes() == 0 || mutated(Mutation::AbsorbBeforeWritten)
    }
}
