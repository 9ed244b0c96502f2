//! Reads: newest versions without locks, and locked reads inside transactions.
//!
//! What a lock-free read must wait for: every commit that was acknowledged
//! before the read began. A one-shard commit is acknowledged after its apply
//! here, so it is in the readable state. A commit over several shards is
//! acknowledged by its coordinator after all participants voted, and a
//! participant votes only once its intent is decided and applied. So only a
//! *decided* intent can hide an acknowledged commit, and the read waits for
//! those on its keys. An intent that is merely proposed may be decided and
//! committed before the answer leaves, but then its commit is concurrent with
//! the read, which may be ordered before it. All keys are captured in one step:
//! overlay rows at once, the engine's rows at the replicated `last` of that
//! step. What was not applied then has a higher timestamp, because timestamps
//! rise with slots (K3); only a decided intent may commit below it, and nobody
//! captures a key that one writes to.
//!
//! The leader must lead at the moment of the capture. It knows so under a
//! lease; else it asks a majority, in a round that begins after the capture,
//! and answers what was captured. A round that began before would not do: what
//! is resolved since may rest on commits of a successor, of which the rest of
//! the capture knows nothing.

use super::waiting::Waiting;
use super::{Cx, Group, checks};
use crate::effect::{Effect, EngineRows, ReadToken};
use crate::locks::{Verdict, Wants};
use crate::request::{LockMode, Refusal, Request, Response, ScanRange, read_weight};
use crate::types::{
    AttemptId, Caller, Key, MAX_SCAN_BYTES, MAX_SCAN_ROWS, Row, SessionId, Span, Version,
};
use serde::Serialize;
use std::cmp::Ordering;
use synod_paxos::Timestamp;
use synod_probe::{Mark, Mutation, mark, mutated};

/// A read's question.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Question {
    pub(super) from: Caller,
    pub(super) keys: Vec<Key>,
    pub(super) scan: Option<ScanRange>,
    /// Inside a transaction: attempt, session, mode.
    pub(super) locked: Option<(AttemptId, SessionId, LockMode)>,
}

impl Question {
    /// Bytes of the keys it names.
    pub(super) fn weight(&self) -> usize {
        read_weight(&self.keys, self.scan.as_ref())
    }
}

/// What the overlay held when the engine was asked.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Capture {
    pub(super) question: Question,
    /// One per key; those without come from the engine, in order.
    found: Vec<Option<Version>>,
    /// Overlay rows of the scan, in scan order, tombstones included.
    rows: Vec<(Key, Version)>,
    /// The overlay rows stop at a bound.
    cut: bool,
    /// Rows the scan may answer.
    limit: usize,
    at: Timestamp,
}

/// What a merge of overlay and engine gave.
struct Merged {
    rows: Vec<Row>,
    more: bool,
    /// With no rows and more to see: go on from here.
    resume: Option<Key>,
}

impl Group {
    pub(super) fn handle_latest(
        &mut self,
        cx: &Cx,
        from: Caller,
        keys: Vec<Key>,
        scan: Option<ScanRange>,
    ) {
        if let Err(why) = checks::read(&keys, scan.as_ref()) {
            return self.refuse(from, Refusal::Invalid(why));
        }
        if self.waiting.is_full(&self.settings) {
            return self.overloaded(from, 0);
        }
        let question = Question {
            from,
            keys,
            scan,
            locked: None,
        };
        self.probe(cx, question);
    }

    /// Waits for decided intents on the keys, then reads.
    fn probe(&mut self, cx: &Cx, question: Question) {
        let id = self.new_request();
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let span = question.scan.as_ref().map(|s| s.span.clone());
        let nothing_decided = office.open.is_empty() && office.coordinations.is_empty();
        let verdict = if nothing_decided || mutated(Mutation::ReadSkipsIntent) {
            Verdict::Granted
        } else {
            office.locks.probe(id, question.keys.clone(), span)
        };
        match verdict {
            Verdict::Granted => self.capture(cx, id, question),
            Verdict::Blocked(_) => {
                mark(Mark::ReadWaitedForIntent);
                self.waiting.insert(id, Waiting::Locks(Box::new(question)));
            }
        }
    }

