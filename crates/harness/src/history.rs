//! Histories: what clients asked, when, and what they were told.
//!
//! A history is the only thing a checker sees, whether it comes from real
//! processes or from a simulation. Times are nanoseconds on *one* clock that
//! all recording clients share; they are compared, never interpreted.

use serde::{Deserialize, Serialize};

/// Nanoseconds on the recorder's clock.
pub type Nanos = u64;

/// How a transaction ended, as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It took effect, at this timestamp if it wrote anything.
    Committed(Option<u64>),
    /// It had no effect.
    Aborted,
    /// The client never learned; it may take effect at any later time.
    Unknown,
}

/// One transaction of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction<Op> {
    /// The client that ran it; a client runs one transaction at a time.
    pub process: u32,
    /// When it was invoked.
    pub invoked: Nanos,
    /// When its outcome was known; ignored for unknown ones.
    pub completed: Nanos,
    /// How it ended.
    pub outcome: Outcome,
    /// What it did, in order, with the results it saw.
    pub ops: Vec<Op>,
}

/// A history, in no particular order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History<Op> {
    /// All transactions that were invoked.
    pub transactions: Vec<Transaction<Op>>,
}

impl<Op> Default for History<Op> {
    fn default() -> Self {
        History {
            transactions: Vec::new(),
        }
    }
}

impl<Op: Serialize> History<Op> {
    /// One JSON object per line and transaction.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_json(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        for transaction in &self.transactions {
            serde_json::to_writer(&mut *out, transaction)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// An operation on append-only lists, keyed by small numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListOp {
    /// Appended `value`, which is unique for the key within the history.
    Append {
        /// The list.
        key: u64,
        /// The element.
        value: u64,
    },
    /// Read the whole list. None in transactions that ended before the answer.
    Read {
        /// The list.
        key: u64,
        /// What it held.
        list: Option<Vec<u64>>,
    },
}

/// An operation on registers, keyed by small numbers, in transactions over
/// several of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RwOp {
    /// Wrote `value`, which is unique for the key within the history.
    Write {
        /// The register.
        key: u64,
        /// What it holds from then on.
        value: u64,
    },
    /// Read a register.
    Read {
        /// The register.
        key: u64,
        /// What it held.
        seen: Seen,
    },
}

/// What a read of a register saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// The transaction ended before the answer.
    Unanswered,
    /// Nothing was there: no write came before.
    Nothing,
    /// This value.
    Value(u64),
}

/// An operation on keys whose values link them into one ring (the *Cycle*
/// workload of FoundationDB): transactions swap two neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RingOp {
    /// Followed the links from `path[0]` through `path[3]`, and exchanged the two
    /// in the middle: `path[0] → path[2] → path[1] → path[3]`.
    Swap {
        /// The keys met.
        path: [u64; 4],
    },
    /// Read all links in one transaction.
    ReadAll {
        /// The successor of each key, ascending by key; None where there is none.
        next: Vec<Option<u64>>,
    },
}

/// What a transaction of the bank workload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BankOp {
    /// Moved money and wrote the marker `id`.
    Transfer {
        /// Unique in the history.
        id: u64,
        /// Payer.
        from: u32,
        /// Payee.
        to: u32,
        /// How much.
        amount: i64,
    },
    /// Read all balances in one transaction, ascending by account.
    ReadAll {
        /// The balances.
        balances: Vec<i64>,
    },
}

/// An operation on one register whose writes carry rising numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegisterOp {
    /// Wrote this number.
    Write(u64),
    /// Read this number; 0 before the first write.
    Read(u64),
}
