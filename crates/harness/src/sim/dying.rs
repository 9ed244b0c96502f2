//! An engine that dies in the middle of its work: between two changes of one
//! piece of work, such as the installation of a snapshot.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use synod_kv::engine::{
    Cursor, Engine, EngineBatch, EngineError, EngineSnapshot, MemoryEngine, Weights,
};
use synod_paxos::{GroupId, Slot, Timestamp};
use synod_txn::request::ScanRange;
use synod_txn::{Row, Span, Version};

/// It does not die.
const NEVER: u32 = u32::MAX;

/// The engine as its lane sees it.
pub(super) struct Dying {
    engine: MemoryEngine,
    /// Changes that are still made; [`NEVER`] = all.
    left: AtomicU32,
    dead: AtomicBool,
}

impl Dying {
    pub(super) fn new(engine: MemoryEngine) -> Dying {
        Dying {
            engine,
            left: AtomicU32::new(NEVER),
            dead: AtomicBool::new(false),
        }
    }

    pub(super) fn dies_after(&self, calls: u32) {
        self.left.store(calls, Ordering::Relaxed);
    }

    pub(super) fn lives(&self) {
        self.left.store(NEVER, Ordering::Relaxed);
    }

    /// Whether a change was asked for that it did not live to make.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    fn change(&self) -> Result<&MemoryEngine, EngineError> {
        match self.left.load(Ordering::Relaxed) {
            NEVER => Ok(&self.engine),
            0 => {
                self.dead.store(true, Ordering::Relaxed);
                Err(std::io::Error::other("the node dies").into())
            }
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                Ok(&self.engine)
            }
        }
    }
}

impl Engine for Dying {
    fn apply(&self, batch: EngineBatch) -> Result<(), EngineError> {
        self.change()?.apply(batch)
    }

    fn sync(&self) -> Result<(), EngineError> {
        Engine::sync(self.change()?)
    }

    fn begin_sync(&self) -> Result<(), EngineError> {
        Engine::begin_sync(self.change()?)
    }

    fn is_synced(&self) -> Result<bool, EngineError> {
        Engine::is_synced(&self.engine)
    }

    fn get(&self, key: &[u8], at: Timestamp) -> Result<Option<Version>, EngineError> {
        self.engine.get(key, at)
    }

    fn scan(&self, scan: &ScanRange, at: Timestamp) -> Result<(Vec<Row>, bool), EngineError> {
        self.engine.scan(scan, at)
    }

    fn snapshot(&self) -> Result<Box<dyn EngineSnapshot>, EngineError> {
        Engine::snapshot(&self.engine)
    }

    fn applied(&self, group: GroupId) -> Result<Option<Slot>, EngineError> {
        self.engine.applied(group)
    }

    fn checkpoint(&self, group: GroupId) -> Result<Option<(Slot, bytes::Bytes)>, EngineError> {
        self.engine.checkpoint(group)
    }

    fn set_installing(&self, group: GroupId, slot: Option<Slot>) -> Result<(), EngineError> {
        self.change()?.set_installing(group, slot)
    }

    fn installing(&self, group: GroupId) -> Result<Option<Slot>, EngineError> {
        self.engine.installing(group)
    }

    fn clear_range(&self, span: &Span) -> Result<(), EngineError> {
        self.change()?.clear_range(span)
    }

    fn collect(
        &self,
        span: &Span,
        horizon: Timestamp,
        after: Option<&Cursor>,
        max_items: usize,
    ) -> Result<(u64, Option<Cursor>), EngineError> {
        self.change()?.collect(span, horizon, after, max_items)
    }

    fn weigh(
        &self,
        span: &Span,
        after: Option<&Cursor>,
        max_bytes: u64,
    ) -> Result<(Weights, Option<Cursor>), EngineError> {
        self.engine.weigh(span, after, max_bytes)
    }
}
