//! Statement by statement: `synod shell`, and `synod txn --json -`.

use super::check::Checker;
use super::event::{Event, What};
use super::execute::{Carrier, ExitStatus, Halt, ended, failed, status, step};
use super::expression::Variables;
use super::parser::parse_line;
use super::syntax::{Op, Statement};
use crate::{AttemptId, Client, Transaction};
use std::time::Instant;

/// A conversation: each line is answered before the next one is read.
pub struct Session {
    client: Client,
    checker: Checker,
    variables: Variables,
    open: Option<Open>,
    line: u32,
    worst: ExitStatus,
}

/// The transaction under way.
struct Open {
    id: AttemptId,
    begun: Instant,
    /// None once it was ended by something.
    txn: Option<Transaction>,
    /// What ended it before its `commit`.
    halt: Option<Halt>,
    /// Variables set in it, to be unset if it does not happen.
    set: Vec<String>,
}

impl Session {
    /// A new conversation.
    #[must_use]
    pub fn new(client: Client) -> Session {
        Session {
            client,
            checker: Checker::default(),
            variables: Variables::new(),
            open: None,
            line: 0,
            worst: ExitStatus::Committed,
        }
    }

    /// Whether a transaction is open: `begin` without its end.
    #[must_use]
    pub const fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// How it went so far.
    #[must_use]
    pub const fn status(&self) -> ExitStatus {
        self.worst
    }

    /// Carry out the statements of the next line; one event for each.
    pub async fn execute(&mut self, line: &str) -> Vec<Event> {
        self.line = self.line.saturating_add(1);
        let parsed = match parse_line(self.line, line) {
            Ok(parsed) => parsed,
            Err(mistake) => return vec![self.bad("", mistake)],
        };
        let mut events = Vec::new();
        for statement in parsed {
            let event = match self.checker.check(&statement) {
                Ok(()) => {
                    let what = self.statement(&statement).await;
                    let line = statement.line;
                    Event { line, what }
                }
                Err(mistake) => self.bad(statement.op.name(), mistake),
            };
            events.push(event);
        }
        events
    }

    /// The conversation is over: an open transaction is rolled back.
    pub fn finish(&mut self) -> Option<Event> {
        let open = self.open.take()?;
        self.unset(open.set);
        self.worst = self.worst.max(ExitStatus::Aborted);
        Some(Event {
            line: self.line,
            what: What::Rollback { to: None },
        })
    }

    fn bad(&mut self, op: &'static str, mistake: super::ScriptError) -> Event {
        self.worst = self.worst.max(ExitStatus::BadScript);
        let what = What::Error {
            op,
            error: "script",
            message: mistake.message,
            column: Some(mistake.column),
        };
        Event {
            line: mistake.line,
            what,
        }
    }

    async fn statement(&mut self, statement: &Statement) -> What {
        let op = &statement.op;
        match (op, &mut self.open) {
            (Op::Begin { read_only }, _) => {
                let txn = if *read_only {
                    self.client.begin_read_only()
                } else {
                    self.client.begin()
                };
                self.open = Some(Open {
                    id: txn.id(),
                    begun: Instant::now(),
                    txn: Some(txn),
                    halt: None,
                    set: Vec::new(),
                });
                What::Begin {
                    read_only: *read_only,
                }
            }
            (Op::Commit, Some(_)) => self.commit().await,
            (Op::Rollback { to: None }, Some(_)) => {
                let set = self.open.take().map_or_else(Vec::new, |open| open.set);
                self.unset(set);
                What::Rollback { to: None }
            }
            (op, Some(open)) => {
                if let Op::Get {
                    variable: Some(name),
                    ..
                } = op
                {
                    open.set.push(name.clone());
                }
                let Some(txn) = &mut open.txn else {
                    return ignored(op.name());
                };
                match step(Carrier::Transaction(txn), &mut self.variables, op).await {
                    Ok(what) => what,
                    Err(halt) => {
                        let what = failed(op.name(), &halt);
                        self.worst = self.worst.max(status(&halt));
                        open.halt = Some(halt);
                        open.txn = None;
                        what
                    }
                }
            }
            (op, None) => {
                let begun = Instant::now();
                match step(Carrier::Client(&self.client), &mut self.variables, op).await {
                    Ok(what) => what,
                    Err(halt) => {
                        self.worst = self.worst.max(status(&halt));
                        ended(op.name(), &halt, None, 1, begun.elapsed())
                    }
                }
            }
        }
    }

    async fn commit(&mut self) -> What {
        let Some(open) = self.open.take() else {
            return ignored("commit");
        };
        let halt = match (open.txn, open.halt) {
            (Some(txn), _) => match txn.commit().await {
                Ok(receipt) => return What::Committed(receipt),
                Err(error) => Halt::Sdk(error),
            },
            (None, Some(halt)) => halt,
            (None, None) => return ignored("commit"),
        };
        self.unset(open.set);
        self.worst = self.worst.max(status(&halt));
        ended("commit", &halt, Some(open.id), 1, open.begun.elapsed())
    }

    fn unset(&mut self, names: Vec<String>) {
        for name in names {
            self.variables.insert(name, None);
        }
    }
}

fn ignored(op: &'static str) -> What {
    What::Error {
        op,
        error: "aborted",
        message: "ignored: the transaction has ended; commit or rollback, then begin again"
            .to_owned(),
        column: None,
    }
}
