//! The client.

use crate::attempt::{Attempt, Receipt, Status};
use crate::config::{Config, Identity};
use crate::core::Core;
use crate::error::Error;
use crate::flight::Flight;
use crate::range::{Page, Range};
use crate::transaction::{Start, Transaction, user_key};
use crate::transport::Transport;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_paxos::GroupId;
use synod_rpc::{Pool, TlsIdentity};
use synod_txn::client::{MAX_GET_KEYS, Reply, Retry, TransactionError};
use synod_txn::request::{Refusal, ScanRange};
use synod_txn::{Key, Outcome, Priority, Request, Response, Span, Value};

/// How often a read is planned anew because ranges changed under it.
const MAX_MOVES: u32 = 8;

/// A connection to a cluster. Cheap to clone, used from any number of tasks;
/// clones share connections, the shard map and what is known about leaders.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    timeout: Duration,
}

impl Client {
    /// Connect to whichever endpoint answers first, and fetch the shard map.
    /// Must be called inside a tokio runtime with time enabled, which the
    /// client's chores (keep-alives, freeing locks) run on.
    ///
    /// # Errors
    /// `Config`, `NoCluster`, or `NotInitialized`.
    pub async fn connect(config: Config) -> Result<Client, Error> {
        let identity = match &config.identity {
            Identity::Files { ca, cert, key } => TlsIdentity::from_files(ca, cert, key),
            Identity::Pem { ca, cert, key } => TlsIdentity::from_pem(ca, cert, key),
        };
        let identity = identity.map_err(|e| Error::Config(e.to_string()))?;
        let endpoints = resolve(&config.endpoints).await?;
        let pool = Pool::new(&identity, config.pool.clone());
        let pool = pool.map_err(|e| Error::Config(e.to_string()))?;
        Client::start(config, Transport::Pool(pool), endpoints).await
    }

    pub(crate) async fn start(
        config: Config,
        transport: Transport,
        endpoints: Vec<SocketAddr>,
    ) -> Result<Client, Error> {
        let timeout = config.timeout;
        let core = Core::start(config, transport, endpoints).await?;
        Ok(Client { core, timeout })
    }

