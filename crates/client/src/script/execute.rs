//! Carrying out single statements.

use super::check::{MAX_ROWS, row_limit};
use super::event::What;
use super::expression::{Variables, as_integer, evaluate};
use super::syntax::{Comparison, Op, Text};
use crate::{Client, Error, Range, Transaction};
use bytes::Bytes;
use std::time::Duration;
use synod_txn::{AbortReason, AttemptId, Key};

/// How a script ended, as the status of the program that ran it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitStatus {
    /// Everything was committed, or rolled back as written.
    #[default]
    Committed,
    /// A transaction was aborted, or rolled back by `require` or a failed statement.
    Aborted,
    /// The script is not one; nothing of it (in a session: of that statement) was sent.
    BadScript,
    /// No cluster answers.
    NoCluster,
    /// A commit may or may not have happened.
    Unknown,
}

impl ExitStatus {
    /// The number: 0, 1, 2, 4, 3.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            ExitStatus::Committed => 0,
            ExitStatus::Aborted => 1,
            ExitStatus::BadScript => 2,
            ExitStatus::Unknown => 3,
            ExitStatus::NoCluster => 4,
        }
    }

    /// What an error means for the program's status.
    #[must_use]
    pub const fn of_error(error: &Error) -> ExitStatus {
        match error {
            Error::Unknown { .. } => ExitStatus::Unknown,
            Error::NoCluster { .. } | Error::NotInitialized | Error::Timeout { .. } => {
                ExitStatus::NoCluster
            }
            Error::Config(_) => ExitStatus::BadScript,
            _ => ExitStatus::Aborted,
        }
    }
}

/// Why a statement stopped its transaction.
#[derive(Debug)]
pub(super) enum Halt {
    /// A `require` does not hold; the event to tell.
    Require(Box<What>),
    /// Something cannot be evaluated, or breaks a bound that shows only now.
    Evaluation(String),
    /// The SDK says no.
    Sdk(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Sdk(error)
    }
}

