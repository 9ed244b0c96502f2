//! The default engine: a log-structured merge tree (fjall 3).
//!
//! Everything is in *one* keyspace: within it what reaches the disk is always a prefix of
//! what was written.
//!
//! Writes gather in memory of our own (`buffer`, `run`) until they are worth a table, which is then made at
//! once (`tables`). Neither fjall's journal nor its memtable sees them: our own log replays
//! what a crash takes, and the two cost more than all the rest of the engine.
//! Only the little that is there when a sync is asked for goes by a batch and a sync of
//! the journal, because each table more is one more to look into and to merge.
//!
//! A view of the engine is the buffer in front of the tables (`merged`). Whatever leaves the buffer
//! can be read from fjall before, and one thread writes, so that nothing is ever missing or out of order.
//!
//! Files are synced piece by piece as they grow (`behind`), so that their own
//! syncs at the end do not hold up the log's, and merges take their time (`pace`).
//!
//! A power cut may leave the journal with holes behind its last sync. It is cut
//! there before fjall sees it (`synced`), and the log replays the rest.

mod behind;
mod buffer;
mod journal;
mod manifest;
mod merged;
mod pace;
mod run;
mod synced;
mod tables;
mod writing;

use self::behind::WriteBehind;
use self::buffer::Buffer;
use self::merged::FjallView;
use self::pace::{Merges, Pace};
use self::run::bytes_of;
use self::synced::{JournalError, Journals};
use self::tables::Tables;
use self::writing::{Sizes, Syncing, Writing};
use super::kind;
use super::store::{Store, View};
use super::{EngineError, lower_priority};
use ::fjall::compaction::Leveled;
use ::fjall::compaction::filter::Factory;
use ::fjall::config::FilterPolicy;
use ::fjall::{Database, KeyspaceCreateOptions};
use bytes::Bytes;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

const KIND: &str = "fjall";
const NOTE: &str = "synod engine fjall, layout 1";
const KEYSPACE: &str = "data";
/// Blocks kept in memory.
const CACHE_BYTES: u64 = 128 << 20;
/// What is written becomes a table once it takes this much memory, up to half more. Twice that
/// may be in memory.
const TABLE_BYTES: usize = 24 << 20;
/// A sync makes a table if there is as much as this, and writes less to the journal.
const JOURNALED_BYTES: usize = 1 << 20;
/// What syncs left in fjall's memtable becomes a table at this size.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// So much may stay in memory for as long as somebody looks at it.
const SETTLED_BYTES: usize = 4 << 20;
/// A journal of this size is left behind for a new one.
const JOURNAL_BYTES: u64 = 64 << 20;
/// So many tables are merged at once into those below, which are written again each time: with
/// twice as many each byte is written a third less often.
const UNMERGED: u8 = 8;
/// Flushes and compactions run on these; the cores belong to the shards.
const WORKERS: usize = 1;
/// How much their priority is lowered (`nice`).
const WORKERS_NICE: i32 = 5;

/// An engine over fjall, in a directory of its own.
pub struct FjallEngine {
    tables: Arc<Tables>,
    writing: Mutex<Writing>,
}

impl Drop for FjallEngine {
    /// The database, which goes next, waits for its worker. What is in no table yet is gone.
    fn drop(&mut self) {
        self.tables.pace.close();
        let writing = self.writing.get_mut();
        let writing = writing.unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writing.wait(&self.tables) {
            tracing::error!(%error, "the engine is closed after an error");
        }
    }
}

impl std::fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallEngine").finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl FnOnce(::fjall::Error) -> EngineError {
    move |source| match source {
        ::fjall::Error::Locked => EngineError::InUse,
        source => EngineError::Backend {
            kind: KIND,
            action,
            source: Box::new(source),
        },
    }
}

fn journal_failed(action: &'static str) -> impl FnOnce(JournalError) -> EngineError {
    move |source| match source {
        JournalError::Locked { .. } => EngineError::InUse,
        source => EngineError::Backend {
            kind: KIND,
            action,
            source: Box::new(source),
        },
    }
}

impl FjallEngine {
    /// Opens the engine in the directory `path`, making it if there is none. A
    /// journal that is not whole behind its last sync is cut there.
    ///
    /// # Errors
    /// When another kind of engine made the directory, or it does not open, or
    /// something that was synced is damaged ([`EngineError::blames_files`]).
    pub fn open(path: &Path) -> Result<FjallEngine, EngineError> {
        // Replicas of the same shards fill their buffers at the same pace. Of different
        // sizes, they are not written out by all nodes at the same moment.
        let spread = uuid::Uuid::new_v4().as_u128() % (TABLE_BYTES as u128 / 2);
        let sizes = Sizes {
            table: TABLE_BYTES + spread as usize,
            journaled: JOURNALED_BYTES,
            journal: JOURNAL_BYTES,
            settled: SETTLED_BYTES,
        };
        FjallEngine::open_with(path, sizes)
    }

    /// One that makes tables of a few kilobytes, and of what half of all syncs find.
    #[cfg(test)]
    pub(super) fn open_small(path: &Path) -> Result<FjallEngine, EngineError> {
        let sizes = Sizes {
            table: 4 << 10,
            journaled: 512,
            journal: 2 << 10,
            settled: 1 << 10,
        };
        FjallEngine::open_with(path, sizes)
    }

