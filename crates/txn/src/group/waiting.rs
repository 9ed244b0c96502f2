//! Requests that wait for something outside their step, bounded in number and bytes.

use super::read::{Capture, Question};
use crate::settings::GroupSettings;
use crate::types::{AttemptId, Caller, Key};
use serde::Serialize;
use std::collections::BTreeMap;

/// A request that waits for something outside this step.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Waiting {
    /// A lock-free read without a lease waits for a confirming round.
    Round(Box<Capture>),
    /// A read waits for locks or intents.
    Locks(Box<Question>),
    /// A read waits for the engine.
    Engine(Box<Capture>),
    /// A queued Commit waits for locks; its callers are with the attempt.
    Commit(AttemptId),
    /// A validation waits for a confirming round.
    Validate {
        from: Caller,
        attempt: AttemptId,
        keep: bool,
    },
    /// A status query looks for the attempt at its anchor key.
    Lookup {
        from: Caller,
        attempt: AttemptId,
        anchor: Key,
        steps: u32,
    },
}

impl Waiting {
    /// The attempt among whose requests it is counted.
    pub(super) fn counted_for(&self) -> Option<AttemptId> {
        match self {
            Waiting::Locks(question) => question.locked.as_ref().map(|locked| locked.0),
            Waiting::Round(capture) | Waiting::Engine(capture) => {
                capture.question.locked.as_ref().map(|locked| locked.0)
            }
            Waiting::Validate { attempt, .. } => Some(*attempt),
            Waiting::Commit(_) | Waiting::Lookup { .. } => None,
        }
    }

    /// Bytes of the keys it names. (Those of a queued Commit are counted with the queue.)
    fn weight(&self) -> usize {
        match self {
            Waiting::Locks(question) => question.weight(),
            Waiting::Round(capture) | Waiting::Engine(capture) => capture.question.weight(),
            Waiting::Lookup { anchor, .. } => anchor.len(),
            Waiting::Commit(_) | Waiting::Validate { .. } => 0,
        }
    }

    pub(super) fn caller(&self) -> Option<Caller> {
        match self {
            Waiting::Locks(question) => Some(question.from),
            Waiting::Round(capture) | Waiting::Engine(capture) => Some(capture.question.from),
            Waiting::Commit(_) => None,
            Waiting::Validate { from, .. } | Waiting::Lookup { from, .. } => Some(*from),
        }
    }
}

/// All that wait, by their numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Room {
    all: BTreeMap<u64, Waiting>,
    /// Of the keys they name.
    bytes: usize,
}

impl Room {
    /// Whether nobody else is to wait here.
    pub(super) fn is_full(&self, settings: &GroupSettings) -> bool {
        self.all.len() >= settings.waiters || self.bytes >= settings.waiting_bytes
    }

    pub(super) fn insert(&mut self, id: u64, waiting: Waiting) {
        self.bytes += waiting.weight();
        let before = self.all.insert(id, waiting);
        self.bytes -= before.map_or(0, |before| before.weight());
    }

    pub(super) fn remove(&mut self, id: &u64) -> Option<Waiting> {
        let waiting = self.all.remove(id)?;
        self.bytes -= waiting.weight();
        Some(waiting)
    }

    pub(super) fn get(&self, id: &u64) -> Option<&Waiting> {
        self.all.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&u64, &Waiting)> {
        self.all.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Everybody leaves.
    pub(super) fn into_all(self) -> impl Iterator<Item = Waiting> {
        self.all.into_values()
    }
}
