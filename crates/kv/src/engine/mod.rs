//! The engine: ordered, multi-version storage of what decided entries wrote
//! (§8 Engine). One database per node; a shard is a key range in it.
//!
//! [`Engine`] is what the node sees. [`FjallEngine`] (a log-structured merge
//! tree, the default), [`RedbEngine`] (a B+tree) and [`MemoryEngine`] implement
//! only a small ordered map of bytes each (`store`); the meaning (versions,
//! scans, marks, snapshots, collection) is one piece of code over it, and one
//! conformance suite covers all three. [`Recent`] keeps what was read lately in
//! memory, in front of any of them.
//!
//! # What an engine promises
//!
//! - A batch is atomic, also across a crash.
//! - A crash loses a *suffix* of the batches applied since the last
//!   [`Engine::sync`], never one from the middle. The log replays them from the
//!   applied mark on, and writing a version again changes nothing.
//! - [`Engine::scan`] and [`Engine::snapshot`] see whole batches. [`Engine::get`]
//!   may see a batch half applied. That does no harm: a version is one item with
//!   a checksum, so it is seen whole or not at all, and a reader of versions
//!   that are not yet reported as applied finds them in the shard's overlay
//!   (§7) whatever the engine says.
//! - Every item carries a checksum over key and value. Damage is an error that
//!   names the key, never a wrong answer; every error is fatal to the node (§8).
//!
//! # What is not done
//!
//! Files of the backends do not carry the cluster's id; the node's directory
//! does, and they never leave it.

mod codec;
#[cfg(all(test, feature = "server"))]
mod conformance;
mod error;
#[cfg(feature = "server")]
mod fjall;
#[cfg(feature = "server")]
mod kind;
mod memory;
mod read;
mod recent;
#[cfg(feature = "server")]
mod redb;
mod store;

#[cfg(feature = "server")]
pub use self::fjall::FjallEngine;
#[cfg(feature = "server")]
pub use self::redb::RedbEngine;
pub use error::EngineError;
pub use memory::MemoryEngine;
pub use recent::Recent;

use bytes::Bytes;
use synod_paxos::{GroupId, Slot, Timestamp};
use synod_txn::request::ScanRange;
use synod_txn::{AttemptId, Key, Row, Span, Value, Version};

/// A version as stored: key, commit timestamp, attempt, value or tombstone.
pub type StoredVersion = (Key, Timestamp, AttemptId, Option<Value>);

/// Keys, ascending, and the bytes that their versions take.
pub type Weights = Vec<(Key, u64)>;

/// Bytes that a stored version takes beside its key and value.
pub const VERSION_OVERHEAD: u64 = 32;

/// What is applied at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineBatch {
    /// Versions. One that is there already is overwritten by its equal.
    pub versions: Vec<StoredVersion>,
    /// Per group the slot up to which the engine holds all versions.
    pub marks: Vec<(GroupId, Slot)>,
    /// Per group the replicated state after a slot.
    pub checkpoints: Vec<(GroupId, Slot, Bytes)>,
}

/// Where an export or a collection goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub(crate) Bytes);

/// Reads that see one moment.
pub trait EngineSnapshot: Send {
    /// The newest version of `key` at or below `at`, tombstones included.
    ///
    /// # Errors
    /// When the item is damaged or the backend fails.
    fn get(&self, key: &[u8], at: Timestamp) -> Result<Option<Version>, EngineError>;

    /// As [`Engine::scan`].
    ///
    /// # Errors
    /// As [`Engine::scan`].
    fn scan(&self, scan: &ScanRange, at: Timestamp) -> Result<(Vec<Row>, bool), EngineError>;

    /// All versions of the keys in `span`, from after `after` on: about
    /// `max_bytes` of them, at least one. No cursor means that it was the end.
    ///
    /// # Errors
    /// When an item is damaged or the backend fails.
    fn export(
        &self,
        span: &Span,
        after: Option<&Cursor>,
        max_bytes: usize,
    ) -> Result<(Vec<StoredVersion>, Option<Cursor>), EngineError>;

    /// As [`Engine::applied`].
    ///
    /// # Errors
    /// As [`Engine::applied`].
    fn applied(&self, group: GroupId) -> Result<Option<Slot>, EngineError>;

    /// As [`Engine::checkpoint`].
    ///
    /// # Errors
    /// As [`Engine::checkpoint`].
    fn checkpoint(&self, group: GroupId) -> Result<Option<(Slot, Bytes)>, EngineError>;
}

