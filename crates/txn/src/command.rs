//! What a shard's log says to its transaction state. Effects count at apply (P7).

use crate::hashing::Hashing;
use crate::merge::{Absorb, End};
use crate::scratch::Scratch;
use crate::types::{AttemptId, Key, Outcome, Participant, Priority, Span, Write};
use serde::{Deserialize, Serialize};
use synod_paxos::{
    Ballot, ClusterVersion, Configuration, GroupId, NodeId, Payload, Slot, Term, Timestamp,
};

/// A command. New variants are only added at the end, and proposed only once
/// the cluster version allows them (P8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A whole one-shard transaction.
    OneShard {
        /// The attempt.
        attempt: AttemptId,
        /// Its commit timestamp.
        timestamp: Timestamp,
        /// The term its Commit named.
        term: Term,
        /// Its writes.
        writes: Vec<Write>,
    },
    /// A participant's intent; in the coordinator shard also Staged.
    Intent(Box<Intent>),
    /// Writes of a big intent that come before the Intent entry itself, which
    /// votes (entries are at most 8 MiB).
    IntentPart {
        /// The attempt.
        attempt: AttemptId,
        /// The part's number from 0.
        part: u32,
        /// The writes.
        writes: Vec<Write>,
    },
    /// Coordinator shard: the outcome (a Committed record, or an Abort).
    Outcome {
        /// The attempt.
        attempt: AttemptId,
        /// The outcome.
        outcome: Outcome,
        /// The participants that are known, for an Abort without Staged (T5).
        participants: Vec<Participant>,
        /// The coordinator's anchor.
        anchor: Key,
    },
    /// Participant shard: the resolution of an intent (or of an attempt known only by name).
    Resolve {
        /// The attempt.
        attempt: AttemptId,
        /// The outcome.
        outcome: Outcome,
        /// The outcome is decided in the coordinator shard.
        recorded: bool,
    },
    /// Coordinator shard: this participant's resolution is decided.
    Acked {
        /// The attempt.
        attempt: AttemptId,
        /// The participant's anchors.
        participants: Vec<Key>,
    },
    /// Raise the forget floor: outcomes of attempts older than this may be dropped (T6, T7).
    Forget {
        /// The floor, as the milliseconds of an attempt id.
        floor_millis: u64,
    },
    /// Raise the garbage horizon (R5).
    Horizon {
        /// Versions shadowed at or below this may be collected.
        horizon: Timestamp,
    },
    /// Raise the shard's version: from here on its log may hold newer kinds (P8).
    Version(ClusterVersion),
    /// The shard's own descriptor; the higher generation wins. Encoded by the layer above.
    Descriptor {
        /// Its generation.
        generation: u64,
        /// Its encoding.
        encoded: bytes::Bytes,
    },
    /// Set `last` to at least this (closing a timestamp on an idle shard).
    Close {
        /// The timestamp.
        timestamp: Timestamp,
    },
    /// The end of the shard's range becomes a shard of its own (decision 15).
    Split(Box<Split>),
    /// The shard's log ends here, so that its left neighbour can absorb it (decision 19).
    End(Box<End>),
    /// That was refused: the log goes on.
    Resume {
        /// The slot of the end.
        slot: Slot,
    },
    /// The shard to the right is part of this one from here on. A replica applies it once its
    /// replica of that one has come to its end.
    Absorb(Box<Absorb>),
    /// The end of a shard to the right is refused.
    Reopen {
        /// The shard.
        right: GroupId,
        /// The slot of its end.
        slot: Slot,
    },
    /// All members have absorbed the shard: its replicas may go.
    Retire {
        /// The shard.
        right: GroupId,
    },
    /// The shard's keys are stored in another way (decision 22).
    Hash(Box<Hash>),
}

/// How the keys of a shard are stored from here on. None of them exists when this is proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hash {
    /// The shard's range: exactly the directory.
    pub span: Span,
    /// How they are stored; none is as they are.
    pub hashing: Option<Hashing>,
}

/// A cut of a shard's range in two. What lies before the cut stays, what lies
/// after it becomes the first state of another shard on the same replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The range before it.
    pub span: Span,
    /// The first key that goes: inside of the range, and not its first.
    pub at: Key,
    /// The new shard; an id that no shard ever had.
    pub child: GroupId,
    /// The members that both have afterwards: those in force when it is proposed.
    pub configuration: Configuration,
    /// Who proposed it, and is to lead the new shard first.
    pub leader: NodeId,
    /// Nothing above was assigned or served before it (K3).
    pub last: Timestamp,
    /// The ballot it was proposed under. With its slot it names one log up to here: whose log
    /// holds it knows what all slots up to it hold, once it is decided.
    pub under: Ballot,
}

impl Command {
    /// The cluster version from which on shards may be split.
    pub const SPLIT_SINCE: ClusterVersion = ClusterVersion(2);
    /// The cluster version from which on shards may be merged.
    pub const MERGE_SINCE: ClusterVersion = ClusterVersion(3);
    /// The cluster version from which on directories may be hashed.
    pub const HASH_SINCE: ClusterVersion = ClusterVersion(3);

    /// The cluster version from which on this kind may be proposed (P8).
    #[must_use]
    pub const fn since(&self) -> ClusterVersion {
        match self {
            Command::Split(_) => Command::SPLIT_SINCE,
            Command::End(_)
            | Command::Resume { .. }
            | Command::Absorb(_)
            | Command::Reopen { .. }
            | Command::Retire { .. } => Command::MERGE_SINCE,
            Command::Hash(_) => Command::HASH_SINCE,
            _ => ClusterVersion::OLDEST,
        }
    }
}

/// A transaction's replicated, undecided writes and read spans in one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its age.
    pub priority: Priority,
    /// ts_i; never changes.
    pub timestamp: Timestamp,
    /// The writes of this entry.
    pub writes: Vec<Write>,
    /// How many `IntentPart` entries came before.
    pub parts: u32,
    /// The spans it holds shared locks on.
    pub reads: Vec<Span>,
    /// Who takes part, as the Commit named them: in the coordinator shard all, elsewhere
    /// at least this shard and the coordinator's.
    pub participants: Vec<Participant>,
    /// Index of this shard.
    pub here: u32,
    /// Index of the coordinator; equal to `here` in the coordinator shard, where
    /// this entry is Staged too.
    pub coordinator: u32,
}

impl Intent {
    /// Whether both indices name participants: all who look them up rely on it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let count = self.participants.len() as u64;
        u64::from(self.here) < count && u64::from(self.coordinator) < count
    }

    /// The key that names this shard in it (T10).
    #[must_use]
    pub fn anchor(&self) -> &Key {
        &self.participants[self.here as usize].anchor
    }

    /// Whether its coordinator is another one than that of this anchor.
    #[must_use]
    pub fn names_other(&self, anchor: &Key) -> bool {
        self.participants[self.coordinator as usize].anchor != *anchor
    }
}

/// The bytes of a command, as a log entry carries them.
///
/// # Errors
/// Never for commands this program makes; the encoder's signature allows for it.
pub fn encode(command: &Command) -> Result<Payload, postcard::Error> {
    Scratch::default().encode(command)
}

/// A command from a log entry. Values that it writes lie in its memory, keys too if it is small.
///
/// # Errors
/// When the bytes are no command this program knows, or an intent whose indices
/// name no participants.
pub fn decode(payload: &Payload) -> Result<Command, postcard::Error> {
    match crate::shared::decode(payload)? {
        Command::Intent(intent) if !intent.is_sound() => {
            Err(postcard::Error::DeserializeBadEncoding)
        }
        command => Ok(command),
    }
}
