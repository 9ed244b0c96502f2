//! The terminal: at most 100 columns.

use super::data::{Report, Site};
use super::faults::{Numbered, numbered, rows};
use super::{columns, words};
use std::fmt::Write as _;

/// No line is longer.
const WIDTH: usize = 100;
/// Room for a site's name.
const NAME: usize = 16;
/// How many columns the time axis has.
const CELLS: usize = 64;

/// The run in at most 100 columns, for a terminal.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    table(&mut out, report);
    timeline(&mut out, report);
    faults(&mut out, report);
    verdicts(&mut out, report);
    for note in &report.notes {
        wrapped(&mut out, "note: ", 6, note);
    }
    if !report.notes.is_empty() {
        out.push('\n');
    }
    wrapped(&mut out, "again: ", 7, &words::again(report));
    out
}

/// A line, or what fits of it.
fn push(out: &mut String, line: &str) {
    out.push_str(words::cut(line, WIDTH).trim_end());
    out.push('\n');
}

/// Words over several lines; those after the first are indented. A word that is
/// longer than a line is broken.
fn wrapped(out: &mut String, begin: &str, indent: usize, words: &str) {
    let mut line = begin.to_string();
    let mut length = begin.chars().count();
    let mut is_empty = true;
    for word in words.split(|c: char| c.is_whitespace() || c.is_control()) {
        let mut word: Vec<char> = word.chars().collect();
        if word.is_empty() {
            continue;
        }
        if !is_empty && length + 1 + word.len() > WIDTH {
            push(out, &line);
            line = " ".repeat(indent);
            (length, is_empty) = (indent, true);
        }
        if !is_empty {
            line.push(' ');
            length += 1;
        }
        while length + word.len() > WIDTH {
            let rest = word.split_off(WIDTH - length);
            line.extend(word);
            push(out, &line);
            (line, length, word) = (" ".repeat(indent), indent, rest);
        }
        length += word.len();
        line.extend(word);
        is_empty = false;
    }
    push(out, &line);
}

fn head(out: &mut String, report: &Report) {
    wrapped(
        out,
        "",
        0,
        &format!("{}: {}", report.scenario, words::outcome(report)),
    );
    if !report.about.is_empty() {
        wrapped(out, "  ", 2, &report.about);
    }
    out.push('\n');
    let clients = words::over_sites(report, |site| site.clients as u64);
    let clients = words::many(clients as usize, "client");
    let cluster = format!("{}, {clients}", words::cluster(report));
    let seed = format!("seed {}", report.seed);
    let began = format!("began {}", words::utc(report.began_unix_millis));
    let ran = format!("ran for {}", words::moment(report.run_millis));
    wrapped(out, "  ", 2, &cluster);
    wrapped(out, "  ", 2, &format!("{began}, {ran}, {seed}"));
    let facts = [
        ("version: ", &report.version),
        ("workload: ", &report.workload),
    ];
    for (name, fact) in facts.iter().filter(|(_, fact)| !fact.is_empty()) {
        wrapped(out, "  ", 2, &format!("{name}{fact}"));
    }
    out.push('\n');
}

