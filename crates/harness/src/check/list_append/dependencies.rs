//! The dependencies between transactions on lists.

use super::{Checker, Key};
use crate::check::graph::{Graph, Why};
use crate::check::{Anomaly, words};
use crate::history::Outcome;

impl Checker<'_> {
    /// All dependencies, and real time.
    pub(super) fn graph(&self) -> Graph {
        let mut graph = Graph::new(self.history.len());
        for (key, known) in &self.keys {
            self.add_key(&mut graph, *key, known);
        }
        let spans: Vec<(u64, Option<u64>)> = self
            .history
            .iter()
            .map(|t| {
                let ended = matches!(t.outcome, Outcome::Committed(_));
                (t.invoked, ended.then_some(t.completed))
            })
            .collect();
        graph.add_real_time(&spans);
        graph
    }

    /// Who wrote the element, if that transaction counts as committed.
    fn writer(&self, key: u64, value: u64) -> Option<usize> {
        let origin = self.origins.get(&(key, value))?;
        self.counts[origin.writer].then_some(origin.writer)
    }

    fn add_key(&self, graph: &mut Graph, key: u64, known: &Key<'_>) {
        let mut readers = known.readers.iter().peekable();
        // The last writer so far, and who read what it left.
        let mut before: Option<usize> = None;
        let mut since: Vec<usize> = Vec::new();
        for length in 0..=known.order.len() {
            while let Some((_, reader)) = readers.next_if(|(l, _)| *l == length) {
                if let Some(before) = before {
                    graph.add(before, *reader, Why::WriteRead, key);
                }
                since.push(*reader);
            }
            let next = known.order.get(length);
            let Some(next) = next.and_then(|value| self.writer(key, *value)) else {
                continue;
            };
            if let Some(before) = before {
                graph.add(before, next, Why::WriteWrite, key);
            }
            for reader in since.drain(..) {
                graph.add(reader, next, Why::ReadWrite, key);
            }
            before = Some(next);
        }
        // Appends that no read saw come after all that were seen.
        if known.unseen.is_empty() {
            return;
        }
        let end = graph.inner();
        if let Some(before) = before {
            graph.add(before, end, Why::WriteWrite, key);
        }
        for reader in since {
            graph.add(reader, end, Why::ReadWrite, key);
        }
        for writer in &known.unseen {
            graph.add_inner(end, *writer);
        }
    }

    /// Timestamps of conflicting transactions rise in commit order (T8); one that
    /// only reads may share the timestamp of what it read.
    pub(super) fn check_timestamps(&mut self) {
        let mut falls = Vec::new();
        for (key, known) in &self.keys {
            let mut readers = known.readers.iter().peekable();
            let mut writers = Highest::default();
            let mut all = Highest::default();
            for length in 0..=known.order.len() {
                while let Some((_, reader)) = readers.next_if(|(l, _)| *l == length) {
                    if let Some(at) = self.timestamp(*reader) {
                        // What wrote nothing read *at* its timestamp.
                        let floor = at.saturating_add(u64::from(self.is_read_only(*reader)));
                        falls.extend(writers.above(*reader, floor).map(|w| (w, *reader, *key)));
                        all.add(at, *reader);
                    }
                }
                let value = known.order.get(length);
                let Some(writer) = value.and_then(|value| self.writer(*key, *value)) else {
                    continue;
                };
                if let Some(at) = self.timestamp(writer) {
                    falls.extend(all.above(writer, at).map(|w| (w, writer, *key)));
                    all.add(at, writer);
                    writers.add(at, writer);
                }
            }
            for writer in &known.unseen {
                if let Some(at) = self.timestamp(*writer) {
                    falls.extend(all.above(*writer, at).map(|w| (w, *writer, *key)));
                }
            }
        }
        falls.sort_unstable();
        falls.dedup();
        let history = self.history;
        for (before, after, key) in falls {
            let at = |index| self.timestamp(index).unwrap_or_default();
            let (from, to) = (at(before), at(after));
            self.findings.add(Anomaly::TimestampOrder, || {
                format!(
                    "{} at {from} comes before {} at {to} because of key {key}",
                    words::transaction(history, before),
                    words::transaction(history, after),
                )
            });
        }
    }

    fn timestamp(&self, index: usize) -> Option<u64> {
        match self.history[index].outcome {
            Outcome::Committed(timestamp) => timestamp,
            _ => None,
        }
    }

    fn is_read_only(&self, index: usize) -> bool {
        let ops = &self.history[index].ops;
        !ops.iter()
            .any(|op| matches!(op, super::ListOp::Append { .. }))
    }
}

/// The two highest timestamps so far, of different transactions.
#[derive(Default)]
struct Highest {
    first: Option<(u64, usize)>,
    second: Option<(u64, usize)>,
}

impl Highest {
    fn add(&mut self, at: u64, index: usize) {
        match self.first {
            Some((_, same)) if same == index => {}
            Some((highest, _)) if at <= highest => {
                if self.second.is_none_or(|(second, _)| at > second) {
                    self.second = Some((at, index));
                }
            }
            _ => self.second = self.first.replace((at, index)),
        }
    }

    /// A transaction other than `index` at `floor` or above.
    fn above(&self, index: usize, floor: u64) -> Option<usize> {
        [self.first, self.second]
            .into_iter()
            .flatten()
            .find(|(_, other)| *other != index)
            .filter(|(at, _)| *at >= floor)
            .map(|(_, other)| other)
    }
}
