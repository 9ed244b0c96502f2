//! Two-phase commit between leaders of different shards. Routed by the
//! receiver's anchor key; any may be lost, repeated or overtaken (T9: the
//! sender of a question repeats it until it is answered).

use crate::types::{AbortReason, AttemptId, Key, Outcome, Participant, Priority};
use serde::{Deserialize, Serialize};
use synod_paxos::{Term, Timestamp};

/// A participant's durable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vote {
    /// The intent is decided, at this timestamp.
    Yes(Timestamp),
    /// There is no intent in the named term, and never will be (T4).
    No(AbortReason),
    /// The attempt lies below this shard's forget floor, and nothing of it is
    /// known: no intent came and none will, or its resolution was recorded and
    /// forgotten (T6). For a coordinator without an outcome it is a no; to any
    /// other it says nothing (T7).
    Forgotten,
}

impl Vote {
    /// Why a coordinator that has no outcome yet must abort, if it must.
    #[must_use]
    pub fn denies(self) -> Option<AbortReason> {
        match self {
            Vote::Yes(_) => None,
            Vote::No(reason) => Some(reason),
            Vote::Forgotten => Some(AbortReason::NeverStaged),
        }
    }
}

/// A message between the participant and the coordinator of one attempt.
/// `anchor` always names the receiver's side, `from` the sender's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMessage {
    /// The attempt.
    pub attempt: AttemptId,
    /// The receiver's anchor key.
    pub anchor: Key,
    /// The sender's anchor key.
    pub from: Key,
    /// What it says.
    pub body: PeerBody,
}

/// The body. New variants are only added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerBody {
    /// Participant → coordinator: my vote. Repeated until resolved.
    Vote {
        /// The vote.
        vote: Vote,
        /// The term the Commit named for the sender (the vote is for that term).
        term: Term,
    },
    /// Coordinator → participant: the outcome. Repeated until acked, once `recorded`.
    Resolve {
        /// The outcome.
        outcome: Outcome,
        /// The outcome is decided in the coordinator shard: after this the
        /// participant may forget its resolution (T6).
        recorded: bool,
    },
    /// Participant → coordinator: my resolution is decided.
    Ack,
    /// Participant → coordinator: how did it end? Never aborts (T5).
    Ask,
    /// Participant with an unresolved intent → coordinator, after `staged_timeout`, or at once
    /// where the shard that the intent names owns the anchor no more: end it; without a
    /// record, abort.
    AskOrAbort {
        /// Those the intent names; the Abort stores them.
        participants: Vec<Participant>,
    },
    /// Coordinator → participant: no outcome yet.
    Pending,
    /// Coordinator leader that inherited Staged → participant: what is your vote?
    Poll {
        /// The term the Commit named for the receiver.
        term: Term,
    },
    /// Participant → coordinator: an older transaction wants this one's locks (wound-wait).
    Wound {
        /// The age of the one that waits.
        by: Priority,
    },
    /// A shard that the sender of a Commit named as coordinator → participant: the coordinator's
    /// anchor is another shard's by now, so ask for an end there (T10, decision 15).
    Moved,
    /// Coordinator → participant, for an AskOrAbort below its forget floor:
    /// there is no record. An intent that is still unresolved was never staged
    /// and aborts; whoever has none asked long ago, and has its outcome (T6, T7).
    Forgotten,
}