/// What each site's clients saw in all.
fn table(out: &mut String, report: &Report) {
    if report.sites.is_empty() {
        return;
    }
    let names = [
        "site",
        "clients",
        "ok",
        "failed",
        "unknown",
        "p50",
        "p99",
        "max",
        "longest gap",
    ];
    let mut rows = vec![names.map(String::from)];
    for site in &report.sites {
        let total = &site.total;
        rows.push([
            words::cut(&site.name, NAME),
            words::count(site.clients as u64),
            words::count(total.ok),
            words::count(total.failed),
            words::count(total.unknown),
            words::micros(total.p50_micros),
            words::micros(total.p99_micros),
            words::micros(total.max_micros),
            words::gap(site),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..names.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    for row in &rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        push(out, &line);
    }
    out.push('\n');
}

/// Throughput of each site over time, the faults that were done to it beneath, and
/// below all every fault by its number.
fn timeline(out: &mut String, report: &Report) {
    let end = columns::end_millis(report);
    let faults = numbered(report, end);
    if report.sites.is_empty() && faults.iter().all(|fault| fault.window.is_none()) {
        return;
    }
    push(
        out,
        "successes per second (· none), and beneath when faults were done to the site",
    );
    for site in &report.sites {
        let name = words::cut(&site.name, NAME);
        let (curve, peak) = sparkline(site, end);
        push(
            out,
            &format!("{name:<NAME$}  {curve}  peak {}", words::short(peak)),
        );
        let beneath = beneath(site, &faults, end);
        if !beneath.trim().is_empty() {
            push(out, &format!("{:<NAME$}  {beneath}", ""));
        }
    }
    for (index, row) in bars(&faults, end).iter().enumerate() {
        let name = if index == 0 { "faults" } else { "" };
        push(out, &format!("{name:<NAME$}  {row}"));
    }
    push(out, &format!("{:<NAME$}  {}", "", ruler(end)));
    out.push('\n');
}

/// Eight heights up to the peak.
fn sparkline(site: &Site, end: u64) -> (String, f64) {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let cells = columns::cells(site, end, CELLS);
    let peak = cells.iter().flatten().copied().fold(0.0, f64::max);
    let height = |cell: &Option<f64>| match cell {
        None => ' ',
        Some(rate) if *rate > 0.0 => {
            let eighths = (rate / peak * 8.0).ceil().clamp(1.0, 8.0) as usize;
            HEIGHTS[eighths - 1]
        }
        Some(_) => '·',
    };
    (cells.iter().map(height).collect(), peak)
}

/// The cells from the one a fault begins in to the one it ends in.
fn cells_of(fault: &Numbered<'_>, end: u64) -> Option<(usize, usize)> {
    let (from, until) = fault.window?;
    let cell = |millis: u64| millis as f64 / end as f64 * CELLS as f64;
    let first = (cell(from) as usize).min(CELLS - 1);
    let last = (cell(until).ceil() as usize).clamp(first + 1, CELLS);
    Some((first, last))
}

/// Marks where any fault was done to the site.
fn beneath(site: &Site, faults: &[Numbered<'_>], end: u64) -> String {
    let mut marks = [' '; CELLS];
    for fault in faults.iter().filter(|fault| fault.touches(site)) {
        if let Some((first, last)) = cells_of(fault, end) {
            marks[first..last].fill('▔');
        }
    }
    marks.iter().collect()
}

/// The faults by number, each as long as it lasted, in as few rows as they fit in.
fn bars(faults: &[Numbered<'_>], end: u64) -> Vec<String> {
    let drawn: Vec<(String, usize, usize)> = (faults.iter())
        .filter_map(|fault| {
            let (first, last) = cells_of(fault, end)?;
            let number = fault.number.to_string();
            let first = first.min(CELLS - number.len());
            let last = last.max(first + number.len());
            Some((number, first, last))
        })
        .collect();
    // One free cell between two.
    let stretches = drawn.iter().map(|bar| (bar.1 as f64, bar.2 as f64 + 1.0));
    let places = rows(&stretches.collect::<Vec<_>>());
    let count = places.iter().max().map_or(0, |last| last + 1);
    let mut lines = vec![[' '; CELLS]; count];
    for ((number, first, last), row) in drawn.iter().zip(places) {
        lines[row][*first..*last].fill('━');
        for (cell, digit) in lines[row][*first..].iter_mut().zip(number.chars()) {
            *cell = digit;
        }
    }
    lines.iter().map(|line| line.iter().collect()).collect()
}

/// The moments at the quarters of the axis.
fn ruler(end: u64) -> String {
    let mut line = String::new();
    for quarter in 0..4u64 {
        let millis = (u128::from(end) * u128::from(quarter) / 4) as u64;
        let words = format!("│{}", words::moment(millis));
        let _ = write!(line, "{words:<0$}", CELLS / 4);
    }
    let line: String = line.chars().take(CELLS).collect();
    format!("{line}│{}", words::moment(end))
}

fn faults(out: &mut String, report: &Report) {
    let faults = numbered(report, columns::end_millis(report));
    if faults.is_empty() {
        return;
    }
    let longest = faults
        .iter()
        .map(|fault| fault.when().chars().count())
        .max();
    let longest = longest.unwrap_or(0).min(40);
    for fault in &faults {
        let begin = format!("{:>4}  {:<longest$}  ", fault.number, fault.when());
        let indent = begin.chars().count().min(60);
        wrapped(out, &begin, indent, &fault.words());
    }
    out.push('\n');
}

fn verdicts(out: &mut String, report: &Report) {
    for verdict in &report.verdicts {
        let sign = if verdict.held { "ok      " } else { "BROKEN  " };
        let words = format!(
            "{}: wanted {}, saw {}",
            verdict.name, verdict.wanted, verdict.seen
        );
        wrapped(out, sign, 8, &words);
    }
    if let Some(history) = &report.history {
        let sign = if history.ok { "ok      " } else { "BROKEN  " };
        let operations = words::count(history.operations);
        let words = format!(
            "history, {} of {operations} operations: {}",
            history.kind, history.words
        );
        wrapped(out, sign, 8, &words);
    }
    if !report.verdicts.is_empty() || report.history.is_some() {
        out.push('\n');
    }
}
