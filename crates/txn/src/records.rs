//! What a shard keeps of a transaction of several shards: a record where it is coordinated, a
//! resolution where it takes part.

use crate::attempts::Settle;
use crate::types::{Key, Outcome, Participant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use synod_paxos::{GroupId, Term};

/// The coordinator's record of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// All participants of what was staged, this shard included; of an abort without
    /// Staged those that are known.
    pub participants: Vec<Participant>,
    /// The coordinator's anchor.
    pub anchor: Key,
    /// The outcome; none while staged.
    pub outcome: Option<Outcome>,
    /// Anchors of participants whose resolution is decided.
    pub acked: BTreeSet<Key>,
}

/// A participant as a [`RecordView`] shows it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Named<'a> {
    /// See [`Participant::anchor`].
    pub anchor: &'a [u8],
    /// Not looked at.
    _hint: (GroupId, Term),
}

/// A record without those who have acknowledged it, borrowed.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordView<'a> {
    /// See [`Record::participants`].
    #[serde(borrow)]
    pub participants: Vec<Named<'a>>,
    /// See [`Record::anchor`].
    pub anchor: &'a [u8],
    /// See [`Record::outcome`].
    pub outcome: Option<Outcome>,
}

impl Named<'_> {
    fn of(participant: &Participant) -> Named<'_> {
        Named {
            anchor: &participant.anchor,
            _hint: (participant.shard, participant.term),
        }
    }
}

impl Settle for Record {
    type View<'a> = RecordView<'a>;

    fn view(&self) -> RecordView<'_> {
        RecordView {
            participants: self.participants.iter().map(Named::of).collect(),
            anchor: &self.anchor,
            outcome: self.outcome,
        }
    }

    /// Whether every participant's resolution is decided.
    fn is_settled(&self) -> bool {
        self.outcome.is_some()
            && self
                .participants
                .iter()
                .all(|p| p.anchor == self.anchor || self.acked.contains(&p.anchor))
    }
}

/// What a participant keeps of a resolved intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// How it ended.
    pub outcome: Outcome,
    /// The outcome is decided in the coordinator shard (T6).
    pub recorded: bool,
    /// Where the coordinator was (a hint); 0 if the intent was not known.
    pub coordinator: GroupId,
    /// The key that named this shard in it: where that goes, the resolution goes (T10).
    /// None if the intent was not known.
    pub anchor: Option<Key>,
}

/// A resolution as splits look at it, borrowed.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ResolutionView<'a> {
    /// Not looked at.
    _before: (Outcome, bool, GroupId),
    /// See [`Resolution::anchor`].
    #[serde(borrow)]
    pub anchor: Option<&'a [u8]>,
}

impl Settle for Resolution {
    type View<'a> = ResolutionView<'a>;

    fn view(&self) -> ResolutionView<'_> {
        ResolutionView {
            _before: (self.outcome, self.recorded, self.coordinator),
            anchor: self.anchor.as_deref(),
        }
    }

    fn is_settled(&self) -> bool {
        self.recorded
    }
}
