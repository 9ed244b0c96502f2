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
//!
//! Its files are synced piece by piece as they grow (`behind`), so that their own
//! syncs at the end do not hold up the log's, and its merges take their time (`pace`).
//!
//! A power cut may leave the journal with holes behind its last sync. It is cut
//! there before fjall sees it (`synced`), and the log replays the rest.

mod behind;
mod journal;
mod pace;
mod synced;

use self::behind::WriteBehind;
use self::pace::{Pace, Paces};
use self::synced::{JournalError, Journals};
use super::EngineError;
use super::kind;
use super::store::{Items, Store, View};
use ::fjall::compaction::filter::Factory;
use ::fjall::config::FilterPolicy;
use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use bytes::Bytes;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

const KIND: &str = "fjall";
const NOTE: &str = "synod engine fjall, layout 1";
const KEYSPACE: &str = "data";
/// Blocks kept in memory.
const CACHE_BYTES: u64 = 128 << 20;
/// Written to disk once it has this size, up to half more; up to five exist.
const MEMTABLE_BYTES: u64 = 24 << 20;
/// Flushes and compactions run on these; the cores belong to the shards.
const WORKERS: usize = 1;
/// How much their priority is lowered (`nice`).
#[cfg(target_os = "linux")]
const WORKERS_NICE: i32 = 5;

/// An engine over fjall, in a directory of its own.
pub struct FjallEngine {
    database: Database,
    keyspace: Keyspace,
    journals: Mutex<Journals>,
    behind: Mutex<WriteBehind>,
    pace: Arc<Pace>,
}

impl Drop for FjallEngine {
    /// The database, which goes next, waits for its worker.
    fn drop(&mut self) {
        self.pace.close();
    }
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

fn journal_failed(action: &'static str) -> impl FnOnce(JournalError) -> EngineError {
    move |source| EngineError::Backend {
        kind: KIND,
        action,
        source: Box::new(source),
    }
}

impl FjallEngine {
    /// Opens the engine in the directory `path`, making it if there is none. A
    /// journal that is not whole behind its last sync is cut there.
    ///
    /// # Errors
    /// When another kind of engine made the directory, or it does not open, or
    /// something that was synced is damaged; the node then sets it aside.
    pub fn open(path: &Path) -> Result<FjallEngine, EngineError> {
        kind::check(path, NOTE)?;
        let directory = path.join("fjall");
        let journals = Journals::prepare(path, &directory);
        let journals = journals.map_err(journal_failed("open its journal"))?;
        let is_noted = journals.is_noted();
        let pace = Arc::new(Pace::default());
        let database = open_database(&directory, &pace).map_err(failed("open its database"))?;
        let keyspace = database
            .keyspace(KEYSPACE, options)
            .map_err(failed("open its keyspace"))?;
        let behind = WriteBehind::new(&directory, keyspace.path());
        let engine = FjallEngine {
            database,
            keyspace,
            journals: Mutex::new(journals),
            behind: Mutex::new(behind),
            pace,
        };
        if !is_noted {
            // From here on a crash finds a note.
            Store::sync(&engine)?;
        }
        Ok(engine)
    }
}

/// How a new keyspace is laid out.
fn options() -> KeyspaceCreateOptions {
    // Replicas of the same shards fill their memtables at the same pace. Of different
    // sizes, they are not written out by all nodes at the same moment.
    let spread = uuid::Uuid::new_v4().as_u128() as u64 % (MEMTABLE_BYTES / 2);
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES + spread)
        // Versions are found by position, never by their whole key, so filters
        // would be built and kept for nothing.
        .filter_policy(FilterPolicy::disabled())
}

/// Opens the database so that its workers (which inherit it) have a lower
/// priority: flushes and compactions are in no hurry, the shards' thread is.
fn open_database(directory: &Path, pace: &Arc<Pace>) -> Result<Database, ::fjall::Error> {
    let factory: Arc<dyn Factory> = Arc::new(Paces(Arc::clone(pace)));
    let open = || {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::nice(WORKERS_NICE) {
            tracing::warn!(%error, "the engine's workers keep the usual priority");
        }
        Database::builder(directory)
            .manual_journal_persist(true)
            .worker_threads(WORKERS)
            .cache_size(CACHE_BYTES)
            .with_compaction_filter_factories(Arc::new(move |_| Some(factory.clone())))
            .open()
    };
    // On Linux a thread has a priority of its own, and gives it to those it starts.
    std::thread::scope(|scope| scope.spawn(open).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
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
        let (count, mut bytes) = (items.len(), 0);
        for (key, value) in items {
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            match value {
                Some(value) => batch.insert(&self.keyspace, key, value),
                None => batch.remove(&self.keyspace, key),
            }
        }
        // Before it is done: if it has to wait for a merge, that had better hurry.
        self.pace.writes(count, bytes);
        batch.commit().map_err(failed("apply a batch"))?;
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind
            .wrote(bytes)
            .map_err(|(path, source)| EngineError::Backend {
                kind: KIND,
                action: "write behind",
                source: format!("{}: {source}", path.display()).into(),
            })
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        self.database
            .persist(PersistMode::Buffer)
            .map_err(failed("write its journal"))?;
        // Before the sync: what is written while it runs may be lost.
        let written = journals.measure();
        let written = written.map_err(journal_failed("measure its journal"))?;
        self.database
            .persist(PersistMode::SyncAll)
            .map_err(failed("sync its journal"))?;
        let noted = journals.note(written);
        noted.map_err(journal_failed("note what it synced"))
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
