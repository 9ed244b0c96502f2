//! Sorted pieces of what no table holds yet.
//!
//! A run is made of one batch, or of several runs, and never changes. Its keys lie one after the
//! other in a single piece of memory, each with its value behind it: a search and a merge read memory in
//! order, where a skip list or a tree of single items waits for the memory at each step.

use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

/// Larger values are kept as they came, so that merges copy a reference to them.
const APART_BYTES: usize = 1 << 10;
/// [`Entry::value`] of a value that is kept apart; its place in [`Run::apart`] is behind the key.
const APART: u16 = u16::MAX - 1;
/// [`Entry::value`] of a key that is removed.
const GONE: u16 = u16::MAX;
/// Bytes of a place in [`Run::apart`].
const PLACE: usize = size_of::<u64>();

/// A key, and the value or nothing.
pub(super) type Change = (Bytes, Option<Bytes>);

/// Bytes of a key and its value.
pub(super) fn bytes_of((key, value): &Change) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len)
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its key begins.
    at: usize,
    /// Bytes of the key.
    key: u16,
    /// Bytes of the value, or [`APART`], or [`GONE`].
    value: u16,
}

impl Entry {
    /// Where its key ends.
    fn split(self) -> usize {
        self.at + usize::from(self.key)
    }

    fn end(self) -> usize {
        let value = match self.value {
            GONE => 0,
            APART => PLACE,
            bytes => usize::from(bytes),
        };
        self.split() + value
    }
}

/// See the module. Keys are ascending, each once.
#[derive(Debug, Default)]
pub(super) struct Run {
    memory: Bytes,
    entries: Vec<Entry>,
    apart: Vec<Bytes>,
    /// Bytes of all values in `apart`.
    apart_bytes: usize,
}

impl Run {
    /// What a batch changes; of several changes of a key the last one counts. Keys are at most
    /// [`super::super::codec::MAX_STORED_KEY`] long.
    pub(super) fn new(mut changes: Vec<Change>) -> Run {
        changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let bytes = changes.iter().map(|(key, value)| {
            let value = value.as_ref().map_or(0, Bytes::len);
            key.len() + value.min(APART_BYTES)
        });
        let mut making = Making::new(bytes.sum(), changes.len());
        let mut changes = changes.into_iter().peekable();
        while let Some((key, value)) = changes.next() {
            if changes.peek().is_none_or(|(next, _)| *next != key) {
                making.add(&key, value);
            }
        }
        making.run()
    }

    /// All of `runs`, which are the oldest first.
    pub(super) fn merge(runs: &[Arc<Run>]) -> Run {
        let bytes = runs.iter().map(|run| run.memory.len()).sum();
        let count = runs.iter().map(|run| run.entries.len()).sum();
        let mut making = Making::new(bytes, count);
        let mut cursors = Cursors::all(runs);
        while let Some((run, entry)) = cursors.next() {
            making.copy(cursors.run(run), entry);
        }
        making.run()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The memory that it takes, without values that are kept apart: what a merge copies.
    pub(super) fn compact_bytes(&self) -> usize {
        self.memory.len() + self.entries.len() * size_of::<Entry>()
    }

    /// All memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.compact_bytes() + self.apart_bytes
    }

    fn key(&self, index: usize) -> &[u8] {
        let entry = self.entries[index];
        &self.memory[entry.at..entry.split()]
    }

    /// One entry, as part of this run's memory.
    pub(super) fn change(&self, index: usize) -> Change {
        let entry = self.entries[index];
        let value = match entry.value {
            GONE => None,
            APART => Some(self.apart[self.place(entry)].clone()),
            _ => Some(self.memory.slice(entry.split()..entry.end())),
        };
        (self.memory.slice(entry.at..entry.split()), value)
    }

    fn place(&self, entry: Entry) -> usize {
        let end = entry.end();
        let mut place = [0; PLACE];
        place.copy_from_slice(&self.memory[end - PLACE..end]);
        usize::try_from(u64::from_le_bytes(place)).unwrap_or(usize::MAX)
    }

    /// The first entry whose key is not below `key`.
    fn search(&self, key: &[u8]) -> usize {
        let is_below = |entry: &Entry| &self.memory[entry.at..entry.split()] < key;
        self.entries.partition_point(is_below)
    }

    /// What is known of `key`: a value, or that it is removed.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let index = self.search(key);
        let is_there = index < self.len() && self.key(index) == key;
        is_there.then(|| self.change(index).1)
    }
}

/// A run in the making.
struct Making {
    memory: Vec<u8>,
    run: Run,
}

impl Making {
    /// With room for so many bytes and entries.
    fn new(bytes: usize, entries: usize) -> Making {
        Making {
            memory: Vec::with_capacity(bytes),
            run: Run {
                entries: Vec::with_capacity(entries),
                ..Run::default()
            },
        }
    }

