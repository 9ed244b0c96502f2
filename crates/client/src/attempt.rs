//! Names of commits, and what became of them.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use synod_paxos::Timestamp;
use synod_txn::{AbortReason, AttemptId, Participant};

/// A commit that was sent, as its status is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Whom to ask.
    pub coordinator: Participant,
}

/// What [`Client::status`](crate::Client::status) finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Committed at this timestamp.
    Committed(Timestamp),
    /// Aborted; certain.
    Aborted(AbortReason),
    /// Not decided yet.
    Pending,
    /// So old that its outcome may have been forgotten: it began ten minutes ago, or less where a shard
    /// has had very many to remember since.
    Expired,
}

/// What is known of a transaction that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The attempt that did it.
    pub attempt: AttemptId,
    /// Its commit timestamp; none for a transaction without writes.
    pub timestamp: Option<Timestamp>,
    /// How many attempts it took.
    pub attempts: u32,
    /// Shards that took part.
    pub shards: u32,
    /// Consensus rounds that the coordinator's answer waited for.
    pub syncs: u32,
    /// From the first attempt's begin to the answer.
    pub elapsed: Duration,
}
