//! Strict serializability of append-only lists.
//!
//! Because every element is unique and lists only grow, the longest read of a
//! key gives the order of its writes, and each read names the write it saw
//! last. From that follow the write-write, write-read and read-write
//! dependencies of all transactions; together with real-time order they must
//! have no cycle (Kingsbury and Alvaro, *Elle*, VLDB 2020). A transaction of
//! unknown outcome counts as committed, with all its appends, when some read saw
//! one of them, and not at all otherwise.

mod dependencies;
mod views;

use super::{Anomaly, Findings, cycles, words};
use crate::history::{History, ListOp, Outcome, Transaction};
use std::collections::{BTreeMap, HashMap, HashSet};
use views::{View, internal_contradiction};

pub(super) use views::views;

/// Where an element comes from.
#[derive(Clone, Copy)]
struct Origin {
    /// The transaction's index in the history.
    writer: usize,
    /// Whether its writer appended nothing to the same key afterwards.
    is_last: bool,
}

/// What the reads of one key tell.
#[derive(Default)]
struct Key<'a> {
    /// The longest list read.
    order: &'a [u64],
    /// Who read it.
    longest: usize,
    /// Reads of what others wrote that agree with `order`: length, transaction.
    readers: Vec<(usize, usize)>,
    /// Committed writers of elements that no read saw.
    unseen: Vec<usize>,
}

struct Checker<'a> {
    history: &'a [Transaction<ListOp>],
    /// Who appended `(key, value)`.
    origins: HashMap<(u64, u64), Origin>,
    keys: BTreeMap<u64, Key<'a>>,
    /// Whether a transaction counts as committed.
    counts: Vec<bool>,
    findings: Findings,
}

