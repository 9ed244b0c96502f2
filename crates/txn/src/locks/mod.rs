//! The lock table of one shard in one term: shared and exclusive locks on keys
//! and spans, with wound-wait (Rosenkrantz, Stearns and Lewis, 1978).
//!
//! A request asks for everything it needs at once. It waits only for older
//! holders and older waiters, names the younger holders it wounds, and
//! overtakes younger waiters; while it waits, its marks keep younger requests
//! out. A waiter is always filed under one attempt that really stands in its
//! way, and is tried again when that attempt lets anything go, so no wake-up
//! is lost and nobody polls.

mod cell;
mod views;

pub use cell::{Cell, Mark, Segments, conflicts};

use crate::request::LockMode;
use crate::types::{AttemptId, Key, Priority, Span, Write};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The age of an attempt: its transaction's priority; among attempts of one
/// transaction the latest counts as the oldest, because the others are dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Age(pub Priority, pub Reverse<AttemptId>);

impl Age {
    /// Of an attempt with that priority.
    #[must_use]
    pub fn new(priority: Priority, attempt: AttemptId) -> Age {
        Age(priority, Reverse(attempt))
    }

    /// The attempt.
    #[must_use]
    pub fn attempt(&self) -> AttemptId {
        self.1.0
    }
}

/// How far an attempt that holds locks has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Stage {
    /// It may be wounded here.
    Open,
    /// Its intent or one-shard commit is proposed: it cannot be wounded here.
    Proposed,
    /// Its intent is decided: it may already be committed elsewhere.
    Decided,
}

/// What a request wants to lock.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Wants {
    /// Keys.
    pub points: Vec<(Key, LockMode)>,
    /// Spans.
    pub spans: Vec<(Span, LockMode)>,
}

/// Whether a request got its locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds them all.
    Granted,
    /// It waits; these younger holders stand in its way.
    Blocked(Vec<AttemptId>),
}

#[derive(Clone, Debug, Serialize)]
struct Owner {
    age: Age,
    stage: Stage,
    points: Vec<Key>,
    spans: Vec<(Span, LockMode)>,
    /// What points and spans weigh together.
    bytes: usize,
}

/// Bytes a span counts for in entries.
#[must_use]
pub fn span_weight(span: &Span) -> usize {
    const OVERHEAD: usize = 8;
    OVERHEAD + span.start.len() + span.end.len()
}

/// Bytes a key counts for in entries, where it is a span.
fn point_weight(key: &Key) -> usize {
    const OVERHEAD: usize = 9;
    OVERHEAD + 2 * key.len()
}

impl Wants {
    /// Bytes these count for, in [`Locks::bytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        let points: usize = self.points.iter().map(|(key, _)| point_weight(key)).sum();
        let spans: usize = self.spans.iter().map(|(span, _)| span_weight(span)).sum();
        points + spans
    }
}

#[derive(Clone, Debug, Serialize)]
enum What {
    Locks(Wants),
    /// Waits for decided intents only; takes no locks and no place in a queue.
    Probe(Vec<Key>, Option<Span>),
}

#[derive(Clone, Debug, Serialize)]
struct Waiter {
    age: Age,
    what: What,
    /// The attempt it is filed under.
    on: AttemptId,
}

/// See the module.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Locks {
    points: BTreeMap<Key, Cell>,
    segments: Segments,
    owners: BTreeMap<AttemptId, Owner>,
    waiters: BTreeMap<u64, Waiter>,
    /// Which waiters are filed under an attempt.
    filed: BTreeMap<AttemptId, BTreeSet<(Age, u64)>>,
    /// Waiters to try again, oldest first.
    ready: BTreeSet<(Age, u64)>,
}

/// Collects what stands in the way of one request.
#[derive(Default)]
struct Obstacles {
    first: Option<AttemptId>,
    younger: Vec<AttemptId>,
}

impl Locks {
    /// Asks for everything in `wants`. If something stands in the way the
    /// request waits under the name `waiter`, until [`Locks::retry`] grants it
    /// or [`Locks::cancel`] ends it.
    pub fn lock(&mut self, waiter: u64, age: Age, wants: Wants) -> Verdict {
        let obstacles = self.obstacles(age, &wants);
        let Some(on) = obstacles.first else {
            self.grant(age, wants);
            return Verdict::Granted;
        };
        self.mark(waiter, age, &wants);
        self.file(waiter, age, What::Locks(wants), on);
        Verdict::Blocked(obstacles.younger)
    }

    /// Tries a waiting request again.
    pub fn retry(&mut self, waiter: u64) -> Verdict {
        let Some(entry) = self.waiters.remove(&waiter) else {
            return Verdict::Granted;
        };
        self.unfile(waiter, &entry);
        match entry.what {
            What::Locks(wants) => {
                let obstacles = self.obstacles(entry.age, &wants);
                if let Some(on) = obstacles.first {
                    self.file(waiter, entry.age, What::Locks(wants), on);
                    return Verdict::Blocked(obstacles.younger);
                }
                self.unmark(waiter, &wants);
                self.grant(entry.age, wants);
                Verdict::Granted
            }
            What::Probe(keys, span) => self.probe(waiter, keys, span),
        }
    }

