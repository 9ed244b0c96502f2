//! Words shared by requests, commands, peers and state.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Bound;
use synod_paxos::{GroupId, Term, Timestamp};

/// A key; ordered bytewise.
pub type Key = Bytes;
/// A value.
pub type Value = Bytes;

/// Bytes of one key, at most.
pub const MAX_KEY_BYTES: usize = 8 << 10;
/// Bytes of one value, at most.
pub const MAX_VALUE_BYTES: usize = 8 << 20;
/// Bytes of all writes of one transaction, at most.
pub const MAX_TRANSACTION_BYTES: usize = 64 << 20;
/// What each write counts for in that, beside its key and its value.
pub const WRITE_BYTES: usize = 16;
/// Shards one transaction may touch, at most.
pub const MAX_PARTICIPANTS: usize = 1024;
/// Rows one scan answers at most; the client pages on.
pub const MAX_SCAN_ROWS: u32 = 10_000;
/// Bytes of rows one scan answers at most, unless its first row is larger.
pub const MAX_SCAN_BYTES: usize = 4 << 20;

/// One attempt of a transaction: the 128 bits of a UUIDv7 whose time is taken
/// from the cluster. A retry is a new attempt.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId(pub u128);

impl AttemptId {
    /// The millisecond since 1970 in the id's first 48 bits.
    #[must_use]
    pub const fn millis(self) -> u64 {
        (self.0 >> 80) as u64
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (x >> 96) as u32,
            (x >> 80) as u16,
            (x >> 64) as u16,
            (x >> 48) as u16,
            x & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A transaction's age for wound-wait: the start of its first attempt, ties
/// broken by that attempt's id. Lower is older and wins.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize,
)]
pub struct Priority {
    /// When the first attempt began.
    pub start: Timestamp,
    /// The first attempt's id.
    pub first: AttemptId,
}

/// A client process, as it names itself (random 64 bits).
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize,
)]
pub struct ClientId(pub u64);

/// A transaction's stay in one shard during one term, opened by its first lock there.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize,
)]
pub struct SessionId(pub u64);

/// Who waits for an answer; opaque to ring 0, unique while unanswered.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize,
)]
pub struct Caller {
    /// The connection it came on.
    pub connection: u64,
    /// Its number there.
    pub request: u64,
}

/// The keys `start <= key < end`; an empty `end` means "to the end of all keys".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// First key in it.
    pub start: Key,
    /// First key after it; empty = unbounded.
    pub end: Key,
}

impl Span {
    /// The span that holds exactly `key`.
    #[must_use]
    pub fn of_key(key: &Key) -> Span {
        let mut end = Vec::with_capacity(key.len() + 1);
        end.extend_from_slice(key);
        end.push(0);
        Span {
            start: key.clone(),
            end: end.into(),
        }
    }

    /// The span of all keys that begin with `prefix`.
    #[must_use]
    pub fn of_prefix(prefix: &[u8]) -> Span {
        let mut end = prefix.to_vec();
        while let Some(last) = end.last_mut() {
            if *last < 0xff {
                *last += 1;
                break;
            }
            end.pop();
        }
        Span {
            start: Bytes::copy_from_slice(prefix),
            end: end.into(),
        }
    }

    /// The part of it before `next`, the first key of what comes after it: all of it where
    /// that does not lie inside.
    #[must_use]
    pub fn before(&self, next: Option<&Key>) -> Span {
        let end = next.filter(|next| self.contains(next));
        Span {
            start: self.start.clone(),
            end: end.unwrap_or(&self.end).clone(),
        }
    }

    /// The keys that lie in both.
    #[must_use]
    pub fn within(&self, other: &Span) -> Span {
        let end = match (self.end.is_empty(), other.end.is_empty()) {
            (true, _) => &other.end,
            (_, true) => &self.end,
            _ => (&self.end).min(&other.end),
        };
        Span {
            start: (&self.start).max(&other.start).clone(),
            end: end.clone(),
        }
    }