    pub(super) fn handle_locked_read(&mut self, cx: &Cx, from: Caller, request: Request) {
        let Request::LockedRead {
            attempt,
            priority,
            client,
            session,
            keys,
            scan,
            mode,
        } = request
        else {
            return;
        };
        if let Err(why) = checks::read(&keys, scan.as_ref()) {
            return self.refuse(from, Refusal::Invalid(why));
        }
        let full = self.waiting.is_full(&self.settings);
        // Who holds locks may be whom all others wait for.
        let holds = (self.office.as_deref()).is_some_and(|o| o.active.contains_key(&attempt));
        if full && !holds {
            return self.overloaded(from, 0);
        }
        let wants = Wants {
            points: keys.iter().map(|key| (key.clone(), mode)).collect(),
            spans: scan.iter().map(|s| (s.span.clone(), mode)).collect(),
        };
        if let Err(why) = self.check_held(attempt, &wants) {
            return self.refuse(from, Refusal::Invalid(why));
        }
        let session = match self.enter_session(cx, attempt, priority, client, session) {
            Ok(session) => session,
            Err(refusal) => return self.refuse(from, refusal),
        };
        let question = Question {
            from,
            keys,
            scan,
            locked: Some((attempt, session, mode)),
        };
        let id = self.new_request();
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(age) = office.age(attempt) else {
            return;
        };
        match office.locks.lock(id, age, wants) {
            Verdict::Granted => self.capture(cx, id, question),
            Verdict::Blocked(wounds) if full => {
                office.locks.cancel(id);
                self.wound_all(cx, age, &wounds);
                self.overloaded(from, 0);
            }
            Verdict::Blocked(wounds) => {
                if let Some(active) = office.active.get_mut(&attempt) {
                    active.requests.insert(id);
                }
                self.waiting.insert(id, Waiting::Locks(Box::new(question)));
                self.wound_all(cx, age, &wounds);
            }
        }
    }

