//! What a replica wants done. Plain data; the driver carries it out.

use crate::ids::{Ballot, NodeId, Round, Slot};
use crate::message::Message;
use crate::record::Record;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Names one persist effect of one replica. Completions carry it, so that a
/// late one from an older ballot is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PersistSeq {
    /// The ballot the replica worked under when it was submitted.
    pub ballot: Ballot,
    /// Counts this replica's persist effects.
    pub number: u64,
}

/// Names a snapshot: the state after `slot`, as read by its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotId {
    /// The last slot it contains.
    pub slot: Slot,
    /// Tells snapshots of the same slot apart.
    pub nonce: u64,
}

/// One effect. Effects of one replica are carried out in order; persist
/// effects of a node reach one log, first in, first out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// May leave at once.
    Send {
        /// The receiver.
        to: NodeId,
        /// What to say.
        message: Message,
    },
    /// Make `records` durable, after everything persisted before; then send
    /// `release` and call `handle_persisted(seq)`. With no records it is a
    /// barrier: it waits for what is on its way, and costs no sync of its own.
    Persist {
        /// What to write; replayed in order into [`crate::Durable`] at recovery.
        records: Vec<Record>,
        /// What may leave only afterwards.
        release: Vec<(NodeId, Message)>,
        /// The name of its completion.
        seq: PersistSeq,
    },
    /// Entries up to here are decided and may be applied, in order.
    Decided {
        /// The last decided slot that this replica holds.
        through: Slot,
    },
    /// This replica stopped leading under `ballot`; its term is over. Nothing
    /// that waits for it will be answered.
    Deposed {
        /// The ballot given up.
        ballot: Ballot,
    },
    /// A majority confirmed that this replica led when `round` began.
    Confirmed {
        /// The round.
        round: Round,
    },
    /// Read chunk `chunk` of a snapshot for `to`, then call `handle_snapshot_read`.
    /// Chunk 0 opens the snapshot; the driver may pick a later `slot` than asked.
    ReadSnapshot {
        /// For whom.
        to: NodeId,
        /// The snapshot, or none to open a new one.
        id: Option<SnapshotId>,
        /// The chunk's number.
        chunk: u64,
    },
    /// The group has moved on without this replica and needs nothing of it any
    /// more (G3). Delete the state machine's data, durably; then call
    /// `handle_destroyed`. Asked for again after a restart in between.
    Destroy,
    /// The snapshot for `to` is no longer needed.
    CloseSnapshot {
        /// For whom it was.
        to: NodeId,
    },
    /// Stage a received chunk, in order; after `done`, install everything
    /// atomically and call `handle_snapshot_installed`.
    StageSnapshot {
        /// The snapshot.
        id: SnapshotId,
        /// The chunk's number, contiguous from 0.
        chunk: u64,
        /// The chunk.
        data: Bytes,
        /// Whether it is the last.
        done: bool,
    },
}
