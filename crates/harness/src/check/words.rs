//! Transactions in words.

use crate::history::{ListOp, RwOp, Seen, Transaction};

/// Longer lists are told by their ends.
const WHOLE: usize = 6;
/// Transactions with more operations are told in part.
const OPS: usize = 12;

/// An operation that can be put in words.
pub(super) trait Told {
    /// `append 3 to 1`, `read 1 = [3]`, …
    fn words(&self) -> String;
}

impl Told for ListOp {
    fn words(&self) -> String {
        match self {
            ListOp::Append { key, value } => format!("append {value} to {key}"),
            ListOp::Read { key, list: None } => format!("read {key} unanswered"),
            ListOp::Read {
                key,
                list: Some(list),
            } => format!("read {key} = {}", list_words(list)),
        }
    }
}

impl Told for RwOp {
    fn words(&self) -> String {
        match self {
            RwOp::Write { key, value } => format!("write {key} := {value}"),
            RwOp::Read { key, seen } => match seen {
                Seen::Unanswered => format!("read {key} unanswered"),
                Seen::Nothing => format!("read {key} = nothing"),
                Seen::Value(value) => format!("read {key} = {value}"),
            },
        }
    }
}

/// A list, shortened in its middle.
pub(super) fn list_words(list: &[u64]) -> String {
    match list {
        [first, .., last] if list.len() > WHOLE => {
            format!("[{first} … {last}] ({} elements)", list.len())
        }
        _ => format!("{list:?}"),
    }
}

/// `T7 of client 3 [append 1 to 5, read 6 = []]`.
pub(super) fn transaction<Op: Told>(history: &[Transaction<Op>], index: usize) -> String {
    let transaction = &history[index];
    let mut ops: Vec<String> = transaction.ops.iter().take(OPS).map(Told::words).collect();
    if transaction.ops.len() > OPS {
        ops.push(format!("and {} more", transaction.ops.len() - OPS));
    }
    format!(
        "T{index} of client {} [{}]",
        transaction.process,
        ops.join(", ")
    )
}