/// What carries a statement: an open transaction, or each its own.
pub(super) enum Carrier<'a> {
    Transaction(&'a mut Transaction),
    Client(&'a Client),
}

/// Carry out any statement but `begin`, `commit` and whole `rollback`.
pub(super) async fn step(
    mut carrier: Carrier<'_>,
    variables: &mut Variables,
    op: &Op,
) -> Result<What, Halt> {
    let text =
        |text: &Text, variables: &Variables| evaluate(text, variables).map_err(Halt::Evaluation);
    match op {
        Op::Get {
            variable,
            key,
            for_update,
            default,
        } => {
            let key = text(key, variables)?;
            let default = match default {
                Some(default) => Some(text(default, variables)?),
                None => None,
            };
            let value = match &mut carrier {
                Carrier::Transaction(txn) if *for_update => txn.get_for_update(&key).await?,
                Carrier::Transaction(txn) => txn.get(&key).await?,
                Carrier::Client(client) => client.get(&key).await?,
            };
            let found = value.is_some();
            let value = value.or(default);
            if let Some(name) = variable {
                variables.insert(name.clone(), value.clone());
            }
            Ok(What::Get { key, value, found })
        }
        Op::Put { key, value } => {
            let (key, value) = (text(key, variables)?, text(value, variables)?);
            let receipt = match &mut carrier {
                Carrier::Transaction(txn) => txn.put(&key, &value).await.map(|()| None)?,
                Carrier::Client(client) => Some(client.put(&key, &value).await?),
            };
            Ok(What::Put {
                key,
                value,
                receipt,
            })
        }
        Op::Delete { key } => {
            let key = text(key, variables)?;
            let receipt = match &mut carrier {
                Carrier::Transaction(txn) => txn.delete(&key).await.map(|()| None)?,
                Carrier::Client(client) => Some(client.delete(&key).await?),
            };
            Ok(What::Delete { key, receipt })
        }
        Op::Scan {
            from,
            to,
            limit,
            reverse,
        } => {
            let from = text(from, variables)?;
            let range = match to {
                Some(to) => Range::new(from, text(to, variables)?),
                None => Range::prefix(from),
            };
            let range = if *reverse { range.reverse() } else { range };
            let rows = match limit {
                Some(limit) => row_limit(&text(limit, variables)?).map_err(Halt::Evaluation)?,
                None => MAX_ROWS,
            };
            // One more row tells whether there are more.
            let limit = if limit.is_some() { rows } else { rows + 1 };
            scan(carrier, range.limit(limit), rows).await
        }
        Op::Require {
            left,
            comparison,
            right,
        } => {
            let (left, right) = (text(left, variables)?, text(right, variables)?);
            let holds = holds(&left, *comparison, &right).map_err(Halt::Evaluation)?;
            let what = What::Require {
                left,
                sign: comparison.sign(),
                right,
                holds,
            };
            if holds {
                Ok(what)
            } else {
                Err(Halt::Require(Box::new(what)))
            }
        }
        Op::Savepoint { name } => match carrier {
            Carrier::Transaction(txn) => {
                txn.savepoint(name)?;
                Ok(What::Savepoint { name: name.clone() })
            }
            Carrier::Client(_) => Err(Halt::Sdk(Error::Ended)),
        },
        Op::Rollback { to: Some(name) } => match carrier {
            Carrier::Transaction(txn) => {
                txn.rollback_to(name)?;
                Ok(What::Rollback {
                    to: Some(name.clone()),
                })
            }
            Carrier::Client(_) => Err(Halt::Sdk(Error::Ended)),
        },
        Op::Begin { .. } | Op::Rollback { to: None } | Op::Commit => Err(Halt::Evaluation(
            "begin, commit and rollback are not single statements".to_owned(),
        )),
    }
}

async fn scan(mut carrier: Carrier<'_>, range: Range, most: u64) -> Result<What, Halt> {
    let mut rows: Vec<(Key, Bytes)> = Vec::new();
    let mut rest = Some(range);
    while let Some(range) = rest.take() {
        let page = match &mut carrier {
            Carrier::Transaction(txn) => txn.scan_page(range).await?,
            Carrier::Client(client) => client.scan_page(range).await?,
        };
        rows.extend(page.rows);
        rest = page.rest;
    }
    let more = rows.len() as u64 > most;
    rows.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    Ok(What::Scan { rows, more })
}

/// Whether a comparison holds: of integers if both are, else of bytes.
pub(super) fn holds(left: &[u8], comparison: Comparison, right: &[u8]) -> Result<bool, String> {
    let order = match (as_integer(left), as_integer(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ if matches!(comparison, Comparison::Equal | Comparison::NotEqual) => left.cmp(right),
        (Some(_), None) => return Err(not_integer(right, comparison)),
        (None, _) => return Err(not_integer(left, comparison)),
    };
    Ok(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}

fn not_integer(value: &[u8], comparison: Comparison) -> String {
    let shown = super::show_bytes(value);
    format!(
        "{} compares integers, and {shown} is none",
        comparison.sign()
    )
}

/// The end of a transaction that did not commit, as an event.
pub(super) fn ended(
    op: &'static str,
    halt: &Halt,
    id: Option<AttemptId>,
    attempts: u32,
    elapsed: Duration,
) -> What {
    let (outcome, reason, message) = match halt {
        Halt::Require(_) => ("aborted", "require", "a require does not hold".to_owned()),
        Halt::Evaluation(message) => ("aborted", "evaluation", message.clone()),
        Halt::Sdk(error) => {
            let outcome = match error {
                Error::Unknown { .. } => "unknown",
                _ => "aborted",
            };
            (outcome, reason(error), error.to_string())
        }
    };
    let (transaction, attempts) = match halt {
        Halt::Sdk(Error::Aborted {
            attempt, attempts, ..
        }) => (Some(*attempt), *attempts),
        Halt::Sdk(Error::Unknown { attempt }) => (Some(attempt.id), attempts),
        _ => (id, attempts),
    };
    What::Ended {
        op,
        outcome,
        reason,
        message,
        transaction,
        attempts,
        elapsed_micros: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
    }
}

/// A word for programs.
const fn reason(error: &Error) -> &'static str {
    match error {
        Error::Aborted { reason, .. } => match reason {
            AbortReason::Wounded => "wounded",
            AbortReason::SessionEnded => "session-ended",
            AbortReason::TermEnded => "term-ended",
            AbortReason::Deadline => "deadline",
            AbortReason::NeverStaged => "never-staged",
            AbortReason::RolledBack => "rolled-back",
            AbortReason::Moved => "moved",
            AbortReason::TooLarge => "too-large",
            AbortReason::Malformed => "malformed",
            AbortReason::Untimely => "untimely",
            AbortReason::DiskFull => "disk-full",
        },
        Error::Unknown { .. } => "unknown",
        Error::Timeout { .. } => "timeout",
        Error::NoCluster { .. } => "no-cluster",
        Error::NotInitialized => "not-initialized",
        Error::Config(_) => "config",
        Error::Invalid(_) | Error::ReadOnly | Error::NoSavepoint(_) => "invalid",
        Error::Ended => "ended",
        Error::Protocol(_) => "protocol",
        Error::Application(_) => "application",
    }
}

/// What a halt means for the program's status.
pub(super) const fn status(halt: &Halt) -> ExitStatus {
    match halt {
        Halt::Require(_) | Halt::Evaluation(_) => ExitStatus::Aborted,
        Halt::Sdk(error) => ExitStatus::of_error(error),
    }
}

/// The event that tells a halt at its own statement.
pub(super) fn failed(op: &'static str, halt: &Halt) -> What {
    match halt {
        Halt::Require(what) => (**what).clone(),
        Halt::Evaluation(message) => What::Error {
            op,
            error: "evaluation",
            message: message.clone(),
            column: None,
        },
        Halt::Sdk(error) => What::Error {
            op,
            error: reason(error),
            message: error.to_string(),
            column: None,
        },
    }
}
