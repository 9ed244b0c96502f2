//! What a shard's transaction machine wants done.

use crate::command::Command;
use crate::peer::PeerMessage;
use crate::request::{Response, ScanRange};
use crate::types::{AttemptId, Caller, Key, Row, Value, Version};
use serde::{Deserialize, Serialize};
use synod_paxos::{GroupId, Slot, Timestamp};

/// Names an engine read until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReadToken(pub u64);

/// Versions for the engine, from one applied slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBatch {
    /// The slot they come from.
    pub slot: Slot,
    /// `(key, timestamp, attempt, value or tombstone)`.
    pub versions: Vec<(Key, Timestamp, AttemptId, Option<Value>)>,
}

/// What the engine answers to [`Effect::Read`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRows {
    /// One per key asked for: its newest version at or below `at`.
    pub versions: Vec<Option<Version>>,
    /// The scan's rows: the newest live version of each key, in scan order.
    pub rows: Vec<Row>,
    /// Whether keys are left in the span after the last row.
    pub more: bool,
}

/// One effect. Effects of one machine are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Propose this now: it takes the next slot, in this very step (K3).
    Propose {
        /// The command.
        command: Command,
        /// Lazy entries start neither sync nor Accept.
        lazy: bool,
    },
    /// Answer a request. Every caller is answered once, or its term ends.
    Respond {
        /// Who asked.
        to: Caller,
        /// The answer.
        response: Response,
    },
    /// Tell the leader of another shard, named by the message's anchor.
    Peer {
        /// The shard that owned the anchor when last known (a hint); 0 when
        /// nothing is known but the anchor.
        shard: GroupId,
        /// The message.
        message: PeerMessage,
    },
    /// Read the engine's snapshot of this moment; then call `handle_read`.
    Read {
        /// Names it.
        token: ReadToken,
        /// Keys to look up.
        keys: Vec<Key>,
        /// A range to visit.
        scan: Option<ScanRange>,
        /// Only versions at or below this.
        at: Timestamp,
    },
    /// Give the engine what an applied slot wrote; behind the answers, in slot order.
    Write(WriteBatch),
    /// Ask consensus for a confirming round; then call `handle_confirmed(token)`.
    Confirm {
        /// Names what waits.
        token: u64,
    },
}
