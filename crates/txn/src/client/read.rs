//! Locked reads: point reads of many keys at once, and paged scans.

use crate::client::buffer::check_key;
use crate::client::transaction::{Awaited, Held, Phase};
use crate::client::{Done, Reply, Routes, Transaction, TransactionError};
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
    values: Vec<Option<Value>>,
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
}

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
        let mut asked: BTreeMap<GroupId, Vec<u32>> = BTreeMap::new();
        for (index, key) in keys.iter().enumerate() {
            check_key(key)?;
            if let Some(own) = self.buffer.get(key) {
                values[index].clone_from(own);
                continue;
            }
            let route = routes.of_key(key).ok_or_else(|| no_route(key))?;
            asked.entry(route.shard).or_default().push(index as u32);
        }
        for (shard, indexes) in asked {
            let wanted = indexes.iter().map(|&i| keys[i as usize].clone()).collect();
            let request = self.locked_read(shard, wanted, None, mode);
            let awaited = Awaited::Get { shard, indexes };
            self.send(shard, 0, request, Some(awaited));
        }
        self.phase = Phase::Get(GetStep { keys, values });
        self.finish_get();
        Ok(())
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

    pub(super) fn handle_get(&mut self, shard: GroupId, indexes: &[u32], reply: Reply) {
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
            spans.push(Span::of_key(&step.keys[index as usize]));
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
        let route = if step.reverse {
            routes.below(&step.left.end)
        } else {
            routes.of_key(&step.left.start)
        };
        let Some(route) = route else {
            let key = if step.reverse {
                &step.left.end
            } else {
                &step.left.start
            };
            return self.fail(no_route(key));
        };
        let shard = route.shard;
        let asked = route.clip(&step.left);
        // Buffered deletes may hide rows of the shard: ask for as many more.
        let most = MAX_SCAN_ROWS as usize;
        let wanted = (step.limit - step.rows.len()).min(most);
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

    pub(super) fn handle_scan(
        &mut self,
        routes: &Routes,
        shard: GroupId,
        asked: &Span,
        reply: Reply,
    ) {
        let read = match self.read_answer(shard, reply) {
            Ok(read) => read,
            Err(error) => return self.fail(error),
        };
        let Phase::Scan(mut step) = std::mem::replace(&mut self.phase, Phase::Open) else {
            return;
        };
        let Some(visited) = visited(asked, &read.rows, read.more, step.reverse) else {
            return self.fail(Self::protocol(shard, "a scan's rows out of range or order"));
        };
        for (key, value) in self.buffer.merge(&visited, read.rows, step.reverse) {
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
        match self.remember_reads(shard, vec![visited]) {
            Ok(()) => self.go_on(routes, step),
            Err(error) => self.fail(error),
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
