//! Strict serializability of registers, in transactions over many keys.
//!
//! Each value is written once per key, so a read names the write it saw. The
//! order of a key's versions is not told by reads, but part of it follows:
//!
//! * the state before all writes is the oldest;
//! * a transaction that read `v` and wrote `w` put `w` right after `v`; such
//!   versions form *chains*, into which no other version can come;
//! * who read anything of a transaction met, of each other key that it met too, the
//!   same version or a newer one;
//! * if anything that read or wrote a version of one chain ended before anything
//!   that read or wrote a version of another began, the first chain is the older.
//!
//! From each known order follow write-write and read-write dependencies, which
//! together with write-read ones and real time must have no cycle (as in Elle;
//! the zones of Gibbons and Korach, *Testing Shared Memories*, 1997, are why the
//! third rule finds every violation of a single register without chains). The check
//! is sound; deciding the general case is NP-complete, so it is not complete:
//! an order that only follows through several keys and no rule above is missed.
//!
//! A transaction of unknown outcome counts as committed, with all its writes,
//! when a committed one read one of them, and not at all otherwise.

mod dependencies;
mod versions;

use super::{Anomaly, Findings, cycles, words};
use crate::history::{History, Outcome, RwOp, Seen, Transaction};
use std::collections::{BTreeMap, HashMap};
use versions::Versions;

/// Where a value comes from.
#[derive(Clone, Copy)]
struct Origin {
    writer: usize,
    /// Whether its writer did not overwrite it itself.
    is_last: bool,
}

struct Checker<'a> {
    history: &'a [Transaction<RwOp>],
    /// Who wrote `(key, value)`.
    origins: HashMap<(u64, u64), Origin>,
    /// Whether a transaction counts as committed.
    counts: Vec<bool>,
    findings: Findings,
}

/// Checks the history in `O(n log n)`.
#[must_use]
pub fn check(history: &History<RwOp>) -> Findings {
    let mut checker = Checker {
        history: &history.transactions,
        origins: HashMap::new(),
        counts: history
            .transactions
            .iter()
            .map(|t| matches!(t.outcome, Outcome::Committed(_)))
            .collect(),
        findings: Findings {
            checked: history.transactions.len(),
            ..Findings::default()
        },
    };
    checker.collect_origins();
    checker.check_reads();
    let keys = checker.versions();
    checker.check_lost_updates(&keys);
    let graph = checker.graph(&keys);
    let Checker {
        history,
        mut findings,
        ..
    } = checker;
    cycles::report(&graph, &mut findings, &|i| words::transaction(history, i));
    findings
}

impl<'a> Checker<'a> {
    fn committed(&self) -> impl Iterator<Item = (usize, &'a Transaction<RwOp>)> + use<'a> {
        let committed =
            |(_, t): &(usize, &Transaction<RwOp>)| matches!(t.outcome, Outcome::Committed(_));
        self.history.iter().enumerate().filter(committed)
    }

    fn collect_origins(&mut self) {
        for (writer, transaction) in self.history.iter().enumerate() {
            let mut last: HashMap<u64, u64> = HashMap::new();
            for op in &transaction.ops {
                let RwOp::Write { key, value } = *op else {
                    continue;
                };
                if let Some(previous) = last.insert(key, value)
                    && let Some(origin) = self.origins.get_mut(&(key, previous))
                {
                    origin.is_last = false;
                }
                let origin = Origin {
                    writer,
                    is_last: true,
                };
                if self.origins.insert((key, value), origin).is_some() {
                    self.findings.add(Anomaly::BadHistory, || {
                        format!("{value} was written to key {key} by more than one operation")
                    });
                }
            }
        }
    }

    /// Anomalies that one read proves; and which unknown transactions committed.
    fn check_reads(&mut self) {
        let history = self.history;
        for (index, transaction) in self.committed() {
            let (outside, contradiction) = reads(transaction);
            if let Some(key) = contradiction {
                self.findings.add(Anomaly::Internal, || {
                    format!(
                        "{} does not agree with itself about key {key}",
                        words::transaction(history, index)
                    )
                });
            }
            for (key, seen) in outside {
                let Seen::Value(value) = seen else {
                    continue;
                };
                let Some(origin) = self.origins.get(&(key, value)).copied() else {
                    self.findings.add(Anomaly::Garbage, || {
                        format!(
                            "{} saw {value} in key {key}, which nobody wrote",
                            words::transaction(history, index)
                        )
                    });
                    continue;
                };
                let told = |what: &str| {
                    format!(
                        "{} saw {value} in key {key}, {what} {}",
                        words::transaction(history, index),
                        words::transaction(history, origin.writer)
                    )
                };
                match history[origin.writer].outcome {
                    Outcome::Committed(_) => {}
                    Outcome::Unknown => self.counts[origin.writer] = true,
                    Outcome::Aborted => {
                        let text = || told("a write of the aborted");
                        self.findings.add(Anomaly::AbortedRead, text);
                    }
                }
                if origin.writer == index {
                    let text = || told("which is only written later in");
                    self.findings.add(Anomaly::Internal, text);
                } else if !origin.is_last {
                    let text = || told("from the middle of");
                    self.findings.add(Anomaly::IntermediateRead, text);
                }
            }
        }
    }

    /// Of those that read one version and overwrote it, only one can be first.
    fn check_lost_updates(&mut self, keys: &BTreeMap<u64, Versions>) {
        let history = self.history;
        for (key, versions) in keys {
            for version in &versions.all {
                let mut over = version.overwritten_by.iter();
                let Some(first) = over.next() else {
                    continue;
                };
                let state = match version.value {
                    Seen::Value(value) => value.to_string(),
                    _ => "nothing".to_owned(),
                };
                for other in over {
                    self.findings.add(Anomaly::LostUpdate, || {
                        format!(
                            "{} and {} both read {state} in key {key} and overwrote it",
                            words::transaction(history, versions.all[*first].writer.unwrap_or(0)),
                            words::transaction(history, versions.all[*other].writer.unwrap_or(0))
                        )
                    });
                }
            }
        }
    }
}

/// What the transaction saw of others, per key at most once; and a key about
/// which its own operations disagree, if any.
pub(super) fn reads(transaction: &Transaction<RwOp>) -> (Vec<(u64, Seen)>, Option<u64>) {
    let mut known: HashMap<u64, Seen> = HashMap::new();
    let (mut outside, mut contradiction) = (Vec::new(), None);
    for op in &transaction.ops {
        match *op {
            RwOp::Write { key, value } => {
                known.insert(key, Seen::Value(value));
            }
            RwOp::Read {
                seen: Seen::Unanswered,
                ..
            } => {}
            RwOp::Read { key, seen } => match known.insert(key, seen) {
                None => outside.push((key, seen)),
                Some(before) if before != seen => contradiction = Some(key),
                Some(_) => {}
            },
        }
    }
    (outside, contradiction)
}

/// What the transaction left in the keys it wrote, ascending by key.
pub(super) fn writes(transaction: &Transaction<RwOp>) -> BTreeMap<u64, u64> {
    let write = |op: &RwOp| match *op {
        RwOp::Write { key, value } => Some((key, value)),
        RwOp::Read { .. } => None,
    };
    transaction.ops.iter().filter_map(write).collect()
}
