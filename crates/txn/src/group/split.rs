//! What a leader in office lets go of when the end of its range becomes another shard's
//! (decision 15). Of the range that goes nothing is undecided by then.

use super::office::{Phase, Progress, Timer};
use super::read::Question;
use super::waiting::Waiting;
use super::{Cx, Group};
use crate::command::Command;
use crate::lineage::Birth;
use crate::request::Refusal;
use crate::types::{AbortReason, AttemptId, Span};
use synod_paxos::{GroupId, Term};
use synod_probe::{Mutation, mutated};

fn asks_in(question: &Question, span: &Span) -> bool {
    let scans = question
        .scan
        .as_ref()
        .is_some_and(|s| s.span.overlaps(span));
    scans || question.keys.iter().any(|key| span.contains(key))
}

impl Group {
    /// Attempts that are proposed or undecided here: while there are any, the shard is
    /// not split.
    #[must_use]
    pub fn undecided(&self) -> usize {
        let proposed = self.office.as_deref().map_or(0, |o| o.proposed);
        let voting = self.office.as_deref().map_or(0, |o| {
            let open = |phase| !matches!(phase, Phase::Finished(_));
            o.coordinations.values().filter(|c| open(c.phase)).count()
        });
        let intents = self.state.intents.len() + self.state.parts.len();
        intents.max(voting) + proposed
    }

    /// Whether anything was split off since last asked.
    #[must_use]
    pub fn has_births(&self) -> bool {
        !self.births.is_empty()
    }

    /// What was split off since last asked.
    pub fn take_births(&mut self) -> Vec<Birth> {
        std::mem::take(&mut self.births)
    }

    /// Whether a command that waited for a split to be applied is still about this shard.
    #[must_use]
    pub fn concerns(&self, command: &Command) -> bool {
        let state = &self.state;
        match command {
            Command::Outcome { anchor, .. } => state.lineage.owns(anchor),
            Command::Acked { attempt, .. } => state.records.contains_key(attempt),
            Command::Resolve { attempt, .. } => state.knows(*attempt),
            _ => true,
        }
    }

    /// Whether a term is that of a shard this one descends from: earlier than all of its
    /// own, and over for the keys that are here.
    pub(super) fn descends_from(&self, group: GroupId) -> bool {
        self.state.lineage.ancestors.contains(&group) && !mutated(Mutation::ChildIgnoresAncestors)
    }

    /// Whether this leader can say anything about terms of a group: its own, or one that it descends
    /// from. Those are earlier than all of its own, unless that shard has absorbed this one since
    /// and begun another: who leads without a lease may not know.
    pub(super) fn speaks_of(&self, cx: &Cx, group: GroupId) -> bool {
        group == self.shard || (self.descends_from(group) && cx.lease)
    }

    /// Whether a term is none that this leader can say anything about.
    pub(super) fn is_unknown_term(&self, cx: &Cx, named: Term, current: Term) -> bool {
        !self.speaks_of(cx, named.group) || (named.group == self.shard && named > current)
    }

    /// The end of the range has just become another shard's, with everything decided.
    /// What still waits or is held there ends; the rest goes on.
    pub(super) fn leave_range(&mut self) {
        let Some(gone) = self.births.last().map(|birth| birth.child.span.clone()) else {
            return;
        };
        self.leave_coordinations();
        self.with_office(|_, office, state| {
            office.last = office.last.max(state.last);
            office.acks.retain(|_, (own, _)| !gone.contains(own));
            let kept = |attempt: &AttemptId| state.resolutions.contains_key(attempt);
            office.recording.retain(kept);
            let open: Vec<AttemptId> = office.open.keys().copied().collect();
            for attempt in open.into_iter().filter(|attempt| !kept(attempt)) {
                office.open.remove(&attempt);
                office.timers.disarm(Timer::Participant(attempt));
            }
        });
        for attempt in self.attempts_in(&gone) {
            self.drop_active(attempt, AbortReason::Moved);
        }
        self.leave_reads(&gone);
    }

    fn leave_coordinations(&mut self) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let gone = office.coordinations.iter();
        let gone = gone.filter(|(_, c)| !self.state.lineage.owns(&c.anchor));
        let gone: Vec<AttemptId> = gone.map(|(attempt, _)| *attempt).collect();
        for attempt in gone {
            office.timers.disarm(Timer::Coordinator(attempt));
            office.timers.disarm(Timer::Deadline(attempt));
            if let Some(coordination) = office.coordinations.remove(&attempt) {
                self.orphans.extend(coordination.callers);
            }
        }
    }

    /// Attempts with locks, requests or a queued Commit there.
    fn attempts_in(&self, gone: &Span) -> Vec<AttemptId> {
        let Some(office) = self.office.as_deref() else {
            return Vec::new();
        };
        let waits = |id: &u64| match self.waiting.get(id) {
            Some(Waiting::Locks(question)) => asks_in(question, gone),
            _ => false,
        };
        let commits = |progress: &Progress| match progress {
            Progress::Queued(queued) => {
                let request = &queued.request;
                let anchor = request.anchor();
                gone.contains(anchor) || request.writes.iter().any(|w| gone.contains(&w.key))
            }
            _ => false,
        };
        let active = office.active.iter().filter(|(attempt, active)| {
            office.locks.holds_in(**attempt, gone)
                || commits(&active.progress)
                || active.requests.iter().any(waits)
        });
        active.map(|(attempt, _)| *attempt).collect()
    }

    /// Reads without a transaction that wait for intents. Those that were captured saw the
    /// shard while it was whole, and are answered.
    fn leave_reads(&mut self, gone: &Span) {
        let waits = |waiting: &Waiting| match waiting {
            Waiting::Locks(question) if question.locked.is_none() => asks_in(question, gone),
            _ => false,
        };
        let there = self.waiting.iter().filter(|(_, w)| waits(w));
        let there: Vec<u64> = there.map(|(id, _)| *id).collect();
        for id in there {
            if let Some(office) = self.office.as_deref_mut() {
                office.locks.cancel(id);
            }
            if let Some(caller) = self.waiting.remove(&id).and_then(|w| w.caller()) {
                self.refuse(caller, Refusal::WrongShard);
            }
        }
    }
}
