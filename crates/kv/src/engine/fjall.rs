//! The default engine: a log-structured merge tree (fjall 3).
//!
//! Everything is in *one* keyspace. Batches over several are atomic in fjall's
//! journal, but each keyspace writes its memtable to disk on its own, without
//! the journal being synced first: a crash could then keep an applied mark and
//! lose the data it speaks of. Within one keyspace what reaches the disk is
//! always a prefix of what was written.
//!
//! The journal is never synced by a write, and buffers in the process
//! (`manual_journal_persist`): our own log replays what is lost. A write may
//! sleep for 100 ms and more while compaction is behind, which is why only the
//! engine's thread writes.

use super::EngineError;
use super::kind;
use super::store::{Items, Store, View};
use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use bytes::Bytes;
use std::path::Path;

const KIND: &str = "fjall";
const NOTE: &str = "synod engine fjall, layout 1";
const KEYSPACE: &str = "data";
/// Blocks kept in memory.
const CACHE_BYTES: u64 = 128 << 20;
/// Written to disk once it has this size; up to five exist.
const MEMTABLE_BYTES: u64 = 32 << 20;
/// Flushes and compactions run on these; the cores belong to the shards.
const WORKERS: usize = 1;

/// An engine over fjall, in a directory of its own.
pub struct FjallEngine {
    database: Database,
    keyspace: Keyspace,
}

impl std::fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallEngine").finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl FnOnce(::fjall::Error) -> EngineError {
    move |source| EngineError::Backend {
        kind: KIND,
        action,
        source: Box::new(source),
    }
}

impl FjallEngine {
    /// Opens the engine in the directory `path`, making it if there is none.
    ///
    /// # Errors
    /// When another kind of engine made the directory, or it does not open; the
    /// node then sets it aside.
    pub fn open(path: &Path) -> Result<FjallEngine, EngineError> {
        kind::check(path, NOTE)?;
        let database = Database::builder(path.join("fjall"))
            .manual_journal_persist(true)
            .worker_threads(WORKERS)
            .cache_size(CACHE_BYTES)
            .open()
            .map_err(failed("open its database"))?;
        let keyspace = database
            .keyspace(KEYSPACE, || {
                KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
            })
            .map_err(failed("open its keyspace"))?;
        Ok(FjallEngine { database, keyspace })
    }
}

/// The state of one moment, or, without a snapshot, of each moment.
#[derive(Clone)]
pub struct FjallView {
    keyspace: Keyspace,
    snapshot: Option<Snapshot>,
}

impl View for FjallView {
    fn range(&self, start: &[u8], end: &[u8]) -> Result<Items<'_>, EngineError> {
        if end <= start {
            return Ok(Box::new(std::iter::empty()));
        }
        let items = match &self.snapshot {
            Some(snapshot) => snapshot.range(&self.keyspace, start..end),
            None => self.keyspace.range(start..end),
        };
        Ok(Box::new(items.map(|guard| {
            let (key, value) = guard.into_inner().map_err(failed("read"))?;
            Ok((key.into(), value.into()))
        })))
    }

    fn item(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = match &self.snapshot {
            Some(snapshot) => snapshot.get(&self.keyspace, key),
            None => self.keyspace.get(key),
        };
        Ok(found.map_err(failed("read"))?.map(Bytes::from))
    }
}

impl Store for FjallEngine {
    type Snapshot = FjallView;

    fn write(&self, items: Vec<(Bytes, Option<Bytes>)>) -> Result<(), EngineError> {
        let mut batch = self.database.batch();
        for (key, value) in items {
            match value {
                Some(value) => batch.insert(&self.keyspace, key, value),
                None => batch.remove(&self.keyspace, key),
            }
        }
        batch.commit().map_err(failed("apply a batch"))
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.database
            .persist(PersistMode::SyncAll)
            .map_err(failed("sync its journal"))
    }

    fn snapshot(&self) -> Result<FjallView, EngineError> {
        Ok(FjallView {
            keyspace: self.keyspace.clone(),
            snapshot: Some(self.database.snapshot()),
        })
    }

    fn read_one<T>(
        &self,
        reader: impl FnOnce(&dyn View) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        reader(&FjallView {
            keyspace: self.keyspace.clone(),
            snapshot: None,
        })
    }
}
