//! What transactions do: one script per kind.
//!
//! A script is asked for the next call and told its result until it says
//! `Commit`, `Rollback`; an attempt that is aborted starts it over. At the
//! end it writes what it did into the history of its workload.

mod bank;
mod last;
mod list;
mod load;
mod once;
mod register;
mod ring;

pub(super) use last::Last;
pub(super) use load::Load;

use super::config::{Weights, Workload};
use super::histories::Histories;
use crate::history::{Outcome, Transaction as Recorded};
use crate::sim::random::Random;
use bytes::Bytes;
use synod_paxos::GroupId;
use synod_txn::client::{Page, Transaction};
use synod_txn::request::LockMode;
use synod_txn::{Key, Span, Value};

/// Numbers of one client's only begin at its number, plus one, times this.
const CLIENT: u64 = 100_000_000;

/// What a script wants next.
pub(super) enum Call {
    /// Read keys.
    Get(Vec<Key>, LockMode),
    /// Read a span, page by page.
    Scan {
        /// The span.
        span: Span,
        /// From its end.
        reverse: bool,
        /// Rows of a page.
        limit: u32,
    },
    /// End it.
    Commit,
    /// Take it back.
    Rollback,
}

/// A lock-free read of keys of one shard.
pub(super) type Latest = (GroupId, Vec<Key>);

/// What a client remembers from one transaction to the next.
#[derive(Debug)]
pub(super) struct Memory {
    /// The client's number; stays when it comes back under another id.
    pub(super) client: u32,
    /// The newest generation heard of, for each list.
    pub(super) generations: Vec<u64>,
    /// The list it appended to last.
    pub(super) own_list: Option<usize>,
    /// The register it wrote last.
    pub(super) own_register: Option<usize>,
    /// Accounts and ring are there.
    pub(super) loaded: bool,
    /// It only reads, without locks.
    pub(super) reads_only: bool,
    /// Unique values handed out.
    values: u64,
    /// Transactions that leave markers.
    pub(super) markers: u64,
}

impl Memory {
    pub(super) fn new(client: u32, lists: usize, reads_only: bool) -> Memory {
        Memory {
            client,
            generations: vec![0; lists],
            own_list: None,
            own_register: None,
            loaded: false,
            reads_only,
            values: 0,
            markers: 0,
        }
    }

    /// A new process knows nothing of what the one before it did. Generations
    /// stay: old lists would grow without bound.
    pub(super) fn forget(&mut self) {
        self.own_list = None;
        self.own_register = None;
        self.loaded = false;
    }

    /// A value nobody else writes.
    pub(super) fn value(&mut self) -> u64 {
        self.values += 1;
        unique(self.client, self.values)
    }
}

/// A number of one client's only.
pub(super) fn unique(client: u32, count: u64) -> u64 {
    (u64::from(client) + 1) * CLIENT + count
}

/// Whose a number of one client's only is.
pub(super) fn owner(unique: u64) -> u32 {
    (unique / CLIENT - 1) as u32
}

/// What scripts work with.
pub(super) struct Cx<'a> {
    pub(super) workload: &'a Workload,
    pub(super) random: &'a mut Random,
    pub(super) memory: &'a mut Memory,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Who ran it, as histories name it.
    pub(super) process: u32,
    /// When it was invoked, on the true clock.
    pub(super) invoked: u64,
    /// When it ended.
    pub(super) completed: u64,
    /// How, as its client was told.
    pub(super) outcome: Outcome,
}

impl End {
    fn of<Op>(&self, ops: Vec<Op>) -> Recorded<Op> {
        Recorded {
            process: self.process,
            invoked: self.invoked,
            completed: self.completed,
            outcome: self.outcome,
            ops,
        }
    }

    pub(super) fn committed(&self) -> bool {
        matches!(self.outcome, Outcome::Committed(_))
    }
}

/// One transaction's doings.
pub(super) trait Script {
    /// Whether it only reads.
    fn read_only(&self) -> bool;

    /// Set where it is not a transaction but one lock-free read; its values come
    /// by [`Script::values`].
    fn latest(&self, _cx: &Cx<'_>) -> Option<Latest> {
        None
    }

    /// A new attempt begins.
    fn restart(&mut self);

    /// The next call. Writes go to the machine directly.
    fn next(&mut self, machine: &mut Transaction, cx: &mut Cx<'_>) -> Call;

    /// The values asked for, in order.
    fn values(&mut self, values: Vec<Option<Value>>, cx: &mut Cx<'_>);

    /// A page of the scan asked for.
    fn page(&mut self, _page: Page, _cx: &mut Cx<'_>) {}

    /// It ended.
    fn end(self: Box<Self>, end: End, memory: &mut Memory, histories: &mut Histories);
}

/// A transaction at random.
pub(super) fn random(cx: &mut Cx<'_>) -> Box<dyn Script> {
    let Weights {
        list,
        register,
        hot,
        bank,
        ring,
        once,
    } = cx.workload.config.weights;
    if cx.memory.reads_only {
        return if cx.random.chance(500) {
            list::begin_latest(cx)
        } else {
            register::begin_latest(cx)
        };
    }
    let mut at = cx
        .random
        .range(0, list + register + hot + bank + ring + once);
    let mut within = |weight: u64| {
        let chosen = at < weight;
        at = at.wrapping_sub(weight);
        chosen
    };
    if within(list) {
        list::begin(cx)
    } else if within(register) {
        register::begin(cx)
    } else if within(hot) {
        register::begin_hot(cx)
    } else if within(bank) {
        bank::begin(cx)
    } else if within(ring) {
        ring::begin(cx)
    } else {
        once::begin(cx)
    }
}

/// Buffers a write.
///
/// # Panics
/// When the machine refuses a small write in an open transaction.
fn put(machine: &mut Transaction, key: Key, value: Value) {
    let put = machine.put(key, value);
    assert!(put.is_ok(), "a small put was refused: {put:?}");
}

/// A number as a value.
fn encode(number: u64) -> Value {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

/// The number in a value; none if it is no number.
fn decode(value: &Value) -> Option<u64> {
    Some(u64::from_le_bytes(value[..].try_into().ok()?))
}

/// The number in a value that may not be there: 0.
fn number(value: Option<&Value>) -> u64 {
    value.and_then(decode).unwrap_or(0)
}

/// Shared or exclusive, at random.
fn mode(random: &mut Random) -> LockMode {
    if random.chance(500) {
        LockMode::Exclusive
    } else {
        LockMode::Shared
    }
}