    fn open_with(path: &Path, sizes: Sizes) -> Result<FjallEngine, EngineError> {
        kind::check(path, NOTE)?;
        let directory = path.join("fjall");
        let journals = Journals::prepare(path, &directory);
        let journals = journals.map_err(journal_failed("open its journal"))?;
        let is_noted = journals.is_noted();
        manifest::check(&directory).map_err(|source| EngineError::Backend {
            kind: KIND,
            action: "open its manifest",
            source: Box::new(source),
        })?;
        let pace = Arc::new(Pace::default());
        let database = open_database(&directory, &pace).map_err(failed("open its database"))?;
        let keyspace = database
            .keyspace(KEYSPACE, options)
            .map_err(failed("open its keyspace"))?;
        let behind = WriteBehind::new(keyspace.path());
        let tables = Tables {
            database,
            keyspace,
            buffer: Buffer::default(),
            behind: Mutex::new(behind),
            pace,
        };
        let writing = Writing {
            journals,
            making: None,
            syncing: Syncing::No,
            left: None,
            is_broken: false,
            sizes,
        };
        let engine = FjallEngine {
            tables: Arc::new(tables),
            writing: Mutex::new(writing),
        };
        if !is_noted {
            // From here on a crash finds a note.
            Store::sync(&engine)?;
        }
        Ok(engine)
    }

    /// Does something that only one thread at a time does, and after an error none.
    fn writing<T>(
        &self,
        work: impl FnOnce(&mut Writing, &Arc<Tables>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // An error and a panic leave it so.
        if std::mem::replace(&mut writing.is_broken, true) {
            return Err(EngineError::Backend {
                kind: KIND,
                action: "write",
                source: "an earlier write failed; what is newer must not be kept without it".into(),
            });
        }
        let done = work(&mut writing, &self.tables)?;
        writing.is_broken = false;
        Ok(done)
    }

    /// Hands all that is in memory to fjall's journal, and that to the operating system: it
    /// survives the end of the process, but is not synced.
    ///
    /// # Errors
    /// When the database cannot write.
    pub fn journal(&self) -> Result<(), EngineError> {
        self.writing(|writing, tables| writing.journal(tables))
    }
}

/// How a new keyspace is laid out.
fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(UNMERGED)))
        // Versions are found by position, never by their whole key, so filters
        // would be built and kept for nothing.
        .filter_policy(FilterPolicy::disabled())
}

/// Opens the database so that its workers (which inherit it) have a lower
/// priority: flushes and compactions are in no hurry, the shards' thread is.
fn open_database(directory: &Path, pace: &Arc<Pace>) -> Result<Database, ::fjall::Error> {
    let factory: Arc<dyn Factory> = Arc::new(Merges(Arc::clone(pace)));
    let open = || {
        lower_priority(WORKERS_NICE);
        Database::builder(directory)
            .manual_journal_persist(true)
            .worker_threads(WORKERS)
            .cache_size(CACHE_BYTES)
            .with_compaction_filter_factories(Arc::new(move |_| Some(factory.clone())))
            .open()
    };
    // On Linux a thread has a priority of its own, and gives it to those it starts. At some
    // damage fjall panics: its files are as good as with any other.
    let opened = std::thread::scope(|scope| scope.spawn(open).join());
    opened.unwrap_or(Err(::fjall::Error::Unrecoverable))
}

impl Store for FjallEngine {
    type Snapshot = FjallView;

    fn write(&self, items: Vec<(Bytes, Option<Bytes>)>) -> Result<(), EngineError> {
        self.writing(|writing, tables| {
            writing.go_on(tables)?;
            let bytes = items.iter().map(bytes_of).sum();
            tables.pace.writes(bytes);
            tables.buffer.add(items);
            if tables.buffer.held().active_bytes() >= writing.sizes.table {
                // If the one before is not done, the disk is slower than who writes.
                writing.make(tables)?;
            }
            tables.wrote(bytes)
        })
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.writing(Writing::sync)
    }

    fn begin_sync(&self) -> Result<(), EngineError> {
        self.writing(|writing, tables| {
            writing.syncing = Syncing::Due;
            writing.go_on(tables)
        })
    }

    fn is_synced(&self) -> Result<bool, EngineError> {
        self.writing(|writing, tables| {
            writing.go_on(tables)?;
            Ok(writing.syncing == Syncing::No)
        })
    }

    /// What a snapshot shows is in files, nearly all, and takes little memory however long it is kept.
    fn settle(&self) -> Result<(), EngineError> {
        self.writing(Writing::settle)
    }

    fn snapshot(&self) -> Result<FjallView, EngineError> {
        let (held, snapshot) = self
            .tables
            .buffer
            .held_with(|| self.tables.database.snapshot());
        Ok(FjallView {
            held,
            keyspace: self.tables.keyspace.clone(),
            snapshot: Some(snapshot),
        })
    }

    fn read_one<T>(
        &self,
        reader: impl FnOnce(&dyn View) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        reader(&FjallView {
            held: self.tables.buffer.held(),
            keyspace: self.tables.keyspace.clone(),
            snapshot: None,
        })
    }
}