    /// The same client with another time limit per call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        Client {
            core: self.core.clone(),
            timeout,
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The newest value of a key, as of some moment during the call.
    ///
    /// # Errors
    /// `Timeout`, or `Invalid` over a bound.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let key = user_key(key)?;
        let deadline = self.deadline();
        for _ in 0..MAX_MOVES {
            let table = self.core.table();
            let shard = table
                .routes
                .of_key(&key)
                .ok_or_else(|| no_route(&key))?
                .shard;
            let keys = vec![key.clone()];
            let request = Request::Latest { keys, scan: None };
            match self.latest(shard, &request, deadline).await? {
                Some(Read { versions, .. }) => {
                    return Ok(versions.into_iter().next().flatten());
                }
                None => self.core.refresh(&table).await,
            }
        }
        Err(moved())
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
        for _ in 0..MAX_MOVES {
            let table = self.core.table();
            let mut asked: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
            for (index, key) in keys.iter().enumerate() {
                let route = table.routes.of_key(key).ok_or_else(|| no_route(key))?;
                asked.entry(route.shard).or_default().push(index);
            }
            match self.get_from(keys, &asked, deadline).await? {
                Some(values) => return Ok(values),
                None => self.core.refresh(&table).await,
            }
        }
        Err(moved())
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
            let Some(read) = read_answer(shard, reply)? else {
                return Ok(None);
            };
            let indexes = &asked[&shard];
            if read.versions.len() != indexes.len() {
                return Err(Error::Protocol(format!(
                    "{shard} answered other keys than asked"
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
        let mut moves = 0;
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
                moves += 1;
                if moves >= MAX_MOVES {
                    return Err(moved());
                }
                self.core.refresh(&table).await;
                continue;
            };
            if read.more && read.rows.is_empty() {
                let shard = route.shard;
                return Err(Error::Protocol(format!(
                    "{shard} answered a scan without progress"
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

    async fn latest(
        &self,
        shard: GroupId,
        request: &Request,
        deadline: Instant,
    ) -> Result<Option<Read>, Error> {
        read_answer(shard, self.core.deliver(shard, request, deadline).await)
    }

    /// Write a key, as a transaction of its own.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Receipt, Error> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let put = async |txn: &mut Transaction| txn.put(key, value).await;
        Ok(self.run(false, put).await?.1)
    }

    /// Delete a key, as a transaction of its own; it need not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Receipt, Error> {
        let key = key.as_ref();
        let delete = async |txn: &mut Transaction| txn.delete(key).await;
        Ok(self.run(false, delete).await?.1)
    }

    /// Run a transaction: `body` reads and writes, then everything is
    /// committed. After a conflict it is run again, as a new attempt with the
    /// age of the first, until it commits or the client's time limit passes;
    /// so it must not do anything else that may not be repeated. An error of
    /// `body`'s own rolls back and is returned.
    ///
    /// `body` is cloned for each attempt: what it captures is borrowed, or, in
    /// an `async move` closure, can be cloned. (With `AsyncFn` in its place
    /// the future of a body that borrows could not be sent to another thread.)
    ///
    /// ```no_run
    /// # async fn doc(client: synod_client::Client) -> Result<(), synod_client::Error> {
    /// let left = client
    ///     .transact(async |txn| {
    ///         let a = txn.get_for_update("stock/apples").await?;
    ///         let a: u64 = a.and_then(|v| std::str::from_utf8(&v).ok()?.parse().ok()).unwrap_or(0);
    ///         if a == 0 {
    ///             return Err(synod_client::Error::application("sold out"));
    ///         }
    ///         txn.put("stock/apples", (a - 1).to_string()).await?;
    ///         Ok(a - 1)
    ///     })
    ///     .await?;
    /// # let _ = left;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn transact<T, F>(&self, body: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut Transaction) -> Result<T, Error> + Clone,
    {
        Ok(self.run(false, body).await?.0)
    }

    /// As [`Client::transact`], and tell how it went.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn transact_with_receipt<T, F>(&self, body: F) -> Result<(T, Receipt), Error>
    where
        F: AsyncFnOnce(&mut Transaction) -> Result<T, Error> + Clone,
    {
        self.run(false, body).await
    }

    /// A transaction that only reads: everything as of one moment, over all
    /// shards. Never writes to a log.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read_only<T, F>(&self, body: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut Transaction) -> Result<T, Error> + Clone,
    {
        Ok(self.run(true, body).await?.0)
    }

    /// As [`Client::read_only`], and tell how it went.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read_only_with_receipt<T, F>(&self, body: F) -> Result<(T, Receipt), Error>
    where
        F: AsyncFnOnce(&mut Transaction) -> Result<T, Error> + Clone,
    {
        self.run(true, body).await
    }

    /// Attempt after attempt, until one commits.
    async fn run<T, F>(&self, read_only: bool, body: F) -> Result<(T, Receipt), Error>
    where
        F: AsyncFnOnce(&mut Transaction) -> Result<T, Error> + Clone,
    {
        let deadline = self.deadline();
        let begun = Instant::now();
        let mut retry = Retry::new(self.core.config.retry, rand::random());
        loop {
            let (attempt, priority) = retry.next_attempt(self.core.now(), rand::random());
            let start = Start {
                attempt,
                priority,
                attempts: retry.attempts(),
                begun,
                read_only,
                timeout: self.timeout,
                deadline: Some(deadline),
            };
            let mut txn = Transaction::new(self.core.clone(), start);
            let error = match body.clone()(&mut txn).await {
                Ok(value) => match txn.commit_in_place().await {
                    Ok(receipt) => return Ok((value, receipt)),
                    Err(error) => error,
                },
                // Where the transaction was ended by a conflict, that is the
                // reason, whatever the body made of it.
                Err(error) => txn.ended_by().unwrap_or(error),
            };
            drop(txn);
            let Error::Aborted { reason, .. } = &error else {
                return Err(error);
            };
            let Some(pause) = retry.pause(*reason) else {
                return Err(error);
            };
            let until = Instant::now() + Duration::from_nanos(pause);
            if until >= deadline {
                return Err(error);
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Begin a transaction, to be ended by [`Transaction::commit`] or
    /// [`Transaction::rollback`]. Nothing is sent yet.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        self.open(Retry::new(self.core.config.retry, 0), false)
    }

    /// Begin a transaction that only reads.
    #[must_use]
    pub fn begin_read_only(&self) -> Transaction {
        self.open(Retry::new(self.core.config.retry, 0), true)
    }

    /// Begin a new attempt of a transaction that was aborted: with its age it
    /// goes before younger ones, and so cannot lose for ever.
    #[must_use]
    pub fn begin_again(&self, age: Priority) -> Transaction {
        self.open(Retry::with_age(self.core.config.retry, 0, age), false)
    }

    fn open(&self, mut retry: Retry, read_only: bool) -> Transaction {
        let (attempt, priority) = retry.next_attempt(self.core.now(), rand::random());
        let start = Start {
            attempt,
            priority,
            attempts: retry.attempts(),
            begun: Instant::now(),
            read_only,
            timeout: self.timeout,
            deadline: None,
        };
        Transaction::new(self.core.clone(), start)
    }

    /// How did this commit end? Never changes its outcome unless the commit
    /// was never received: then it is aborted from now on.
    ///
    /// # Errors
    /// `Timeout` if the coordinator shard cannot be asked.
    pub async fn status(&self, attempt: &Attempt) -> Result<Status, Error> {
        let table = self.core.table();
        let anchor = &attempt.coordinator.anchor;
        let route = table
            .routes
            .of_key(anchor)
            .ok_or_else(|| no_route(anchor))?;
        let shard = route.shard;
        let request = Request::Status {
            attempt: attempt.id,
            anchor: anchor.clone(),
            term: attempt.coordinator.term,
        };
        match self.core.deliver(shard, &request, self.deadline()).await {
            Reply::Answer(Response::Outcome { outcome, .. }) => Ok(match outcome {
                Outcome::Committed(at) => Status::Committed(at),
                Outcome::Aborted(reason) => Status::Aborted(reason),
            }),
            Reply::Answer(Response::Pending) => Ok(Status::Pending),
            Reply::Answer(Response::Expired) => Ok(Status::Expired),
            Reply::Answer(Response::Refused(Refusal::Aborted(reason))) => {
                Ok(Status::Aborted(reason))
            }
            Reply::Answer(other) => Err(Error::Protocol(format!(
                "{shard} answered {other:?} to a question for a status"
            ))),
            Reply::Lost | Reply::Unsent | Reply::Moved => Err(timed_out(shard)),
        }
    }
}

/// An answered lock-free read.
struct Read {
    versions: Vec<Option<Value>>,
    rows: Vec<(Key, Value)>,
    more: bool,
}

/// None if the range has changed.
fn read_answer(shard: GroupId, reply: Reply) -> Result<Option<Read>, Error> {
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
        Reply::Moved | Reply::Answer(Response::Refused(Refusal::WrongShard)) => Ok(None),
        Reply::Answer(Response::Refused(Refusal::Invalid(what))) => Err(Error::Invalid(what)),
        Reply::Answer(other) => Err(Error::Protocol(format!(
            "{shard} answered {other:?} to a read"
        ))),
        Reply::Lost | Reply::Unsent => Err(timed_out(shard)),
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

fn no_route(key: &Key) -> Error {
    Error::of_transaction(TransactionError::NoRoute { key: key.clone() }, 1, None)
}

fn timed_out(shard: GroupId) -> Error {
    Error::of_transaction(TransactionError::Unreachable { shard }, 1, None)
}

fn moved() -> Error {
    Error::Protocol("the ranges of shards changed again and again during a read".to_owned())
}

async fn resolve(endpoints: &[String]) -> Result<Vec<SocketAddr>, Error> {
    if endpoints.is_empty() {
        return Err(Error::Config("no endpoints are given".to_owned()));
    }
    let mut addresses = Vec::new();
    let mut reasons = Vec::new();
    for endpoint in endpoints {
        match tokio::net::lookup_host(endpoint.as_str()).await {
            Ok(found) => addresses.extend(found),
            Err(error) => reasons.push(format!("{endpoint:?}: {error} (expected host:port)")),
        }
    }
    if addresses.is_empty() {
        return Err(Error::Config(format!(
            "no endpoint can be resolved: {}",
            reasons.join("; ")
        )));
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
