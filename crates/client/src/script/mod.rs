//! The language of `synod txn` and `synod shell`: scripts of transactions.
//!
//! One statement a line; a word that is only `·` or `;` also ends a statement.
//! `#` at the beginning of a word starts a comment.
//!
//! ```text
//! begin                                   # or: begin read-only
//!   let a = get accounts/alice for update default 0
//!   require ${a} >= 30                    # else the transaction is rolled back
//!   put accounts/alice ${a - 30}
//!   delete holds/42
//!   scan accounts/ limit 10               # a prefix; or: scan <from> <to> [limit n] [reverse]
//!   savepoint s1
//!   rollback to s1
//! commit                                  # or: rollback
//! ```
//!
//! - **Byte strings**: bare words, `"quoted \x00 \" \\ \n \t \$"`, `x'00ff'`.
//!   After a scan's first operand the bare words `limit` and `reverse` are
//!   keywords; so are `for` and `default` after a get's key. Quote a key that looks like one.
//! - **`${…}`** in bare and quoted words: a variable's bytes, or integer
//!   arithmetic (64 bits, checked) with `+ - * / %` and parentheses.
//! - **`require`** compares as integers if both sides are; else `==` and `!=`
//!   compare bytes, and the others are an error.
//! - **Variables** live from their `let` to the end of the script; those set by
//!   a transaction that was rolled back have no value.
//! - **Outside `begin … commit`** each `get`, `scan`, `let`, `put` and `delete`
//!   is a transaction of its own.
//!
//! A script is checked as a whole before anything is sent ([`parse`]). [`run`]
//! tries each transaction again as a whole after a conflict, tells the events
//! of the attempt that counted, and goes on after a transaction that was
//! aborted; it stops at an unknown outcome and where no cluster answers. A
//! [`Session`] answers each statement at once, so it cannot try again unseen:
//! a conflict ends its transaction, and the statements up to `commit` or
//! `rollback` are answered with an error.
//!
//! Not here: `begin read-only at`, `begin read-only stale` and `begin
//! optimistic` are understood and refused.

mod check;
mod event;
mod execute;
mod expression;
mod lexer;
mod parser;
mod run;
mod session;
mod syntax;

#[cfg(test)]
mod tests;

pub use event::{Event, What, show_bytes};
pub use execute::ExitStatus;
pub use run::run;
pub use session::Session;
pub use syntax::Script;

use check::Checker;

/// A mistake in a script, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ScriptError {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Mistakes of one script that are told, at most.
const MAX_MISTAKES: usize = 20;

/// Read and check a whole script.
///
/// # Errors
/// Its mistakes, in order; the first twenty.
pub fn parse(text: &str) -> Result<Script, Vec<ScriptError>> {
    let mut mistakes = Vec::new();
    let mut statements = Vec::new();
    let mut checker = Checker::default();
    let mut number = 0;
    for line in text.lines() {
        number += 1;
        match parser::parse_line(number, line) {
            Ok(parsed) => {
                for statement in parsed {
                    match checker.check(&statement) {
                        Ok(()) => statements.push(statement),
                        Err(mistake) => mistakes.push(mistake),
                    }
                }
            }
            Err(mistake) => {
                checker.forgive(line);
                mistakes.push(mistake);
            }
        }
        if mistakes.len() >= MAX_MISTAKES {
            return Err(mistakes);
        }
    }
    if let Err(mistake) = checker.finish() {
        mistakes.push(mistake);
    }
    if mistakes.is_empty() {
        Ok(Script { statements })
    } else {
        Err(mistakes)
    }
}
