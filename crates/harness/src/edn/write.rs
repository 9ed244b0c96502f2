//! From transactions to events.

use crate::history::{History, ListOp, Outcome, RwOp, Seen, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write};

/// An operation that has a form in such histories.
pub trait Recorded {
    /// Its function, key, and value; a read's value only if it is `answered`.
    fn parts(&self, answered: bool) -> (&'static str, u64, Parts<'_>);
}

/// The value of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts<'a> {
    /// No answer, or in registers: nothing there.
    Nil,
    /// An element or a value.
    One(u64),
    /// A list.
    Many(&'a [u64]),
}

impl Recorded for ListOp {
    fn parts(&self, answered: bool) -> (&'static str, u64, Parts<'_>) {
        match self {
            ListOp::Append { key, value } => ("append", *key, Parts::One(*value)),
            ListOp::Read {
                key,
                list: Some(list),
            } if answered => ("r", *key, Parts::Many(list)),
            ListOp::Read { key, .. } => ("r", *key, Parts::Nil),
        }
    }
}

impl Recorded for RwOp {
    fn parts(&self, answered: bool) -> (&'static str, u64, Parts<'_>) {
        match *self {
            RwOp::Write { key, value } => ("w", key, Parts::One(value)),
            RwOp::Read {
                key,
                seen: Seen::Value(value),
            } if answered => ("r", key, Parts::One(value)),
            RwOp::Read { key, .. } => ("r", key, Parts::Nil),
        }
    }
}

/// Writes the history in Jepsen's EDN form, one event per line.
///
/// # Errors
/// When the writer fails.
pub fn write_edn<Op: Recorded>(history: &History<Op>, out: &mut dyn Write) -> io::Result<()> {
    write(history, out, Form::Edn)
}

/// Writes the same events as JSON lines.
///
/// # Errors
/// When the writer fails.
pub fn write_json<Op: Recorded>(history: &History<Op>, out: &mut dyn Write) -> io::Result<()> {
    write(history, out, Form::Json)
}

#[derive(Clone, Copy)]
enum Form {
    Edn,
    Json,
}

fn write<Op: Recorded>(history: &History<Op>, out: &mut dyn Write, form: Form) -> io::Result<()> {
    let mut processes = Processes::new(&history.transactions);
    for (index, event) in events(&history.transactions).into_iter().enumerate() {
        let transaction = &history.transactions[event.transaction];
        let process = match event.is_end {
            false => processes.begin(event.transaction, transaction.process),
            true => processes.end(event.transaction, transaction),
        };
        let line = line(index, &event, process, transaction, form);
        out.write_all(line.as_bytes())?;
    }
    Ok(())
}

struct Event {
    time: u64,
    is_end: bool,
    transaction: usize,
}

/// All events in order. Of one moment, begins come first, as nothing is known to
/// have come before what happened at the same time.
fn events<Op>(history: &[Transaction<Op>]) -> Vec<Event> {
    let mut events = Vec::with_capacity(history.len() * 2);
    for (index, transaction) in history.iter().enumerate() {
        events.push(Event {
            time: transaction.invoked,
            is_end: false,
            transaction: index,
        });
        events.push(Event {
            time: transaction.completed.max(transaction.invoked),
            is_end: true,
            transaction: index,
        });
    }
    events.sort_by_key(|event| (event.time, event.is_end, event.transaction));
    events
}

/// Which process stands for a client: its own number, and new ones after a crash
/// and while it is busy.
struct Processes {
    next: u64,
    idle: BTreeMap<u32, BTreeSet<u64>>,
    of: Vec<u64>,
}

impl Processes {
    fn new<Op>(history: &[Transaction<Op>]) -> Processes {
        let clients = history.iter().map(|t| t.process);
        Processes {
            next: clients
                .clone()
                .max()
                .map_or(0, |highest| u64::from(highest) + 1),
            idle: clients
                .map(|c| (c, BTreeSet::from([u64::from(c)])))
                .collect(),
            of: vec![0; history.len()],
        }
    }

    fn begin(&mut self, transaction: usize, client: u32) -> u64 {
        let idle = self.idle.entry(client).or_default();
        self.of[transaction] = idle.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.of[transaction]
    }

    fn end<Op>(&mut self, index: usize, transaction: &Transaction<Op>) -> u64 {
        let process = self.of[index];
        if transaction.outcome != Outcome::Unknown {
            self.idle
                .entry(transaction.process)
                .or_default()
                .insert(process);
        }
        process
    }
}

fn line<Op: Recorded>(
    index: usize,
    event: &Event,
    process: u64,
    transaction: &Transaction<Op>,
    form: Form,
) -> String {
    let kind = match (event.is_end, transaction.outcome) {
        (false, _) => "invoke",
        (true, Outcome::Committed(_)) => "ok",
        (true, Outcome::Aborted) => "fail",
        (true, Outcome::Unknown) => "info",
    };
    let name = |name: &str| match form {
        Form::Edn => format!(":{name}"),
        Form::Json => format!("\"{name}\""),
    };
    let field = |text: &mut String, key: &str, value: &str| {
        let separator = match form {
            Form::Edn => " ",
            Form::Json => ": ",
        };
        let comma = if text.len() > 1 { ", " } else { "" };
        text.push_str(comma);
        text.push_str(&name(key));
        text.push_str(separator);
        text.push_str(value);
    };
    let mut text = String::from("{");
    field(&mut text, "index", &index.to_string());
    field(&mut text, "type", &name(kind));
    field(&mut text, "f", &name("txn"));
    field(&mut text, "process", &process.to_string());
    field(&mut text, "time", &event.time.to_string());
    field(&mut text, "value", &mops(transaction, kind == "ok", form));
    if process != u64::from(transaction.process) {
        field(&mut text, "client", &transaction.process.to_string());
    }
    if let (true, Outcome::Committed(Some(timestamp))) = (event.is_end, transaction.outcome) {
        field(&mut text, "timestamp", &timestamp.to_string());
    }
    text.push_str("}\n");
    text
}

fn mops<Op: Recorded>(transaction: &Transaction<Op>, answered: bool, form: Form) -> String {
    let (separator, nil) = match form {
        Form::Edn => (" ", "nil"),
        Form::Json => (", ", "null"),
    };
    let mut text = String::from("[");
    for (i, op) in transaction.ops.iter().enumerate() {
        if i > 0 {
            text.push_str(separator);
        }
        let (function, key, value) = op.parts(answered);
        let function = match form {
            Form::Edn => format!(":{function}"),
            Form::Json => format!("\"{function}\""),
        };
        text.push_str(&format!("[{function}{separator}{key}{separator}"));
        match value {
            Parts::Nil => text.push_str(nil),
            Parts::One(value) => write!(text, "{value}").unwrap_or_default(),
            Parts::Many(list) => {
                text.push('[');
                for (i, element) in list.iter().enumerate() {
                    let before = if i > 0 { separator } else { "" };
                    write!(text, "{before}{element}").unwrap_or_default();
                }
                text.push(']');
            }
        }
        text.push(']');
    }
    text.push(']');
    text
}
