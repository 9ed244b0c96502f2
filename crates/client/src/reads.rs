//! Reads outside transactions: the newest versions, without locks.

use crate::client::Client;
use crate::error::Error;
use crate::flight::Flight;
use crate::range::{Page, Range};
use crate::transaction::user_key;
use std::collections::BTreeMap;
use std::time::Instant;
use synod_paxos::GroupId;
use synod_txn::client::{
    MAX_GET_KEYS, Merge, Reply, SLOTS_AT_ONCE, TransactionError, check_stored,
};
use synod_txn::request::{Refusal, ScanRange};
use synod_txn::{Hashing, Key, Request, Response, Row, Span, Value};

impl Client {
    /// The newest value of a key, as of some moment during the call.
    ///
    /// # Errors
    /// `Timeout`, or `Invalid` over a bound.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let key = user_key(key)?;
        let deadline = self.deadline();
        loop {
            let table = self.core.table();
            let place = table.routes.place(&key).ok_or_else(|| no_route(&key))?;
            check_length(&place.stored)?;
            let (shard, hashing) = (place.route.shard, place.hashing.cloned());
            let keys = vec![place.stored];
            let request = Request::Latest { keys, scan: None };
            if let Some(read) = self.latest(shard, hashing, request, deadline).await? {
                return Ok(read.versions.into_iter().next().flatten());
            }
        }
    }

    /// The newest values of many keys; one per key, in order. Keys of one shard
    /// are read at one moment (4,096 at a time), different shards at different
    /// ones: for one moment over all use [`Client::read_only`].
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>, Error> {
        let keys: Result<Vec<Key>, Error> = keys.into_iter().map(user_key).collect();
        let deadline = self.deadline();
        let mut values = Vec::new();
        for some in keys?.chunks(MAX_GET_KEYS) {
            values.extend(self.get_some(some, deadline).await?);
        }
        Ok(values)
    }

    async fn get_some(&self, keys: &[Key], deadline: Instant) -> Result<Vec<Option<Value>>, Error> {
        loop {
            let table = self.core.table();
            let mut asked: BTreeMap<GroupId, Asked> = BTreeMap::new();
            for (index, key) in keys.iter().enumerate() {
                let place = table.routes.place(key).ok_or_else(|| no_route(key))?;
                check_length(&place.stored)?;
                let asked = asked.entry(place.route.shard).or_default();
                asked.indexes.push(index);
                asked.keys.push(place.stored);
                asked.hashing = place.hashing.cloned().or(asked.hashing.take());
            }
            if let Some(values) = self.get_from(keys.len(), &asked, deadline).await? {
                return Ok(values);
            }
        }
    }

    /// Ask all shards at once; none if a range has changed.
    async fn get_from(
        &self,
        count: usize,
        asked: &BTreeMap<GroupId, Asked>,
        deadline: Instant,
    ) -> Result<Option<Vec<Option<Value>>>, Error> {
        let mut flight = Flight::default();
        for (&shard, asked) in asked {
            let keys = asked.keys.clone();
            let request = Request::Latest { keys, scan: None };
            let hashing = asked.hashing.clone();
            flight.push(shard.0, async move {
                let core = &self.core;
                core.deliver_mapped(shard, hashing, request, deadline).await
            });
        }
        let mut values = vec![None; count];
        while let Some((shard, reply)) = flight.next().await {
            let shard = GroupId(shard);
            let Some(read) = read_answer(shard, reply, deadline)? else {
                return Ok(None);
            };
            let indexes = &asked[&shard].indexes;
            if read.versions.len() != indexes.len() {
                return Err(Error::Protocol(format!(
                    "shard {} answered other keys than asked",
                    shard.0
                )));
            }
            for (&index, value) in indexes.iter().zip(read.versions) {
                values[index] = value;
            }
        }
        Ok(Some(values))
    }

    /// Read a page of a range: the newest rows, those of one shard at one
    /// moment. For one moment over all pages use [`Client::read_only`].
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn scan_page(&self, range: Range) -> Result<Page, Error> {
        let deadline = self.deadline();
        while !range.is_done() {
            let table = self.core.table();
            let (hashing, part) = table.routes.part(&range.span, range.reverse);
            if let Some(hashing) = hashing {
                let rows = range.next_rows() as usize;
                let merge = Merge::new(hashing.clone(), part, rows, range.reverse);
                let Some((known, rows)) = self.merge(merge, deadline).await? else {
                    continue;
                };
                return Ok(page(&range, &known, rows, false));
            }
            let route = if range.reverse {
                table.routes.below(&part.end)
            } else {
                table.routes.of_key(&part.start)
            };
            let route = route.ok_or_else(|| no_route(&part.start))?;
            let asked = route.clip(&part);
            let scan = ScanRange {
                span: asked.clone(),
                limit: range.next_rows(),
                reverse: range.reverse,
            };
            let request = Request::Latest {
                keys: Vec::new(),
                scan: Some(scan),
            };
            let Some(read) = self.latest(route.shard, None, request, deadline).await? else {
                continue;
            };
            if read.more && read.rows.is_empty() {
                let shard = route.shard;
                return Err(Error::Protocol(format!(
                    "shard {} answered a scan without progress",
                    shard.0
                )));
            }
            return Ok(page(&range, &asked, read.rows, read.more));
        }
        Ok(Page::default())
    }

    /// The least rows of all slots of a hashed directory, and of which keys they are all; none
    /// if something has changed.
    async fn merge(
        &self,
        mut merge: Merge,
        deadline: Instant,
    ) -> Result<Option<(Span, Vec<Row>)>, Error> {
        let table = self.core.table();
        let hashing = merge.hashing().clone();
        let mut flight = Flight::default();
        let mut under_way = 0;
        loop {
            while under_way < SLOTS_AT_ONCE {
                let piece = merge.next_piece(&table.routes);
                let Some(piece) = piece.map_err(|_| no_route(&hashing.prefix))? else {
                    break;
                };
                let scan = ScanRange {
                    span: piece.span,
                    limit: piece.limit,
                    reverse: merge.is_reverse(),
                };
                let request = Request::Latest {
                    keys: Vec::new(),
                    scan: Some(scan),
                };
                let (shard, hashing) = (piece.shard, Some(hashing.clone()));
                under_way += 1;
                flight.push(shard.0, async move {
                    let core = &self.core;
                    core.deliver_mapped(shard, hashing, request, deadline).await
                });
            }
            let Some((shard, reply)) = flight.next().await else {
                return Ok(Some(merge.finish()));
            };
            under_way -= 1;
            let shard = GroupId(shard);
            let Some(read) = read_answer(shard, reply, deadline)? else {
                return Ok(None);
            };
            let stuck = read.more && read.rows.is_empty();
            if stuck || !merge.add(read.rows, read.more) {
                return Err(Error::Protocol(format!(
                    "shard {} answered a scan with rows of elsewhere, or without progress",
                    shard.0
                )));
            }
        }
    }

    /// None if the range has changed, as far as the table knows by now: plan anew.
    async fn latest(
        &self,
        shard: GroupId,
        hashing: Option<Hashing>,
        request: Request,
        deadline: Instant,
    ) -> Result<Option<Read>, Error> {
        let core = &self.core;
        let reply = core.deliver_mapped(shard, hashing, request, deadline).await;
        read_answer(shard, reply, deadline)
    }
}

