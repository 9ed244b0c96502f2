//! What a script tells: events, as text and as JSON.

use crate::Receipt;
use bytes::Bytes;
use serde_json::{Value as Json, json};
use std::fmt::Write;
use synod_txn::{AttemptId, Key};

/// Something that happened at a line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The line, from 1.
    pub line: u32,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// `begin`.
    Begin {
        /// It only reads.
        read_only: bool,
    },
    /// `get` and `let`.
    Get {
        /// The key.
        key: Key,
        /// Its value, or the default; none if there is neither.
        value: Option<Bytes>,
        /// Whether the key has a value.
        found: bool,
    },
    /// `put`; the receipt if it was a transaction of its own.
    Put {
        /// The key.
        key: Key,
        /// The value.
        value: Bytes,
        /// How it was committed.
        receipt: Option<Receipt>,
    },
    /// `delete`; the receipt if it was a transaction of its own.
    Delete {
        /// The key.
        key: Key,
        /// How it was committed.
        receipt: Option<Receipt>,
    },
    /// `scan`.
    Scan {
        /// Keys and values, in order.
        rows: Vec<(Key, Bytes)>,
        /// Whether the bound on rows of one statement cut it short.
        more: bool,
    },
    /// `require`.
    Require {
        /// Left value, sign, right value.
        left: Bytes,
        /// The comparison.
        sign: &'static str,
        /// The right value.
        right: Bytes,
        /// Whether it holds; if not, the transaction was rolled back.
        holds: bool,
    },
    /// `savepoint`.
    Savepoint {
        /// Its name.
        name: String,
    },
    /// `rollback`, or `rollback to`.
    Rollback {
        /// The savepoint; none = the whole transaction.
        to: Option<String>,
    },
    /// `commit`, done.
    Committed(Receipt),
    /// `commit` (or a statement that was a transaction of its own) that did not happen, or perhaps did.
    Ended {
        /// The statement.
        op: &'static str,
        /// `aborted` or `unknown`.
        outcome: &'static str,
        /// A word for programs.
        reason: &'static str,
        /// The reason for people.
        message: String,
        /// The transaction's last attempt, where there was one.
        transaction: Option<AttemptId>,
        /// How many attempts there were.
        attempts: u32,
        /// From the begin of the first, microseconds.
        elapsed_micros: u64,
    },
    /// A statement that cannot be carried out.
    Error {
        /// The statement; empty if it could not be read.
        op: &'static str,
        /// A word for programs.
        error: &'static str,
        /// The reason for people.
        message: String,
        /// The column, if it could not be read.
        column: Option<u32>,
    },
}

/// Bytes for programs: text, or `{"hex": …}` where they are not UTF-8.
fn json_bytes(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Bytes for people, as they can be written in a script.
#[must_use]
pub fn show_bytes(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return format!("x'{}'", hex(bytes));
    };
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '$' | '\\');
    let special = text.starts_with('#') || text.starts_with("x'") || matches!(text, ";" | "·");
    if !text.is_empty() && !special && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut shown = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' => shown.extend(['\\', c]),
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if c.is_ascii_control() => {
                let _ = write!(shown, "\\x{:02x}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown.push('"');
    shown
}

/// An object with its fields in the order given.
fn object(fields: &[(&str, Json)]) -> String {
    let fields = fields
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

fn receipt_fields(receipt: &Receipt) -> Vec<(&'static str, Json)> {
    vec![
        ("outcome", json!("committed")),
        ("txn", json!(receipt.attempt.to_string())),
        ("timestamp", json!(receipt.timestamp.map(|at| at.0))),
        ("attempts", json!(receipt.attempts)),
        ("shards", json!(receipt.shards)),
        ("elapsed_us", json!(micros(receipt))),
    ]
}

fn micros(receipt: &Receipt) -> u64 {
    u64::try_from(receipt.elapsed.as_micros()).unwrap_or(u64::MAX)
}

impl Event {
    /// One JSON object, without a newline.
    #[must_use]
    pub fn json(&self) -> String {
        let mut fields = vec![("line", json!(self.line)), ("op", json!(self.what.op()))];
        fields.extend(self.what.fields());
        object(&fields)
    }

    /// For people; lines without a last newline, or nothing.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.what {
            What::Begin { .. } | What::Savepoint { .. } => String::new(),
            What::Get { key, value, .. } => match value {
                Some(value) => format!("{} = {}", show_bytes(key), show_bytes(value)),
                None => format!("{} not found", show_bytes(key)),
            },
            What::Put { receipt, .. } | What::Delete { receipt, .. } => {
                receipt.as_ref().map_or_else(String::new, committed)
            }
            What::Scan { rows, more } => {
                let row = |(key, value): &(Key, Bytes)| {
                    format!("{} = {}", show_bytes(key), show_bytes(value))
                };
                let mut lines: Vec<String> = rows.iter().map(row).collect();
                if *more {
                    lines.push("… and more: scan on from the last key, or set a limit".to_owned());
                } else if rows.is_empty() {
                    lines.push("no rows".to_owned());
                }
                lines.join("\n")
            }
            What::Require { holds: true, .. } => String::new(),
            What::Require {
                left, sign, right, ..
            } => {
                let (left, right) = (show_bytes(left), show_bytes(right));
                format!(
                    "line {}: require {left} {sign} {right} does not hold",
                    self.line
                )
            }
            What::Rollback { to: Some(name) } => format!("rolled back to {name}"),
            What::Rollback { to: None } => "rolled back".to_owned(),
            What::Committed(receipt) => committed(receipt),
            What::Ended {
                outcome, message, ..
            } => format!("line {}: {outcome}: {message}", self.line),
            What::Error {
                message, column, ..
            } => match column {
                Some(column) => format!("line {}, column {column}: {message}", self.line),
                None => format!("line {}: {message}", self.line),
            },
        }
    }
}