/// Ordered, multi-version storage; see the module for what it promises. Shared
/// between threads: one applies, others read. Calls may block on the disk.
pub trait Engine: Send + Sync + 'static {
    /// Applies a batch, atomically. Not durable before [`Engine::sync`].
    ///
    /// # Errors
    /// When a key is too long (nothing is applied) or the backend fails.
    fn apply(&self, batch: EngineBatch) -> Result<(), EngineError>;

    /// Makes everything applied durable.
    ///
    /// # Errors
    /// When the sync fails; what is on disk is then unknown.
    fn sync(&self) -> Result<(), EngineError>;

    /// Begins to make everything applied so far durable; may return before it is, and what is
    /// applied meanwhile does not wait for it.
    ///
    /// # Errors
    /// As [`Engine::sync`].
    fn begin_sync(&self) -> Result<(), EngineError>;

    /// Whether what the last [`Engine::begin_sync`] was about is durable. To be asked every
    /// now and then: a sync may need it to go on.
    ///
    /// # Errors
    /// As [`Engine::sync`].
    fn is_synced(&self) -> Result<bool, EngineError>;

    /// The newest version of `key` at or below `at`, tombstones included.
    ///
    /// # Errors
    /// When the item is damaged or the backend fails.
    fn get(&self, key: &[u8], at: Timestamp) -> Result<Option<Version>, EngineError>;

    /// The live rows at `at`, in scan order: at most `limit` and about
    /// [`synod_txn::MAX_SCAN_BYTES`], and whether live rows are left in the span
    /// after the last one.
    ///
    /// # Errors
    /// When an item is damaged or the backend fails.
    fn scan(&self, scan: &ScanRange, at: Timestamp) -> Result<(Vec<Row>, bool), EngineError>;

    /// The state of this moment, for as long as it is kept. Keeping one keeps
    /// superseded files too.
    ///
    /// # Errors
    /// When the backend fails.
    fn snapshot(&self) -> Result<Box<dyn EngineSnapshot>, EngineError>;

    /// The slot up to which the engine holds the group's versions.
    ///
    /// # Errors
    /// When the item is damaged or the backend fails.
    fn applied(&self, group: GroupId) -> Result<Option<Slot>, EngineError>;

    /// The group's last checkpoint and its slot.
    ///
    /// # Errors
    /// When the item is damaged or the backend fails.
    fn checkpoint(&self, group: GroupId) -> Result<Option<(Slot, Bytes)>, EngineError>;

    /// Sets or clears the mark that a snapshot is being installed: while it
    /// stands, the group's range is neither the old state nor the new one. Set it
    /// before [`Engine::clear_range`], clear it after a sync of the new state.
    ///
    /// # Errors
    /// When the backend fails.
    fn set_installing(&self, group: GroupId, slot: Option<Slot>) -> Result<(), EngineError>;

    /// The slot of the snapshot whose installation has not ended.
    ///
    /// # Errors
    /// When the item is damaged or the backend fails.
    fn installing(&self, group: GroupId) -> Result<Option<Slot>, EngineError>;

    /// Removes all versions of the keys in `span`, in bounded batches: not
    /// atomic as a whole.
    ///
    /// # Errors
    /// When the backend fails; a part may then be gone.
    fn clear_range(&self, span: &Span) -> Result<(), EngineError>;

    /// Collects garbage: versions of keys in `span` that no read at or above
    /// `horizon` can see. Looks at no more than `max_items` items from after
    /// `after` on; returns how many it removed, and where to go on.
    ///
    /// # Errors
    /// When an item is damaged or the backend fails.
    fn collect(
        &self,
        span: &Span,
        horizon: Timestamp,
        after: Option<&Cursor>,
        max_items: usize,
    ) -> Result<(u64, Option<Cursor>), EngineError>;

    /// Weighs what is stored of the keys in `span`, old versions included, from after `after`
    /// on: about `max_bytes` of it, at least one version. No cursor means that it was the
    /// end. A key that a call ends in goes on in the next one.
    ///
    /// # Errors
    /// When an item is damaged or the backend fails.
    fn weigh(
        &self,
        span: &Span,
        after: Option<&Cursor>,
        max_bytes: u64,
    ) -> Result<(Weights, Option<Cursor>), EngineError>;
}

/// Lowers the priority of this thread, and of those that it starts, by so many steps of `nice`. On
/// Linux a thread has one of its own; elsewhere this does nothing.
#[cfg(feature = "server")]
pub(crate) fn lower_priority(by: i32) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(by) {
        tracing::warn!(%error, "a thread of the engine keeps the usual priority");
    }
}
