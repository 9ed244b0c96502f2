//! A reader of EDN (github.com/edn-format/edn): as much of it as histories use, and
//! all of it that one may meet, with a place for every error.

use super::value::Value;
use super::{HistoryError, MAX_DEPTH, MAX_VALUES};
use std::iter::Peekable;
use std::str::Chars;

type Result<T> = std::result::Result<T, HistoryError>;

/// Reads values one after the other.
pub(super) struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
    column: usize,
    /// Values of the event that is being read.
    values: usize,
    /// What ends the sequence around all events, if there is one.
    around: Option<char>,
}

/// Whether a character ends a token.
fn is_delimiter(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            ',' | ';' | '"' | '(' | ')' | '[' | ']' | '{' | '}' | '\\'
        )
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Reader<'a> {
        Reader {
            rest: text.trim_start_matches('\u{feff}').chars().peekable(),
            line: 1,
            column: 1,
            values: 0,
            around: None,
        }
    }

    /// If all events are in one vector or list, steps into it.
    pub(super) fn enter_sequence(&mut self) -> Result<()> {
        self.skip_blank(0)?;
        self.around = match self.rest.peek() {
            Some('[') => Some(']'),
            Some('(') => Some(')'),
            _ => return Ok(()),
        };
        self.take();
        Ok(())
    }

    /// The next event and the line on which it begins; none at the end.
    pub(super) fn next_event(&mut self) -> Result<Option<(usize, Value)>> {
        self.values = 0;
        self.skip_blank(0)?;
        match (self.rest.peek(), self.around) {
            (None, None) => return Ok(None),
            (None, Some(close)) => return self.fail(format!("the text ends before a {close}")),
            (Some(c), Some(close)) if *c == close => {
                self.take();
                self.around = None;
                self.skip_blank(0)?;
                return match self.rest.peek() {
                    None => Ok(None),
                    Some(_) => self.fail("the history has ended, but the text goes on"),
                };
            }
            _ => {}
        }
        let line = self.line;
        Ok(Some((line, self.value(0)?)))
    }

    fn fail<T>(&self, problem: impl Into<String>) -> Result<T> {
        Err(HistoryError::Syntax {
            line: self.line,
            column: self.column,
            problem: problem.into(),
        })
    }

    fn take(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    /// Skips white space, commas, comments and discarded values.
    fn skip_blank(&mut self, depth: usize) -> Result<()> {
        while let Some(&c) = self.rest.peek() {
            if c.is_whitespace() || c == ',' {
                self.take();
            } else if c == ';' {
                while self.take().is_some_and(|c| c != '\n') {}
            } else if c == '#' && self.second() == Some('_') {
                self.take();
                self.take();
                self.value(depth + 1)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn second(&self) -> Option<char> {
        let mut ahead = self.rest.clone();
        ahead.next();
        ahead.next()
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return self.fail(format!("values are nested deeper than {MAX_DEPTH}"));
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            return self.fail(format!("one event holds more than {MAX_VALUES} values"));
        }
        self.skip_blank(depth)?;
        match self.rest.peek().copied() {
            None => self.fail("the text ends where a value should be"),
            Some('[') => Ok(Value::Sequence(self.sequence(']', depth)?)),
            Some('(') => Ok(Value::Sequence(self.sequence(')', depth)?)),
            Some('{') => self.map(depth),
            Some('"') => self.string(),
            Some('\\') => self.character(),
            Some('#') => self.dispatch(depth),
            Some(c @ (']' | ')' | '}')) => self.fail(format!("a {c} that nothing opened")),
            Some(_) => self.atom(),
        }
    }

    fn sequence(&mut self, close: char, depth: usize) -> Result<Vec<Value>> {
        self.take();
        let mut values = Vec::new();
        loop {
            self.skip_blank(depth)?;
            match self.rest.peek() {
                None => return self.fail(format!("the text ends before a {close}")),
                Some(c) if *c == close => {
                    self.take();
                    return Ok(values);
                }
                Some(_) => values.push(self.value(depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value> {
        let mut flat = self.sequence('}', depth)?.into_iter();
        let mut entries = Vec::with_capacity(flat.len() / 2);
        while let Some(key) = flat.next() {
            let Some(value) = flat.next() else {
                return self.fail("a map ends with a key that has no value");
            };
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }

    fn dispatch(&mut self, depth: usize) -> Result<Value> {
        self.take();
        match self.rest.peek() {
            Some('{') => Ok(Value::Set(self.sequence('}', depth)?)),
            // ##Inf, ##NaN
            Some('#') => {
                self.take();
                self.token();
                Ok(Value::Real)
            }
            Some(c) if c.is_alphabetic() || *c == ':' => {
                // A tag says how to read the value; here the value will do.
                self.token();
                self.value(depth + 1)
            }
            _ => self.fail("a # that begins nothing known"),
        }
    }

    fn token(&mut self) -> String {
        let mut token = String::new();
        while let Some(&c) = self.rest.peek() {
            if is_delimiter(c) {
                break;
            }
            token.push(c);
            self.take();
        }
        token
    }

    fn atom(&mut self) -> Result<Value> {
        let (line, column) = (self.line, self.column);
        let token = self.token();
        let problem = |problem: String| HistoryError::Syntax {
            line,
            column,
            problem,
        };
        if let Some(name) = token.strip_prefix(':') {
            if name.is_empty() {
                return Err(problem("a keyword without a name".to_owned()));
            }
            return Ok(Value::Keyword(name.to_owned()));
        }
        let digits = token.strip_prefix(['+', '-']).unwrap_or(&token);
        if digits.starts_with(|c: char| c.is_ascii_digit()) {
            let whole = token.strip_suffix('N').unwrap_or(&token);
            if digits
                .trim_end_matches('N')
                .bytes()
                .all(|b| b.is_ascii_digit())
            {
                return whole
                    .parse()
                    .map(Value::Int)
                    .map_err(|_| problem(format!("{token} is no integer that fits 128 bits")));
            }
            return token
                .trim_end_matches('M')
                .parse::<f64>()
                .map(|_| Value::Real)
                .map_err(|_| problem(format!("{token} is no number")));
        }
        Ok(match token.as_str() {
            "nil" => Value::Nil,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => Value::Symbol(token),
        })
    }

    fn string(&mut self) -> Result<Value> {
        self.take();
        let mut text = String::new();
        loop {
            match self.take() {
                None => return self.fail("the text ends within a string"),
                Some('"') => return Ok(Value::Text(text)),
                Some('\\') => {
                    let c = match self.take() {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('r') => '\r',
                        Some('b') => '\u{8}',
                        Some('f') => '\u{c}',
                        Some(c @ ('\\' | '"' | '/')) => c,
                        Some('u') => self.unicode()?,
                        _ => return self.fail("an unknown escape in a string"),
                    };
                    text.push(c);
                }
                Some(c) => text.push(c),
            }
        }
    }

    /// Four hexadecimal digits. Halves of surrogate pairs become the replacement
    /// character: no key or element of a history is text.
    fn unicode(&mut self) -> Result<char> {
        let mut code = 0;
        for _ in 0..4 {
            match self.take().and_then(|c| c.to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return self.fail("\\u takes four hexadecimal digits"),
            }
        }
        Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn character(&mut self) -> Result<Value> {
        self.take();
        let Some(first) = self.take() else {
            return self.fail("the text ends within a character");
        };
        let rest = if is_delimiter(first) {
            String::new()
        } else {
            self.token()
        };
        let named = match (first, rest.as_str()) {
            (c, "") => Some(c),
            ('n', "ewline") => Some('\n'),
            ('s', "pace") => Some(' '),
            ('t', "ab") => Some('\t'),
            ('r', "eturn") => Some('\r'),
            ('b', "ackspace") => Some('\u{8}'),
            ('f', "ormfeed") => Some('\u{c}'),
            ('u', digits) if digits.len() == 4 => u32::from_str_radix(digits, 16)
                .ok()
                .and_then(char::from_u32),
            _ => None,
        };
        match named {
            Some(c) => Ok(Value::Char(c)),
            None => self.fail(format!("\\{first}{rest} is no character")),
        }
    }
}
