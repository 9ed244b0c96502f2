//! Values as people write them in a scenario: `30ms`, `20 %` as `0.2`, `10MB/s`.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::time::Duration;

/// A length of time, `500us`, `30ms`, `20s` or `2m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) Duration);

/// A shift of a clock: a length of time with a sign, `+3s` or `-250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift(pub(super) i64);

/// Bytes a second, `500kB/s`, `10MB/s` or `100Mbit/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate(pub(super) u64);

/// A share, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share(pub(super) f64);

/// Reads a text with a function that says what would be right.
struct Text<T> {
    what: &'static str,
    read: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Time, D::Error> {
        input.deserialize_str(Text {
            what: "a length of time in quotes, for instance \"30ms\", \"20s\" or \"2m\"",
            read: |text| crate::duration::parse(text).map(Time),
        })
    }
}

impl<'de> Deserialize<'de> for Shift {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Shift, D::Error> {
        input.deserialize_str(Text {
            what: "a length of time with a sign, in quotes, for instance \"+3s\" or \"-250ms\"",
            read: |text| shift(text).map(Shift),
        })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Rate, D::Error> {
        input.deserialize_str(Text {
            what: "a bandwidth in quotes, for instance \"500kB/s\", \"10MB/s\" or \"100Mbit/s\"",
            read: |text| rate(text).map(Rate),
        })
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Share, D::Error> {
        let share = match toml::Value::deserialize(input)? {
            toml::Value::Float(share) => share,
            toml::Value::Integer(0) => 0.0,
            toml::Value::Integer(1) => 1.0,
            toml::Value::Integer(other) => {
                let other = Unexpected::Signed(other);
                return Err(D::Error::invalid_value(other, &"a share from 0.0 to 1.0"));
            }
            other => {
                let message = format!("a {} is no share from 0.0 to 1.0", other.type_str());
                return Err(D::Error::custom(message));
            }
        };
        if (0.0..=1.0).contains(&share) {
            return Ok(Share(share));
        }
        let other = Unexpected::Float(share);
        Err(D::Error::invalid_value(other, &"a share from 0.0 to 1.0"))
    }
}

/// A shift, in nanoseconds.
fn shift(text: &str) -> Result<i64, String> {
    let refuse = || format!("`{text}` is no shift of a clock: write for instance +3s or -250ms");
    let (sign, length) = match text.split_at_checked(1) {
        Some(("+", length)) => (1, length),
        Some(("-", length)) => (-1, length),
        _ => return Err(refuse()),
    };
    let length = crate::duration::parse(length).map_err(|_| refuse())?;
    let nanos = i64::try_from(length.as_nanos()).map_err(|_| refuse())?;
    Ok(sign * nanos)
}

/// A bandwidth, in bytes a second.
fn rate(text: &str) -> Result<u64, String> {
    let refuse =
        || format!("`{text}` is no bandwidth: write for instance 500kB/s, 10MB/s or 100Mbit/s");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '/');
    let number: f64 = digits.parse().map_err(|_| refuse())?;
    let unit = match &text[digits.len()..] {
        "B/s" => 1.0,
        "kB/s" => 1e3,
        "MB/s" => 1e6,
        "GB/s" => 1e9,
        "kbit/s" => 125.0,
        "Mbit/s" => 125e3,
        "Gbit/s" => 125e6,
        _ => return Err(refuse()),
    };
    let bytes = number * unit;
    if (1.0..=1e12).contains(&bytes) {
        // Rounded: nobody has half a byte a second.
        Ok(bytes.round() as u64)
    } else {
        Err(refuse())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_are_bytes_or_bits_a_second() {
        assert_eq!(rate("500kB/s"), Ok(500_000));
        assert_eq!(rate("100Mbit/s"), Ok(12_500_000));
        for bad in ["", "10", "10MB", "-1kB/s", "0B/s", "fastMB/s"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shifts_have_a_sign() {
        assert_eq!(shift("+3s"), Ok(3_000_000_000));
        assert_eq!(shift("-250ms"), Ok(-250_000_000));
        for bad in ["3s", "", "+", "é1s", "+1h"] {
            assert!(shift(bad).is_err(), "{bad}");
        }
    }
}
