//! Who holds and who wants one key, or one stretch of keys.

use super::Age;
use crate::request::LockMode;
use crate::types::{AttemptId, Key, Span};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Whether two locks exclude one another.
#[must_use]
pub fn conflicts(a: LockMode, b: LockMode) -> bool {
    a == LockMode::Exclusive || b == LockMode::Exclusive
}

/// One request's mark in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mark {
    /// The age of its transaction.
    pub age: Age,
    /// The request.
    pub waiter: u64,
    /// What it wants.
    pub mode: LockMode,
}

/// Holders and marks, each sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Holders; an attempt once, with its stronger mode.
    pub holders: Vec<(AttemptId, LockMode)>,
    /// Requests that wait.
    pub marks: Vec<Mark>,
}

impl Cell {
    /// Adds a holder or strengthens its mode; whether it is new.
    pub fn hold(&mut self, attempt: AttemptId, mode: LockMode) -> bool {
        match self.holders.binary_search_by_key(&attempt, |h| h.0) {
            Ok(at) => {
                self.holders[at].1 = self.holders[at].1.max(mode);
                false
            }
            Err(at) => {
                self.holders.insert(at, (attempt, mode));
                true
            }
        }
    }

    /// Removes a holder.
    pub fn release(&mut self, attempt: AttemptId) {
        self.holders.retain(|h| h.0 != attempt);
    }

    /// Adds a mark.
    pub fn mark(&mut self, mark: Mark) {
        if let Err(at) = self.marks.binary_search(&mark) {
            self.marks.insert(at, mark);
        }
    }

    /// Removes the marks of a request.
    pub fn unmark(&mut self, waiter: u64) {
        self.marks.retain(|m| m.waiter != waiter);
    }

    /// Whether nobody holds or wants it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.marks.is_empty()
    }
}

/// Locks on spans: the key space cut into stretches at every start and end of
/// a span that is held or wanted. A look-up of one key costs one step down the
/// tree, whatever the number of spans.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Segments {
    /// A stretch begins at its key and ends at the next; before the first, and
    /// in empty cells, nothing is held.
    cells: BTreeMap<Key, Cell>,
}

impl Segments {
    /// Whether no span is held or wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The stretch that `key` lies in.
    #[must_use]
    pub fn at(&self, key: &[u8]) -> Option<&Cell> {
        self.cells
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .map(|(_, cell)| cell)
    }

    /// All stretches that share a key with `span`.
    pub fn over<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = &'a Cell> + 'a {
        let first = (!span.is_empty()).then(|| self.at(&span.start)).flatten();
        let rest = (!span.is_empty()).then(|| {
            let (_, end) = span.bounds();
            self.cells
                .range::<[u8], _>((Bound::Excluded(&span.start[..]), end))
        });
        first
            .into_iter()
            .chain(rest.into_iter().flatten().map(|(_, cell)| cell))
    }

    fn cut(&mut self, key: &Key) {
        if !self.cells.contains_key(key) {
            let cell = self.at(key).cloned().unwrap_or_default();
            self.cells.insert(key.clone(), cell);
        }
    }

    /// Changes every stretch of `span`, cutting at its ends and joining
    /// afterwards what has become equal.
    pub fn change(&mut self, span: &Span, mut change: impl FnMut(&mut Cell)) {
        if span.is_empty() {
            return;
        }
        self.cut(&span.start);
        if !span.end.is_empty() {
            self.cut(&span.end);
        }
        for (_, cell) in self.cells.range_mut::<[u8], _>(span.bounds()) {
            change(cell);
        }
        self.join(span);
    }

    fn join(&mut self, span: &Span) {
        let end = if span.end.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Included(&span.end[..])
        };
        let mut before = self
            .cells
            .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&span.start[..])))
            .next_back()
            .map(|(_, cell)| cell);
        let mut gone = Vec::new();
        for (key, cell) in self
            .cells
            .range::<[u8], _>((Bound::Included(&span.start[..]), end))
        {
            if before.map_or(cell.is_empty(), |b| b == cell) {
                gone.push(key.clone());
            } else {
                before = Some(cell);
            }
        }
        for key in gone {
            self.cells.remove(&key);
        }
    }
}