    /// The lock table says that a waiter may be tried again.
    pub(super) fn retry_waiter(&mut self, cx: &Cx, id: u64) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let attempt = match self.waiting.get(&id) {
            Some(Waiting::Locks(question)) => question.locked.map(|l| l.0),
            Some(Waiting::Commit(attempt)) => Some(*attempt),
            _ => return office.locks.cancel(id),
        };
        let age = attempt.and_then(|a| office.age(a));
        match office.locks.retry(id) {
            Verdict::Blocked(wounds) => {
                if let Some(age) = age {
                    self.wound_all(cx, age, &wounds);
                }
            }
            Verdict::Granted => match self.waiting.remove(&id) {
                Some(Waiting::Locks(question)) => {
                    if let Some(active) = attempt.and_then(|a| office.active.get_mut(&a)) {
                        active.requests.remove(&id);
                    }
                    self.capture(cx, id, *question);
                }
                Some(Waiting::Commit(attempt)) => self.commit_granted(cx, attempt),
                _ => {}
            },
        }
    }

    /// Captures the overlay; makes sure of the leadership.
    fn capture(&mut self, cx: &Cx, id: u64, question: Question) {
        let found: Vec<Option<Version>> = question
            .keys
            .iter()
            .map(|key| self.overlay.get(key))
            .collect();
        let limit = question
            .scan
            .as_ref()
            .map_or(0, |s| s.limit.min(MAX_SCAN_ROWS) as usize);
        let (rows, cut) = match &question.scan {
            Some(scan) => self.overlay.scan(&scan.span, scan.reverse, limit),
            None => (Vec::new(), false),
        };
        if found.iter().any(Option::is_some) {
            mark(Mark::ReadFromOverlay);
        }
        let at = if mutated(Mutation::ReadsLeaveLast) {
            cx.clock.latest
        } else {
            self.state.last
        };
        let capture = Capture {
            question,
            found,
            rows,
            cut,
            limit,
            at,
        };
        if capture.question.locked.is_none() && !cx.lease {
            mark(Mark::ReadByRound);
            self.waiting.insert(id, Waiting::Round(Box::new(capture)));
            return self.effects.push(Effect::Confirm { token: id });
        }
        self.fetch(cx, id, capture);
    }

    /// Asks the engine for what the overlay had not, or answers.
    pub(super) fn fetch(&mut self, cx: &Cx, id: u64, capture: Capture) {
        let missing = capture.missing();
        if missing.is_empty() && capture.question.scan.is_none() {
            return self.answer(cx, capture, EngineRows::default());
        }
        let scan = capture.question.scan.clone();
        self.ask_engine(id, capture, missing, scan);
    }

    fn ask_engine(&mut self, id: u64, capture: Capture, keys: Vec<Key>, scan: Option<ScanRange>) {
        // Each overlay tombstone can hide one row of the engine.
        let hidden = capture
            .rows
            .iter()
            .filter(|(_, v)| v.value.is_none())
            .count();
        let limit = (capture.limit + hidden).min(2 * MAX_SCAN_ROWS as usize) as u32;
        let at = capture.at;
        if let Some((attempt, ..)) = capture.question.locked
            && let Some(office) = self.office.as_deref_mut()
            && let Some(active) = office.active.get_mut(&attempt)
        {
            active.requests.insert(id);
        }
        self.waiting.insert(id, Waiting::Engine(Box::new(capture)));
        self.effects.push(Effect::Read {
            token: ReadToken(id),
            keys,
            scan: scan.map(|s| ScanRange { limit, ..s }),
            at,
        });
    }

    pub(super) fn finish_read(&mut self, cx: &Cx, id: u64, engine: EngineRows) {
        match self.waiting.remove(&id) {
            Some(Waiting::Engine(capture)) => {
                if let Some((attempt, ..)) = capture.question.locked
                    && let Some(office) = self.office.as_deref_mut()
                    && let Some(active) = office.active.get_mut(&attempt)
                {
                    active.requests.remove(&id);
                }
                self.answer(cx, *capture, engine);
            }
            Some(Waiting::Lookup {
                from,
                attempt,
                anchor,
                steps,
            }) => self.looked_up(from, attempt, anchor, steps, engine),
            Some(other) => {
                self.waiting.insert(id, other);
            }
            None => {}
        }
    }

    fn answer(&mut self, cx: &Cx, mut capture: Capture, engine: EngineRows) {
        let Some(term) = self.term() else { return };
        let mut versions = engine.versions.into_iter();
        for found in capture.found.iter_mut().filter(|f| f.is_none()) {
            *found = versions.next().flatten();
        }
        let mut merged = Merged {
            rows: Vec::new(),
            more: false,
            resume: None,
        };
        if let Some(scan) = capture.question.scan.clone() {
            merged = merge(&capture, scan.reverse, engine.rows, engine.more);
            if let Some(last) = merged.resume {
                let scan = ScanRange {
                    span: after(&scan.span, &last, scan.reverse),
                    ..scan
                };
                let reverse = scan.reverse;
                capture
                    .rows
                    .retain(|(key, _)| order(key, &last, reverse) == Ordering::Greater);
                // What is left of the scan is a scan; the locks stay as they are.
                let id = self.new_request();
                return self.ask_engine(id, capture, Vec::new(), Some(scan));
            }
            self.narrow(&capture.question, &merged);
        }
        let response = Response::Read {
            term,
            session: capture.question.locked.map(|l| l.1),
            versions: capture.found,
            rows: merged.rows,
            more: merged.more,
            now: self.id_time(cx),
        };
        self.respond(capture.question.from, response);
    }

    /// Only what a scan visited stays locked.
    fn narrow(&mut self, question: &Question, merged: &Merged) {
        let (Some((attempt, _, mode)), Some(scan), Some(last)) =
            (question.locked, &question.scan, merged.rows.last())
        else {
            return;
        };
        if !merged.more && !mutated(Mutation::PhantomAfterScan) {
            return;
        }
        mark(Mark::ScanNarrowed);
        let visited = if scan.reverse {
            Span {
                start: last.key.clone(),
                end: scan.span.end.clone(),
            }
        } else {
            Span {
                start: scan.span.start.clone(),
                end: Span::of_key(&last.key).end,
            }
        };
        if let Some(office) = self.office.as_deref_mut() {
            office
                .locks
                .shrink(attempt, &(scan.span.clone(), mode), visited);
        }
    }
}

