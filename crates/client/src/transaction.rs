//! Transactions.

use crate::attempt::{Attempt, Receipt};
use crate::core::Core;
use crate::error::Error;
use crate::flight::Flight;
use crate::range::{Page, Range};
use crate::router::{Delivery, asked_by};
use crate::table::Table;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use synod_paxos::NodeId;
use synod_shard::RESERVED_PREFIX;
use synod_txn::client::{
    Begin, Committed, Done, IdWindow, MAX_GET_KEYS, Outgoing, Reply, Transaction as Machine,
    TransactionError,
};
use synod_txn::request::LockMode;
use synod_txn::{AbortReason, AttemptId, Key, MAX_KEY_BYTES, Priority, Request, Value};

/// Rows that [`Transaction::scan`] collects at most.
const MAX_COLLECTED_ROWS: usize = 1_000_000;
/// Bytes that it collects at most.
const MAX_COLLECTED_BYTES: usize = 256 << 20;
/// Of the time for a commit this part, but no more than two seconds, is kept
/// for asking how it ended.
const STATUS_SHARE: u32 = 4;
const LONGEST_STATUS_SHARE: Duration = Duration::from_secs(2);
/// After word that a leader has changed the others' answers are waited for as long as that took, within
/// these bounds: leaders change together, and each one that is not heard of now costs another attempt.
const SHORTEST_GRACE: Duration = Duration::from_millis(2);
const LONGEST_GRACE: Duration = Duration::from_millis(200);
/// Requests for a node that are so many leave before those for the next node are made, so that it
/// works meanwhile.
const MANY: usize = 8;

/// A transaction under way: strictly serializable, over any keys.
///
/// Reads lock what they read at the shards' leaders, writes are buffered and
/// sent with the commit. A conflict aborts it with an error that is
/// retry-safe; [`Client::transact`](crate::Client::transact) does the retrying.
/// Dropping it without a commit rolls it back.
pub struct Transaction {
    core: Arc<Core>,
    machine: Machine,
    /// For each call.
    timeout: Duration,
    /// For all of them together.
    deadline: Option<Instant>,
    attempts: u32,
    begun: Instant,
}

/// What a transaction is begun with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) attempt: AttemptId,
    pub(crate) priority: Priority,
    pub(crate) attempts: u32,
    pub(crate) begun: Instant,
    pub(crate) read_only: bool,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Option<Instant>,
}

/// A user's key, or why it cannot be one.
pub(crate) fn user_key(key: impl AsRef<[u8]>) -> Result<Key, Error> {
    let key = key.as_ref();
    if key.starts_with(RESERVED_PREFIX) {
        return Err(Error::Invalid(
            "keys that begin with the bytes ff ff are reserved for the cluster".to_owned(),
        ));
    }
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(Error::Invalid(format!(
            "a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}",
            key.len()
        )));
    }
    Ok(Bytes::copy_from_slice(key))
}

impl Transaction {
    pub(crate) fn new(core: Arc<Core>, start: Start) -> Transaction {
        let machine = Machine::new(Begin {
            attempt: start.attempt,
            priority: start.priority,
            client: core.id,
            read_only: start.read_only,
        });
        core.began(start.attempt);
        Transaction {
            core,
            machine,
            timeout: start.timeout,
            deadline: start.deadline,
            attempts: start.attempts,
            begun: start.begun,
        }
    }

    /// This attempt's id.
    #[must_use]
    pub const fn id(&self) -> AttemptId {
        self.machine.attempt()
    }

    /// Its age, which a retry keeps: see [`Client::begin_again`](crate::Client::begin_again).
    #[must_use]
    pub const fn age(&self) -> Priority {
        self.machine.priority()
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Read a key under a shared lock. Own writes are seen.
    ///
    /// # Errors
    /// See [`Error`]; an abort ends the transaction.
    pub async fn get(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let values = self.read(vec![user_key(key)?], LockMode::Shared).await?;
        Ok(values.into_iter().next().flatten())
    }

    /// Read a key under an exclusive lock: for what will be written next.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub async fn get_for_update(&mut self, key: impl AsRef<[u8]>) -> Result<Option<Value>, Error> {
        let values = self.read(vec![user_key(key)?], LockMode::Exclusive).await?;
        Ok(values.into_iter().next().flatten())
    }

    /// Read many keys at once; one value per key, in order.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub async fn get_many<K: AsRef<[u8]>>(
        &mut self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>, Error> {
        let keys: Result<Vec<Key>, Error> = keys.into_iter().map(user_key).collect();
        self.read(keys?, LockMode::Shared).await
    }

    /// Read many keys at once, under exclusive locks.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub async fn get_many_for_update<K: AsRef<[u8]>>(
        &mut self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>, Error> {
        let keys: Result<Vec<Key>, Error> = keys.into_iter().map(user_key).collect();
        self.read(keys?, LockMode::Exclusive).await
    }

