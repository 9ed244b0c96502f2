//! Locked reads: point reads of many keys at once, and paged scans.

use crate::client::buffer::{check_key, check_stored};
use crate::client::transaction::{Awaited, Held, Phase};
use crate::client::{Done, Merge, Reply, Routes, SLOTS_AT_ONCE, Transaction, TransactionError};
use crate::hashing::Hashing;
use crate::request::{LockMode, Request, Response, ScanRange};
use crate::types::{
    AbortReason, Key, MAX_SCAN_BYTES, MAX_SCAN_ROWS, MAX_TRANSACTION_BYTES, Row, SessionId, Span,
    Value,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use synod_paxos::{GroupId, Term};

/// Keys of one `get`, at most: as many as one request may name.
pub const MAX_GET_KEYS: usize = 4096;

/// A page of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Keys and values in scan order, the transaction's own writes included.
    pub rows: Vec<(Key, Value)>,
    /// What is left to visit; none = nothing. Scan on with this span.
    pub rest: Option<Span>,
}

/// A `get` under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GetStep {
    keys: Vec<Key>,
    /// What was asked for in their place.
    stored: Vec<Key>,
    values: Vec<Option<Value>>,
    mode: LockMode,
}

/// A `scan` under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScanStep {
    /// What is not visited yet.
    left: Span,
    limit: usize,
    reverse: bool,
    mode: LockMode,
    rows: Vec<(Key, Value)>,
    bytes: usize,
    /// The next rows, where they come from a hashed directory.
    merge: Option<Merge>,
}

/// Points asked of one shard: their indexes, and the directory they are mapped by.
type Asked = BTreeMap<GroupId, (Vec<u32>, Option<Hashing>)>;

