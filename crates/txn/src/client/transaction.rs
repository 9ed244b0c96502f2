//! The transaction itself: state, local calls, and where answers go.

use crate::client::buffer::Buffer;
use crate::client::commit::{CommitStep, Plan};
use crate::client::read::{GetStep, ScanStep};
use crate::client::{IdWindow, Routes, TransactionError};
use crate::hashing::Hashing;
use crate::request::{LockMode, Refusal, Request, Response};
use crate::types::{
    AbortReason, AttemptId, ClientId, Key, Participant, Priority, SessionId, Span, Value,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{GroupId, Term, Timestamp};

/// What a transaction begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The attempt's id; see [`crate::client::attempt_id`].
    pub attempt: AttemptId,
    /// Its age: the first attempt's.
    pub priority: Priority,
    /// Who keeps its sessions alive.
    pub client: ClientId,
    /// Refuse writes and reads for update.
    pub read_only: bool,
}

/// A request the driver has to deliver to the leader of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Names it; the answer comes back under it.
    pub token: u64,
    /// The shard.
    pub shard: GroupId,
    /// Send it this much later; nanoseconds.
    pub after_nanos: u64,
    /// Whether anybody waits for the answer. Where not, it is sent at leisure,
    /// also after the transaction is gone.
    pub answered: bool,
    /// The hashed directory whose mapping the request's keys went through; none if they are
    /// plain. To be told to the shard along with it.
    pub hashing: Option<Hashing>,
    /// The request.
    pub request: Request,
}

/// What became of an [`Outgoing`].
///
/// The driver follows `NotLeader`, waits out `Overloaded` and `Clock`, and
/// repeats what it may: any request as long as no copy of it can have been
/// handled, and all but Commit also afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// A leader answered.
    Answer(Response),
    /// A copy may have been handled, and no answer will come.
    Lost,
    /// No copy was or will be handled by a leader; the deadline passed, or no node can be reached.
    Unsent,
    /// The shard's range has changed, or how its keys are stored; the routes have been learned
    /// anew.
    Moved,
}

/// How a transaction ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The attempt that did it.
    pub attempt: AttemptId,
    /// Its commit timestamp; none for a transaction without writes.
    pub timestamp: Option<Timestamp>,
    /// Shards that took part.
    pub shards: u32,
    /// Consensus rounds that the coordinator's answer waited for.
    pub syncs: u32,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// Of `get`: one per key, in order.
    Values(Vec<Option<Value>>),
    /// Of `scan`.
    Page(crate::client::Page),
    /// Of `commit`.
    Committed(Committed),
}

/// What the transaction has in one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// Term and session; none while the first read is unanswered.
    pub(super) session: Option<(Term, SessionId)>,
    /// What was read there.
    pub(super) reads: BTreeSet<Span>,
}

/// What an answer is awaited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Awaited {
    Get { shard: GroupId, indexes: Vec<u32> },
    Scan { shard: GroupId, asked: Span },
    Slot { shard: GroupId, asked: Span },
    Validate { shard: GroupId },
    Locate { shard: GroupId },
    Commit { part: u32 },
    Status,
}

/// What the transaction is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    Open,
    Get(GetStep),
    Scan(ScanStep),
    Validate,
    Locate(Plan),
    Commit(CommitStep),
    Ended,
}

/// One attempt of a transaction.
///
/// At most one of `get`, `scan` and `commit` is under way. A `get` or `scan`
/// whose result was not waited for is given up by the next call. An error that
/// ends the transaction also leaves the requests that free its locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub(super) begin: Begin,
    pub(super) buffer: Buffer,
    pub(super) held: BTreeMap<GroupId, Held>,
    pub(super) phase: Phase,
    pub(super) awaited: BTreeMap<u64, Awaited>,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) done: Option<Result<Done, TransactionError>>,
    /// Bytes of all read spans, for the bound.
    pub(super) read_bytes: usize,
    /// Why it was ended by a shard, kept for the calls that follow.
    ended_by: Option<TransactionError>,
    /// Whom to ask for the outcome, once a commit was sent.
    pub(super) coordinator: Option<Participant>,
    /// What a shard that refused the time in its id takes instead.
    window: Option<IdWindow>,
    /// How often something was asked for elsewhere.
    moves: u32,
    next_token: u64,
}

/// How often a transaction asks elsewhere for what has moved, at most.
const MAX_MOVES: u32 = 256;

