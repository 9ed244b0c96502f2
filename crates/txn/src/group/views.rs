//! Views for who checks a shard's transactions from outside, in office only.

use super::Group;
use super::office::{Office, Phase, Timer};
use crate::command::Intent;
use crate::types::{AttemptId, Priority};

impl Group {
    /// An open intent that does not hold its locks, although no outcome of it is
    /// on its way to the log (T1).
    #[must_use]
    pub fn unlocked_intent(&self) -> Option<AttemptId> {
        let office = self.office.as_deref()?;
        let open = self.state.intents.iter();
        open.filter(|(attempt, intent)| !is_told(office, **attempt, intent))
            .find(|(attempt, intent)| !office.locks.holds(**attempt, &intent.writes, &intent.reads))
            .map(|(attempt, _)| *attempt)
    }

    /// A request that waits for a younger attempt which could be wounded here, by
    /// the ages that `age` knows (T9): the waiter and the holder.
    #[must_use]
    pub fn waits_for_younger(
        &self,
        age: &dyn Fn(AttemptId) -> Option<Priority>,
    ) -> Option<(AttemptId, AttemptId)> {
        self.office.as_deref()?.locks.waits_for_younger(age)
    }

    /// An open intent, or a record that not all have acknowledged, for which
    /// nobody here repeats anything, although no entry of it is on its way (T9).
    #[must_use]
    pub fn unowned(&self) -> Option<AttemptId> {
        let office = self.office.as_deref()?;
        let intents = self.state.intents.iter();
        let participant = intents
            .filter(|(_, intent)| intent.here != intent.coordinator)
            .map(|(attempt, _)| *attempt)
            .find(|attempt| {
                let told = office
                    .open
                    .get(attempt)
                    .is_some_and(|o| o.resolved.is_some());
                !told && !office.timers.is_armed(Timer::Participant(*attempt))
            });
        participant.or_else(|| {
            let records = self.state.records.unsettled();
            records.map(|(attempt, _)| attempt).find(|attempt| {
                let armed = office.timers.is_armed(Timer::Coordinator(*attempt));
                match office.coordinations.get(attempt).map(|c| c.phase) {
                    // All acks are there, and an entry says so.
                    None => false,
                    Some(Phase::Voting | Phase::Finished(_)) => !armed,
                    Some(Phase::Aborting(_) | Phase::Committing(_)) => false,
                }
            })
        })
    }
}

/// Whether an outcome is known here and its entry proposed: the locks went with it.
fn is_told(office: &Office, attempt: AttemptId, intent: &Intent) -> bool {
    if intent.here == intent.coordinator {
        let phase = office.coordinations.get(&attempt).map(|c| c.phase);
        return matches!(phase, Some(Phase::Committing(_) | Phase::Finished(_)));
    }
    office
        .open
        .get(&attempt)
        .is_some_and(|o| o.resolved.is_some())
}
