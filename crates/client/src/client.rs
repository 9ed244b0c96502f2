//! The client.

use crate::attempt::{Attempt, Receipt, Status};
use crate::config::{Config, Identity};
use crate::core::Core;
use crate::error::Error;
use crate::reads::{no_route, timed_out};
use crate::transaction::{Start, Transaction};
use crate::transport::Transport;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_rpc::{Pool, TlsIdentity};
use synod_txn::client::{Reply, Retry};
use synod_txn::request::Refusal;
use synod_txn::{Outcome, Priority, Request, Response};

/// A connection to a cluster. Cheap to clone, used from any number of tasks;
/// clones share connections, the shard map and what is known about leaders.
#[derive(Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
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

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
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
            self.core.renew_clock(deadline).await;
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
            if let Some(window) = txn.window() {
                retry.within(window);
            }
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
        let deadline = self.deadline();
        let anchor = &attempt.coordinator.anchor;
        let request = Request::Status {
            attempt: attempt.id,
            anchor: anchor.clone(),
            term: attempt.coordinator.term,
        };
        // Its shard may be split meanwhile: who owns the anchor then knows what it knew.
        let (shard, reply) = loop {
            let table = self.core.table();
            let route = table.routes.of_key(anchor);
            let shard = route.ok_or_else(|| no_route(anchor))?.shard;
            match self.core.deliver(shard, &request, deadline).await {
                Reply::Moved if Instant::now() < deadline => {}
                reply => break (shard, reply),
            }
        };
        match reply {
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
                "shard {} answered {other:?} to a question for a status",
                shard.0
            ))),
            Reply::Lost | Reply::Unsent | Reply::Moved => Err(timed_out(shard)),
        }
    }
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
