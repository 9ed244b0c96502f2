//! What is told of a run that failed.

use std::fmt::Write as _;
use synod_harness::sim::{Recipe, Violation};

/// Characters of a line of the trace, unless whole ones are asked for.
const WIDTH: usize = 180;
/// Characters of a violation, unless whole ones are asked for.
const WORDS: usize = 4_000;

/// How much is told.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// Lines of the trace.
    pub lines: usize,
    /// Whole lines.
    pub wide: bool,
    /// Renewals of leases and syncs too.
    pub all: bool,
}

/// Of so many lines that happened one is shown, about: the others are renewals
/// and syncs, which never cease.
const CHATTER: usize = 50;
/// Lines that a run keeps, at most.
const MOST: usize = 200_000;

impl Show {
    /// The lines that a run is to keep.
    pub fn kept(self) -> usize {
        if self.all {
            self.lines
        } else {
            (self.lines * CHATTER).min(MOST).max(self.lines)
        }
    }

    /// As much as explains these violations: where the rule is about leases or
    /// clocks, their exchange is what matters.
    pub fn about(self, violations: &[Violation]) -> Show {
        let leases = |v: &Violation| v.rule.starts_with(['L', 'K']);
        Show {
            all: self.all || violations.iter().any(leases),
            ..self
        }
    }
}

fn is_chatter(line: &str) -> bool {
    line.contains("  Lease(") || line.contains("  log synced through ")
}

/// A line within a width; what is left out is counted.
fn trim(line: &str, most: usize) -> String {
    let length = line.chars().count();
    if length <= most {
        return line.to_owned();
    }
    let kept: String = line.chars().take(most).collect();
    format!("{kept}… (+{})", length - most)
}

/// The violations, one below the other.
pub fn violations(violations: &[Violation], show: Show) -> String {
    let most = if show.wide { usize::MAX } else { WORDS };
    let mut out = String::new();
    for violation in violations {
        let text = trim(&violation.to_string(), most).replace('\n', "\n  ");
        let _ = writeln!(out, "  {text}");
    }
    out
}

/// The configuration and the faults of a run.
pub fn recipe(recipe: &Recipe) -> String {
    let mut out = String::from("configuration\n");
    out += &recipe.words();
    let _ = writeln!(out, "faults ({})", recipe.plan.len());
    for planned in &recipe.plan {
        let _ = writeln!(out, "{planned}");
    }
    out
}

/// The end of a trace.
pub fn trace(lines: &[String], show: Show) -> String {
    let most = if show.wide { usize::MAX } else { WIDTH };
    let told: Vec<&String> = lines
        .iter()
        .filter(|line| show.all || !is_chatter(line))
        .collect();
    let shown = &told[told.len().saturating_sub(show.lines)..];
    let without = if show.all {
        ""
    } else {
        "; without renewals of leases and syncs, see --all"
    };
    let mut out = format!(
        "what happened last ({} lines, --lines N for more; --wide for whole ones{without})\n",
        shown.len()
    );
    for line in shown {
        let _ = writeln!(out, "{}", trim(line, most));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_between_characters() {
        assert_eq!(trim("äöü", 3), "äöü");
        assert_eq!(trim("äöüß", 3), "äöü… (+1)");
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        let mut lines: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        lines.push("1 ms  n1  log synced through 7".to_owned());
        let show = Show {
            lines: 2,
            wide: false,
            all: false,
        };
        let text = trace(&lines, show);
        assert!(text.ends_with("\n8\n9\n"), "{text}");
        assert!(text.contains("(2 lines"), "{text}");
        let text = trace(&lines, Show { all: true, ..show });
        assert!(
            text.ends_with("\n9\n1 ms  n1  log synced through 7\n"),
            "{text}"
        );
    }
}
