//! Reads outside transactions: the newest versions, without locks.

use crate::client::Client;
use crate::error::Error;
use crate::flight::Flight;
use crate::range::{Page, Range};
use crate::transaction::user_key;
use std::collections::BTreeMap;
use std::time::Instant;
use synod_paxos::GroupId;
use synod_txn::client::{MAX_GET_KEYS, Reply, TransactionError};
use synod_txn::request::{Refusal, ScanRange};
use synod_txn::{Key, Request, Response, Span, Value};

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
            let shard = table
                .routes
                .of_key(&key)
                .ok_or_else(|| no_route(&key))?
                .shard;
            let keys = vec![key.clone()];
            let request = Request::Latest { keys, scan: None };
            if let Some(read) = self.latest(shard, &request, deadline).await? {
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
            let mut asked: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
            for (index, key) in keys.iter().enumerate() {
                let route = table.routes.of_key(key).ok_or_else(|| no_route(key))?;
                asked.entry(route.shard).or_default().push(index);
            }
            if let Some(values) = self.get_from(keys, &asked, deadline).await? {
                return Ok(values);
            }
        }
    }

    /// Ask all shards at once; none if a range has changed.
    async fn get_from(
        &self,
        keys: &[Key],
        asked: &BTreeMap<GroupId, Vec<usize>>,
        deadline: Instant,
    ) -> Result<Option<Vec<Option<Value>>>, Error> {
        let mut flight = Flight::default();
        for (&shard, indexes) in asked {
            let keys = indexes.iter().map(|&index| keys[index].clone()).collect();
            let request = Request::Latest { keys, scan: None };
            flight.push(shard.0, async move {
                self.core.deliver(shard, &request, deadline).await
            });
        }
        let mut values = vec![None; keys.len()];
        while let Some((shard, reply)) = flight.next().await {
            let shard = GroupId(shard);
            let Some(read) = read_answer(shard, reply, deadline)? else {
                return Ok(None);
            };
            let indexes = &asked[&shard];
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
            let route = if range.reverse {
                table.routes.below(&range.span.end)
            } else {
                table.routes.of_key(&range.span.start)
            };
            let route = route.ok_or_else(|| no_route(&range.span.start))?;
            let asked = route.clip(&range.span);
            let scan = ScanRange {
                span: asked.clone(),
                limit: range.next_rows(),
                reverse: range.reverse,
            };
            let request = Request::Latest {
                keys: Vec::new(),
                scan: Some(scan),
            };
            let Some(read) = self.latest(route.shard, &request, deadline).await? else {
                continue;
            };
            if read.more && read.rows.is_empty() {
                let shard = route.shard;
                return Err(Error::Protocol(format!(
                    "shard {} answered a scan without progress",
                    shard.0
                )));
            }
            let rest = rest_of(&range, &asked, &read);
            let rest = range.after(read.rows.len(), rest);
            return Ok(Page {
                rows: read.rows,
                rest,
            });
        }
        Ok(Page::default())
    }

    /// None if the range has changed, as far as the table knows by now: plan anew.
    async fn latest(
        &self,
        shard: GroupId,
        request: &Request,
        deadline: Instant,
    ) -> Result<Option<Read>, Error> {
        let reply = self.core.deliver(shard, request, deadline).await;
        read_answer(shard, reply, deadline)
    }
}

/// An answered lock-free read.
struct Read {
    versions: Vec<Option<Value>>,
    rows: Vec<(Key, Value)>,
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
            rows: rows.into_iter().map(|row| (row.key, row.value)).collect(),
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

/// What is left of a range after `asked`, its near end, was answered.
fn rest_of(range: &Range, asked: &Span, read: &Read) -> Option<Span> {
    let last = read.rows.last().filter(|_| read.more);
    let mut rest = range.span.clone();
    if range.reverse {
        rest.end = last.map_or_else(|| asked.start.clone(), |(key, _)| key.clone());
        // The first key of all was visited: an empty end would mean the opposite.
        return (!rest.end.is_empty() && !rest.is_empty()).then_some(rest);
    }
    rest.start = last.map_or_else(|| asked.end.clone(), |(key, _)| Span::of_key(key).end);
    (!rest.start.is_empty() && !rest.is_empty()).then_some(rest)
}

pub(crate) fn no_route(key: &Key) -> Error {
    Error::of_transaction(TransactionError::NoRoute { key: key.clone() }, 1, None)
}

pub(crate) fn timed_out(shard: GroupId) -> Error {
    Error::of_transaction(TransactionError::Unreachable { shard }, 1, None)
}