    fn add(&mut self, key: &[u8], value: Option<Bytes>) {
        let at = self.memory.len();
        self.memory.extend_from_slice(key);
        let value = match value {
            None => GONE,
            Some(value) if value.len() > APART_BYTES => {
                self.keep_apart(value);
                APART
            }
            Some(value) => {
                self.memory.extend_from_slice(&value);
                value.len() as u16
            }
        };
        let key = key.len() as u16;
        self.run.entries.push(Entry { at, key, value });
    }

    fn copy(&mut self, from: &Run, index: usize) {
        let entry = from.entries[index];
        let at = self.memory.len();
        if entry.value == APART {
            let key = from.key(index);
            self.memory.extend_from_slice(key);
            self.keep_apart(from.apart[from.place(entry)].clone());
        } else {
            self.memory
                .extend_from_slice(&from.memory[entry.at..entry.end()]);
        }
        self.run.entries.push(Entry { at, ..entry });
    }

    fn keep_apart(&mut self, value: Bytes) {
        let place = self.run.apart.len() as u64;
        self.memory.extend_from_slice(&place.to_le_bytes());
        self.run.apart_bytes += value.len();
        self.run.apart.push(value);
    }

    fn run(self) -> Run {
        Run {
            memory: Bytes::from(self.memory),
            ..self.run
        }
    }
}

/// Where an iterator goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Front,
    Back,
}

/// What is left of a run, from both ends.
#[derive(Debug)]
struct Cursor<R> {
    run: R,
    low: usize,
    high: usize,
}

impl<R: Deref<Target = Run>> Cursor<R> {
    /// The entry at one end, if any is left.
    fn entry(&self, end: End) -> Option<usize> {
        (self.low < self.high).then(|| match end {
            End::Front => self.low,
            End::Back => self.high - 1,
        })
    }

    fn pass(&mut self, end: End) {
        match end {
            End::Front => self.low += 1,
            End::Back => self.high -= 1,
        }
    }
}

/// The number of a run among [`Cursors`], and of an entry in it.
pub(super) type At = (usize, usize);

/// Several runs as one, from both ends: of each key what the newest run says.
#[derive(Debug)]
pub(super) struct Cursors<R> {
    /// The newest first.
    cursors: Vec<Cursor<R>>,
}

impl<R: Deref<Target = Run> + Clone> Cursors<R> {
    /// All of `runs`, which are the oldest first.
    pub(super) fn all(runs: &[R]) -> Cursors<R> {
        let cursors = runs.iter().rev().map(|run| Cursor {
            run: run.clone(),
            low: 0,
            high: run.len(),
        });
        Cursors {
            cursors: cursors.collect(),
        }
    }

    /// The entries of `runs`, the newest first, with `start <= key < end`.
    pub(super) fn between<'a>(
        runs: impl Iterator<Item = &'a R>,
        start: &[u8],
        end: &[u8],
    ) -> Cursors<R>
    where
        R: 'a,
    {
        let cursors = runs.filter_map(|run| {
            let low = run.search(start);
            // Most runs hold nothing of a single key.
            if low == run.len() || run.key(low) >= end {
                return None;
            }
            let high = run.search(end);
            let run = run.clone();
            Some(Cursor { run, low, high })
        });
        Cursors {
            cursors: cursors.collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cursors.is_empty()
    }

    pub(super) fn run(&self, number: usize) -> &Run {
        &self.cursors[number].run
    }

    pub(super) fn key(&self, (run, entry): At) -> &[u8] {
        self.run(run).key(entry)
    }

    /// The next key from the front.
    pub(super) fn next(&mut self) -> Option<At> {
        self.step(End::Front)
    }

    /// The next key from the back.
    pub(super) fn next_back(&mut self) -> Option<At> {
        self.step(End::Back)
    }

    /// The lowest (or highest) key at one end, in the newest run that has it. All go on
    /// behind it.
    fn step(&mut self, end: End) -> Option<At> {
        let wanted = match end {
            End::Front => Ordering::Less,
            End::Back => Ordering::Greater,
        };
        let mut best: Option<(At, &[u8])> = None;
        for (number, cursor) in self.cursors.iter().enumerate() {
            if let Some(entry) = cursor.entry(end) {
                let key = cursor.run.key(entry);
                if best.is_none_or(|(_, other)| key.cmp(other) == wanted) {
                    best = Some(((number, entry), key));
                }
            }
        }
        let ((number, entry), _) = best?;
        // Newer ones do not have it, or it would have been theirs.
        let (newer, older) = self.cursors.split_at_mut(number + 1);
        let newest = &mut newer[number];
        newest.pass(end);
        let key = newest.run.key(entry);
        for cursor in older {
            let next = cursor.entry(end);
            if next.is_some_and(|entry| cursor.run.key(entry) == key) {
                cursor.pass(end);
            }
        }
        Some((number, entry))
    }
}
