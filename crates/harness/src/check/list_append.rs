//! Strict serializability of append-only lists.
//!
//! Because every element is unique and lists only grow, the longest read of a
//! key gives the order of its writes, and each read names the write it saw
//! last. From that follow the write-write, write-read and read-write
//! dependencies of all transactions; together with real-time order they must
//! have no cycle. A transaction of unknown outcome counts as committed when
//! some read saw it, and not at all otherwise.

use super::cycles;
use super::graph::{Graph, Why};
use super::{Anomaly, Findings};
use crate::history::{History, ListOp, Outcome, Transaction};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Where an element comes from.
#[derive(Clone, Copy)]
struct Origin {
    /// The transaction's index in the history.
    writer: usize,
    /// Whether its writer appended nothing to the same key afterwards.
    is_last: bool,
}

struct Checker<'a> {
    history: &'a [Transaction<ListOp>],
    /// Who appended `(key, value)`.
    origins: HashMap<(u64, u64), Origin>,
    /// The longest list read, per key.
    orders: BTreeMap<u64, Vec<u64>>,
    /// Whether a transaction counts as committed.
    counts: Vec<bool>,
    findings: Findings,
}

/// Checks the history. Linear in its size, up to sorting, while reads stay short.
#[must_use]
pub fn check(history: &History<ListOp>) -> Findings {
    let mut checker = Checker {
        history: &history.transactions,
        origins: HashMap::new(),
        orders: BTreeMap::new(),
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
    checker.count_observed();
    checker.check_reads();
    let graph = checker.graph();
    checker.check_timestamps(&graph);
    let Checker {
        history,
        mut findings,
        ..
    } = checker;
    cycles::report(&graph, &mut findings, &|i| describe(history, i));
    findings
}

fn describe(history: &[Transaction<ListOp>], index: usize) -> String {
    let transaction = &history[index];
    let mut text = format!("T{index} of client {} [", transaction.process);
    for (i, op) in transaction.ops.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        match op {
            ListOp::Append { key, value } => text.push_str(&format!("append {value} to {key}")),
            ListOp::Read { key, list } => {
                let list = list.as_deref().unwrap_or_default();
                // Long lists are told by their ends.
                match list {
                    [first, .., last] if list.len() > 6 => text.push_str(&format!(
                        "read {key} = [{first} … {last}] ({} elements)",
                        list.len()
                    )),
                    _ => text.push_str(&format!("read {key} = {list:?}")),
                }
            }
        }
    }
    text.push(']');
    text
}