impl Capture {
    fn missing(&self) -> Vec<Key> {
        let pairs = self.question.keys.iter().zip(&self.found);
        pairs
            .filter(|(_, found)| found.is_none())
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// The order a scan meets keys in.
fn order(a: &Key, b: &Key, reverse: bool) -> Ordering {
    if reverse { b.cmp(a) } else { a.cmp(b) }
}

/// What is left of a span after `last` was visited.
fn after(span: &Span, last: &Key, reverse: bool) -> Span {
    if reverse {
        Span {
            start: span.start.clone(),
            end: last.clone(),
        }
    } else {
        Span {
            start: Span::of_key(last).end,
            end: span.end.clone(),
        }
    }
}

/// Merges the overlay's rows over the engine's. Neither is believed beyond the
/// last row of the other if the other stopped early.
fn merge(capture: &Capture, reverse: bool, engine: Vec<Row>, engine_more: bool) -> Merged {
    let engine_end = engine_more
        .then(|| engine.last().map(|row| row.key.clone()))
        .flatten();
    let overlay_end = capture
        .cut
        .then(|| capture.rows.last().map(|(key, _)| key.clone()))
        .flatten();
    let stopped = engine_end.is_some() || overlay_end.is_some();
    let visible = |key: &Key| {
        let within = |end: &Option<Key>| {
            end.as_ref()
                .is_none_or(|end| order(key, end, reverse) != Ordering::Greater)
        };
        within(&engine_end) && within(&overlay_end)
    };
    let mut engine = engine.into_iter().filter(|r| visible(&r.key)).peekable();
    let mut overlay = capture
        .rows
        .iter()
        .filter(|(key, _)| visible(key))
        .peekable();
    let mut rows: Vec<Row> = Vec::new();
    let mut bytes = 0;
    loop {
        let next = match (engine.peek(), overlay.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(row), Some((key, _))) => order(&row.key, key, reverse),
        };
        let row = if next == Ordering::Less {
            engine.next()
        } else {
            if next == Ordering::Equal {
                let deleted = overlay.peek().is_some_and(|(_, v)| v.value.is_none());
                if deleted {
                    mark(Mark::ScanHidRow);
                }
                engine.next();
            }
            overlay.next().and_then(|(key, version)| {
                Some(Row {
                    key: key.clone(),
                    value: version.value.clone()?,
                    timestamp: version.timestamp,
                })
            })
        };
        let Some(row) = row else { continue };
        bytes += row.key.len() + row.value.len();
        if !rows.is_empty() && bytes > MAX_SCAN_BYTES {
            return Merged {
                rows,
                more: true,
                resume: None,
            };
        }
        rows.push(row);
        if rows.len() == capture.limit {
            let left = engine.peek().is_some() || overlay.peek().is_some();
            return Merged {
                rows,
                more: left || stopped,
                resume: None,
            };
        }
    }
    let resume = rows.is_empty().then_some(engine_end).flatten();
    Merged {
        more: stopped,
        resume,
        rows,
    }
}
