//! A policy's text as words and signs, each with its place.

use super::error::{PolicyError, PolicyErrorKind};
use crate::locality::is_word;
use std::fmt;

/// A word, a sign, or the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, value or number.
    Word(&'a str),
    /// One of `= , : ! & | ( ) [ ] { }`, or `!=`.
    Sign(&'static str),
    /// The end of the text.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(text) | Token::Sign(text) => write!(f, "`{text}`"),
            Token::End => f.write_str("the end"),
        }
    }
}

/// Where a token begins: line and column, both from 1.
pub(super) type At = (usize, usize);

const SIGNS: [&str; 13] = [
    "!=", "=", ",", ":", "!", "&", "|", "(", ")", "[", "]", "{", "}",
];

/// All tokens, [`Token::End`] last.
pub(super) fn tokens(text: &str) -> Result<Vec<(At, Token<'_>)>, PolicyError> {
    let mut tokens = Vec::new();
    let (mut line, mut column) = (1, 1);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if c == '#' {
            rest.find('\n').unwrap_or(rest.len())
        } else if c.is_whitespace() {
            c.len_utf8()
        } else if is_word(c) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push(((line, column), Token::Word(&rest[..end])));
            end
        } else {
            let mut signs = SIGNS.iter();
            let Some(sign) = signs.find(|sign| rest.starts_with(**sign)) else {
                let kind = PolicyErrorKind::Character { found: c };
                return Err(PolicyError { line, column, kind });
            };
            tokens.push(((line, column), Token::Sign(sign)));
            sign.len()
        };
        if c == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += rest[..length].chars().count();
        }
        rest = &rest[length..];
    }
    tokens.push(((line, column), Token::End));
    Ok(tokens)
}