impl Checker<'_> {
    fn committed(&self) -> impl Iterator<Item = (usize, &Transaction<ListOp>)> {
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

    /// The longest read per key; every other read must be a prefix of it.
    fn collect_orders(&mut self) {
        let mut orders: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let reads = || {
            self.committed().flat_map(|(index, t)| {
                outside_reads(t)
                    .into_iter()
                    .map(move |(key, list)| (index, key, list))
            })
        };
        for (_, key, list) in reads() {
            let order = orders.entry(key).or_default();
            if list.len() > order.len() {
                *order = list.to_vec();
            }
        }
        let mut bad = Vec::new();
        for (index, key, list) in reads() {
            if !orders[&key].starts_with(list) {
                bad.push((index, key));
            }
        }
        let mut twice = Vec::new();
        for (key, order) in &orders {
            let mut seen = HashSet::new();
            twice.extend(
                order
                    .iter()
                    .filter(|v| !seen.insert(**v))
                    .map(|v| (*key, *v)),
            );
        }
        for (index, key) in bad {
            let longest = orders[&key].clone();
            let history = self.history;
            self.findings.add(Anomaly::IncompatibleOrder, || {
                format!(
                    "{}: its read of key {key} is no prefix of the longest one, {longest:?}",
                    describe(history, index)
                )
            });
        }
        for (key, value) in twice {
            self.findings.add(Anomaly::Duplicate, || {
                format!("key {key} holds {value} twice: the append was applied more than once")
            });
        }
        self.orders = orders;
    }

    /// Unknown transactions whose appends were seen did commit.
    fn count_observed(&mut self) {
        for (key, order) in &self.orders {
            for value in order {
                if let Some(origin) = self.origins.get(&(*key, *value))
                    && self.history[origin.writer].outcome == Outcome::Unknown
                {
                    self.counts[origin.writer] = true;
                }
            }
        }
    }

    /// Anomalies that a single read proves.
    fn check_reads(&mut self) {
        let mut found: Vec<(Anomaly, usize, u64, u64)> = Vec::new();
        // Prefixes are shared: elements of an order are looked at once, and
        // reads only at their last element.
        for (key, order) in &self.orders {
            for value in order {
                match self.origins.get(&(*key, *value)) {
                    None => found.push((Anomaly::Garbage, usize::MAX, *key, *value)),
                    Some(o) if self.history[o.writer].outcome == Outcome::Aborted => {
                        found.push((Anomaly::AbortedRead, o.writer, *key, *value));
                    }
                    Some(_) => {}
                }
            }
        }
        for (index, transaction) in self.committed() {
            for (key, list) in outside_reads(transaction) {
                if let Some(last) = list.last()
                    && let Some(origin) = self.origins.get(&(key, *last))
                    && !origin.is_last
                    && origin.writer != index
                {
                    found.push((Anomaly::IntermediateRead, index, key, *last));
                }
            }
            if let Some(key) = internal_contradiction(transaction) {
                found.push((Anomaly::Internal, index, key, 0));
            }
        }
        let history = self.history;
        for (anomaly, index, key, value) in found {
            self.findings.add(anomaly, || match anomaly {
                Anomaly::Garbage => {
                    format!("a read of key {key} saw {value}, which nobody appended")
                }
                Anomaly::AbortedRead => format!(
                    "a read of key {key} saw {value} of the aborted {}",
                    describe(history, index)
                ),
                Anomaly::IntermediateRead => format!(
                    "{} saw key {key} end with {value}, from the middle of another transaction",
                    describe(history, index)
                ),
                _ => format!(
                    "{} does not agree with itself about key {key}",
                    describe(history, index)
                ),
            });
        }
    }

    /// All dependencies, and real time.
    fn graph(&self) -> Graph {
        let mut graph = Graph::new(self.history.len());
        let mut readers: HashMap<(u64, Option<u64>), Vec<usize>> = HashMap::new();
        for (index, transaction) in self.committed() {
            for (key, list) in outside_reads(transaction) {
                readers
                    .entry((key, list.last().copied()))
                    .or_default()
                    .push(index);
            }
        }
        let writer = |key: u64, value: u64| {
            self.origins
                .get(&(key, value))
                .map(|o| o.writer)
                .filter(|w| self.counts[*w])
        };
        let unseen = self.unseen_writes();
        let mut keys: BTreeSet<u64> = self.orders.keys().copied().collect();
        keys.extend(unseen.keys());
        for key in keys {
            let order = self.orders.get(&key).map_or(&[][..], Vec::as_slice);
            let mut previous: Option<u64> = None;
            for next in order.iter().copied().map(Some).chain([None]) {
                let befores = readers.get(&(key, previous));
                let successors: Vec<usize> = match next {
                    Some(value) => writer(key, value).into_iter().collect(),
                    // Committed appends that no read saw come after all that were seen.
                    None => unseen.get(&key).cloned().unwrap_or_default(),
                };
                let before = previous.and_then(|value| writer(key, value));
                for &after in &successors {
                    if let Some(before) = before {
                        graph.add(before, after, Why::WriteWrite, key);
                    }
                    for &reader in befores.into_iter().flatten() {
                        graph.add(reader, after, Why::ReadWrite, key);
                    }
                }
                if let Some(before) = before {
                    for &reader in befores.into_iter().flatten() {
                        graph.add(before, reader, Why::WriteRead, key);
                    }
                }
                previous = next;
            }
        }
        let mut spans = Vec::with_capacity(self.history.len());
        for (index, t) in self.history.iter().enumerate() {
            let ended = self.counts[index] && t.outcome != Outcome::Unknown;
            spans.push((t.invoked, ended.then_some(t.completed)));
        }
        graph.add_real_time(&spans);
        graph
    }

    /// Committed writers of elements that no read saw, per key.
    fn unseen_writes(&self) -> HashMap<u64, Vec<usize>> {
        let seen: HashSet<(u64, u64)> = self
            .orders
            .iter()
            .flat_map(|(key, order)| order.iter().map(|value| (*key, *value)))
            .collect();
        let mut unseen: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, transaction) in self.committed() {
            for op in &transaction.ops {
                if let ListOp::Append { key, value } = op
                    && !seen.contains(&(*key, *value))
                {
                    let writers = unseen.entry(*key).or_default();
                    if writers.last() != Some(&index) {
                        writers.push(index);
                    }
                }
            }
        }
        unseen
    }

    /// Timestamps of conflicting transactions rise in commit order.
    fn check_timestamps(&mut self, graph: &Graph) {
        let history = self.history;
        let timestamp = |index: usize| match history.get(index)?.outcome {
            Outcome::Committed(timestamp) => timestamp,
            _ => None,
        };
        for (from, edges) in graph.edges.iter().enumerate() {
            let Some(before) = timestamp(from) else {
                continue;
            };
            for edge in edges.iter().filter(|e| e.why != Why::RealTime) {
                let to = edge.to as usize;
                if let Some(after) = timestamp(to)
                    && after <= before
                {
                    self.findings.add(Anomaly::TimestampOrder, || {
                        format!(
                            "{} at {before} comes before {} at {after} because of key {}",
                            describe(history, from),
                            describe(history, to),
                            edge.key
                        )
                    });
                }
            }
        }
    }
}

/// The first read of each key, where the transaction had not yet written it:
/// what it saw of others.
fn outside_reads(transaction: &Transaction<ListOp>) -> Vec<(u64, &[u64])> {
    let mut touched: Vec<u64> = Vec::new();
    let mut reads = Vec::new();
    for op in &transaction.ops {
        let (key, list) = match op {
            ListOp::Append { key, .. } => (key, None),
            ListOp::Read { key, list } => (key, list.as_deref()),
        };
        if let Some(list) = list
            && !touched.contains(key)
        {
            reads.push((*key, list));
        }
        touched.push(*key);
    }
    reads
}

/// A key about which the transaction's own operations disagree: a second read
/// that is not the first one plus its own appends, or one without those.
fn internal_contradiction(transaction: &Transaction<ListOp>) -> Option<u64> {
    // Per key: the list if known, and what was appended since (or ever).
    let mut views: BTreeMap<u64, (Option<Vec<u64>>, Vec<u64>)> = BTreeMap::new();
    for op in &transaction.ops {
        match op {
            ListOp::Append { key, value } => views.entry(*key).or_default().1.push(*value),
            ListOp::Read {
                key,
                list: Some(list),
            } => {
                let (known, own) = views.entry(*key).or_default();
                let fits = match known {
                    Some(known) => {
                        list.len() == known.len() + own.len()
                            && list.starts_with(known)
                            && list.ends_with(own)
                    }
                    None => list.ends_with(own),
                };
                if !fits {
                    return Some(*key);
                }
                *known = Some(list.clone());
                own.clear();
            }
            ListOp::Read { list: None, .. } => {}
        }
    }
    None
}