impl What {
    const fn op(&self) -> &'static str {
        match self {
            What::Begin { .. } => "begin",
            What::Get { .. } => "get",
            What::Put { .. } => "put",
            What::Delete { .. } => "delete",
            What::Scan { .. } => "scan",
            What::Require { .. } => "require",
            What::Savepoint { .. } => "savepoint",
            What::Rollback { .. } => "rollback",
            What::Committed(_) => "commit",
            What::Ended { op, .. } | What::Error { op, .. } => op,
        }
    }

    fn fields(&self) -> Vec<(&'static str, Json)> {
        let mut fields = Vec::new();
        match self {
            What::Begin { read_only } => fields.push(("read_only", json!(read_only))),
            What::Get { key, value, found } => {
                fields.push(("key", json_bytes(key)));
                fields.push((
                    "value",
                    value.as_ref().map_or(Json::Null, |v| json_bytes(v)),
                ));
                fields.push(("found", json!(found)));
            }
            What::Put {
                key,
                value,
                receipt,
            } => {
                fields.push(("key", json_bytes(key)));
                fields.push(("value", json_bytes(value)));
                fields.extend(receipt.iter().flat_map(receipt_fields));
            }
            What::Delete { key, receipt } => {
                fields.push(("key", json_bytes(key)));
                fields.extend(receipt.iter().flat_map(receipt_fields));
            }
            What::Scan { rows, more } => {
                let row = |(key, value): &(Key, Bytes)| json!({ "key": json_bytes(key), "value": json_bytes(value) });
                fields.push(("rows", rows.iter().map(row).collect()));
                fields.push(("more", json!(more)));
            }
            What::Require {
                left,
                sign,
                right,
                holds,
            } => {
                fields.push(("left", json_bytes(left)));
                fields.push(("comparison", json!(sign)));
                fields.push(("right", json_bytes(right)));
                fields.push(("holds", json!(holds)));
                if !holds {
                    fields.push(("error", json!("require")));
                }
            }
            What::Savepoint { name } => fields.push(("name", json!(name))),
            What::Rollback { to } => fields.extend(to.iter().map(|name| ("to", json!(name)))),
            What::Committed(receipt) => fields = receipt_fields(receipt),
            What::Ended {
                outcome,
                reason,
                message,
                transaction,
                attempts,
                elapsed_micros,
                ..
            } => {
                fields.push(("outcome", json!(outcome)));
                fields.push(("reason", json!(reason)));
                fields.push(("message", json!(message)));
                fields.push(("txn", json!(transaction.map(|id| id.to_string()))));
                fields.push(("attempts", json!(attempts)));
                fields.push(("elapsed_us", json!(elapsed_micros)));
            }
            What::Error {
                error,
                message,
                column,
                ..
            } => {
                fields.extend(column.iter().map(|column| ("column", json!(column))));
                fields.push(("error", json!(error)));
                fields.push(("message", json!(message)));
            }
        }
        fields
    }
}

fn committed(receipt: &Receipt) -> String {
    let plural = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let at = receipt
        .timestamp
        .map_or(String::new(), |at| format!(" at {}", at.0));
    format!(
        "committed{at} (transaction {}, {}, {}, {:.1} ms)",
        receipt.attempt,
        plural(receipt.shards, "shard"),
        plural(receipt.attempts, "attempt"),
        receipt.elapsed.as_secs_f64() * 1e3,
    )
}
