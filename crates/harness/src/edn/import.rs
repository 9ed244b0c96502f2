//! From events to transactions.

use super::value::Value;
use super::{AnyHistory, HistoryError, MAX_EVENTS};
use crate::history::{History, ListOp, Outcome, RwOp, Seen, Transaction};
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, HistoryError>;

/// What a read saw, before it is known what kind of history this is.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Nil,
    One(u64),
    Many(Vec<u64>),
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Append(u64),
    Write(u64),
    Read(Answer),
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
struct Mop {
    key: u64,
    action: Action,
}

/// A moment: by the clock, if told, and by the order of events.
#[derive(Clone, Copy)]
struct Moment {
    time: Option<u64>,
    position: u64,
}

struct Draft {
    line: usize,
    process: u32,
    invoked: Moment,
    completed: Moment,
    outcome: Outcome,
    ops: Vec<Mop>,
}

/// Where a process is.
enum State {
    /// Runs the draft of this index.
    Busy(usize),
    Idle,
    /// Its last transaction ended with `:info`, on this line.
    Crashed(usize),
}

/// A history as far as it is read.
#[derive(Default)]
pub(super) struct Import {
    drafts: Vec<Draft>,
    processes: BTreeMap<u64, State>,
    events: u64,
    untimed: bool,
    appends: Option<usize>,
    writes: Option<usize>,
    /// Whether a read saw a list, or a single value.
    lists: Option<usize>,
    values: Option<usize>,
}

fn fail<T>(line: usize, problem: impl Into<String>) -> Result<T> {
    Err(HistoryError::Event {
        line,
        problem: problem.into(),
    })
}

/// The fields of an event that matter.
struct Fields<'a> {
    line: usize,
    entries: &'a [(Value, Value)],
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        let entry = self
            .entries
            .iter()
            .find(|(key, _)| key.name() == Some(name));
        entry.map(|(_, value)| value).filter(|v| **v != Value::Nil)
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        self.get(name)
            .map(|value| number(self.line, name, value))
            .transpose()
    }
}

fn number(line: usize, what: &str, value: &Value) -> Result<u64> {
    match value {
        Value::Int(number) => match u64::try_from(*number) {
            Ok(number) => Ok(number),
            Err(_) => fail(
                line,
                format!("{what} is {number}, not an integer from 0 to 2^64 - 1"),
            ),
        },
        other => fail(line, format!("{what} is {}, not an integer", other.kind())),
    }
}

impl Import {
    /// Adds the event that begins on `line`.
    pub(super) fn event(&mut self, line: usize, event: Value) -> Result<()> {
        let Value::Map(entries) = event else {
            return fail(line, format!("it is {}, not a map", event.kind()));
        };
        let fields = Fields {
            line,
            entries: &entries,
        };
        if self.events >= MAX_EVENTS as u64 {
            return fail(
                line,
                format!("it is one more than the limit of {MAX_EVENTS}"),
            );
        }
        let process = match fields.get("process") {
            Some(Value::Keyword(_) | Value::Text(_) | Value::Symbol(_)) => return Ok(()),
            Some(process) => number(line, "process", process)?,
            None => return fail(line, "it has no :process"),
        };
        let moment = Moment {
            time: fields.number("time")?,
            position: self.events,
        };
        self.events += 1;
        self.untimed |= moment.time.is_none();
        match fields.get("type").and_then(Value::name) {
            Some("invoke") => self.invoke(&fields, process, moment),
            Some("ok") => {
                let timestamp = fields.number("timestamp")?;
                self.complete(&fields, process, moment, Outcome::Committed(timestamp))
            }
            Some("fail") => self.complete(&fields, process, moment, Outcome::Aborted),
            Some("info") => self.complete(&fields, process, moment, Outcome::Unknown),
            Some(other) => fail(
                line,
                format!("its :type is {other}, not one of invoke, ok, fail, info"),
            ),
            None => fail(line, "it has no :type"),
        }
    }

    fn invoke(&mut self, fields: &Fields<'_>, process: u64, invoked: Moment) -> Result<()> {
        let line = fields.line;
        match self.processes.get(&process) {
            None | Some(State::Idle) => {}
            Some(State::Busy(open)) => {
                let open = self.drafts[*open].line;
                return fail(
                    line,
                    format!("process {process} has not completed what it invoked on line {open}"),
                );
            }
            Some(State::Crashed(crash)) => {
                return fail(
                    line,
                    format!(
                        "process {process} ended with :info on line {crash}; what goes on in its \
                         place needs a new number"
                    ),
                );
            }
        }
        let client = fields.number("client")?.unwrap_or(process);
        let Ok(client) = u32::try_from(client) else {
            return fail(line, format!("the process {client} is above 2^32 - 1"));
        };
        let ops = self.mops(fields)?.unwrap_or_default();
        self.processes
            .insert(process, State::Busy(self.drafts.len()));
        self.drafts.push(Draft {
            line,
            process: client,
            invoked,
            completed: invoked,
            outcome: Outcome::Unknown,
            ops,
        });
        Ok(())
    }