/// Checks the history. Linear in its size (elements read included), up to sorting.
#[must_use]
pub fn check(history: &History<ListOp>) -> Findings {
    let mut checker = Checker {
        history: &history.transactions,
        origins: HashMap::new(),
        keys: BTreeMap::new(),
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
    checker.collect_orders();
    checker.collect_readers();
    checker.check_elements();
    checker.check_reads();
    checker.collect_unseen();
    checker.check_lost_updates();
    checker.check_timestamps();
    let graph = checker.graph();
    let Checker {
        history,
        mut findings,
        ..
    } = checker;
    cycles::report(&graph, &mut findings, &|i| words::transaction(history, i));
    findings
}

impl<'a> Checker<'a> {
    fn committed(&self) -> impl Iterator<Item = (usize, &'a Transaction<ListOp>)> + use<'a> {
        let committed =
            |(_, t): &(usize, &Transaction<ListOp>)| matches!(t.outcome, Outcome::Committed(_));
        self.history.iter().enumerate().filter(committed)
    }

    fn collect_origins(&mut self) {
        for (writer, transaction) in self.history.iter().enumerate() {
            let mut last: HashMap<u64, u64> = HashMap::new();
            for op in &transaction.ops {
                let ListOp::Append { key, value } = *op else {
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
                        format!("{value} was appended to key {key} by more than one operation")
                    });
                }
            }
        }
    }

    /// The longest read per key, a transaction's reads of its own appends included.
    fn collect_orders(&mut self) {
        for (index, transaction) in self.committed() {
            for View { key, list, .. } in views(transaction) {
                let known = self.keys.entry(key).or_default();
                if list.len() > known.order.len() {
                    known.order = list;
                    known.longest = index;
                }
            }
        }
    }

    /// Every read must be a prefix of the longest one.
    fn collect_readers(&mut self) {
        for (index, transaction) in self.committed() {
            for View { key, list, outside } in views(transaction) {
                let Some(known) = self.keys.get_mut(&key) else {
                    continue;
                };
                if known.order.starts_with(list) {
                    if outside {
                        known.readers.push((list.len(), index));
                    }
                    continue;
                }
                let agreed = list.iter().zip(known.order).take_while(|(a, b)| a == b);
                let at = agreed.count();
                let (seen, other, longest) = (list[at], known.order[at], known.longest);
                let history = self.history;
                self.findings.add(Anomaly::IncompatibleOrder, || {
                    format!(
                        "{} read key {key} with {seen} as element {at}, where {} read {other}",
                        words::transaction(history, index),
                        words::transaction(history, longest)
                    )
                });
            }
        }
        for key in self.keys.values_mut() {
            key.readers.sort_unstable();
        }
    }

    /// Elements of the orders: prefixes are shared, so each is looked at once.
    fn check_elements(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        for (key, known) in &keys {
            let mut seen = HashSet::with_capacity(known.order.len());
            for value in known.order {
                let reader = known.longest;
                if !seen.insert(*value) {
                    self.findings.add(Anomaly::Duplicate, || {
                        format!(
                            "key {key} holds {value} twice: the append was applied more than once"
                        )
                    });
                    continue;
                }
                let Some(origin) = self.origins.get(&(*key, *value)) else {
                    let history = self.history;
                    self.findings.add(Anomaly::Garbage, || {
                        format!(
                            "{} saw {value} in key {key}, which nobody appended",
                            words::transaction(history, reader)
                        )
                    });
                    continue;
                };
                let writer = origin.writer;
                match self.history[writer].outcome {
                    Outcome::Committed(_) => {}
                    Outcome::Unknown => self.counts[writer] = true,
                    Outcome::Aborted => {
                        let history = self.history;
                        self.findings.add(Anomaly::AbortedRead, || {
                            format!(
                                "{} saw {value} in key {key}, an append of the aborted {}",
                                words::transaction(history, reader),
                                words::transaction(history, writer)
                            )
                        });
                    }
                }
            }
        }
        self.keys = keys;
    }

    /// Anomalies that one transaction's reads prove.
    fn check_reads(&mut self) {
        for (index, transaction) in self.committed() {
            for View { key, list, outside } in views(transaction) {
                let last = list.last().filter(|_| outside);
                let origin = last.and_then(|last| self.origins.get(&(key, *last)));
                let (Some(last), Some(origin)) = (last, origin.copied()) else {
                    continue;
                };
                let history = self.history;
                if origin.writer == index {
                    self.findings.add(Anomaly::Internal, || {
                        format!(
                            "{} read {last} in key {key} before it appended it",
                            words::transaction(history, index)
                        )
                    });
                } else if !origin.is_last {
                    self.findings.add(Anomaly::IntermediateRead, || {
                        format!(
                            "{} saw key {key} end with {last}, from the middle of {}",
                            words::transaction(history, index),
                            words::transaction(history, origin.writer)
                        )
                    });
                }
            }
            if let Some(key) = internal_contradiction(transaction) {
                let history = self.history;
                self.findings.add(Anomaly::Internal, || {
                    format!(
                        "{} does not agree with itself about key {key}",
                        words::transaction(history, index)
                    )
                });
            }
        }
    }

    /// Appends that no read saw, of transactions that count as committed.
    fn collect_unseen(&mut self) {
        let seen: HashSet<(u64, u64)> = self
            .keys
            .iter()
            .flat_map(|(key, known)| known.order.iter().map(|value| (*key, *value)))
            .collect();
        for (index, transaction) in self.history.iter().enumerate() {
            if !self.counts[index] {
                continue;
            }
            for op in &transaction.ops {
                if let ListOp::Append { key, value } = op
                    && !seen.contains(&(*key, *value))
                {
                    let unseen = &mut self.keys.entry(*key).or_default().unseen;
                    if unseen.last() != Some(&index) {
                        unseen.push(index);
                    }
                }
            }
        }
    }

    /// Of those that read one state of a key and appended to it, only one can be
    /// first.
    fn check_lost_updates(&mut self) {
        for (key, known) in &self.keys {
            let appends = |index: usize| {
                let ops = self.history[index].ops.iter();
                ops.into_iter()
                    .any(|op| matches!(op, ListOp::Append { key: k, .. } if k == key))
            };
            let mut first: Option<(usize, usize)> = None;
            for &(length, index) in &known.readers {
                if !appends(index) {
                    continue;
                }
                match first {
                    Some((same, other)) if same == length => {
                        let history = self.history;
                        self.findings.add(Anomaly::LostUpdate, || {
                            format!(
                                "{} and {} read the same state of key {key} and both appended to it",
                                words::transaction(history, other),
                                words::transaction(history, index)
                            )
                        });
                    }
                    _ => first = Some((length, index)),
                }
            }
        }
    }
}
