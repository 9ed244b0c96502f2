//! What can go wrong, and what it means for the caller.

use crate::Attempt;
use synod_txn::AbortReason;
use synod_txn::client::{TransactionError, describe};

/// What is known about the effects of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was written, and nothing will be.
    None,
    /// A commit may have happened; ask with [`Client::status`](crate::Client::status).
    Unknown,
}

/// A failed call. [`Error::effect`] says what is known about its effects,
/// [`Error::is_retry_safe`] whether repeating it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is of no use; nothing was sent.
    #[error("cannot use the client's configuration: {0}")]
    Config(String),
    /// No node of the cluster could be asked.
    #[error(
        "no node of the cluster can be reached: {reason}; are the endpoints right and the nodes up?"
    )]
    NoCluster {
        /// What each endpoint said.
        reason: String,
    },
    /// The nodes run, but belong to no cluster yet.
    #[error("the cluster is not initialized: run `synod init`")]
    NotInitialized,
    /// The transaction was aborted; certain.
    #[error("the transaction was aborted after {attempts} attempt(s): {}", describe(*.reason))]
    Aborted {
        /// The last attempt's id.
        attempt: synod_txn::AttemptId,
        /// Why.
        reason: AbortReason,
        /// How many attempts there were.
        attempts: u32,
    },
    /// The commit may have happened: its coordinator could not be asked until the deadline.
    #[error("the outcome of transaction {} is unknown: its coordinator could not be asked before the deadline; ask its status before repeating it", .attempt.id)]
    Unknown {
        /// What to ask the status of.
        attempt: Box<Attempt>,
    },
    /// A shard did not answer in time. Nothing was written.
    #[error(
        "shard {} did not answer before the deadline{}; nothing was written, a retry is safe",
        .shard.0,
        because(.reason)
    )]
    Timeout {
        /// The shard.
        shard: synod_paxos::GroupId,
        /// The last trouble seen on the way, if any.
        reason: String,
    },
    /// The call breaks a rule or bound; it cannot succeed as it is.
    #[error("{0}")]
    Invalid(String),
    /// A write or read for update in a read-only transaction.
    #[error("a read-only transaction cannot write or read for update")]
    ReadOnly,
    /// No such savepoint in this transaction.
    #[error("no savepoint named {0:?} in this transaction")]
    NoSavepoint(String),
    /// The transaction has already ended.
    #[error("the transaction has already ended; begin a new one")]
    Ended,
    /// A node gave an answer that makes no sense. Nothing was written.
    #[error("{0}; report this")]
    Protocol(String),
    /// The caller's own error, from inside a transaction that was then rolled back.
    #[error("{0}")]
    Application(Box<dyn std::error::Error + Send + Sync>),
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

impl Error {
    /// The caller's own reason to give up a transaction.
    pub fn application(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Application(error.into())
    }

    /// What is known about the effects.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        match self {
            Error::Unknown { .. } => Effect::Unknown,
            _ => Effect::None,
        }
    }

    /// Whether repeating the same call cannot apply anything twice, and may succeed.
    #[must_use]
    pub const fn is_retry_safe(&self) -> bool {
        match self {
            Error::NoCluster { .. } | Error::NotInitialized | Error::Timeout { .. } => true,
            Error::Aborted { reason, .. } => synod_txn::client::is_retryable(*reason),
            _ => false,
        }
    }

    /// From the transaction machine.
    pub(crate) fn of_transaction(
        error: TransactionError,
        attempts: u32,
        asked: Option<Attempt>,
    ) -> Error {
        match error {
            TransactionError::Aborted { attempt, reason } => Error::Aborted {
                attempt,
                reason,
                attempts,
            },
            TransactionError::Unknown { attempt } => match asked {
                Some(asked) => Error::Unknown {
                    attempt: Box::new(asked),
                },
                None => {
                    Error::Protocol(format!("{attempt} has an unknown outcome without a commit"))
                }
            },
            TransactionError::Unreachable { shard } => Error::Timeout {
                shard,
                reason: String::new(),
            },
            TransactionError::Invalid(what) => Error::Invalid(what),
            error @ TransactionError::NoRoute { .. } => Error::Protocol(error.to_string()),
            TransactionError::ReadOnly => Error::ReadOnly,
            TransactionError::NoSavepoint(name) => Error::NoSavepoint(name),
            TransactionError::Ended => Error::Ended,
            error @ TransactionError::Protocol { .. } => Error::Protocol(error.to_string()),
        }
    }
}