impl Transaction {
    /// Begin.
    #[must_use]
    pub const fn new(begin: Begin) -> Transaction {
        Transaction {
            begin,
            buffer: Buffer::new(),
            held: BTreeMap::new(),
            phase: Phase::Open,
            awaited: BTreeMap::new(),
            outgoing: Vec::new(),
            done: None,
            read_bytes: 0,
            ended_by: None,
            coordinator: None,
            window: None,
            moves: 0,
            next_token: 0,
        }
    }

    /// Its attempt's id.
    #[must_use]
    pub const fn attempt(&self) -> AttemptId {
        self.begin.attempt
    }

    /// Its age.
    #[must_use]
    pub const fn priority(&self) -> Priority {
        self.begin.priority
    }

    /// Whether it has ended, well or not.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// The error that ended it, if one did.
    #[must_use]
    pub const fn ended_by(&self) -> Option<&TransactionError> {
        self.ended_by.as_ref()
    }

    /// Whom to ask for the outcome, once a commit was sent.
    #[must_use]
    pub const fn coordinator(&self) -> Option<&Participant> {
        self.coordinator.as_ref()
    }

    /// Where a shard refused the time in its id: what it takes instead. For
    /// [`Retry::within`](crate::client::Retry::within).
    #[must_use]
    pub const fn window(&self) -> Option<IdWindow> {
        self.window
    }

