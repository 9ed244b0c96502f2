//! What a sweep did, as tables.

use comfy_table::{CellAlignment, Table, presets};
use std::fmt::Write as _;
use synod_harness::sim::{Report, Sweep};
use synod_probe::Mark;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn line(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "{name:<16}{value}");
}

/// A sweep: sums, faults by kind, marks.
pub fn of_sweep(sweep: &Sweep, all_marks: bool) -> String {
    let mut out = String::new();
    line(&mut out, "seeds", &sweep.seeds.to_string());
    let hours = sweep.simulated as f64 / 3.6e12;
    line(&mut out, "simulated", &format!("{hours:.2} hours"));
    line(
        &mut out,
        "transactions",
        &format!(
            "{} committed ({:.0}/s per core), {} unknown, {} aborted",
            sweep.commits,
            sweep.rate(),
            sweep.unknown,
            sweep.aborted
        ),
    );
    if sweep.lost_nodes > 0 {
        let lost = format!("{} refused to start with a damaged disk", sweep.lost_nodes);
        line(&mut out, "nodes", &lost);
    }
    let faults: u64 = sweep.faults.values().sum();
    line(&mut out, "faults", &faults.to_string());
    line(&mut out, "failed seeds", &sweep.failures.len().to_string());
    if !sweep.faults.is_empty() {
        let mut table = table(&["FAULT", "COUNT"]);
        for (kind, count) in &sweep.faults {
            table.add_row([format!("{kind:?}"), count.to_string()]);
        }
        let _ = writeln!(out, "\n{}", table.trim_fmt());
    }
    marks(&mut out, sweep, all_marks);
    out
}

fn marks(out: &mut String, sweep: &Sweep, all: bool) {
    let never = sweep.never_hit();
    let hit = Mark::ALL.len() - never.len();
    let _ = writeln!(out, "\nrare paths: {hit} of {} passed", Mark::ALL.len());
    if all {
        let mut table = table(&["MARK", "COUNT", "WHAT IT MEANS"]);
        for (mark, count) in &sweep.marks {
            let cells = [
                mark.name().to_owned(),
                count.to_string(),
                mark.what().to_owned(),
            ];
            table.add_row(cells);
        }
        let _ = writeln!(out, "{}", table.trim_fmt());
    }
    if !never.is_empty() {
        let names: Vec<&str> = never.iter().map(|mark| mark.name()).collect();
        let _ = writeln!(out, "never passed: {}", names.join(", "));
    }
}

/// One run, in a few lines.
pub fn of_run(report: &Report) -> String {
    let mut out = String::new();
    let simulated = report.simulated as f64 / 1e9;
    line(
        &mut out,
        "simulated",
        &format!("{simulated:.1} s, {} events", report.events),
    );
    line(
        &mut out,
        "transactions",
        &format!(
            "{} committed, {} unknown, {} aborted",
            report.commits, report.unknown, report.aborted
        ),
    );
    let kinds = report.faults.iter();
    let kinds: Vec<String> = kinds.map(|(kind, n)| format!("{kind:?} {n}")).collect();
    let kinds = if kinds.is_empty() {
        "none".to_owned()
    } else {
        kinds.join(", ")
    };
    line(&mut out, "faults", &kinds);
    line(&mut out, "trace", &format!("{:016x}", report.trace));
    line(&mut out, "violations", &report.violations.len().to_string());
    out
}
