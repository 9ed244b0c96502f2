//! Histories as text: Jepsen's EDN form, and JSON lines of the same shape.
//!
//! One line per event, in the order in which they happened:
//!
//! ```text
//! {:index 0, :type :invoke, :f :txn, :process 3, :time 12345, :value [[:append 5 1] [:r 5 nil]]}
//! {:index 1, :type :ok, :f :txn, :process 3, :time 23456, :value [[:append 5 1] [:r 5 [1]]], :timestamp 17}
//! ```
//!
//! `:ok` tells what was read; `:fail` had no effect; `:info` may have one, then or
//! later, and so may what never completes. A process has one transaction at a time,
//! and none after an `:info`. Registers write `[:w k v]` and read `[:r k v]`.
//!
//! Two keys are ours, which other readers ignore: `:timestamp`, the one at which a
//! transaction committed, and `:client`, who it was where `:process` is a substitute
//! for a process that crashed.

mod import;
mod json;
mod reader;
mod value;
mod write;

pub use write::{Parts, Recorded, write_edn, write_json};

use crate::history::{History, ListOp, RwOp};
use thiserror::Error;

/// A text longer than this many bytes is refused.
pub const MAX_TEXT: usize = 1 << 30;
/// A history of more events than this is refused.
pub const MAX_EVENTS: usize = 10_000_000;
/// An event of more values (elements of lists included) than this is refused.
pub const MAX_VALUES: usize = 1_000_000;
/// Values nested deeper than this are refused.
pub const MAX_DEPTH: usize = 32;

/// A history of a kind that is only known once it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyHistory {
    /// Appends to lists.
    Lists(History<ListOp>),
    /// Reads and writes of registers.
    Registers(History<RwOp>),
}

impl AnyHistory {
    /// How many transactions it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            AnyHistory::Lists(history) => history.transactions.len(),
            AnyHistory::Registers(history) => history.transactions.len(),
        }
    }

    /// Whether it holds no transaction.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a text is no history.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HistoryError {
    /// It is neither EDN nor JSON at this place. Lines and columns count from 1.
    #[error("line {line}, column {column}: {problem}")]
    Syntax {
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
    /// The event that begins on this line cannot be part of a history.
    #[error("the event on line {line}: {problem}")]
    Event {
        /// The line.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The text is too long.
    #[error("the history has {bytes} bytes, more than the limit of {MAX_TEXT}; check a part of it")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// Reads a history: EDN or JSON, lists or registers, whichever it turns out to be.
/// Also reads what [`History::write_json`] writes. Events of other processes than
/// numbered ones (`:nemesis`) are skipped. Times are those of `:time` if every event
/// has one, and else the events' order. A history without any operation counts as
/// one of lists.
///
/// # Errors
/// Where and why the text is no history.
pub fn read_history(text: &str) -> Result<AnyHistory, HistoryError> {
    if text.len() > MAX_TEXT {
        return Err(HistoryError::TooLong { bytes: text.len() });
    }
    if json::is_json(text) {
        json::read(text)
    } else {
        let mut reader = reader::Reader::new(text);
        let mut import = import::Import::default();
        reader.enter_sequence()?;
        while let Some((line, event)) = reader.next_event()? {
            import.event(line, event)?;
        }
        import.finish()
    }
}