    /// The requests to deliver; empty when there is nothing new.
    pub fn take_outgoing(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outgoing)
    }

    /// The result of the call under way, once there is one.
    pub fn take_done(&mut self) -> Option<Result<Done, TransactionError>> {
        self.done.take()
    }

    /// Buffer a write.
    ///
    /// # Errors
    /// `Invalid` over a bound, `ReadOnly`, or why the transaction ended.
    pub fn put(&mut self, key: Key, value: Value) -> Result<(), TransactionError> {
        self.write(key, Some(value))
    }

    /// Buffer a delete; the key need not exist.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete(&mut self, key: Key) -> Result<(), TransactionError> {
        self.write(key, None)
    }

    fn write(&mut self, key: Key, value: Option<Value>) -> Result<(), TransactionError> {
        self.ready()?;
        if self.begin.read_only {
            return Err(TransactionError::ReadOnly);
        }
        self.buffer.write(key, value)
    }

    /// Name this point of the transaction. A name may be used again; the newest counts.
    ///
    /// # Errors
    /// `Invalid` over the bound on savepoints, or why the transaction ended.
    pub fn savepoint(&mut self, name: &str) -> Result<(), TransactionError> {
        self.ready()?;
        self.buffer.savepoint(name)
    }

    /// Undo the writes since the savepoint, which stays set. Locks are kept: what
    /// was read since stays true until the end.
    ///
    /// # Errors
    /// `NoSavepoint`, or why the transaction ended.
    pub fn rollback_to(&mut self, name: &str) -> Result<(), TransactionError> {
        self.ready()?;
        self.buffer.rollback_to(name)
    }

    /// Give up; leaves requests that free the locks. Harmless when it has ended.
    /// Once `commit` has sent anything it is too late: the commit goes on without a listener.
    pub fn rollback(&mut self) {
        if !matches!(self.phase, Phase::Ended | Phase::Commit(_)) {
            self.fail(self.aborted(AbortReason::RolledBack));
            self.done = None;
        }
    }

    /// What came of a request. Answers that nobody awaits any more are ignored.
    pub fn handle_reply(&mut self, routes: &Routes, token: u64, reply: Reply) {
        let Some(awaited) = self.awaited.remove(&token) else {
            return;
        };
        if let Reply::Answer(Response::Refused(Refusal::AttemptTime {
            least_millis,
            most_millis,
            ..
        })) = reply
        {
            self.window = Some(IdWindow {
                least_millis,
                most_millis,
            });
        }
        match awaited {
            Awaited::Get { shard, indexes } => self.handle_get(routes, shard, indexes, reply),
            Awaited::Scan { shard, asked } => self.handle_scan(routes, shard, &asked, reply),
            Awaited::Slot { shard, asked } => self.handle_slot(routes, shard, asked, reply),
            Awaited::Validate { shard } => self.handle_validate(shard, reply),
            Awaited::Locate { shard } => self.handle_locate(routes, shard, reply),
            Awaited::Commit { part } => self.handle_commit(routes, part as usize, reply),
            Awaited::Status => self.handle_status(routes, reply),
        }
    }

    /// Whether a call may begin; gives up a read that nobody waited for.
    pub(super) fn ready(&mut self) -> Result<(), TransactionError> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Get(_) | Phase::Scan(_) => {
                self.awaited.clear();
                self.outgoing.clear();
                self.done = None;
                self.phase = Phase::Open;
                Ok(())
            }
            Phase::Ended => Err(self.ended_by.clone().unwrap_or(TransactionError::Ended)),
            Phase::Validate | Phase::Locate(_) | Phase::Commit(_) => Err(TransactionError::Ended),
        }
    }

    pub(super) fn check_mode(&self, mode: LockMode) -> Result<(), TransactionError> {
        if self.begin.read_only && mode == LockMode::Exclusive {
            return Err(TransactionError::ReadOnly);
        }
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        shard: GroupId,
        after_nanos: u64,
        request: Request,
        awaited: Option<Awaited>,
    ) {
        self.send_mapped(shard, after_nanos, None, request, awaited);
    }

    /// The same with keys that may be mapped.
    pub(super) fn send_mapped(
        &mut self,
        shard: GroupId,
        after_nanos: u64,
        hashing: Option<Hashing>,
        request: Request,
        awaited: Option<Awaited>,
    ) {
        let token = self.next_token;
        self.next_token += 1;
        let answered = awaited.is_some();
        if let Some(awaited) = awaited {
            self.awaited.insert(token, awaited);
        }
        self.outgoing.push(Outgoing {
            token,
            shard,
            after_nanos,
            answered,
            hashing,
            request,
        });
    }

    pub(super) const fn aborted(&self, reason: AbortReason) -> TransactionError {
        TransactionError::Aborted {
            attempt: self.begin.attempt,
            reason,
        }
    }

    /// End badly: free the locks everywhere, and remember why.
    pub(super) fn fail(&mut self, error: TransactionError) {
        self.free(None);
        self.ended_by = Some(error.clone());
        self.finish(Err(error));
    }

    pub(super) fn finish(&mut self, result: Result<Done, TransactionError>) {
        self.awaited.clear();
        self.outgoing.retain(|o| !o.answered);
        self.phase = Phase::Ended;
        self.done = Some(result);
    }

    /// Ask the shards to drop the attempt's locks, save the one that has done so already.
    pub(super) fn free(&mut self, except: Option<GroupId>) {
        for (shard, held) in std::mem::take(&mut self.held) {
            if Some(shard) == except {
                continue;
            }
            let release = Request::Release {
                attempt: self.begin.attempt,
                session: held.session,
            };
            self.send(shard, 0, release, None);
        }
    }

    /// What a refusal of a read, Validate or Locate means.
    pub(super) fn refused(&self, shard: GroupId, refusal: Refusal) -> TransactionError {
        match refusal {
            Refusal::Aborted(reason) => self.aborted(reason),
            Refusal::WrongTerm { .. } => self.aborted(AbortReason::TermEnded),
            Refusal::WrongShard | Refusal::OtherSharding { .. } => self.aborted(AbortReason::Moved),
            Refusal::AttemptTime { .. } => self.aborted(AbortReason::Untimely),
            Refusal::Invalid(what) => TransactionError::Invalid(format!("{shard}: {what}")),
            Refusal::NotLeader { .. } | Refusal::Overloaded { .. } | Refusal::Clock => {
                TransactionError::Unreachable { shard }
            }
        }
    }

    /// Whether a reply says that the shard does not have what was asked for, and all of it can be asked for
    /// elsewhere: nothing that was read in the shard rests on its being there.
    pub(super) fn may_ask_elsewhere(&mut self, shard: GroupId, reply: &Reply) -> bool {
        let read = self
            .held
            .get(&shard)
            .is_some_and(|held| held.session.is_some());
        let elsewhere = *reply == Reply::Moved && !read && self.moves < MAX_MOVES;
        self.moves += u32::from(elsewhere);
        elsewhere
    }

    /// The error for a reply that brings no answer to a request that changes nothing.
    pub(super) fn answer(
        &self,
        shard: GroupId,
        reply: Reply,
    ) -> Result<Response, TransactionError> {
        match reply {
            Reply::Answer(Response::Refused(refusal)) => Err(self.refused(shard, refusal)),
            Reply::Answer(response) => Ok(response),
            Reply::Lost | Reply::Unsent => Err(TransactionError::Unreachable { shard }),
            Reply::Moved => Err(self.aborted(AbortReason::Moved)),
        }
    }

    pub(super) fn protocol(shard: GroupId, what: &str) -> TransactionError {
        TransactionError::Protocol {
            shard,
            what: what.to_owned(),
        }
    }
}
