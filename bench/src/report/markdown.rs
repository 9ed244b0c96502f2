//! The tables.

use super::summary::{Range, Summary};
use crate::plan::Group;
use crate::record::Subject;
use crate::system::System;
use std::fmt::Write as _;

/// Everything that is generated.
pub fn all(summary: &Summary) -> String {
    let mut text = String::new();
    if let Some((least, most)) = summary.repetitions() {
        let times = if least == most {
            format!("{least} times")
        } else {
            format!("{least} to {most} times")
        };
        let _ = writeln!(
            text,
            "Measured {times} in turn, Synod and etcd one after the other. Each figure is a median; \
             in brackets the least and the greatest. A ratio is Synod's figure over etcd's in the \
             same turn.\n"
        );
    }
    for section in [aims, loops, open, fanout, failover, ledger, memory, tails] {
        let section = section(summary);
        if !section.is_empty() {
            text += &section;
            text.push('\n');
        }
    }
    text
}

/// Three digits that count, and thousands apart.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && grouped != "-" {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if !fraction.is_empty() {
        grouped.push('.');
        grouped += fraction;
    }
    grouped
}

fn with_range(range: Option<Range>, unit: &str) -> String {
    let Some(Range { low, median, high }) = range else {
        return "–".to_owned();
    };
    if (high - low).abs() < f64::EPSILON {
        return format!("{}{unit}", number(median));
    }
    let (low, high) = (number(low), number(high));
    format!("{}{unit} ({low}–{high})", number(median))
}

fn median(range: Option<Range>, scale: f64) -> String {
    range.map_or_else(|| "–".to_owned(), |r| number(r.median * scale))
}

/// One line of the table of aims.
struct Aim {
    what: &'static str,
    seen: Option<Range>,
    /// What must be reached, and what would be better.
    at_least: f64,
    better: Option<f64>,
    more_is_better: bool,
    unit: &'static str,
}

impl Aim {
    fn reached(&self, wanted: f64) -> bool {
        self.seen.is_some_and(|seen| {
            if self.more_is_better {
                seen.median >= wanted
            } else {
                seen.median <= wanted
            }
        })
    }

    fn line(&self) -> String {
        let sign = if self.more_is_better { "≥" } else { "≤" };
        let wanted = |wanted| format!("{sign} {}{}", number(wanted), self.unit);
        let verdict = match self.better {
            _ if self.seen.is_none() => "not measured",
            _ if !self.reached(self.at_least) => "**missed**",
            Some(better) if self.reached(better) => "aim reached",
            Some(_) => "reached",
            None => "reached",
        };
        format!(
            "| {} | {} | {} | {} | {verdict} |\n",
            self.what,
            wanted(self.at_least),
            self.better.map_or_else(|| "–".to_owned(), wanted),
            with_range(self.seen, self.unit),
        )
    }
}

fn aims(summary: &Summary) -> String {
    let ratio = |group, workload, clients, figure| {
        let subject = summary.subject(group, workload, clients)?;
        summary.ratio(subject, figure)
    };
    let against_compare_and_put = || {
        let ours = summary.subject(Group::Txn2, "txn2", 256)?;
        let theirs = summary.subject(Group::Txn2, "cas2", 256)?;
        summary.ratio_between(ours, theirs, "rate")
    };
    let of = |group, figure| {
        let subject = summary.subjects(group).last()?;
        summary.range(subject, System::Synod, figure)
    };
    let gap = || {
        let subject = summary.subjects(Group::Failover).last()?;
        let ours = summary.range(subject, System::Synod, "gap_ms")?.median;
        let theirs = summary.range(subject, System::Etcd, "gap_ms")?.median;
        Range::of([ours / theirs])
    };
    let times = |what, seen, at_least, better, more_is_better| Aim {
        what,
        seen,
        at_least,
        better: Some(better),
        more_is_better,
        unit: " ×",
    };
    let absolute = |what, seen, at_least, unit| Aim {
        what,
        seen,
        at_least,
        better: None,
        more_is_better: false,
        unit,
    };
    let all = [
        times(
            "single-key commits/s, 256 clients",
            ratio(Group::Put, "put", 256, "rate"),
            3.5,
            5.0,
            true,
        ),
        times(
            "one client's commit, p50",
            ratio(Group::Put, "put", 1, "p50_us"),
            0.5,
            0.4,
            false,
        ),
        times(
            "reads under lease/s, 256 clients",
            ratio(Group::Get, "get", 256, "rate"),
            10.0,
            15.0,
            true,
        ),
        times(
            "two-shard transactions/s (2 reads, 2 writes), 256 clients",
            ratio(Group::Txn2, "txn2", 256, "rate"),
            2.5,
            4.0,
            true,
        ),
        times(
            "the same over etcd's 2 compares + 2 puts in one round trip, nothing read",
            against_compare_and_put(),
            2.5,
            4.0,
            true,
        ),
        times(
            "kill -9 of the leader, longest write gap, median",
            gap(),
            0.9,
            0.7,
            false,
        ),
        times(
            "CPU per commit, all nodes, 256 clients",
            ratio(Group::Put, "put", 256, "server_cpu_us"),
            0.3,
            0.2,
            false,
        ),
        Aim {
            unit: " ×",
            ..absolute(
                "mean commit over 50 participants, to that over one",
                fanout_ratio(summary, 50),
                1.5,
                "",
            )
        },
        absolute(
            "mean commit over 200 participants, to that over one",
            fanout_ratio(summary, 200),
            3.0,
            " ×",
        ),
        absolute(
            "one hot counter, 32 clients: aborts per commit",
            of(Group::Hot, "retries"),
            1.0,
            "",
        ),
        absolute(
            "the ledger, 32 clients",
            of(Group::Ledger, "seconds"),
            90.0,
            " s",
        ),
        absolute(
            "memory of a node at 1 million keys",
            of(Group::Memory, "resident_mib"),
            512.0,
            " MiB",
        ),
        absolute(
            "commits at half the peak load, p99",
            of(Group::Tails, "p99_us").map(to_millis),
            5.0,
            " ms",
        ),
        absolute(
            "commits at half the peak load, p99.9",
            of(Group::Tails, "p999_us").map(to_millis),
            20.0,
            " ms",
        ),
    ];
    let mut text =
        "### Against the aims\n\n| | at least | aim | seen | |\n|---|---:|---:|---:|---|\n"
            .to_owned();
    text.extend(all.iter().map(Aim::line));
    text
}

