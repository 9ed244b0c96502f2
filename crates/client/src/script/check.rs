//! What can be known to be wrong before anything is sent.

use super::ScriptError;
use super::syntax::{Expression, Op, Part, Statement, Text};
use std::collections::BTreeSet;
use synod_shard::RESERVED_PREFIX;
use synod_txn::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Rows of one scan statement, at most.
pub(super) const MAX_ROWS: u64 = 100_000;

/// Goes through a script in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Checker {
    /// The transaction that is open.
    open: Option<Open>,
    variables: BTreeSet<String>,
    /// A line could not be read, so what follows may be less wrong than it seems.
    lenient: bool,
}

#[derive(Clone, Debug)]
struct Open {
    line: u32,
    column: u32,
    read_only: bool,
    savepoints: Vec<String>,
}

impl Checker {
    /// Check the next statement.
    pub(super) fn check(&mut self, statement: &Statement) -> Result<(), ScriptError> {
        let error = |column: u32, message: String| {
            Err(ScriptError {
                line: statement.line,
                column,
                message,
            })
        };
        for text in statement.op.texts() {
            if let Some(name) = self.unknown_variable(text) {
                let message = format!("no variable {name} yet: set it with let {name} = get <key>");
                return error(text.column, message);
            }
        }
        if let Err((column, message)) = bounds(&statement.op) {
            return error(column, message);
        }
        if let Err(message) = self.place(statement) {
            return error(statement.column, message);
        }
        if let Op::Get {
            variable: Some(name),
            ..
        } = &statement.op
        {
            self.variables.insert(name.clone());
        }
        Ok(())
    }

    /// Where the statement stands.
    fn place(&mut self, statement: &Statement) -> Result<(), String> {
        match (&statement.op, &mut self.open) {
            (Op::Begin { .. }, Some(open)) => {
                return Err(format!(
                    "the transaction begun on line {} is still open: commit or rollback first",
                    open.line
                ));
            }
            (Op::Begin { read_only }, None) => {
                self.open = Some(Open {
                    line: statement.line,
                    column: statement.column,
                    read_only: *read_only,
                    savepoints: Vec::new(),
                });
            }
            (
                op @ (Op::Require { .. } | Op::Savepoint { .. } | Op::Rollback { .. } | Op::Commit),
                None,
            ) if !self.lenient => {
                return Err(format!("{} needs a transaction: begin first", op.name()));
            }
            (
                Op::Get {
                    for_update: true, ..
                },
                None,
            ) => {
                return Err("for update needs a transaction: begin first".to_owned());
            }
            (op @ (Op::Put { .. } | Op::Delete { .. }), Some(open)) if open.read_only => {
                return Err(format!("{} in a read-only transaction", op.name()));
            }
            (
                Op::Get {
                    for_update: true, ..
                },
                Some(open),
            ) if open.read_only => {
                return Err("for update in a read-only transaction".to_owned());
            }
            (Op::Savepoint { name }, Some(open)) => open.savepoints.push(name.clone()),
            (Op::Rollback { to: Some(name) }, Some(open)) => {
                // As the transaction does: later savepoints are gone.
                match open.savepoints.iter().rposition(|known| known == name) {
                    Some(at) => open.savepoints.truncate(at + 1),
                    None if self.lenient => {}
                    None => return Err(format!("no savepoint {name} in this transaction")),
                }
            }
            (Op::Rollback { to: None } | Op::Commit, Some(_)) => self.open = None,
            _ => {}
        }
        Ok(())
    }

    /// A line could not be read: whatever it would have begun or set is not
    /// missed later on.
    pub(super) fn forgive(&mut self, line: &str) {
        self.lenient = true;
        let mut words = line.split_whitespace();
        match words.next() {
            Some("let") => self.variables.extend(words.next().map(str::to_owned)),
            Some("commit" | "rollback") => self.open = None,
            _ => {}
        }
    }

    /// The script ends here.
    pub(super) fn finish(&self) -> Result<(), ScriptError> {
        match &self.open {
            Some(open) if !self.lenient => Err(ScriptError {
                line: open.line,
                column: open.column,
                message: "this transaction is never ended: add commit or rollback".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn unknown_variable(&self, text: &Text) -> Option<String> {
        let mut names = Vec::new();
        for part in &text.parts {
            if let Part::Expression(expression) = part {
                variables_of(expression, &mut names);
            }
        }
        names
            .into_iter()
            .find(|name| !self.variables.contains(name))
    }
}

fn variables_of(expression: &Expression, names: &mut Vec<String>) {
    match expression {
        Expression::Integer(_) => {}
        Expression::Variable(name) => names.push(name.clone()),
        Expression::Negate(inner) => variables_of(inner, names),
        Expression::Binary(left, _, right) => {
            variables_of(left, names);
            variables_of(right, names);
        }
    }
}

/// Bounds of what is written down literally; the rest shows when it runs.
fn bounds(op: &Op) -> Result<(), (u32, String)> {
    match op {
        Op::Get { key, .. } | Op::Delete { key } => key_bounds(key),
        Op::Put { key, value } => {
            key_bounds(key)?;
            match value.literal() {
                Some(bytes) if bytes.len() > MAX_VALUE_BYTES => Err((
                    value.column,
                    format!(
                        "a value has at most {MAX_VALUE_BYTES} bytes, this one {}",
                        bytes.len()
                    ),
                )),
                _ => Ok(()),
            }
        }
        Op::Scan {
            limit: Some(limit), ..
        } => match limit.literal() {
            Some(bytes) => row_limit(&bytes).map(drop).map_err(|e| (limit.column, e)),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn key_bounds(key: &Text) -> Result<(), (u32, String)> {
    let Some(bytes) = key.literal() else {
        return Ok(());
    };
    let message = if bytes.is_empty() || bytes.len() > MAX_KEY_BYTES {
        format!(
            "a key has 1 to {MAX_KEY_BYTES} bytes, this one {}",
            bytes.len()
        )
    } else if bytes.starts_with(RESERVED_PREFIX) {
        "keys that begin with the bytes ff ff are reserved for the cluster".to_owned()
    } else {
        return Ok(());
    };
    Err((key.column, message))
}

/// A scan's limit from its text.
pub(super) fn row_limit(bytes: &[u8]) -> Result<u64, String> {
    super::expression::as_integer(bytes)
        .and_then(|rows| u64::try_from(rows).ok())
        .filter(|rows| (1..=MAX_ROWS).contains(rows))
        .ok_or_else(|| format!("limit takes a number of rows from 1 to {MAX_ROWS}"))
}
