//! Why a step of a transaction failed.

use crate::client::retry::is_retryable;
use crate::types::{AbortReason, AttemptId};
use serde::{Deserialize, Serialize};
use synod_paxos::GroupId;

/// Why a step of a transaction failed. Unless it says otherwise the whole
/// transaction is over and nothing of it was or will be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TransactionError {
    /// It was aborted; certain.
    #[error("transaction {attempt} was aborted: {}", describe(*.reason))]
    Aborted {
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        reason: AbortReason,
    },
    /// It may have been committed: the coordinator could not be asked in time.
    #[error(
        "the outcome of transaction {attempt} is unknown: its coordinator could not be asked \
         before the deadline; ask its status before repeating it"
    )]
    Unknown {
        /// The attempt.
        attempt: AttemptId,
    },
    /// A shard did not answer in time; nothing was written.
    #[error(
        "shard {} did not answer before the deadline; nothing was written, repeating is safe",
        .shard.0
    )]
    Unreachable {
        /// The shard.
        shard: GroupId,
    },
    /// The call breaks a rule or bound; the transaction goes on unless a shard said so.
    #[error("{0}")]
    Invalid(String),
    /// No shard is known to own the key.
    #[error("no shard is known for key {key:?}; fetch the shard map again")]
    NoRoute {
        /// The key.
        key: bytes::Bytes,
    },
    /// A write in a read-only transaction; the transaction goes on.
    #[error("a read-only transaction cannot write or read for update")]
    ReadOnly,
    /// No such savepoint; the transaction goes on.
    #[error("no savepoint named {0:?} in this transaction")]
    NoSavepoint(String),
    /// The transaction has already ended.
    #[error("the transaction has already ended; begin a new one")]
    Ended,
    /// A node gave an answer that does not fit the request.
    #[error(
        "shard {} gave an answer that does not fit the request ({what}); report this",
        .shard.0
    )]
    Protocol {
        /// The shard.
        shard: GroupId,
        /// What was wrong.
        what: String,
    },
}

impl TransactionError {
    /// Whether a new attempt of the same transaction may succeed, and cannot
    /// apply anything twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            TransactionError::Aborted { reason, .. } => is_retryable(*reason),
            _ => false,
        }
    }
}

/// The reason in words for people.
#[must_use]
pub fn describe(reason: AbortReason) -> &'static str {
    match reason {
        AbortReason::Wounded => "an older transaction needed its locks",
        AbortReason::SessionEnded => "its locks expired at a shard",
        AbortReason::TermEnded => "a shard it read from changed its leader",
        AbortReason::Deadline => "locks or votes did not come in time",
        AbortReason::NeverStaged => "its commit never reached the coordinator",
        AbortReason::RolledBack => "it was rolled back",
        AbortReason::Moved => "one of its keys moved to another shard",
        AbortReason::TooLarge => "its writes break a bound; make it smaller",
        AbortReason::Malformed => "its commit was malformed; report this",
        AbortReason::Untimely => "the time in its id was not the cluster's",
        AbortReason::DiskFull => {
            "the disk of a node that leads one of its shards is nearly full; delete something \
             (deletes are admitted) or give that node space"
        }
    }
}
