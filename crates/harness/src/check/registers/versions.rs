//! The versions of each key, and the chains they form.

use super::{Checker, reads, writes};
use crate::history::{Outcome, Seen};
use std::collections::{BTreeMap, HashMap};

/// A value that a key held.
pub(super) struct Version {
    pub(super) value: Seen,
    /// None for the state before all writes.
    pub(super) writer: Option<usize>,
    /// Committed transactions that read it.
    pub(super) readers: Vec<usize>,
    /// Versions written by transactions that read this one.
    pub(super) overwritten_by: Vec<usize>,
    /// Versions that are newer because somebody met this one and then, by what
    /// was read of another key, somebody else met those.
    pub(super) older_than: Vec<usize>,
}

impl Version {
    fn new(value: Seen, writer: Option<usize>) -> Version {
        Version {
            value,
            writer,
            readers: Vec::new(),
            overwritten_by: Vec::new(),
            older_than: Vec::new(),
        }
    }
}

/// How a transaction met a key: the first version it saw, or wrote if it saw none,
/// and the one that it left.
#[derive(Clone, Copy)]
struct Met {
    key: u64,
    first: usize,
    last: usize,
}

/// The versions of one key; the first is the state before all writes.
pub(super) struct Versions {
    pub(super) all: Vec<Version>,
}

/// Versions in direct succession, and when they are known to have been current.
pub(super) struct Chain {
    /// Indices of versions, oldest first.
    pub(super) versions: Vec<usize>,
    /// When the first transaction that met one of them had ended, if any has.
    pub(super) first_end: Option<u64>,
    /// When the last transaction that met one of them began.
    pub(super) last_begin: u64,
}

impl Checker<'_> {
    /// All versions that transactions which count as committed wrote or read.
    pub(super) fn versions(&self) -> BTreeMap<u64, Versions> {
        let mut keys: BTreeMap<u64, Versions> = BTreeMap::new();
        let mut numbers: HashMap<(u64, Seen), usize> = HashMap::new();
        let mut met: Vec<BTreeMap<u64, Met>> = vec![BTreeMap::new(); self.history.len()];
        let before_all = || Versions {
            all: vec![Version::new(Seen::Nothing, None)],
        };
        for (index, transaction) in self.history.iter().enumerate() {
            if !self.counts[index] {
                continue;
            }
            for (key, value) in writes(transaction) {
                let versions = keys.entry(key).or_insert_with(before_all);
                numbers.insert((key, Seen::Value(value)), versions.all.len());
                let last = versions.all.len();
                met[index].insert(
                    key,
                    Met {
                        key,
                        first: last,
                        last,
                    },
                );
                versions
                    .all
                    .push(Version::new(Seen::Value(value), Some(index)));
            }
        }
        for (index, transaction) in self.committed() {
            let written = writes(transaction);
            for (key, seen) in reads(transaction).0 {
                let versions = keys.entry(key).or_insert_with(before_all);
                // Reads of garbage, of aborted and of unfinished writes were told.
                let number = match seen {
                    Seen::Value(_) => numbers.get(&(key, seen)).copied(),
                    _ => Some(0),
                };
                let Some(number) = number else {
                    continue;
                };
                versions.all[number].readers.push(index);
                let (first, last) = (number, number);
                let known = met[index].entry(key).or_insert(Met { key, first, last });
                known.first = number;
                let next = written
                    .get(&key)
                    .and_then(|value| numbers.get(&(key, Seen::Value(*value))));
                if let Some(next) = next.filter(|next| **next != number) {
                    versions.all[number].overwritten_by.push(*next);
                }
            }
        }
        order_by_reads(&mut keys, &met);
        keys
    }

    /// The chains of a key. The first begins with the state before all writes.
    pub(super) fn chains(&self, versions: &Versions) -> Vec<Chain> {
        let all = &versions.all;
        let mut next: Vec<Option<usize>> = vec![None; all.len()];
        let mut is_head = vec![true; all.len()];
        for (number, version) in all.iter().enumerate() {
            // Two that overwrote one version contradict each other; neither is
            // known to be first.
            if let [only] = version.overwritten_by[..] {
                next[number] = Some(only);
                is_head[only] = false;
            }
        }
        let mut chains = Vec::new();
        let mut taken = vec![false; all.len()];
        // Versions in a circle have no head; they are taken singly, last.
        let heads = (0..all.len()).filter(|n| is_head[*n]);
        for head in heads.chain(0..all.len()) {
            if taken[head] {
                continue;
            }
            let mut members = Vec::new();
            let mut at = Some(head);
            while let Some(number) = at.filter(|n| !taken[*n]) {
                taken[number] = true;
                members.push(number);
                at = if is_head[head] { next[number] } else { None };
            }
            chains.push(self.chain(versions, members));
        }
        chains
    }

    fn chain(&self, versions: &Versions, members: Vec<usize>) -> Chain {
        let mut chain = Chain {
            versions: members,
            first_end: None,
            last_begin: 0,
        };
        for number in &chain.versions {
            for toucher in versions.all[*number].met_by() {
                let transaction = &self.history[toucher];
                chain.last_begin = chain.last_begin.max(transaction.invoked);
                if matches!(transaction.outcome, Outcome::Committed(_)) {
                    let end = transaction.completed;
                    chain.first_end = Some(chain.first_end.map_or(end, |first| first.min(end)));
                }
            }
        }
        chain
    }
}

/// Whoever read something of a transaction comes after it, in other keys too.
fn order_by_reads(keys: &mut BTreeMap<u64, Versions>, met: &[BTreeMap<u64, Met>]) {
    let mut older: Vec<(u64, usize, usize)> = Vec::new();
    for version in keys.values().flat_map(|versions| &versions.all) {
        let Some(writer) = version.writer else {
            continue;
        };
        for reader in version.readers.iter().filter(|r| **r != writer) {
            let (few, other) = (&met[writer], &met[*reader]);
            for (before, after) in few.values().filter_map(|m| Some((m, other.get(&m.key)?))) {
                if before.last != after.first {
                    older.push((before.key, before.last, after.first));
                }
            }
        }
    }
    older.sort_unstable();
    older.dedup();
    for (key, before, after) in older {
        if let Some(versions) = keys.get_mut(&key) {
            versions.all[before].older_than.push(after);
        }
    }
}

impl Version {
    /// Its writer and its readers.
    pub(super) fn met_by(&self) -> impl Iterator<Item = usize> {
        self.writer.into_iter().chain(self.readers.iter().copied())
    }
}
