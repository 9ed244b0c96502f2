//! What is decided goes through the state machine; its leader learns what that means for those who wait.

use super::{Cx, Group};
use crate::command::Command;
use crate::effect::{Effect, WriteBatch};
use crate::state::Applied;
use synod_paxos::{Slot, StopSign, TermStart};
use synod_probe::{Mutation, mutated};

impl Group {
    /// Applies a decided command.
    pub fn apply(&mut self, cx: &Cx, slot: Slot, command: Command) {
        if slot <= self.state.applied && !mutated(Mutation::ApplyTwiceAfterRestart) {
            return;
        }
        let (applied, versions) = self.state.apply(self.shard, slot, command);
        self.overlay.insert(slot, &versions);
        if !versions.is_empty() {
            self.effects
                .push(Effect::Write(WriteBatch { slot, versions }));
        }
        if let Applied::Split(Some(birth)) = applied {
            self.births.push(*birth);
            if self.office.is_some() {
                self.leave_range();
            }
            return self.settle(cx);
        }
        if self.office.is_none() {
            return;
        }
        self.with_office(|_, office, state| office.last = office.last.max(state.last));
        match applied {
            Applied::Quiet | Applied::Acked | Applied::Split(_) | Applied::Merge => {}
            Applied::OneShard(attempt, timestamp) => self.one_shard_applied(attempt, timestamp),
            Applied::Intent(attempt, fresh) => self.intent_applied(cx, attempt, fresh),
            Applied::Outcome(attempt, fresh) => self.outcome_applied(cx, attempt, fresh),
            Applied::Resolved(attempt) => self.resolve_applied(attempt),
            // The driver ends the term.
            Applied::Hashed(_) => {}
        }
        self.settle(cx);
    }

    /// Applies the entry that begins a term (K1, L4).
    pub fn apply_term_start(&mut self, _cx: &Cx, slot: Slot, start: TermStart) {
        if slot > self.state.applied || mutated(Mutation::ApplyTwiceAfterRestart) {
            self.state.apply_term_start(self.shard, slot, start);
            self.with_office(|_, office, state| office.last = office.last.max(state.last));
        }
    }

    /// Applies the entry that ends a configuration (G2). In office, the term may go
    /// on in the next one; until the driver knows, it hands in nothing.
    pub fn apply_stop_sign(&mut self, slot: Slot, stop: &StopSign) {
        if slot > self.state.applied || mutated(Mutation::ApplyTwiceAfterRestart) {
            self.state.apply_stop_sign(slot, stop);
            self.with_office(|_, office, state| office.last = office.last.max(state.last));
        }
    }

    /// Applies an entry that changes nothing.
    pub fn apply_noop(&mut self, slot: Slot) {
        self.state.applied = self.state.applied.max(slot);
    }
}