/// Keys asked of one shard: their places among all that were asked for, how they are stored,
/// and the directory they are mapped by.
#[derive(Default)]
struct Asked {
    indexes: Vec<usize>,
    keys: Vec<Key>,
    hashing: Option<Hashing>,
}

/// An answered lock-free read.
struct Read {
    versions: Vec<Option<Value>>,
    rows: Vec<Row>,
    more: bool,
}

/// None if the range has changed, and there is time to ask its new owners.
fn read_answer(shard: GroupId, reply: Reply, deadline: Instant) -> Result<Option<Read>, Error> {
    match reply {
        Reply::Answer(Response::Read {
            versions,
            rows,
            more,
            ..
        }) => Ok(Some(Read {
            versions: versions
                .into_iter()
                .map(|v| v.and_then(|v| v.value))
                .collect(),
            rows,
            more,
        })),
        Reply::Moved if Instant::now() < deadline => Ok(None),
        Reply::Answer(Response::Refused(Refusal::Invalid(what))) => Err(Error::Invalid(what)),
        Reply::Answer(other) => Err(Error::Protocol(format!(
            "shard {} answered {other:?} to a read",
            shard.0
        ))),
        Reply::Lost | Reply::Unsent | Reply::Moved => Err(timed_out(shard)),
    }
}

/// The rows of `asked`, a range's near end, and what is left of the range; `more` if the rows
/// stop before its end.
fn page(range: &Range, asked: &Span, rows: Vec<Row>, more: bool) -> Page {
    let last = rows.last().filter(|_| more).map(|row| &row.key);
    let mut rest = range.span.clone();
    let edge = if range.reverse {
        rest.end = last.map_or_else(|| asked.start.clone(), Key::clone);
        // The first key of all was visited: an empty end would mean the opposite.
        &rest.end
    } else {
        rest.start = last.map_or_else(|| asked.end.clone(), |key| Span::of_key(key).end);
        &rest.start
    };
    let rest = (!edge.is_empty() && !rest.is_empty()).then_some(rest);
    Page {
        rest: range.after(rows.len(), rest),
        rows: rows.into_iter().map(|row| (row.key, row.value)).collect(),
    }
}

fn check_length(stored: &Key) -> Result<(), Error> {
    check_stored(stored).map_err(|error| Error::of_transaction(error, 1, None))
}

pub(crate) fn no_route(key: &Key) -> Error {
    Error::of_transaction(TransactionError::NoRoute { key: key.clone() }, 1, None)
}

pub(crate) fn timed_out(shard: GroupId) -> Error {
    Error::of_transaction(TransactionError::Unreachable { shard }, 1, None)
}
