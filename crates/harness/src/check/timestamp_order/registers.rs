//! Timestamp order of registers.

use super::{Untimed, Window, groups, report_tie, tie, timestamp};
use crate::check::registers::{reads as reads_of, writes};
use crate::check::{Anomaly, Findings, words};
use crate::history::{History, Outcome, RwOp, Seen, Transaction};
use std::collections::{BTreeMap, HashMap};

/// A version with a timestamp.
#[derive(Clone, Copy)]
struct Version {
    value: Seen,
    at: u64,
    writer: usize,
}

struct Replay<'a> {
    history: &'a [Transaction<RwOp>],
    /// Who wrote `(key, value)` without a known timestamp.
    untimed: HashMap<(u64, u64), usize>,
    /// The versions so far, per key.
    keys: HashMap<u64, Vec<Version>>,
    /// The timestamp at which `(key, value)` was written.
    times: HashMap<(u64, u64), u64>,
    /// What is known of the timestamps of those that have none.
    windows: BTreeMap<usize, Window>,
    /// Per key, spans of timestamps in which nobody wrote, exclusive: a read at the
    /// second bound saw the version of the first.
    quiet: HashMap<u64, Vec<(u64, u64)>>,
    findings: Findings,
}

/// Checks that reads saw what timestamp order says.
#[must_use]
pub fn check(history: &History<RwOp>, reads: Untimed) -> Findings {
    let history = &history.transactions;
    let mut replay = Replay {
        history,
        untimed: HashMap::new(),
        keys: HashMap::new(),
        times: HashMap::new(),
        windows: BTreeMap::new(),
        quiet: HashMap::new(),
        findings: Findings {
            checked: history.len(),
            ..Findings::default()
        },
    };
    for (index, transaction) in history.iter().enumerate() {
        if timestamp(transaction).is_none() && transaction.outcome != Outcome::Aborted {
            for (key, value) in writes(transaction) {
                replay.untimed.insert((key, value), index);
            }
        }
    }
    let touches = |index: usize| {
        let op = |op: &RwOp| match op {
            RwOp::Write { key, .. } => (*key, true),
            RwOp::Read { key, .. } => (*key, false),
        };
        history[index].ops.iter().map(op).collect()
    };
    for (at, group) in groups(history) {
        if let Some((key, pair)) = tie(&group, &touches) {
            report_tie(at, key, pair, &mut replay.findings, &|i| {
                words::transaction(history, i)
            });
        }
        replay.step(at, &group);
    }
    replay.check_untimed_writers();
    replay.check_untimed_readers(reads);
    replay.findings
}

impl Replay<'_> {
    fn step(&mut self, at: u64, group: &[usize]) {
        let history = self.history;
        let is_writer = |index: &usize| !writes(&history[*index]).is_empty();
        let (writers, readers): (Vec<usize>, Vec<usize>) = group.iter().partition(|i| is_writer(i));
        for index in &writers {
            self.read(at, *index, at);
        }
        for index in &writers {
            for (key, value) in writes(&history[*index]) {
                self.times.insert((key, value), at);
                self.keys.entry(key).or_default().push(Version {
                    value: Seen::Value(value),
                    at,
                    writer: *index,
                });
            }
        }
        for index in &readers {
            self.read(at, *index, at.saturating_add(1));
        }
    }

    /// `before` is the first timestamp that the transaction does not see.
    fn read(&mut self, at: u64, index: usize, before: u64) {
        let history = self.history;
        let (outside, contradiction) = reads_of(&history[index]);
        if let Some(key) = contradiction {
            self.findings.add(Anomaly::TimestampOrder, || {
                format!(
                    "{} at {at}: key {key} changed in the midst of it",
                    words::transaction(history, index)
                )
            });
        }
        for (key, seen) in outside {
            let newest = self.keys.get(&key).and_then(|v| v.last()).copied();
            let writer = match seen {
                Seen::Value(value) => self.untimed.get(&(key, value)),
                _ => None,
            };
            if let Some(writer) = writer {
                let window = self.windows.entry(*writer).or_insert(Window::ALL);
                window.lower(before, index);
                if let Some(version) = newest {
                    window.raise(version.at, version.writer);
                }
                continue;
            }
            let expected = newest.map_or(Seen::Nothing, |v| v.value);
            if seen == expected {
                let since = newest.map_or(0, |v| v.at);
                self.quiet.entry(key).or_default().push((since, before));
                continue;
            }
            self.findings.add(Anomaly::TimestampOrder, || {
                let left = match expected {
                    Seen::Value(value) => value.to_string(),
                    _ => "nothing".to_owned(),
                };
                format!(
                    "{} at {at}: lower timestamps leave {left} in key {key}",
                    words::transaction(history, index),
                )
            });
        }
    }

    fn check_untimed_writers(&mut self) {
        for spans in self.quiet.values_mut() {
            spans.sort_unstable();
            // Each with the farthest end so far: what covers a window is then found
            // by its beginning alone.
            let mut end = 0;
            for span in spans {
                end = end.max(span.1);
                span.1 = end;
            }
        }
        let history = self.history;
        let told = |i: usize| words::transaction(history, i);
        for (writer, window) in &self.windows {
            if window.contradiction().is_some() {
                window.report(*writer, &mut self.findings, &told);
                continue;
            }
            let low = window.low.map_or(0, |(at, _)| at);
            let Some((high, _)) = window.high else {
                continue;
            };
            for key in writes(&history[*writer]).into_keys() {
                let spans = self.quiet.get(&key).map_or(&[][..], Vec::as_slice);
                let until = spans.partition_point(|span| span.0 <= low);
                if until > 0 && spans[until - 1].1 >= high {
                    self.findings.add(Anomaly::TimestampOrder, || {
                        format!(
                            "no timestamp fits {}: it would have to lie above {low} and below \
                             {high}, but there its write to key {key} was not seen",
                            told(*writer)
                        )
                    });
                }
            }
        }
    }

    fn check_untimed_readers(&mut self, reads: Untimed) {
        if reads == Untimed::AnyMoment {
            return;
        }
        let history = self.history;
        for (index, transaction) in history.iter().enumerate() {
            if transaction.outcome != Outcome::Committed(None) {
                continue;
            }
            let mut window = Window::ALL;
            for (key, seen) in reads_of(transaction).0 {
                let versions = self.keys.get(&key).map_or(&[][..], Vec::as_slice);
                let next = match seen {
                    Seen::Value(value) => {
                        let Some(at) = self.times.get(&(key, value)) else {
                            continue;
                        };
                        versions.partition_point(|v| v.at <= *at)
                    }
                    _ => 0,
                };
                if let Some(version) = next.checked_sub(1).map(|i| versions[i]) {
                    // Moments are whole: a snapshot at `at` itself sees it.
                    window.raise(version.at.saturating_sub(1), version.writer);
                }
                if let Some(version) = versions.get(next) {
                    window.lower(version.at, version.writer);
                }
            }
            window.report(index, &mut self.findings, &|i| {
                words::transaction(history, i)
            });
        }
    }
}
