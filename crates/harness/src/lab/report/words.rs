//! Numbers with their units, and the sentence that sums a run up.

use super::data::{Report, Site};

/// What stands where there is no number.
pub(super) const NOTHING: &str = "–";

/// Counts: `12,345`, and `12.3M` from ten millions on.
pub(super) fn count(value: u64) -> String {
    if value >= 10_000_000 {
        return short(value as f64);
    }
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of any size in few characters: `0.5`, `850`, `1.5k`, `12.3M`.
pub(super) fn short(value: f64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut value = if value.is_finite() { value } else { 0.0 };
    let mut unit = 0;
    // What would be written as 1000 is the next unit's 1.
    while value.abs() >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", figures(value), UNITS[unit])
}

/// Three figures, without zeros that say nothing.
fn figures(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Thousands keep their figures, with separators.
fn long(value: f64) -> String {
    match value {
        v if v < 999.5 => figures(v),
        v if v < 99_999.5 => count(v.round() as u64),
        v => short(v),
    }
}

/// How long something took: `850 µs`, `3.21 ms`, `1.5 s`; nothing for zero.
pub(super) fn micros(value: u64) -> String {
    let value = value as f64;
    match value {
        0.0 => NOTHING.to_string(),
        v if v < 999.5 => format!("{} µs", figures(v)),
        v if v < 999_500.0 => format!("{} ms", figures(v / 1e3)),
        v => format!("{} s", long(v / 1e6)),
    }
}

/// How long something lasted: `250 ms`, `5.21 s`.
pub(super) fn lasted(millis: u64) -> String {
    match millis {
        0..1000 => format!("{millis} ms"),
        _ => format!("{} s", long(millis as f64 / 1e3)),
    }
}

/// A moment of the run, in seconds: `8 s`, `8.25 s`.
pub(super) fn moment(millis: u64) -> String {
    if millis >= 100_000_000_000 {
        return format!("{} s", short(millis as f64 / 1e3));
    }
    let text = format!("{}.{:03}", count(millis / 1000), millis % 1000);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} s")
}

/// A share of 1 in percent: `0.12 %`.
pub(super) fn percent(share: f64) -> String {
    let share = if share.is_finite() { share } else { 0.0 };
    format!("{} %", figures(share * 100.0))
}

/// How many of something: `1 site`, `3 sites`.
pub(super) fn many(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", count(number as u64))
}

/// A sum over the sites.
pub(super) fn over_sites(report: &Report, part: impl Fn(&Site) -> u64) -> u64 {
    report.sites.iter().map(part).fold(0, u64::saturating_add)
}

/// The shape of the cluster: `9 nodes in 3 sites, 12 shards of 3 replicas`.
pub(super) fn cluster(report: &Report) -> String {
    let nodes = over_sites(report, |site| site.nodes.len() as u64);
    format!(
        "{} in {}, {} of {}",
        many(nodes as usize, "node"),
        many(report.sites.len(), "site"),
        many(report.shards, "shard"),
        many(report.replicas, "replica")
    )
}

/// A moment of the calendar: `2026-03-01 12:00:00 UTC`.
pub(super) fn utc(unix_millis: u64) -> String {
    let seconds = unix_millis / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days of the Gregorian calendar in years that begin in March, so that the
    // day that is sometimes missing is a year's last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// How many checks broke, and how many there were: the verdicts and the history.
pub(super) fn broken_of(report: &Report) -> (usize, usize) {
    let verdicts = report.verdicts.iter().filter(|v| !v.held).count();
    let history = report.history.as_ref().is_some_and(|h| !h.ok);
    let total = report.verdicts.len() + usize::from(report.history.is_some());
    (verdicts + usize::from(history), total)
}

/// The run in a few words.
pub(super) fn outcome(report: &Report) -> String {
    match broken_of(report) {
        (_, 0) => "nothing was checked".to_string(),
        (0, 1) => "the one check holds".to_string(),
        (0, total) => format!("all {total} checks hold"),
        (broken, total) => format!("{broken} of {} broken", many(total, "check")),
    }
}

/// The command that runs it again. Where the name needs it, it is quoted.
pub(super) fn again(report: &Report) -> String {
    let name = &report.scenario;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let name = if !name.is_empty() && name.chars().all(is_plain) {
        name.clone()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    };
    format!("synod lab run {name} --seed {}", report.seed)
}

/// The longest time without a success, and when it began.
pub(super) fn gap(site: &Site) -> String {
    if site.longest_gap_millis == 0 {
        return NOTHING.to_string();
    }
    let began = moment(site.longest_gap_began_millis);
    format!("{} at {began}", lasted(site.longest_gap_millis))
}

/// One line of at most so many characters; what is cut off leaves an ellipsis.
/// Control characters become spaces.
pub(super) fn cut(words: &str, most: usize) -> String {
    let clean = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    let chars: Vec<char> = clean.collect();
    if chars.len() <= most {
        return chars.into_iter().collect();
    }
    let kept = chars.iter().take(most.saturating_sub(1));
    let kept: String = kept.collect();
    let kept = kept.trim_end();
    if most == 0 {
        String::new()
    } else {
        format!("{kept}…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_carry_their_units() {
        assert_eq!(
            [0, 999, 12_345, 9_999_999].map(count),
            ["0", "999", "12,345", "9,999,999"]
        );
        assert_eq!(count(12_345_678), "12.3M");
        assert_eq!(
            [0.0, 0.5, 850.0, 1_500.0, 999_960.0].map(short),
            ["0", "0.5", "850", "1.5k", "1M"]
        );
        assert_eq!(short(f64::NAN), "0");
        assert_eq!(
            [0, 850, 3_210, 999_700].map(micros),
            ["–", "850 µs", "3.21 ms", "1 s"]
        );
        assert_eq!([1_500_000, 2_000_000_000].map(micros), ["1.5 s", "2,000 s"]);
        assert_eq!([0, 250, 5_210].map(lasted), ["0 ms", "250 ms", "5.21 s"]);
        assert_eq!([0, 8_000, 8_250].map(moment), ["0 s", "8 s", "8.25 s"]);
        assert_eq!(
            [0.001, 1.0, f64::NAN].map(percent),
            ["0.1 %", "100 %", "0 %"]
        );
    }

    #[test]
    fn days_of_the_calendar_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_767_225_599_999), "2025-12-31 23:59:59 UTC");
    }

    #[test]
    fn what_is_cut_off_leaves_an_ellipsis() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("too long", 5), "too…");
        assert_eq!(cut("any", 0), "");
        assert_eq!(cut("a\u{1b}b", 9), "a b");
    }
}