impl Transaction {
    /// Read keys, locking them. A key written in this transaction is answered
    /// from the buffer, without a lock.
    ///
    /// # Errors
    /// At once: a bound, `NoRoute`, `ReadOnly`, or why the transaction ended.
    pub fn get(
        &mut self,
        routes: &Routes,
        keys: Vec<Key>,
        mode: LockMode,
    ) -> Result<(), TransactionError> {
        self.ready()?;
        self.check_mode(mode)?;
        if keys.len() > MAX_GET_KEYS {
            return Err(TransactionError::Invalid(format!(
                "one get reads at most {MAX_GET_KEYS} keys, this one {}",
                keys.len()
            )));
        }
        let mut values = vec![None; keys.len()];
        let mut indexes = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            check_key(key)?;
            match self.buffer.get(key) {
                Some(own) => values[index].clone_from(own),
                None => indexes.push(index as u32),
            }
        }
        let mut step = GetStep {
            stored: keys.clone(),
            keys,
            values,
            mode,
        };
        let asked = place_all(routes, &mut step, indexes)?;
        self.phase = Phase::Get(step);
        self.ask_points(asked);
        self.finish_get();
        Ok(())
    }

    fn ask_points(&mut self, asked: Asked) {
        for (shard, (indexes, hashing)) in asked {
            let Phase::Get(step) = &self.phase else {
                return;
            };
            let stored = indexes.iter().map(|&i| step.stored[i as usize].clone());
            let (wanted, mode) = (stored.collect(), step.mode);
            let request = self.locked_read(shard, wanted, None, mode);
            let awaited = Awaited::Get { shard, indexes };
            self.send_mapped(shard, 0, hashing, request, Some(awaited));
        }
    }

    /// Read a span in key order (or backwards), locking what is visited. The
    /// page ends at `limit` rows, at a bound in bytes, or at the span's end.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub fn scan(
        &mut self,
        routes: &Routes,
        span: Span,
        limit: u32,
        reverse: bool,
        mode: LockMode,
    ) -> Result<(), TransactionError> {
        self.ready()?;
        self.check_mode(mode)?;
        let step = ScanStep {
            left: span,
            limit: limit as usize,
            reverse,
            mode,
            rows: Vec::new(),
            bytes: 0,
            merge: None,
        };
        self.go_on(routes, step);
        Ok(())
    }

    fn locked_read(
        &mut self,
        shard: GroupId,
        keys: Vec<Key>,
        scan: Option<ScanRange>,
        mode: LockMode,
    ) -> Request {
        // From here on the shard may hold locks of ours, answered or not.
        let held = self.held.entry(shard).or_default();
        Request::LockedRead {
            attempt: self.begin.attempt,
            priority: self.begin.priority,
            client: self.begin.client,
            session: held.session,
            keys,
            scan,
            mode,
        }
    }

    pub(super) fn handle_get(
        &mut self,
        routes: &Routes,
        shard: GroupId,
        indexes: Vec<u32>,
        reply: Reply,
    ) {
        if self.may_ask_elsewhere(shard, &reply) {
            let Phase::Get(step) = &mut self.phase else {
                return;
            };
            return match place_all(routes, step, indexes) {
                Ok(asked) => self.ask_points(asked),
                Err(error) => self.fail(error),
            };
        }
        let read = match self.read_answer(shard, reply) {
            Ok(read) => read,
            Err(error) => return self.fail(error),
        };
        let Phase::Get(step) = &mut self.phase else {
            return;
        };
        if read.versions.len() != indexes.len() {
            return self.fail(Self::protocol(
                shard,
                "another number of versions than keys",
            ));
        }
        let mut spans = Vec::with_capacity(indexes.len());
        for (&index, version) in indexes.iter().zip(read.versions) {
            spans.push(Span::of_key(&step.stored[index as usize]));
            step.values[index as usize] = version;
        }
        if let Err(error) = self.remember_reads(shard, spans) {
            return self.fail(error);
        }
        self.finish_get();
    }

    fn finish_get(&mut self) {
        if self.awaited.is_empty()
            && let Phase::Get(step) = &mut self.phase
        {
            let values = std::mem::take(&mut step.values);
            self.phase = Phase::Open;
            self.done = Some(Ok(Done::Values(values)));
        }
    }

    /// Ask the next shard, or end the page.
    fn go_on(&mut self, routes: &Routes, step: ScanStep) {
        let full = step.rows.len() >= step.limit || step.bytes >= MAX_SCAN_BYTES;
        if step.left.is_empty() || full {
            let rest = (!step.left.is_empty()).then_some(step.left);
            self.phase = Phase::Open;
            self.done = Some(Ok(Done::Page(Page {
                rows: step.rows,
                rest,
            })));
            return;
        }
        let (hashing, part) = routes.part(&step.left, step.reverse);
        // Buffered deletes may hide rows of the shard: ask for as many more.
        let most = MAX_SCAN_ROWS as usize;
        let wanted = (step.limit - step.rows.len()).min(most);
        if let Some(hashing) = hashing {
            let hidden = self.buffer.deletes_in(&part, most - wanted);
            let merge = Merge::new(hashing.clone(), part, wanted + hidden, step.reverse);
            let merge = Some(merge);
            self.phase = Phase::Scan(ScanStep { merge, ..step });
            return self.ask_slots(routes);
        }
        let route = if step.reverse {
            routes.below(&part.end)
        } else {
            routes.of_key(&part.start)
        };
        let Some(route) = route else {
            let key = if step.reverse { &part.end } else { &part.start };
            return self.fail(no_route(key));
        };
        let shard = route.shard;
        let asked = route.clip(&part);
        let hidden = self.buffer.deletes_in(&asked, most - wanted);
        let range = ScanRange {
            span: asked.clone(),
            limit: (wanted + hidden) as u32,
            reverse: step.reverse,
        };
        let request = self.locked_read(shard, Vec::new(), Some(range), step.mode);
        self.phase = Phase::Scan(step);
        let awaited = Awaited::Scan { shard, asked };
        self.send(shard, 0, request, Some(awaited));
    }

    /// Asks further slots of a hashed directory, or takes over what all of them brought.
    fn ask_slots(&mut self, routes: &Routes) {
        while self.awaited.len() < SLOTS_AT_ONCE {
            let Phase::Scan(step) = &mut self.phase else {
                return;
            };
            let Some(merge) = &mut step.merge else {
                return;
            };
            let hashing = merge.hashing().clone();
            let (reverse, mode) = (step.reverse, step.mode);
            let piece = match merge.next_piece(routes) {
                Ok(Some(piece)) => piece,
                Ok(None) if self.awaited.is_empty() => return self.merged(routes),
                Ok(None) => return,
                Err(_) => return self.fail(no_route(&hashing.prefix)),
            };
            let range = ScanRange {
                span: piece.span.clone(),
                limit: piece.limit,
                reverse,
            };
            let request = self.locked_read(piece.shard, Vec::new(), Some(range), mode);
            let awaited = Awaited::Slot {
                shard: piece.shard,
                asked: piece.span,
            };
            self.send_mapped(piece.shard, 0, Some(hashing), request, Some(awaited));
        }
    }

    pub(super) fn handle_slot(
        &mut self,
        routes: &Routes,
        shard: GroupId,
        asked: Span,
        reply: Reply,
    ) {
        if self.may_ask_elsewhere(shard, &reply) {
            return self.ask_slot_elsewhere(routes, asked);
        }
        let read = match self.read_answer(shard, reply) {
            Ok(read) => read,
            Err(error) => return self.fail(error),
        };
        let Phase::Scan(step) = &mut self.phase else {
            return;
        };
        let Some(merge) = &mut step.merge else {
            return;
        };
        let visited = visited(&asked, &read.rows, read.more, step.reverse);
        let Some(visited) = visited.filter(|_| merge.add(read.rows, read.more)) else {
            return self.fail(Self::protocol(shard, "a scan's rows out of range or order"));
        };
        match self.remember_reads(shard, vec![visited]) {
            Ok(()) => self.ask_slots(routes),
            Err(error) => self.fail(error),
        }
    }

    /// A piece of a slot belongs to other shards by now, or the directory is stored in another way.
    fn ask_slot_elsewhere(&mut self, routes: &Routes, asked: Span) {
        let Phase::Scan(step) = &mut self.phase else {
            return;
        };
        let Some(merge) = &mut step.merge else {
            return;
        };
        let hashing = merge.hashing();
        if routes.hashing_of(&hashing.prefix) == Some(hashing) {
            merge.ask_again(asked);
            return self.ask_slots(routes);
        }
        if let Phase::Scan(mut step) = std::mem::replace(&mut self.phase, Phase::Open) {
            self.awaited.clear();
            step.merge = None;
            self.go_on(routes, step);
        }
    }

    /// All slots have answered.
    fn merged(&mut self, routes: &Routes) {
        let Phase::Scan(mut step) = std::mem::replace(&mut self.phase, Phase::Open) else {
            return;
        };
        if let Some(merge) = step.merge.take() {
            let (known, rows) = merge.finish();
            self.take_over(&mut step, &known, rows);
            self.go_on(routes, step);
        }
    }

    pub(super) fn handle_scan(
        &mut self,
        routes: &Routes,
        shard: GroupId,
        asked: &Span,
        reply: Reply,
    ) {
        let elsewhere = self.may_ask_elsewhere(shard, &reply);
        let read = match self.read_answer(shard, reply) {
            Ok(read) => read,
            Err(_) if elsewhere => {
                if let Phase::Scan(step) = std::mem::replace(&mut self.phase, Phase::Open) {
                    self.go_on(routes, step);
                }
                return;
            }
            Err(error) => return self.fail(error),
        };
        let Phase::Scan(mut step) = std::mem::replace(&mut self.phase, Phase::Open) else {
            return;
        };
        let Some(visited) = visited(asked, &read.rows, read.more, step.reverse) else {
            return self.fail(Self::protocol(shard, "a scan's rows out of range or order"));
        };
        self.take_over(&mut step, &visited, read.rows);
        match self.remember_reads(shard, vec![visited]) {
            Ok(()) => self.go_on(routes, step),
            Err(error) => self.fail(error),
        }
    }

    /// Takes over the rows of what was visited, in plain keys, with the own writes in their place.
    fn take_over(&self, step: &mut ScanStep, visited: &Span, rows: Vec<Row>) {
        for (key, value) in self.buffer.merge(visited, rows, step.reverse) {
            if step.rows.len() >= step.limit {
                break;
            }
            step.bytes += key.len() + value.len();
            step.rows.push((key, value));
        }
        // A page that was cut short by its limit goes on after its last row;
        // otherwise everything visited is behind us.
        let full = step.rows.len() >= step.limit;
        let edge = match step.rows.last() {
            Some((key, _)) if full => Some(key.clone()),
            _ => None,
        };
        if step.reverse {
            step.left.end = edge.unwrap_or_else(|| visited.start.clone());
            if step.left.end.is_empty() {
                // Everything down to the first key: an empty end would mean the opposite.
                step.left = nothing();
            }
        } else {
            let next = edge.map_or_else(|| visited.end.clone(), |key| Span::of_key(&key).end);
            if next.is_empty() {
                step.left = nothing();
            } else {
                step.left.start = next;
            }
        }
    }

    fn read_answer(&mut self, shard: GroupId, reply: Reply) -> Result<Read, TransactionError> {
        let Response::Read {
            term,
            session: Some(session),
            versions,
            rows,
            more,
            ..
        } = self.answer(shard, reply)?
        else {
            return Err(Self::protocol(shard, "no locked read"));
        };
        self.accept_session(shard, term, session)?;
        Ok(Read {
            versions: versions
                .into_iter()
                .map(|version| version.and_then(|v| v.value))
                .collect(),
            rows,
            more,
        })
    }

    /// All answers of one shard must come from one term and one session: with
    /// another one the earlier locks are gone.
    fn accept_session(
        &mut self,
        shard: GroupId,
        term: Term,
        session: SessionId,
    ) -> Result<(), TransactionError> {
        let held = self.held.entry(shard).or_default();
        match held.session {
            Some((known, _)) if known != term => Err(self.aborted(AbortReason::TermEnded)),
            Some((_, known)) if known != session => Err(self.aborted(AbortReason::SessionEnded)),
            _ => {
                held.session = Some((term, session));
                Ok(())
            }
        }
    }

    fn remember_reads(&mut self, shard: GroupId, spans: Vec<Span>) -> Result<(), TransactionError> {
        let Held { reads, .. } = self.held.entry(shard).or_default();
        for span in spans {
            let bytes = span.start.len() + span.end.len();
            if reads.insert(span) {
                self.read_bytes += bytes;
            }
        }
        if self.read_bytes > MAX_TRANSACTION_BYTES {
            return Err(TransactionError::Invalid(format!(
                "the keys read by one transaction have at most {MAX_TRANSACTION_BYTES} bytes \
                 together; read spans instead of keys, or split the transaction"
            )));
        }
        Ok(())
    }
}