    /// Whether `key` lies in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start[..] <= *key && (self.end.is_empty() || *key < self.end[..])
    }

    /// Whether it shares a key with `other`.
    #[must_use]
    pub fn overlaps(&self, other: &Span) -> bool {
        (other.end.is_empty() || self.start < other.end)
            && (self.end.is_empty() || other.start < self.end)
            && !self.is_empty()
            && !other.is_empty()
    }

    /// The span as bounds of an ordered map. Empty spans must not be asked for.
    #[must_use]
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = if self.end.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(&self.end[..])
        };
        (Bound::Included(&self.start[..]), end)
    }

    /// The key, if this is the span of exactly one ([`Span::of_key`]).
    #[must_use]
    pub fn as_key(&self) -> Option<&Key> {
        (self.end.len() == self.start.len() + 1
            && self.end.last() == Some(&0)
            && self.end.starts_with(&self.start))
        .then_some(&self.start)
    }

    /// Whether it holds no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.end <= self.start
    }
}

/// One buffered write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The key.
    #[serde(deserialize_with = "crate::shared::key")]
    pub key: Key,
    /// Its new value; none deletes it.
    #[serde(deserialize_with = "crate::shared::value")]
    pub value: Option<Value>,
}

impl Write {
    /// Bytes it counts for in entries.
    #[must_use]
    pub fn weight(&self) -> usize {
        Write::weight_with(&self.key, self.value.as_ref())
    }

    /// Bytes a write of this value to this key counts for.
    pub(crate) fn weight_with(key: &Key, value: Option<&Value>) -> usize {
        WRITE_BYTES + key.len() + value.map_or(0, |value| value.len())
    }
}

/// A version as read: its value, timestamp, and the attempt that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The value; none for a tombstone.
    pub value: Option<Value>,
    /// The commit timestamp.
    pub timestamp: Timestamp,
    /// The attempt that wrote it (T7).
    pub attempt: AttemptId,
}

/// One row of a scan (tombstones are left out).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
    /// The commit timestamp.
    pub timestamp: Timestamp,
}

/// A shard that takes part in a commit, named by an anchor key it owns (T10).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Participant {
    /// A key of the transaction in this shard.
    pub anchor: Key,
    /// The shard that owned the anchor when the client looked (a hint).
    pub shard: GroupId,
    /// The one term in which the Commit is valid there (T4).
    pub term: Term,
}

impl Participant {
    /// Bytes it counts for in entries.
    #[must_use]
    pub fn weight(&self) -> usize {
        Participant::weight_with(&self.anchor)
    }

    /// Bytes a participant with this anchor counts for.
    pub(crate) fn weight_with(anchor: &Key) -> usize {
        const OVERHEAD: usize = 96;
        OVERHEAD + anchor.len()
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// Committed at this timestamp.
    Committed(Timestamp),
    /// Aborted.
    Aborted(AbortReason),
}

/// Why a transaction was aborted. A new attempt may always be made, save where said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AbortReason {
    /// An older transaction needed its locks.
    Wounded,
    /// Its session was ended (expired, or the client vanished).
    SessionEnded,
    /// The participant's leadership changed after the transaction read there.
    TermEnded,
    /// The commit did not get its locks or votes in time.
    Deadline,
    /// A participant asked about a transaction whose commit never reached the coordinator.
    NeverStaged,
    /// The client took it back.
    RolledBack,
    /// The participant no longer owns one of the keys.
    Moved,
    /// The writes break a bound; the same attempt cannot succeed.
    TooLarge,
    /// The commit's list of participants does not fit what was recorded; not retryable.
    Malformed,
    /// Its id has a time that a shard refuses. Only clients make this of the
    /// refusal; no shard votes, records or answers it.
    Untimely,
    /// A leader's disk is nearly full, and the commit writes more than deletes.
    DiskFull,
}

/// What a wall clock says: the true time lies in `[earliest, latest]`. In
/// unbounded mode both are the reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub earliest: Timestamp,
    /// Upper end.
    pub latest: Timestamp,
}