    /// Waits until no decided intent writes to `keys` or into `span`.
    pub fn probe(&mut self, waiter: u64, keys: Vec<Key>, span: Option<Span>) -> Verdict {
        match self.decided_writer(&keys, span.as_ref()) {
            None => Verdict::Granted,
            Some(on) => {
                self.file(waiter, Age::default(), What::Probe(keys, span), on);
                Verdict::Blocked(Vec::new())
            }
        }
    }

    fn decided_writer(&self, keys: &[Key], span: Option<&Span>) -> Option<AttemptId> {
        let of_cell = |cell: &Cell| {
            cell.holders.iter().find_map(|(attempt, mode)| {
                (*mode == LockMode::Exclusive && self.stage(*attempt) == Some(Stage::Decided))
                    .then_some(*attempt)
            })
        };
        let on_key = |key: &Key| self.points.get(key).and_then(of_cell);
        keys.iter().find_map(on_key).or_else(|| {
            let span = span.filter(|s| !s.is_empty())?;
            self.points
                .range::<[u8], _>(span.bounds())
                .find_map(|(_, cell)| of_cell(cell))
        })
    }

    fn obstacles(&self, age: Age, wants: &Wants) -> Obstacles {
        let mut found = Obstacles::default();
        for (key, mode) in &wants.points {
            if let Some(cell) = self.points.get(key) {
                self.inspect(cell, age, *mode, &mut found);
            }
            if let Some(cell) = self.segments.at(key) {
                self.inspect(cell, age, *mode, &mut found);
            }
        }
        for (span, mode) in &wants.spans {
            if span.is_empty() {
                continue;
            }
            for (_, cell) in self.points.range::<[u8], _>(span.bounds()) {
                self.inspect(cell, age, *mode, &mut found);
            }
            for cell in self.segments.over(span) {
                self.inspect(cell, age, *mode, &mut found);
            }
        }
        found
    }

    fn inspect(&self, cell: &Cell, age: Age, mode: LockMode, found: &mut Obstacles) {
        let me = age.attempt();
        for (holder, held) in &cell.holders {
            if *holder == me || !conflicts(*held, mode) {
                continue;
            }
            found.first.get_or_insert(*holder);
            let younger = self.owners.get(holder).is_some_and(|o| o.age > age);
            if younger && !found.younger.contains(holder) {
                found.younger.push(*holder);
            }
        }
        // Marks are sorted by age: only the older ones are looked at.
        for mark in cell.marks.iter().take_while(|m| m.age < age) {
            if mark.age.attempt() != me && conflicts(mark.mode, mode) {
                found.first.get_or_insert(mark.age.attempt());
                break;
            }
        }
    }

    fn grant(&mut self, age: Age, wants: Wants) {
        let attempt = age.attempt();
        let owner = self.owners.entry(attempt).or_insert_with(|| Owner {
            age,
            stage: Stage::Open,
            points: Vec::new(),
            spans: Vec::new(),
            bytes: 0,
        });
        for (key, mode) in wants.points {
            let cell = self.points.entry(key.clone()).or_default();
            if cell.hold(attempt, mode) {
                owner.bytes += point_weight(&key);
                owner.points.push(key);
            }
        }
        for (span, mode) in wants.spans {
            self.segments.change(&span, |cell| {
                cell.hold(attempt, mode);
            });
            // Each scan keeps its own entry: a later one of the same span may be
            // narrowed to what it visited, and must not narrow this one.
            owner.bytes += span_weight(&span);
            owner.spans.push((span, mode));
        }
    }

    fn mark(&mut self, waiter: u64, age: Age, wants: &Wants) {
        for (key, mode) in &wants.points {
            let mark = Mark {
                age,
                waiter,
                mode: *mode,
            };
            self.points.entry(key.clone()).or_default().mark(mark);
        }
        for (span, mode) in &wants.spans {
            let mark = Mark {
                age,
                waiter,
                mode: *mode,
            };
            self.segments.change(span, |cell| cell.mark(mark));
        }
    }

    fn unmark(&mut self, waiter: u64, wants: &Wants) {
        for (key, _) in &wants.points {
            if let Some(cell) = self.points.get_mut(key) {
                cell.unmark(waiter);
                if cell.is_empty() {
                    self.points.remove(key);
                }
            }
        }
        for (span, _) in &wants.spans {
            self.segments.change(span, |cell| cell.unmark(waiter));
        }
    }

    fn file(&mut self, waiter: u64, age: Age, what: What, on: AttemptId) {
        self.filed.entry(on).or_default().insert((age, waiter));
        self.waiters.insert(waiter, Waiter { age, what, on });
    }

    fn unfile(&mut self, waiter: u64, entry: &Waiter) {
        self.ready.remove(&(entry.age, waiter));
        if let Some(filed) = self.filed.get_mut(&entry.on) {
            filed.remove(&(entry.age, waiter));
            if filed.is_empty() {
                self.filed.remove(&entry.on);
            }
        }
    }

