//! The report as text.

use super::Report;
use std::fmt::Write as _;

/// The report for a terminal.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}: {}", report.scenario, report.about);
    let _ = writeln!(
        out,
        "seed {}, {:.1} s, {} shards, {} replicas; {}\n",
        report.seed,
        report.run_millis as f64 / 1000.0,
        report.shards,
        report.replicas,
        report.workload
    );
    for fault in &report.faults {
        let until = fault.until_millis.map_or_else(String::new, |until| {
            format!(" to {:.1}", until as f64 / 1000.0)
        });
        let _ = writeln!(
            out,
            "{:>7.1}{until} s  {}: {}",
            fault.at_millis as f64 / 1000.0,
            fault.what,
            fault.on.join(", ")
        );
    }
    for site in &report.sites {
        let total = &site.total;
        let _ = writeln!(
            out,
            "{}: {} ok, {} failed, {} unknown; p50 {:.1} ms, p99 {:.1} ms; longest gap {:.1} s",
            site.name,
            total.ok,
            total.failed,
            total.unknown,
            total.p50_micros as f64 / 1000.0,
            total.p99_micros as f64 / 1000.0,
            site.longest_gap_millis as f64 / 1000.0
        );
    }
    if let Some(history) = &report.history {
        let _ = writeln!(
            out,
            "{}, {} transactions: {}",
            history.kind, history.operations, history.words
        );
    }
    for verdict in &report.verdicts {
        let word = if verdict.held { "held" } else { "NOT HELD" };
        let _ = writeln!(
            out,
            "{word}: {}: wanted {}, seen {}",
            verdict.name, verdict.wanted, verdict.seen
        );
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}
