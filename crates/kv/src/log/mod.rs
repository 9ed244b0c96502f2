//! The node's own write-ahead log: one for all its groups, so that one sync
//! covers whatever all of them have to make durable (§8 Log).
//!
//! - [`Log`] is the log itself: [`Log::open`] replays it, [`Log::append`] and
//!   [`Log::sync`] extend it, [`Log::trim`] forgets its beginning.
//! - [`TicketedLog`] knows which submission lies where.
//! - `LogThread` owns a `Log` on a thread of its own and merges what was
//!   submitted meanwhile into one write and one sync (group commit). `spares`
//!   makes the files it will go on in, so that it never waits for their zeros.
//! - [`Disk`] is what it stands on: [`RealDisk`], or [`MemoryDisk`], which
//!   loses unsynced writes, tears and fails on request. Format and recovery are
//!   the same code over both.
//!
//! The bytes are described in `docs/log-format.md`.
//!
//! # Trimming
//!
//! The log is trimmed by position, not by group. Before its beginning goes, all
//! that is still needed of it must stand further up, synced: per group a
//! [`LogRecord::Base`], the whole durable state at that point, and per holder
//! the latest [`LogRecord::Lease`] (a lease record replaces the older one of the
//! same holder, so it is its own base). Replay sets the group to its base and
//! goes on from there; plain records of a group before its first base cannot be
//! replayed and belong to what was trimmed.
//!
//! # What is not done
//!
//! A damaged log is refused, never repaired: the node must then come back as a
//! new one, because ballots may be lost (§8). Damage to the very last synced
//! batch cannot be told from a write that a power cut interrupted, if nothing
//! was written after it.

mod direct;
mod disk;
mod error;
mod format;
mod memory;
mod recovery;
mod segments;
#[cfg(feature = "server")]
mod spares;
#[cfg(all(test, feature = "server"))]
mod tests;
#[cfg(feature = "server")]
mod thread;
mod ticketed;
mod writer;

pub use direct::LogFile;
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::LogError;
pub use memory::{MemoryDisk, MemoryFile};
pub use recovery::{Cut, Recovery};
#[cfg(feature = "server")]
pub use thread::{LogCounters, LogEvent, LogThread};
pub use ticketed::TicketedLog;
pub use writer::{Log, LogOptions, MAX_APPEND_BYTES};

use serde::{Deserialize, Serialize};
use synod_paxos::lease::LeaseRecord;
use synod_paxos::{Durable, Entry, GroupId, Record};
use synod_shard::ShardDescriptor;

/// The position of a batch in the log: counts batches from 1, for the life of
/// the node, and is never reused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Sequence(pub u64);

impl std::fmt::Display for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What stands in the log. New kinds are only added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRecord {
    /// One durable step of one replica.
    Group {
        /// Its group.
        group: GroupId,
        /// The step.
        record: Record,
    },
    /// The limit granted to one node; replaces the earlier one for that node.
    Lease(LeaseRecord),
    /// The whole durable state of one replica; replaces everything before.
    Base {
        /// Its group.
        group: GroupId,
        /// The state.
        durable: Box<Durable>,
    },
    /// A shard that the cluster did not begin with, or whose range or members are others
    /// by now: it stands before each base of it.
    Shard(Box<ShardDescriptor>),
}

impl LogRecord {
    /// Bytes of its entries, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            LogRecord::Group { record, .. } => record.weight(),
            LogRecord::Base { durable, .. } => durable.entries.iter().map(Entry::weight).sum(),
            LogRecord::Lease(_) | LogRecord::Shard(_) => 0,
        }
    }
}
