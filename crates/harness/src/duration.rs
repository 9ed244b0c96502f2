//! Durations as people write them: `500us`, `30ms`, `20s`, `2m`.

use std::time::Duration;

/// Nobody waits longer than this.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Reads one, of up to a day.
///
/// # Errors
/// What would be right.
pub fn parse(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{text}` is no duration: write for instance 30ms, 20s or 2m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| refuse())?;
    let unit = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(refuse()),
    };
    let duration = Duration::try_from_secs_f64(number * unit).map_err(|_| refuse())?;
    if duration > LONGEST {
        return Err(format!("`{text}` is longer than a day"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_needed_and_known() {
        assert_eq!(parse("30ms"), Ok(Duration::from_millis(30)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "20", "s", "-1s", "1h", "1 s x", "1441m", "1e300m"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