    /// Tries everybody again who is filed under `attempt`.
    fn wake(&mut self, attempt: AttemptId) {
        if let Some(filed) = self.filed.get(&attempt) {
            self.ready.extend(filed.iter().copied());
        }
    }

    /// Drops every lock of `attempt`. Its waiting requests stay.
    pub fn release(&mut self, attempt: AttemptId) {
        let Some(owner) = self.owners.remove(&attempt) else {
            return;
        };
        for key in &owner.points {
            if let Some(cell) = self.points.get_mut(key) {
                cell.release(attempt);
                if cell.is_empty() {
                    self.points.remove(key);
                }
            }
        }
        for (span, _) in &owner.spans {
            self.segments.change(span, |cell| cell.release(attempt));
        }
        self.wake(attempt);
    }

    /// Ends a waiting request.
    pub fn cancel(&mut self, waiter: u64) {
        let Some(entry) = self.waiters.remove(&waiter) else {
            return;
        };
        self.unfile(waiter, &entry);
        if let What::Locks(wants) = &entry.what {
            self.unmark(waiter, wants);
            self.wake(entry.age.attempt());
        }
    }

    /// Narrows a span lock to what was visited.
    pub fn shrink(&mut self, attempt: AttemptId, from: &(Span, LockMode), to: Span) {
        let Some(owner) = self.owners.get_mut(&attempt) else {
            return;
        };
        let Some(at) = owner.spans.iter().position(|held| held == from) else {
            return;
        };
        let before = owner.bytes.saturating_sub(span_weight(&from.0));
        owner.bytes = before + span_weight(&to);
        owner.spans[at].0 = to;
        self.segments.change(&from.0, |cell| cell.release(attempt));
        for (span, mode) in &owner.spans {
            if span.overlaps(&from.0) {
                self.segments.change(span, |cell| {
                    cell.hold(attempt, *mode);
                });
            }
        }
        self.wake(attempt);
    }

    /// The next waiter to try again, oldest first.
    pub fn pop_ready(&mut self) -> Option<u64> {
        self.ready.pop_first().map(|(_, waiter)| waiter)
    }

    /// Whether a waiter is to be tried again.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Sets how far a holder has come.
    pub fn set_stage(&mut self, attempt: AttemptId, stage: Stage) {
        if let Some(owner) = self.owners.get_mut(&attempt) {
            owner.stage = stage;
        }
    }

    /// How far a holder has come; none if it holds nothing.
    #[must_use]
    pub fn stage(&self, attempt: AttemptId) -> Option<Stage> {
        self.owners.get(&attempt).map(|o| o.stage)
    }

    /// Gives a decided intent its locks without asking (T1).
    pub fn adopt(&mut self, age: Age, writes: &[Write], reads: &[Span]) {
        let mut wants = Wants::default();
        for write in writes {
            wants.points.push((write.key.clone(), LockMode::Exclusive));
        }
        for span in reads {
            match span.as_key() {
                Some(key) => wants.points.push((key.clone(), LockMode::Shared)),
                None => wants.spans.push((span.clone(), LockMode::Shared)),
            }
        }
        self.grant(age, wants);
        self.set_stage(age.attempt(), Stage::Decided);
    }

    /// The spans `attempt` holds, without the keys in `writes` (ascending).
    #[must_use]
    pub fn read_spans(&self, attempt: AttemptId, writes: &[Write]) -> Vec<Span> {
        let Some(owner) = self.owners.get(&attempt) else {
            return Vec::new();
        };
        let mut spans: Vec<Span> = owner
            .points
            .iter()
            .filter(|key| writes.binary_search_by(|w| w.key.cmp(key)).is_err())
            .map(Span::of_key)
            .chain(owner.spans.iter().map(|(span, _)| span.clone()))
            .collect();
        spans.sort_unstable();
        spans.dedup();
        spans
    }

    /// Whether `attempt` holds anything in `span`.
    #[must_use]
    pub fn holds_in(&self, attempt: AttemptId, span: &Span) -> bool {
        self.owners.get(&attempt).is_some_and(|owner| {
            let points = owner.points.iter().any(|key| span.contains(key));
            points || owner.spans.iter().any(|(held, _)| held.overlaps(span))
        })
    }

    /// Bytes of the keys and spans `attempt` holds.
    #[must_use]
    pub fn bytes(&self, attempt: AttemptId) -> usize {
        self.owners.get(&attempt).map_or(0, |o| o.bytes)
    }

    /// The oldest request filed under `attempt` that asks for locks.
    #[must_use]
    pub fn oldest_waiting_on(&self, attempt: AttemptId) -> Option<Age> {
        let filed = self.filed.get(&attempt)?;
        filed
            .iter()
            .map(|(age, _)| *age)
            .find(|age| *age != Age::default())
    }

    /// Attempts that hold something.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.owners.len()
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Keys and stretches that are held or wanted.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.points.is_empty() && self.segments.is_empty() && self.waiters.is_empty()
    }
}