    async fn read(
        &mut self,
        mut keys: Vec<Key>,
        mode: LockMode,
    ) -> Result<Vec<Option<Value>>, Error> {
        let mut values = Vec::with_capacity(keys.len());
        loop {
            let later = keys.split_off(keys.len().min(MAX_GET_KEYS));
            let table = self.core.table();
            let begun = self.machine.get(&table.routes, keys, mode);
            self.check(begun)?;
            match self.drive(self.until(), self.until()).await? {
                Done::Values(read) => values.extend(read),
                other => return Err(Error::Protocol(format!("a read ended as {other:?}"))),
            }
            if later.is_empty() {
                return Ok(values);
            }
            keys = later;
        }
    }

    /// Read the next page of a range, locking what it visits. No row can
    /// appear in or vanish from the visited part until the end.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub async fn scan_page(&mut self, range: Range) -> Result<Page, Error> {
        if range.is_done() {
            return Ok(Page::default());
        }
        let table = self.core.table();
        let rows = range.next_rows();
        let span = range.span.clone();
        let begun = self
            .machine
            .scan(&table.routes, span, rows, range.reverse, LockMode::Shared);
        self.check(begun)?;
        match self.drive(self.until(), self.until()).await? {
            Done::Page(page) => Ok(Page {
                rest: range.after(page.rows.len(), page.rest),
                rows: page.rows,
            }),
            other => Err(Error::Protocol(format!("a scan ended as {other:?}"))),
        }
    }

    /// Read a whole range, up to its limit.
    ///
    /// # Errors
    /// As [`Transaction::get`]; `Invalid` over a million rows or 256 MiB (use
    /// [`Transaction::scan_page`]).
    pub async fn scan(&mut self, range: Range) -> Result<Vec<(Key, Value)>, Error> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        let mut rest = Some(range);
        while let Some(range) = rest.take() {
            let page = self.scan_page(range).await?;
            bytes += page
                .rows
                .iter()
                .map(|(k, v)| k.len() + v.len())
                .sum::<usize>();
            rows.extend(page.rows);
            rest = page.rest;
            if rest.is_some() && (rows.len() >= MAX_COLLECTED_ROWS || bytes >= MAX_COLLECTED_BYTES)
            {
                return Err(Error::Invalid(
                    "the range is too large to collect: set a limit or read it in pages".to_owned(),
                ));
            }
        }
        Ok(rows)
    }

    /// Write a key, at commit. Buffered at once; nothing is sent before the commit.
    ///
    /// # Errors
    /// `Invalid` over a bound, `ReadOnly`, or why the transaction has ended.
    pub async fn put(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let value = Bytes::copy_from_slice(value.as_ref());
        let put = self.machine.put(user_key(key)?, value);
        self.check(put)
    }

    /// Delete a key, at commit; it need not exist.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub async fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        let delete = self.machine.delete(user_key(key)?);
        self.check(delete)
    }

    /// Name this point, to roll back to.
    ///
    /// # Errors
    /// `Invalid` over the bound on savepoints, or why the transaction has ended.
    pub fn savepoint(&mut self, name: &str) -> Result<(), Error> {
        let set = self.machine.savepoint(name);
        self.check(set)
    }

    /// Undo the writes since the savepoint, which stays set. Locks are kept.
    ///
    /// # Errors
    /// `NoSavepoint`, or why the transaction has ended.
    pub fn rollback_to(&mut self, name: &str) -> Result<(), Error> {
        let undone = self.machine.rollback_to(name);
        self.check(undone)
    }

    /// Commit. Committed, aborted or, only while the coordinator cannot be
    /// asked, unknown; a lost connection alone is no reason for the latter.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::effect`] tells aborted from unknown.
    pub async fn commit(mut self) -> Result<Receipt, Error> {
        self.commit_in_place().await
    }

    pub(crate) async fn commit_in_place(&mut self) -> Result<Receipt, Error> {
        let until = self.until();
        let left = until.saturating_duration_since(Instant::now());
        let for_status = (left / STATUS_SHARE).min(LONGEST_STATUS_SHARE);
        let table = self.core.table();
        let timeout = u32::try_from((left - for_status).as_millis()).unwrap_or(u32::MAX);
        let begun = self
            .machine
            .commit(&table.routes, &table.nearest, timeout.max(1));
        self.check(begun)?;
        // Dropped from here on, the commit goes on without a listener.
        let done = self.drive(until - for_status, until).await?;
        let Done::Committed(Committed {
            attempt,
            timestamp,
            shards,
            syncs,
        }) = done
        else {
            return Err(Error::Protocol(format!("a commit ended as {done:?}")));
        };
        Ok(Receipt {
            attempt,
            timestamp,
            attempts: self.attempts,
            shards,
            syncs,
            elapsed: self.begun.elapsed(),
        })
    }

    /// Give up: nothing is written, all locks are freed.
    pub fn rollback(self) {
        drop(self);
    }

    /// The error that ended the transaction, if one did.
    #[must_use]
    pub fn ended_by(&self) -> Option<Error> {
        self.machine.ended_by().map(|e| self.error(e.clone()))
    }

    /// What a shard that refused the time in its id takes instead.
    pub(crate) const fn window(&self) -> Option<IdWindow> {
        self.machine.window()
    }

    /// When the next call has to be done.
    fn until(&self) -> Instant {
        let until = Instant::now() + self.timeout;
        self.deadline.map_or(until, |deadline| deadline.min(until))
    }

    fn error(&self, error: TransactionError) -> Error {
        let asked = self.machine.coordinator().map(|coordinator| Attempt {
            id: self.machine.attempt(),
            coordinator: coordinator.clone(),
        });
        Error::of_transaction(error, self.attempts, asked)
    }

    fn check<T>(&mut self, result: Result<T, TransactionError>) -> Result<T, Error> {
        if result.is_err() {
            self.send_chores();
        }
        result.map_err(|e| self.error(e))
    }

    fn send_chores(&mut self) {
        for outgoing in self.machine.take_outgoing() {
            if !outgoing.answered {
                self.core.chore(asked_by(outgoing));
            }
        }
    }

    /// Deliver what the machine sends and bring back the answers, until the
    /// call under way has its result. Questions for the outcome may take until
    /// `last`, everything else until `until`.
    async fn drive(&mut self, until: Instant, last: Instant) -> Result<Done, Error> {
        let core = self.core.clone();
        let begun = Instant::now();
        let over = AtomicBool::new(false);
        let mut flight = Flight::default();
        loop {
            let mut rest = Rest::new(&core, self.machine.take_outgoing());
            loop {
                if rest.turns_to_another_node() {
                    flight.depart().await;
                }
                let Some(outgoing) = rest.next() else {
                    break;
                };
                if !outgoing.answered {
                    core.chore(asked_by(outgoing));
                    continue;
                }
                let asks = matches!(outgoing.request, synod_txn::Request::Status { .. });
                let deadline = if asks { last } else { until };
                let (token, after) = (outgoing.token, Duration::from_nanos(outgoing.after_nanos));
                let delivery = Delivery::new(&core, outgoing, &over);
                flight.push(token, async move {
                    if after > Duration::ZERO {
                        let at = Instant::now() + after;
                        tokio::time::sleep_until(at.min(deadline).into()).await;
                    }
                    delivery.deliver(deadline).await
                });
            }
            if let Some(done) = self.machine.take_done() {
                over.store(true, Ordering::Relaxed);
                let commits = self.machine.coordinator().is_some();
                if commits && matches!(&done, Err(error) if is_term_over(error)) {
                    let grace = begun.elapsed().clamp(SHORTEST_GRACE, LONGEST_GRACE);
                    flight
                        .listen(grace.min(until.saturating_duration_since(Instant::now())))
                        .await;
                }
                return done.map_err(|e| self.error(e));
            }
            match flight.next().await {
                Some((token, reply)) => self.take_reply(&core, token, reply),
                None => self.machine.give_up(),
            }
        }
    }

    fn take_reply(&mut self, core: &Core, token: u64, reply: Reply) {
        let table = core.table();
        self.machine.handle_reply(&table.routes, token, reply);
    }
}