    fn complete(
        &mut self,
        fields: &Fields<'_>,
        process: u64,
        completed: Moment,
        outcome: Outcome,
    ) -> Result<()> {
        let line = fields.line;
        let Some(State::Busy(index)) = self.processes.get(&process) else {
            return fail(
                line,
                format!("process {process} completes what it did not invoke"),
            );
        };
        let index = *index;
        let is_ok = matches!(outcome, Outcome::Committed(_));
        let answers = if is_ok { self.mops(fields)? } else { None };
        let draft = &mut self.drafts[index];
        if is_ok {
            let Some(answers) = answers else {
                return fail(line, "it is :ok, but its :value tells no operations");
            };
            if !draft.ops.is_empty() && !agree(&draft.ops, &answers) {
                return fail(
                    line,
                    format!(
                        "its operations are not those invoked on line {}",
                        draft.line
                    ),
                );
            }
            draft.ops = answers;
        }
        if completed.time < draft.invoked.time {
            return fail(
                line,
                format!("it happened before its invocation on line {}", draft.line),
            );
        }
        draft.completed = completed;
        draft.outcome = outcome;
        let state = match outcome {
            Outcome::Unknown => State::Crashed(line),
            _ => State::Idle,
        };
        self.processes.insert(process, state);
        Ok(())
    }

    /// The operations of `:value`; none if it is nil.
    fn mops(&mut self, fields: &Fields<'_>) -> Result<Option<Vec<Mop>>> {
        let line = fields.line;
        match fields.get("value") {
            None => Ok(None),
            Some(Value::Sequence(all)) => all
                .iter()
                .map(|mop| self.mop(line, mop))
                .collect::<Result<_>>()
                .map(Some),
            Some(other) => fail(
                line,
                format!("its :value is {}, not a vector of operations", other.kind()),
            ),
        }
    }

    fn mop(&mut self, line: usize, mop: &Value) -> Result<Mop> {
        let Value::Sequence(parts) = mop else {
            return fail(
                line,
                format!("an operation is {}, not a vector", mop.kind()),
            );
        };
        let [function, key, value] = &parts[..] else {
            return fail(
                line,
                format!(
                    "an operation has {} parts, not three as in [:r 5 nil]",
                    parts.len()
                ),
            );
        };
        let key = number(line, "a key", key)?;
        let action = match function.name() {
            Some("append") => {
                self.appends = self.appends.or(Some(line));
                Action::Append(number(line, "an element", value)?)
            }
            Some("w") => {
                self.writes = self.writes.or(Some(line));
                Action::Write(number(line, "a value", value)?)
            }
            Some("r") => Action::Read(match value {
                Value::Nil => Answer::Nil,
                Value::Sequence(all) => {
                    self.lists = self.lists.or(Some(line));
                    let element = |value| number(line, "an element", value);
                    Answer::Many(all.iter().map(element).collect::<Result<_>>()?)
                }
                one => {
                    self.values = self.values.or(Some(line));
                    Answer::One(number(line, "a value read", one)?)
                }
            }),
            other => {
                let other = other.map_or_else(|| function.kind().to_owned(), |f| format!(":{f}"));
                return fail(
                    line,
                    format!("an operation is {other}, not :append, :w or :r"),
                );
            }
        };
        Ok(Mop { key, action })
    }

    /// The history, once all events are added.
    pub(super) fn finish(self) -> Result<AnyHistory> {
        let of_lists = self.appends.or(self.lists);
        let of_registers = self.writes.or(self.values);
        if let (Some(list), Some(register)) = (of_lists, of_registers) {
            return fail(
                list.max(register),
                format!(
                    "lists and registers are mixed: line {list} has an operation on a list, line \
                     {register} one on a register"
                ),
            );
        }
        let untimed = self.untimed;
        let drafts = self.drafts.into_iter();
        Ok(if of_registers.is_some() {
            AnyHistory::Registers(History {
                transactions: drafts
                    .map(|d| d.transaction(untimed, register_op))
                    .collect(),
            })
        } else {
            AnyHistory::Lists(History {
                transactions: drafts.map(|d| d.transaction(untimed, list_op)).collect(),
            })
        })
    }
}

impl Draft {
    fn transaction<Op>(self, untimed: bool, op: fn(Mop, bool) -> Op) -> Transaction<Op> {
        let at = |moment: Moment| match moment.time {
            Some(time) if !untimed => time,
            _ => moment.position,
        };
        let answered = matches!(self.outcome, Outcome::Committed(_));
        Transaction {
            process: self.process,
            invoked: at(self.invoked),
            completed: at(self.completed),
            outcome: self.outcome,
            ops: self.ops.into_iter().map(|mop| op(mop, answered)).collect(),
        }
    }
}

/// Whether the completed operations are the invoked ones, reads filled in.
fn agree(invoked: &[Mop], completed: &[Mop]) -> bool {
    let same = |(a, b): (&Mop, &Mop)| {
        let both_read = matches!((&a.action, &b.action), (Action::Read(_), Action::Read(_)));
        a.key == b.key && (both_read || a.action == b.action)
    };
    invoked.len() == completed.len() && invoked.iter().zip(completed).all(same)
}

fn list_op(mop: Mop, answered: bool) -> ListOp {
    let key = mop.key;
    match mop.action {
        // What was written to a register is not taken for lists (`finish`).
        Action::Append(value) | Action::Write(value) => ListOp::Append { key, value },
        Action::Read(_) if !answered => ListOp::Read { key, list: None },
        Action::Read(Answer::Many(list)) => ListOp::Read {
            key,
            list: Some(list),
        },
        Action::Read(_) => ListOp::Read {
            key,
            list: Some(Vec::new()),
        },
    }
}

fn register_op(mop: Mop, answered: bool) -> RwOp {
    let key = mop.key;
    match mop.action {
        Action::Append(value) | Action::Write(value) => RwOp::Write { key, value },
        Action::Read(answer) => RwOp::Read {
            key,
            seen: match answer {
                _ if !answered => Seen::Unanswered,
                Answer::One(value) => Seen::Value(value),
                Answer::Nil | Answer::Many(_) => Seen::Nothing,
            },
        },
    }
}