fn to_millis(range: Range) -> Range {
    Range {
        low: range.low / 1e3,
        median: range.median / 1e3,
        high: range.high / 1e3,
    }
}

fn fanout_ratio(summary: &Summary, participants: u32) -> Option<Range> {
    let of = |participants| {
        let mut subjects = summary.subjects(Group::Fanout);
        let subject = subjects.find(|s| s.participants == Some(participants))?;
        summary.range(subject, System::Synod, "mean_us")
    };
    Range::of([of(participants)?.median / of(1)?.median])
}

/// A workload's name, with the size of its values where that is not the usual one.
pub fn name(subject: &Subject) -> String {
    match subject.value_bytes {
        128 => subject.workload.clone(),
        bytes if bytes >= 1 << 20 => format!("{}, {} MiB", subject.workload, bytes >> 20),
        bytes if bytes >= 1 << 10 => format!("{}, {} KiB", subject.workload, bytes >> 10),
        bytes => format!("{}, {bytes} B", subject.workload),
    }
}

/// The groups of closed loops.
pub const LOOPS: [Group; 8] = [
    Group::Put,
    Group::Get,
    Group::Txn2,
    Group::Rmw,
    Group::Ycsb,
    Group::Hot,
    Group::Large,
    Group::Scan,
];

fn loops(summary: &Summary) -> String {
    let mut lines = String::new();
    for subject in LOOPS.iter().flat_map(|group| summary.subjects(*group)) {
        let range = |system, figure| summary.range(subject, system, figure);
        let both = |figure, scale| {
            let ours = median(range(System::Synod, figure), scale);
            let theirs = median(range(System::Etcd, figure), scale);
            format!("{ours} / {theirs}")
        };
        let _ = writeln!(
            lines,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            name(subject),
            number(subject.clients.into()),
            with_range(range(System::Synod, "rate"), ""),
            with_range(range(System::Etcd, "rate"), ""),
            with_range(summary.ratio(subject, "rate"), " ×"),
            both("p50_us", 1e-3),
            both("p99_us", 1e-3),
            both("server_cpu_us", 1.0),
            both("client_cpu_us", 1.0),
            both("syncs", 1.0),
            both("retries", 1.0),
        );
    }
    if lines.is_empty() {
        return lines;
    }
    format!(
        "### Saturated: closed loops\n\nPairs are Synod / etcd: latencies in milliseconds, CPU in \
         microseconds per operation (all three servers together; the client apart), syncs of all \
         three servers and attempts beyond the first, each per operation.\n\n\
         | workload | clients | Synod ops/s | etcd ops/s | ratio | p50 | p99 | CPU servers | CPU client | syncs | retries |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n{lines}"
    )
}

fn open(summary: &Summary) -> String {
    let mut lines = String::new();
    for subject in summary.subjects(Group::Open) {
        for system in [System::Synod, System::Etcd] {
            let at = |figure, scale| median(summary.range(subject, system, figure), scale);
            let _ = writeln!(
                lines,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                number(subject.offered.unwrap_or(0).into()),
                system.name(),
                at("rate", 1.0),
                at("p50_us", 1e-3),
                at("p99_us", 1e-3),
                at("p999_us", 1e-3),
                at("server_cpu_us", 1.0),
                at("failed", 1.0),
            );
        }
    }
    if lines.is_empty() {
        return lines;
    }
    format!(
        "### Under a fixed load: open loop\n\nPuts, begun evenly spaced whether the cluster keeps up \
         or not; a latency counts from the moment the put should have begun. Milliseconds.\n\n\
         | offered/s | | served/s | p50 | p99 | p99.9 | CPU servers | failed |\n\
         |---:|---|---:|---:|---:|---:|---:|---:|\n{lines}"
    )
}