/// Whether a shard has another leader than the one that was sent to.
const fn is_term_over(error: &TransactionError) -> bool {
    matches!(
        error,
        TransactionError::Aborted {
            reason: AbortReason::TermEnded,
            ..
        }
    )
}

/// What is sent at once, the requests for one node together. If the call is dropped meanwhile, the
/// others go without it: a commit goes on.
pub(crate) struct Rest<'a> {
    core: &'a Core,
    outgoing: std::vec::IntoIter<Outgoing>,
    /// Who leads the shards, if there is so much that it matters.
    table: Option<Arc<Table>>,
    /// Where the last ones went, and how many they were.
    node: Option<NodeId>,
    count: usize,
}

impl Rest<'_> {
    pub(crate) fn new(core: &Core, mut outgoing: Vec<Outgoing>) -> Rest<'_> {
        let table = (outgoing.len() > MANY).then(|| core.table());
        if let Some(table) = &table {
            table.sort_by_leader(&mut outgoing);
        }
        Rest {
            core,
            outgoing: outgoing.into_iter(),
            table,
            node: None,
            count: 0,
        }
    }

    /// Whether many went to one node, and the next one goes to another.
    pub(crate) fn turns_to_another_node(&self) -> bool {
        let next = self.outgoing.as_slice().first();
        next.is_some_and(|next| self.count >= MANY && self.leader(next) != self.node)
    }

    fn leader(&self, outgoing: &Outgoing) -> Option<NodeId> {
        self.table.as_ref()?.leader(outgoing.shard)
    }
}

impl Iterator for Rest<'_> {
    type Item = Outgoing;

    fn next(&mut self) -> Option<Outgoing> {
        let next = self.outgoing.next()?;
        let node = self.leader(&next);
        self.count = if node == self.node { self.count + 1 } else { 1 };
        self.node = node;
        Some(next)
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        for outgoing in &mut self.outgoing {
            // Nobody is there to read any more.
            if !outgoing.answered || matches!(outgoing.request, Request::Commit(_)) {
                self.core.chore(asked_by(outgoing));
            }
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.machine.rollback();
        self.send_chores();
        self.core.ended(self.machine.attempt());
    }
}
