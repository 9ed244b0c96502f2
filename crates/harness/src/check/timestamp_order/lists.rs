//! Timestamp order of append-only lists.

use super::{Untimed, Window, groups, report_tie, tie, timestamp};
use crate::check::list_append::views;
use crate::check::words::{self, list_words};
use crate::check::{Anomaly, Findings};
use crate::history::{History, ListOp, Outcome, Transaction};
use std::collections::{BTreeMap, HashMap, HashSet};

/// One key during the replay.
#[derive(Default)]
struct Replayed<'a> {
    /// Elements that have timestamps, and those.
    elements: Vec<u64>,
    times: Vec<(u64, usize)>,
    /// The longest read that contains an element without timestamp.
    longest: &'a [u64],
    /// Reads at timestamps: length, timestamp, transaction, whether it wrote nothing.
    reads: Vec<(usize, u64, usize, bool)>,
}

struct Replay<'a> {
    history: &'a [Transaction<ListOp>],
    /// Who appended `(key, value)` without a known timestamp.
    untimed: HashMap<(u64, u64), usize>,
    keys: BTreeMap<u64, Replayed<'a>>,
    findings: Findings,
}

/// Checks that reads saw what timestamp order says.
#[must_use]
pub fn check(history: &History<ListOp>, reads: Untimed) -> Findings {
    let history = &history.transactions;
    let mut replay = Replay {
        history,
        untimed: HashMap::new(),
        keys: BTreeMap::new(),
        findings: Findings {
            checked: history.len(),
            ..Findings::default()
        },
    };
    for (index, transaction) in history.iter().enumerate() {
        if timestamp(transaction).is_none() && transaction.outcome != Outcome::Aborted {
            for (key, value) in appends(transaction) {
                replay.untimed.insert((key, value), index);
            }
        }
    }
    let touches = |index: usize| {
        let op = |op: &ListOp| match op {
            ListOp::Append { key, .. } => (*key, true),
            ListOp::Read { key, .. } => (*key, false),
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

fn appends(transaction: &Transaction<ListOp>) -> impl Iterator<Item = (u64, u64)> {
    transaction.ops.iter().filter_map(|op| match op {
        ListOp::Append { key, value } => Some((*key, *value)),
        ListOp::Read { .. } => None,
    })
}

impl<'a> Replay<'a> {
    /// Transactions of one timestamp: those that write read the state before it,
    /// the others the state after it.
    fn step(&mut self, at: u64, group: &[usize]) {
        let is_writer = |index: &usize| appends(&self.history[*index]).next().is_some();
        let (writers, readers): (Vec<usize>, Vec<usize>) = group.iter().partition(|i| is_writer(i));
        for index in &writers {
            self.read(at, *index, false);
        }
        for index in &writers {
            for (key, value) in appends(&self.history[*index]) {
                let known = self.keys.entry(key).or_default();
                known.elements.push(value);
                known.times.push((at, *index));
            }
        }
        for index in &readers {
            self.read(at, *index, true);
        }
    }

    fn read(&mut self, at: u64, index: usize, only_reads: bool) {
        let transaction: &'a Transaction<ListOp> = &self.history[index];
        // What it appended before each read, per key.
        let mut own: HashMap<u64, Vec<u64>> = HashMap::new();
        for op in &transaction.ops {
            let (key, list) = match op {
                ListOp::Append { key, value } => {
                    own.entry(*key).or_default().push(*value);
                    continue;
                }
                ListOp::Read {
                    key,
                    list: Some(list),
                } => (key, list),
                ListOp::Read { list: None, .. } => continue,
            };
            let own = own.get(key).map_or(&[][..], Vec::as_slice);
            self.compare(at, index, *key, list, own);
            if own.is_empty() {
                let known = self.keys.entry(*key).or_default();
                known.reads.push((list.len(), at, index, only_reads));
            }
        }
    }

    /// Compares one read with the state, which `own` is to be added to.
    fn compare(&mut self, at: u64, index: usize, key: u64, list: &'a [u64], own: &[u64]) {
        let known = self.keys.entry(key).or_default();
        let expected = || known.elements.iter().chain(own);
        if list.iter().eq(expected()) {
            return;
        }
        let untimed = &self.untimed;
        let is_timed = |value: &&u64| !untimed.contains_key(&(key, **value));
        let timed = list.iter().filter(is_timed).count();
        let fits = list.iter().filter(is_timed).eq(expected());
        if !fits {
            let expected: Vec<u64> = expected().copied().collect();
            let history = self.history;
            self.findings.add(Anomaly::TimestampOrder, || {
                format!(
                    "{} at {at}: lower timestamps leave {} in key {key}",
                    words::transaction(history, index),
                    list_words(&expected),
                )
            });
        }
        if timed < list.len() && list.len() > known.longest.len() {
            known.longest = list;
        }
    }

    /// Every transaction without a known timestamp that was seen must have one.
    fn check_untimed_writers(&mut self) {
        let mut windows: BTreeMap<usize, Window> = BTreeMap::new();
        let mut seen: HashSet<(u64, u64)> = HashSet::new();
        for (key, known) in &mut self.keys {
            if known.longest.is_empty() {
                continue;
            }
            let times: HashMap<u64, (u64, usize)> = known
                .elements
                .iter()
                .copied()
                .zip(known.times.iter().copied())
                .collect();
            // Of the reads too short for an element, the last; of the others, the first.
            known.reads.sort_unstable();
            let first_at = |read: &&(usize, u64, usize, bool)| read.1 + u64::from(read.3);
            let mut earliest = vec![None; known.reads.len() + 1];
            for (i, read) in known.reads.iter().enumerate().rev() {
                let bound = Some((first_at(&read), read.2));
                earliest[i] = earliest[i + 1].min(bound).or(bound);
            }
            let (mut short, mut latest): (usize, Option<(u64, usize)>) = (0, None);
            for (position, value) in known.longest.iter().enumerate() {
                while let Some(read) = known.reads.get(short).filter(|r| r.0 <= position) {
                    latest = latest.max(Some((read.1, read.2)));
                    short += 1;
                }
                let Some(writer) = self.untimed.get(&(*key, *value)) else {
                    continue;
                };
                seen.insert((*key, *value));
                let window = windows.entry(*writer).or_insert(Window::ALL);
                if let Some((at, by)) = latest {
                    window.raise(at, by);
                }
                if let Some((at, by)) = earliest[short] {
                    window.lower(at, by);
                }
                let older = known.longest[..position].iter().rev();
                if let Some((at, by)) = older.take(WINDOW).find_map(|v| times.get(v)) {
                    window.raise(*at, *by);
                }
                let newer = known.longest[position + 1..].iter();
                if let Some((at, by)) = newer.take(WINDOW).find_map(|v| times.get(v)) {
                    window.lower(*at, *by);
                }
            }
        }
        let history = self.history;
        for (writer, mut window) in windows {
            // What was seen of it in one list happened in the others as well.
            for (key, value) in appends(&history[writer]) {
                let known = self
                    .keys
                    .get(&key)
                    .filter(|_| !seen.contains(&(key, value)));
                let reads = known.into_iter().flat_map(|known| &known.reads);
                if let Some((at, by)) = reads.map(|read| (read.1, read.2)).max() {
                    window.raise(at, by);
                }
            }
            window.report(writer, &mut self.findings, &|i| {
                words::transaction(history, i)
            });
        }
    }

    fn check_untimed_readers(&mut self, reads: Untimed) {
        let history = self.history;
        for (index, transaction) in history.iter().enumerate() {
            let is_untimed = transaction.outcome == Outcome::Committed(None);
            if !is_untimed {
                continue;
            }
            let mut window = Window::ALL;
            for view in views(transaction).into_iter().filter(|v| v.outside) {
                let empty = Replayed::default();
                let known = self.keys.get(&view.key).unwrap_or(&empty);
                let is_timed = |v: &&u64| !self.untimed.contains_key(&(view.key, **v));
                let timed: Vec<u64> = view.list.iter().filter(is_timed).copied().collect();
                if !known.elements.starts_with(&timed) {
                    self.findings.add(Anomaly::TimestampOrder, || {
                        format!(
                            "{}: at no timestamp was key {} like this",
                            words::transaction(history, index),
                            view.key
                        )
                    });
                    continue;
                }
                if let Some((at, by)) = timed.len().checked_sub(1).map(|i| known.times[i]) {
                    // Moments are whole: a snapshot at `at` itself sees it.
                    window.raise(at.saturating_sub(1), by);
                }
                if let Some((at, by)) = known.times.get(timed.len()) {
                    window.lower(*at, *by);
                }
            }
            if reads == Untimed::OneMoment {
                window.report(index, &mut self.findings, &|i| {
                    words::transaction(history, i)
                });
            }
        }
    }
}

/// How far an element's neighbours with timestamps are looked for; a bound on the
/// work where few elements have any.
const WINDOW: usize = 64;