fn fanout(summary: &Summary) -> String {
    let mut lines = String::new();
    for subject in summary.subjects(Group::Fanout) {
        let at = |figure| median(summary.range(subject, System::Synod, figure), 1e-3);
        let participants = subject.participants.unwrap_or(0);
        let ratio = fanout_ratio(summary, participants);
        let _ = writeln!(
            lines,
            "| {participants} | {} | {} | {} | {} |",
            at("mean_us"),
            at("p50_us"),
            at("p99_us"),
            with_range(ratio, " ×"),
        );
    }
    if lines.is_empty() {
        return lines;
    }
    format!(
        "### Commits over many shards\n\nOne client, one write in each participant, 200 shards on three \
         nodes, nothing else to do: each commit begins 20 ms after the one before, when nothing of \
         that is left. Milliseconds.\n\n\
         | participants | mean | p50 | p99 | to one |\n|---:|---:|---:|---:|---:|\n{lines}"
    )
}

/// Lines for figures that both systems have, one figure a column.
fn side_by_side(summary: &Summary, group: Group, figures: &[&str]) -> String {
    let mut lines = String::new();
    for subject in summary.subjects(group) {
        for system in [System::Synod, System::Etcd] {
            let cells: Vec<String> = (figures.iter())
                .map(|figure| with_range(summary.range(subject, system, figure), ""))
                .collect();
            if cells.iter().any(|cell| cell != "–") {
                let cells = cells.join(" | ");
                let workload = &subject.workload;
                let _ = writeln!(lines, "| {workload} | {} | {cells} |", system.name());
            }
        }
    }
    lines
}

fn failover(summary: &Summary) -> String {
    let lines = side_by_side(summary, Group::Failover, &["gap_ms"]);
    if lines.is_empty() {
        return lines;
    }
    format!(
        "### kill -9 of the leader\n\nThree writers, one for each third of the keys; the longest time \
         for which one of them was not served, for each kill (etcd's writers ask the next member \
         after 100 ms).\n\n| | | gap, ms |\n|---|---|---:|\n{lines}"
    )
}

fn ledger(summary: &Summary) -> String {
    let figures = ["seconds", "rate", "retries", "server_cpu_us"];
    let lines = side_by_side(summary, Group::Ledger, &figures);
    if lines.is_empty() {
        return lines;
    }
    format!(
        "### The ledger\n\n`examples/ledger`, 32 clients, each row one transaction over three keys; \
         every balance verified.\n\n\
         | | | seconds | rows/s | retries per row | CPU servers, µs |\n|---|---|---:|---:|---:|---:|\n{lines}"
    )
}

fn memory(summary: &Summary) -> String {
    let lines = side_by_side(summary, Group::Memory, &["resident_mib", "fill_s"]);
    if lines.is_empty() {
        return lines;
    }
    format!(
        "### Memory\n\nThe largest of the three processes, right after the keys were written.\n\n\
         | | | MiB | seconds to write |\n|---|---|---:|---:|\n{lines}"
    )
}

fn tails(summary: &Summary) -> String {
    let figures = [
        "offered", "seconds", "p50_us", "p99_us", "p999_us", "max_us",
    ];
    let lines = side_by_side(summary, Group::Tails, &figures);
    if lines.is_empty() {
        return lines;
    }
    format!(
        "### Tails\n\nPuts at half of what the same cluster took with 256 clients just before; open \
         loop. Microseconds.\n\n\
         | | | offered/s | seconds | p50 | p99 | p99.9 | max |\n|---|---|---:|---:|---:|---:|---:|---:|\n{lines}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (0.0, "0"),
            (0.012_34, "0.012"),
            (0.5, "0.50"),
            (16.0, "16"),
            (12.34, "12.3"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn an_aim_tells_whether_it_was_reached() {
        let aim = |median| Aim {
            what: "x",
            seen: Range::of([median]),
            at_least: 2.0,
            better: Some(4.0),
            more_is_better: true,
            unit: " ×",
        };
        assert!(aim(1.9).line().ends_with("| **missed** |\n"));
        assert!(aim(2.0).line().ends_with("| reached |\n"));
        assert!(aim(4.0).line().ends_with("| aim reached |\n"));
        let never = Aim {
            seen: None,
            ..aim(0.0)
        };
        assert!(never.line().ends_with("| not measured |\n"));
    }
}
