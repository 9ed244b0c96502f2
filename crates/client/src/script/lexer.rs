//! From a line to words.

use super::ScriptError;
use super::expression;
use super::syntax::{Part, Text};

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: Text,
    /// Neither quoted nor hex: may be a keyword.
    pub(super) bare: bool,
}

impl Word {
    /// The word as it stands, if it may be a keyword.
    pub(super) fn keyword(&self) -> Option<&str> {
        match &self.text.parts[..] {
            [Part::Literal(bytes)] if self.bare => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(super) const fn column(&self) -> u32 {
        self.text.column
    }
}

/// Characters of one line, with their place.
pub(super) struct Cursor<'a> {
    line: u32,
    column: u32,
    rest: std::str::Chars<'a>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(line: u32, text: &'a str) -> Cursor<'a> {
        Cursor {
            line,
            column: 1,
            rest: text.chars(),
        }
    }

    pub(super) const fn column(&self) -> u32 {
        self.column
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    pub(super) fn starts_with(&self, text: &str) -> bool {
        self.rest.as_str().starts_with(text)
    }

    pub(super) fn take(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.column = self.column.saturating_add(next.is_some().into());
        next
    }

    /// Take a character if it is this one.
    pub(super) fn take_if(&mut self, wanted: char) -> bool {
        let is = self.peek() == Some(wanted);
        if is {
            self.take();
        }
        is
    }

    pub(super) fn skip_spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.take();
        }
    }

    pub(super) fn error(&self, column: u32, message: impl Into<String>) -> ScriptError {
        ScriptError {
            line: self.line,
            column,
            message: message.into(),
        }
    }
}

/// All words of a line, without its comment.
pub(super) fn words(line: u32, text: &str) -> Result<Vec<Word>, ScriptError> {
    let mut cursor = Cursor::new(line, text);
    let mut words = Vec::new();
    loop {
        cursor.skip_spaces();
        match cursor.peek() {
            None | Some('#') => return Ok(words),
            Some('"') => words.push(quoted(&mut cursor)?),
            Some('x') if cursor.starts_with("x'") => words.push(hex(&mut cursor)?),
            Some(_) => words.push(bare(&mut cursor)?),
        }
    }
}

fn at_end_of_word(cursor: &Cursor<'_>) -> bool {
    cursor.peek().is_none_or(char::is_whitespace)
}

/// Literal bytes are gathered; a substitution ends a run of them.
#[derive(Default)]
struct Parts {
    parts: Vec<Part>,
    run: Vec<u8>,
}

impl Parts {
    fn push(&mut self, c: char) {
        self.run
            .extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn substitute(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScriptError> {
        if !self.run.is_empty() {
            self.parts
                .push(Part::Literal(std::mem::take(&mut self.run)));
        }
        let expression = expression::parse(cursor)?;
        self.parts.push(Part::Expression(expression));
        Ok(())
    }

    fn finish(mut self, column: u32, bare: bool) -> Word {
        if !self.run.is_empty() || self.parts.is_empty() {
            self.parts.push(Part::Literal(self.run));
        }
        let parts = self.parts;
        let text = Text { column, parts };
        Word { text, bare }
    }
}

fn bare(cursor: &mut Cursor<'_>) -> Result<Word, ScriptError> {
    let column = cursor.column();
    let mut parts = Parts::default();
    while !at_end_of_word(cursor) {
        if cursor.starts_with("${") {
            parts.substitute(cursor)?;
            continue;
        }
        match cursor.take() {
            Some('"') => {
                let at = cursor.column() - 1;
                return Err(cursor.error(at, "a quote inside a bare word: quote the whole word"));
            }
            Some(c) => parts.push(c),
            None => break,
        }
    }
    Ok(parts.finish(column, true))
}

fn quoted(cursor: &mut Cursor<'_>) -> Result<Word, ScriptError> {
    let column = cursor.column();
    cursor.take();
    let mut parts = Parts::default();
    loop {
        if cursor.starts_with("${") {
            parts.substitute(cursor)?;
            continue;
        }
        let at = cursor.column();
        match cursor.take() {
            None => return Err(cursor.error(column, "this quote is not closed on its line")),
            Some('"') => break,
            Some('\\') => escape(cursor, at, &mut parts)?,
            Some(c) => parts.push(c),
        }
    }
    if !at_end_of_word(cursor) {
        let at = cursor.column();
        return Err(cursor.error(at, "expected a space after the closing quote"));
    }
    Ok(parts.finish(column, false))
}

fn escape(cursor: &mut Cursor<'_>, at: u32, parts: &mut Parts) -> Result<(), ScriptError> {
    match cursor.take() {
        Some('n') => parts.push('\n'),
        Some('r') => parts.push('\r'),
        Some('t') => parts.push('\t'),
        Some('0') => parts.push('\0'),
        Some(c @ ('"' | '\\' | '$' | '#')) => parts.push(c),
        Some('x') => match (digit(cursor), digit(cursor)) {
            (Some(high), Some(low)) => parts.run.push(high * 16 + low),
            _ => return Err(cursor.error(at, "\\x needs two hexadecimal digits, as in \\x00")),
        },
        _ => {
            let known =
                "unknown escape: \\x00, \\n, \\r, \\t, \\0, \\\", \\\\, \\$ and \\# are known";
            return Err(cursor.error(at, known));
        }
    }
    Ok(())
}

fn digit(cursor: &mut Cursor<'_>) -> Option<u8> {
    let digit = cursor.peek()?.to_digit(16)?;
    cursor.take();
    u8::try_from(digit).ok()
}

fn hex(cursor: &mut Cursor<'_>) -> Result<Word, ScriptError> {
    let column = cursor.column();
    cursor.take();
    cursor.take();
    let mut parts = Parts::default();
    loop {
        let at = cursor.column();
        if cursor.take_if('\'') {
            break;
        }
        let (Some(high), Some(low)) = (digit(cursor), digit(cursor)) else {
            let message = "x'…' holds pairs of hexadecimal digits and ends with a quote";
            return Err(cursor.error(at, message));
        };
        parts.run.push(high * 16 + low);
    }
    if !at_end_of_word(cursor) {
        let at = cursor.column();
        return Err(cursor.error(at, "expected a space after x'…'"));
    }
    Ok(parts.finish(column, false))
}