/// An answered read.
struct Read {
    versions: Vec<Option<Value>>,
    rows: Vec<Row>,
    more: bool,
}

/// Where these keys of a `get` are, by shard.
fn place_all(
    routes: &Routes,
    step: &mut GetStep,
    indexes: Vec<u32>,
) -> Result<Asked, TransactionError> {
    let mut asked = Asked::new();
    for index in indexes {
        let key = &step.keys[index as usize];
        let place = routes.place(key).ok_or_else(|| no_route(key))?;
        let (indexes, hashing) = asked.entry(place.route.shard).or_default();
        indexes.push(index);
        // Of keys that cannot be one shard's one mapping is named; it will know better.
        *hashing = place.hashing.cloned().or(hashing.take());
        check_stored(&place.stored)?;
        step.stored[index as usize] = place.stored;
    }
    Ok(asked)
}

fn nothing() -> Span {
    Span {
        start: Key::from_static(&[1]),
        end: Key::from_static(&[0]),
    }
}

fn no_route(key: &Key) -> TransactionError {
    TransactionError::NoRoute { key: key.clone() }
}

/// What a scan's answer has visited of what was asked; none if the rows do not fit it.
fn visited(asked: &Span, rows: &[Row], more: bool, reverse: bool) -> Option<Span> {
    let ordered = rows.windows(2).all(|pair| {
        if reverse {
            pair[1].key < pair[0].key
        } else {
            pair[0].key < pair[1].key
        }
    });
    if !ordered || !rows.iter().all(|row| asked.contains(&row.key)) {
        return None;
    }
    if !more {
        return Some(asked.clone());
    }
    // "More" without a row would never come to an end.
    let last = &rows.last()?.key;
    Some(if reverse {
        Span {
            start: last.clone(),
            end: asked.end.clone(),
        }
    } else {
        Span {
            start: asked.start.clone(),
            end: Span::of_key(last).end,
        }
    })
}
