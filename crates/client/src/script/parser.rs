//! From words to statements.

use super::ScriptError;
use super::expression::is_name;
use super::lexer::{Word, words};
use super::syntax::{Comparison, Op, Statement, Text};

/// The statements of a line: none, one, or several with separators between.
pub(super) fn parse_line(line: u32, text: &str) -> Result<Vec<Statement>, ScriptError> {
    let words = words(line, text)?;
    let mut statements = Vec::new();
    for words in words.split(|word| matches!(word.keyword(), Some("·" | ";"))) {
        if let Some(first) = words.first() {
            let end = words.last().map_or(1, |last| last.column() + 1);
            let mut parser = Parser {
                line,
                words,
                next: 0,
                end,
            };
            let op = parser.statement()?;
            parser.end()?;
            statements.push(Statement {
                line,
                column: first.column(),
                op,
            });
        }
    }
    Ok(statements)
}

struct Parser<'w> {
    line: u32,
    words: &'w [Word],
    next: usize,
    /// Where to point when something is missing.
    end: u32,
}

const STATEMENTS: &str =
    "begin, let, get, put, delete, scan, require, savepoint, rollback or commit";

impl<'w> Parser<'w> {
    fn error(&self, column: u32, message: impl Into<String>) -> ScriptError {
        ScriptError {
            line: self.line,
            column,
            message: message.into(),
        }
    }

    fn peek(&self) -> Option<&'w Word> {
        self.words.get(self.next)
    }

    fn here(&self) -> u32 {
        self.peek().map_or(self.end, Word::column)
    }

    /// Take the next word if it is this keyword.
    fn take(&mut self, keyword: &str) -> bool {
        let is = self.peek().and_then(Word::keyword) == Some(keyword);
        self.next += usize::from(is);
        is
    }

    fn word(&mut self, what: &str) -> Result<&'w Word, ScriptError> {
        let Some(word) = self.peek() else {
            return Err(self.error(self.end, format!("expected {what}")));
        };
        self.next += 1;
        Ok(word)
    }

    fn text(&mut self, what: &str) -> Result<Text, ScriptError> {
        Ok(self.word(what)?.text.clone())
    }

    /// The name of a variable or savepoint.
    fn name(&mut self, what: &str) -> Result<String, ScriptError> {
        let word = self.word(what)?;
        let starts = |c: char| is_name(c) && !c.is_ascii_digit();
        match word.keyword() {
            Some(name) if name.starts_with(starts) && name.chars().all(is_name) => {
                Ok(name.to_owned())
            }
            _ => {
                let message = format!("expected {what}: letters, digits and _, no digit first");
                Err(self.error(word.column(), message))
            }
        }
    }

    fn end(&self) -> Result<(), ScriptError> {
        match self.peek() {
            None => Ok(()),
            Some(word) => {
                let message = "nothing more was expected on this line; quote strings with spaces";
                Err(self.error(word.column(), message))
            }
        }
    }

    fn statement(&mut self) -> Result<Op, ScriptError> {
        let word = self.word("a statement")?;
        match word.keyword() {
            Some("begin") => self.begin(),
            Some("let") => self.assign(),
            Some("get") => self.get(None),
            Some("put") => Ok(Op::Put {
                key: self.text("a key")?,
                value: self.text("a value")?,
            }),
            Some("delete") => Ok(Op::Delete {
                key: self.text("a key")?,
            }),
            Some("scan") => self.scan(),
            Some("require") => self.require(),
            Some("savepoint") => Ok(Op::Savepoint {
                name: self.name("a savepoint's name")?,
            }),
            Some("rollback") => self.rollback(),
            Some("commit") => Ok(Op::Commit),
            other => {
                let found =
                    other.map_or(String::new(), |word| format!("{word:?} is no statement: "));
                Err(self.error(word.column(), format!("{found}expected {STATEMENTS}")))
            }
        }
    }

    fn begin(&mut self) -> Result<Op, ScriptError> {
        let at = self.here();
        if self.take("optimistic") {
            return Err(self.error(
                at,
                "optimistic transactions are not in this version: use begin",
            ));
        }
        if !self.take("read-only") {
            return Ok(Op::Begin { read_only: false });
        }
        let at = self.here();
        let past = if self.take("at") {
            self.text("a timestamp")?;
            "reading at a timestamp"
        } else if self.take("stale") {
            self.text("a duration, as 5s")?;
            "stale reading"
        } else {
            return Ok(Op::Begin { read_only: true });
        };
        Err(self.error(
            at,
            format!("{past} is not in this version: use begin read-only"),
        ))
    }

    fn assign(&mut self) -> Result<Op, ScriptError> {
        let name = self.name("a variable's name")?;
        let at = self.here();
        if !self.take("=") {
            return Err(self.error(at, "expected = after the variable's name"));
        }
        let at = self.here();
        if !self.take("get") {
            return Err(self.error(at, "expected get: a variable is set by let … = get <key>"));
        }
        self.get(Some(name))
    }

    fn get(&mut self, variable: Option<String>) -> Result<Op, ScriptError> {
        let key = self.text("a key")?;
        let for_update = self.take("for");
        let at = self.here();
        if for_update && !self.take("update") {
            return Err(self.error(at, "expected update after for"));
        }
        let default = if self.take("default") {
            Some(self.text("a default value")?)
        } else {
            None
        };
        Ok(Op::Get {
            variable,
            key,
            for_update,
            default,
        })
    }

    fn scan(&mut self) -> Result<Op, ScriptError> {
        let from = self.text("a prefix, or the first key")?;
        let option = |word: &Word| matches!(word.keyword(), Some("limit" | "reverse"));
        let to = match self.peek() {
            Some(word) if !option(word) => Some(self.text("the end of the range")?),
            _ => None,
        };
        let mut limit = None;
        let mut reverse = false;
        loop {
            let at = self.here();
            if self.take("limit") {
                if limit.is_some() {
                    return Err(self.error(at, "limit is given twice"));
                }
                limit = Some(self.text("a number of rows")?);
            } else if self.take("reverse") {
                if reverse {
                    return Err(self.error(at, "reverse is given twice"));
                }
                reverse = true;
            } else {
                return Ok(Op::Scan {
                    from,
                    to,
                    limit,
                    reverse,
                });
            }
        }
    }

    fn require(&mut self) -> Result<Op, ScriptError> {
        let left = self.text("a value to compare")?;
        let word = self.word("a comparison: == != < <= > or >=")?;
        let found = Comparison::ALL
            .iter()
            .find(|(sign, _)| word.keyword() == Some(*sign));
        let Some((_, comparison)) = found else {
            let message = "expected a comparison: == != < <= > or >=, with spaces around it";
            return Err(self.error(word.column(), message));
        };
        Ok(Op::Require {
            left,
            comparison: *comparison,
            right: self.text("a value to compare with")?,
        })
    }

    fn rollback(&mut self) -> Result<Op, ScriptError> {
        let to = if self.take("to") {
            Some(self.name("a savepoint's name")?)
        } else {
            None
        };
        Ok(Op::Rollback { to })
    }
}
