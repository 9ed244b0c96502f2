//! What a machine says of itself, to its driver and to who looks at it.

use super::office::Phase;
use super::{Counters, Group};
use crate::state::State;
use crate::types::AttemptId;
use bytes::Bytes;
use synod_paxos::{GroupId, Slot, Term, Timestamp};

impl Group {
    /// The term it is in office for.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.office.as_deref().map(|o| o.term)
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> GroupId {
        self.shard
    }

    /// The last slot applied.
    #[must_use]
    pub fn applied(&self) -> Slot {
        self.state.applied
    }

    /// The highest timestamp applied, assigned or served (K3).
    #[must_use]
    pub fn last(&self) -> Timestamp {
        self.office
            .as_deref()
            .map_or(self.state.last, |o| o.last.max(self.state.last))
    }

    /// The replicated state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Open intents, in the order of their attempts.
    pub fn open_intents(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.state.intents.keys().copied()
    }

    /// Records without an outcome: transactions in doubt.
    pub fn in_doubt(&self) -> impl Iterator<Item = AttemptId> + '_ {
        self.state.in_doubt().map(|(attempt, _)| attempt)
    }

    /// Attempts that read or commit here now.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.office.as_deref().map_or(0, |o| o.active.len())
    }

    /// Attempts that hold locks.
    #[must_use]
    pub fn locks(&self) -> usize {
        self.office.as_deref().map_or(0, |o| o.locks.holders())
    }

    /// Whether nothing is held, wanted, waiting or in doubt.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
            && self.state.intents.is_empty()
            && self.office.as_deref().is_none_or(|o| {
                o.locks.is_idle()
                    && o.active.is_empty()
                    && o.coordinations
                        .values()
                        .all(|c| matches!(c.phase, Phase::Finished(_)) && c.callers.is_empty())
            })
    }

    /// Bytes of versions the engine does not hold yet.
    #[must_use]
    pub fn overlay_bytes(&self) -> usize {
        self.overlay.bytes()
    }

    /// No new intent comes at or below this (R2).
    #[must_use]
    pub fn closed(&self) -> Timestamp {
        self.last()
    }

    /// Closed, and no intent is open at or below this (R2).
    #[must_use]
    pub fn resolved(&self) -> Timestamp {
        self.state
            .intents
            .values()
            .map(|intent| Timestamp(intent.timestamp.0.saturating_sub(1)))
            .min()
            .unwrap_or(self.state.last)
            .min(self.state.last)
    }

    /// The garbage horizon (R5).
    #[must_use]
    pub fn horizon(&self) -> Timestamp {
        self.state.horizon
    }

    /// The shard's replicated descriptor: generation and encoding.
    #[must_use]
    pub fn descriptor(&self) -> (u64, &Bytes) {
        (self.state.descriptor.0, &self.state.descriptor.1)
    }

    /// Counts of what should never, or seldom, happen.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
