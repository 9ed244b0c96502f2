//! Keys and values on the command line and in output.

use serde_json::{Value, json};
use std::fmt::Write as _;

/// Bytes given as an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given(pub Vec<u8>);

/// An argument: `x'hex'` is bytes, anything else the text itself.
pub fn parse(text: &str) -> Result<Given, String> {
    let Some(hex) = text.strip_prefix("x'").and_then(|t| t.strip_suffix('\'')) else {
        return Ok(Given(text.as_bytes().to_vec()));
    };
    let refuse = || format!("`{text}` is not x'hex': write pairs of 0-9 and a-f");
    if !hex.len().is_multiple_of(2) || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refuse());
    }
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).map_err(|_| refuse())?;
        u8::from_str_radix(pair, 16).map_err(|_| refuse())
    };
    let bytes: Result<Vec<u8>, String> = hex.as_bytes().chunks(2).map(byte).collect();
    bytes.map(Given)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Text where it is text, `x'hex'` otherwise; text that looks like the latter
/// too, so that it is not taken for it.
pub fn show(bytes: &[u8]) -> String {
    let plain = |text: &str| !text.starts_with("x'") && !text.chars().any(char::is_control);
    match std::str::from_utf8(bytes) {
        Ok(text) if plain(text) => text.to_owned(),
        _ => format!("x'{}'", hex(bytes)),
    }
}

/// A string where it is UTF-8, `{"hex":…}` otherwise.
pub fn json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"hex": hex(bytes)}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_given_back() {
        for bytes in [
            &b"abc"[..],
            b"",
            b"\x00\xff",
            b"a b",
            b"line\nend",
            b"x'00'",
        ] {
            assert_eq!(parse(&show(bytes)), Ok(Given(bytes.to_vec())));
        }
    }

    #[test]
    fn bad_hex_is_refused() {
        for bad in ["x'0'", "x'zz'", "x'é'", "x'+1'"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(json(b"\xff"), json!({"hex": "ff"}));
    }
}
