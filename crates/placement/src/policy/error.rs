//! Why a text is no policy.

use std::fmt;

/// Why a text is no policy, and where. Nothing was changed; correct the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// The line, from 1.
    pub line: usize,
    /// The character in that line, from 1.
    pub column: usize,
    /// What is wrong there.
    pub kind: PolicyErrorKind,
}

/// What is wrong with a policy's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyErrorKind {
    /// A setting of another name.
    UnknownSetting {
        /// What stands there.
        word: String,
        /// The setting that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A setting is given twice.
    Repeated {
        /// The setting, or the item of a list.
        what: String,
    },
    /// Something else should stand here.
    Expected {
        /// What should.
        what: &'static str,
        /// What does.
        found: String,
    },
    /// A number that is not one, or out of its range.
    Number {
        /// What stands there.
        found: String,
        /// The smallest allowed.
        least: usize,
        /// The greatest allowed.
        most: usize,
    },
    /// A character that no policy contains.
    Character {
        /// The character.
        found: char,
    },
    /// A list with too many items.
    TooMany {
        /// How many are allowed.
        most: usize,
    },
    /// Parentheses, or `!`, within too many others.
    TooDeep {
        /// How many levels are allowed.
        most: usize,
    },
    /// The text is too long.
    TooLong {
        /// Bytes given.
        length: usize,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.kind
        )
    }
}

impl fmt::Display for PolicyErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyErrorKind::UnknownSetting { word, nearest } => {
                write!(f, "there is no setting `{word}`; ")?;
                match nearest {
                    Some(nearest) => write!(f, "did you mean `{nearest}`?"),
                    None => write!(f, "the settings are {}", super::SETTINGS.join(", ")),
                }
            }
            PolicyErrorKind::Repeated { what } => {
                write!(f, "`{what}` is given twice; give it once")
            }
            PolicyErrorKind::Expected { what, found } => {
                write!(f, "expected {what}, found {found}")
            }
            PolicyErrorKind::Number { found, least, most } => {
                write!(f, "expected a number from {least} to {most}, found {found}")
            }
            PolicyErrorKind::Character { found } => write!(
                f,
                "unexpected {found:?}; names and values consist of letters, digits, `-`, `_` and `.`"
            ),
            PolicyErrorKind::TooMany { most } => {
                write!(f, "the list is too long; at most {most} items are allowed")
            }
            PolicyErrorKind::TooDeep { most } => write!(
                f,
                "the expression is nested too deeply; at most {most} levels are allowed"
            ),
            PolicyErrorKind::TooLong { length } => write!(
                f,
                "the policy has {length} bytes; at most {} are allowed",
                super::MAX_POLICY_BYTES
            ),
        }
    }
}

impl std::error::Error for PolicyError {}
