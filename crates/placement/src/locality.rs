//! Where a node is: `region=eu,dc=eu-1,rack=r1,host=h7`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The tiers, widest first.
pub const TIERS: [&str; 4] = ["region", "dc", "rack", "host"];

/// Bytes of one tier's value, at most.
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

    /// The place as far as the `depth` widest of [`TIERS`] tell it. Two racks of
    /// the same name in two data centres are two places.
    #[must_use]
    pub fn through(&self, depth: usize) -> Locality {
        let tiers = TIERS.iter().take(depth);
        Locality(
            tiers
                .filter_map(|tier| Some(((*tier).to_owned(), self.get(tier)?.to_owned())))
                .collect(),
        )
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
    /// A tier of another name.
    #[error("there is no tier `{tier}`; the tiers are region, dc, rack and host")]
    UnknownTier {
        /// The name given.
        tier: String,
    },
    /// A tier is given twice.
    #[error("tier `{tier}` is given twice; give each tier once")]
    Repeated {
        /// The tier.
        tier: String,
    },
    /// A wider tier follows a narrower one.
    #[error(
        "tier `{tier}` comes after `{after}`; write the tiers in the order region, dc, rack, host"
    )]
    OutOfOrder {
        /// The wider one.
        tier: String,
        /// The narrower one before it.
        after: String,
    },
    /// A tier without a value.
    #[error("tier `{tier}` has no value; give one or leave the tier out")]
    Empty {
        /// The tier.
        tier: String,
    },
    /// A value has more than 64 bytes.
    #[error("the value of tier `{tier}` has {length} bytes; at most 64 are allowed")]
    TooLong {
        /// The tier.
        tier: String,
        /// Bytes given.
        length: usize,
    },
    /// A value with a character that is not allowed.
    #[error(
        "the value `{value}` of tier `{tier}` contains {found:?}; use letters, digits, `-`, `_` and `.`"
    )]
    Character {
        /// The tier.
        tier: String,
        /// The value.
        value: String,
        /// The first character that is not allowed.
        found: char,
    },
}

impl FromStr for Locality {
    type Err = LocalityError;

    fn from_str(text: &str) -> Result<Locality, LocalityError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut last: Option<usize> = None;
        if text.is_empty() {
            return Ok(Locality(pairs));
        }
        for part in text.split(',') {
            let (tier, value) = part.split_once('=').ok_or_else(|| {
                let part = part.to_owned();
                LocalityError::NotAPair { part }
            })?;
            let rank = rank(tier)?;
            match last {
                Some(last) if rank == last => {
                    return Err(LocalityError::Repeated {
                        tier: tier.to_owned(),
                    });
                }
                Some(last) if rank < last => {
                    let tier = tier.to_owned();
                    return Err(if pairs.iter().any(|(name, _)| *name == tier) {
                        LocalityError::Repeated { tier }
                    } else {
                        let after = TIERS[last].to_owned();
                        LocalityError::OutOfOrder { tier, after }
                    });
                }
                _ => last = Some(rank),
            }
            check_value(tier, value)?;
            pairs.push((tier.to_owned(), value.to_owned()));
        }
        Ok(Locality(pairs))
    }
}

/// The place of `tier` in [`TIERS`].
fn rank(tier: &str) -> Result<usize, LocalityError> {
    TIERS.iter().position(|name| *name == tier).ok_or_else(|| {
        let tier = tier.to_owned();
        LocalityError::UnknownTier { tier }
    })
}

fn check_value(tier: &str, value: &str) -> Result<(), LocalityError> {
    let tier = tier.to_owned();
    if value.is_empty() {
        return Err(LocalityError::Empty { tier });
    }
    if value.len() > MAX_VALUE {
        let length = value.len();
        return Err(LocalityError::TooLong { tier, length });
    }
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    match value.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some(found) => {
            let value = value.to_owned();
            Err(LocalityError::Character { tier, value, found })
        }
    }
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
        ] {
            let place: Locality = text.parse().expect(text);
            assert_eq!(place.to_string(), text);
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        assert!(error("eu").starts_with("`eu` is not of the form"));
        assert!(error("region=eu,").starts_with("`` is not of the form"));
        assert!(error("zone=a").starts_with("there is no tier `zone`"));
        assert!(error("Region=a").contains("`Region`"));
        assert!(error("region=eu, dc=a").contains("` dc`"));
        assert!(error("dc=a,dc=b").contains("`dc` is given twice"));
        assert!(error("region=a,dc=a,region=b").contains("`region` is given twice"));
        assert!(error("dc=a,region=b").contains("`region` comes after `dc`"));
        assert!(error("dc=").contains("`dc` has no value"));
        assert!(error("dc=a b").contains("contains ' '"));
        assert!(error("dc=a=b").contains("contains '='"));
        assert!(error(&format!("dc={}", "x".repeat(65))).contains("65 bytes"));
    }

    #[test]
    fn the_wider_tiers_are_a_part_of_a_place() {
        let place: Locality = "region=eu,rack=r1,host=h".parse().expect("parses");
        assert_eq!(place.through(0), Locality::default());
        assert_eq!(place.through(2).to_string(), "region=eu");
        assert_eq!(place.through(3).to_string(), "region=eu,rack=r1");
        assert_eq!(place.through(9), place);
    }
}
