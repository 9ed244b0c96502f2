//! Where a node is: `region=eu,dc=eu-1,rack=r1,host=h7`.
//!
//! The names of the tiers and how many there are is the operator's choice. A
//! locality tells its own order, widest first; [`crate::Tiers`] is the order
//! that the localities of a whole cluster agree on.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The usual tiers, widest first. Any other name will do; these only tell how
/// to order two tiers that no locality gives together.
pub const TIERS: [&str; 4] = ["region", "dc", "rack", "host"];

/// The tier below all others, of which every node is a place of its own. It
/// stands in no locality.
pub const NODE_TIER: &str = "node";

/// Tiers in one locality, at most.
pub const MAX_TIERS: usize = 16;

/// Bytes of one tier's name or value, at most.
const MAX_VALUE: usize = 64;

/// A node's place as (tier, value) pairs, widest tier first. Tiers may be left
/// out; nothing at all is a valid place of which nothing is known. Made by
/// parsing, which is strict; on the wire it is the text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Locality(pub Vec<(String, String)>);

impl Locality {
    /// The value of `tier`, if it is given.
    #[must_use]
    pub fn get(&self, tier: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == tier)
            .map(|(_, value)| value.as_str())
    }

    /// The place as far as its `depth` widest tiers tell it. Two racks of the
    /// same name in two data centres are two places.
    #[must_use]
    pub fn through(&self, depth: usize) -> Locality {
        Locality(self.0.iter().take(depth).cloned().collect())
    }

    /// Whether this place lies within `wider`: every tier given there has the
    /// same value here.
    #[must_use]
    pub fn within(&self, wider: &Locality) -> bool {
        let mut tiers = wider.0.iter();
        tiers.all(|(tier, value)| self.get(tier) == Some(value))
    }
}

/// Why a text is no locality. Nothing was changed; correct the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalityError {
    /// A part without `=`, such as a stray comma leaves behind.
    #[error("`{part}` is not of the form tier=value; write for example region=eu,dc=eu-1,rack=r1")]
    NotAPair {
        /// The part.
        part: String,
    },
    /// The name of the tier that every node is in by itself.
    #[error(
        "`node` is no tier of a locality: each node is a place of its own anyway; leave it out"
    )]
    Reserved,
    /// More tiers than a locality may have.
    #[error("the locality has {count} tiers; at most {MAX_TIERS} are allowed")]
    TooMany {
        /// Tiers given.
        count: usize,
    },
    /// A tier is given twice.
    #[error("tier `{tier}` is given twice; give each tier once")]
    Repeated {
        /// The tier.
        tier: String,
    },
    /// A tier without a value.
    #[error("tier `{tier}` has no value; give one or leave the tier out")]
    Empty {
        /// The tier.
        tier: String,
    },
    /// A part begins with `=`.
    #[error("`={value}` has no tier in front; write for example dc={value}")]
    NoTier {
        /// The value.
        value: String,
    },
    /// A name or a value has more than 64 bytes.
    #[error("tier `{tier}` has a name or value of {length} bytes; at most 64 are allowed")]
    TooLong {
        /// The tier.
        tier: String,
        /// Bytes given.
        length: usize,
    },
    /// A name or a value with a character that is not allowed.
    #[error("`{text}` contains {found:?}; use letters, digits, `-`, `_` and `.`")]
    Character {
        /// The name or value.
        text: String,
        /// The first character that is not allowed.
        found: char,
    },
}

impl FromStr for Locality {
    type Err = LocalityError;

    fn from_str(text: &str) -> Result<Locality, LocalityError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        if text.is_empty() {
            return Ok(Locality(pairs));
        }
        let count = text.split(',').count();
        if count > MAX_TIERS {
            return Err(LocalityError::TooMany { count });
        }
        for part in text.split(',') {
            let (tier, value) = part.split_once('=').ok_or_else(|| {
                let part = part.to_owned();
                LocalityError::NotAPair { part }
            })?;
            check(tier, value)?;
            if pairs.iter().any(|(name, _)| name == tier) {
                let tier = tier.to_owned();
                return Err(LocalityError::Repeated { tier });
            }
            pairs.push((tier.to_owned(), value.to_owned()));
        }
        Ok(Locality(pairs))
    }
}

fn check(tier: &str, value: &str) -> Result<(), LocalityError> {
    if tier.is_empty() {
        let value = value.to_owned();
        return Err(LocalityError::NoTier { value });
    }
    if tier == NODE_TIER {
        return Err(LocalityError::Reserved);
    }
    for text in [tier, value] {
        if let Some(found) = text.chars().find(|c| !is_word(*c)) {
            let text = text.to_owned();
            return Err(LocalityError::Character { text, found });
        }
    }
    let tier = tier.to_owned();
    if value.is_empty() {
        return Err(LocalityError::Empty { tier });
    }
    match tier.len().max(value.len()) {
        length if length > MAX_VALUE => Err(LocalityError::TooLong { tier, length }),
        _ => Ok(()),
    }
}

/// What names and values of tiers and labels consist of.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

impl TryFrom<String> for Locality {
    type Error = LocalityError;

    fn try_from(text: String) -> Result<Locality, LocalityError> {
        text.parse()
    }
}

impl From<Locality> for String {
    fn from(locality: Locality) -> String {
        locality.to_string()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (tier, value)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{tier}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Locality>().expect_err(text).to_string()
    }

    #[test]
    fn a_place_reads_as_it_is_written() {
        for text in [
            "",
            "region=eu",
            "dc=eu-1,host=h_7.example",
            "region=eu,dc=1,rack=r,host=h",
            "planet=earth,country=de,dc=1,hall=2,row=3,rack=4,shelf=5",
        ] {
            let place: Locality = text.parse().expect(text);
            assert_eq!(place.to_string(), text);
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        assert!(error("eu").starts_with("`eu` is not of the form"));
        assert!(error("region=eu,").starts_with("`` is not of the form"));
        assert!(error("dc=a,node=7").starts_with("`node` is no tier"));
        assert!(error("=eu").starts_with("`=eu` has no tier in front"));
        assert!(error("region=eu, dc=a").contains("` dc` contains ' '"));
        assert!(error(&format!("{}=a", "x".repeat(65))).contains("65 bytes"));
        let many: Vec<String> = (0..17).map(|n| format!("t{n}=a")).collect();
        assert!(error(&many.join(",")).contains("17 tiers"));
        assert!(error("dc=a,dc=b").contains("`dc` is given twice"));
        assert!(error("region=a,dc=a,region=b").contains("`region` is given twice"));
        assert!(error("dc=").contains("`dc` has no value"));
        assert!(error("dc=a b").contains("contains ' '"));
        assert!(error("dc=a=b").contains("contains '='"));
        assert!(error(&format!("dc={}", "x".repeat(65))).contains("65 bytes"));
    }

    #[test]
    fn the_wider_tiers_are_a_part_of_a_place() {
        let place: Locality = "region=eu,rack=r1,host=h".parse().expect("parses");
        assert_eq!(place.through(0), Locality::default());
        assert_eq!(place.through(1).to_string(), "region=eu");
        assert_eq!(place.through(2).to_string(), "region=eu,rack=r1");
        assert_eq!(place.through(9), place);
        assert!(place.within(&place.through(1)) && place.within(&Locality::default()));
        assert!(!place.through(1).within(&place));
    }
}
