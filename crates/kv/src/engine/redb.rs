//! The engine over a B+tree (redb): steadier reads, dearer writes.
//!
//! Batches commit without durability; a sync is an empty durable commit, which
//! covers all commits before it. It also saves the allocator's state
//! (`quick_repair`), so that opening after a crash does not walk the database.

use super::EngineError;
use super::kind;
use super::store::{Items, Store, View};
use ::redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
};
use bytes::Bytes;
use std::path::Path;

const KIND: &str = "redb";
const NOTE: &str = "synod engine redb, layout 1";
const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("data");
/// Pages kept in memory.
const CACHE_BYTES: usize = 128 << 20;

/// An engine over redb, in a directory of its own.
pub struct RedbEngine {
    database: Database,
}

impl std::fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbEngine").finish_non_exhaustive()
    }
}

fn failed<E: Into<::redb::Error>>(action: &'static str) -> impl FnOnce(E) -> EngineError {
    move |source| match source.into() {
        // As a source of its own it is found by who asks what is to blame.
        ::redb::Error::Io(source) => EngineError::Backend {
            kind: KIND,
            action,
            source: Box::new(source),
        },
        ::redb::Error::DatabaseAlreadyOpen => EngineError::InUse,
        source => EngineError::Backend {
            kind: KIND,
            action,
            source: Box::new(source),
        },
    }
}

impl RedbEngine {
    /// Opens the engine in the directory `path`, making it if there is none.
    ///
    /// # Errors
    /// When another kind of engine made the directory, or it does not open
    /// ([`EngineError::blames_files`]).
    pub fn open(path: &Path) -> Result<RedbEngine, EngineError> {
        kind::check(path, NOTE)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path.join("data.redb"))
            .map_err(failed("open its database"))?;
        let engine = RedbEngine { database };
        // The table must be there before the first read.
        engine.write(Vec::new())?;
        Ok(engine)
    }

    fn commit(
        &self,
        items: Vec<(Bytes, Option<Bytes>)>,
        durability: Durability,
    ) -> Result<(), EngineError> {
        let mut transaction = self
            .database
            .begin_write()
            .map_err(failed("begin a batch"))?;
        if matches!(durability, Durability::Immediate) {
            transaction.set_quick_repair(true);
        }
        transaction
            .set_durability(durability)
            .map_err(failed("begin a batch"))?;
        {
            let mut table = transaction
                .open_table(TABLE)
                .map_err(failed("open its table"))?;
            for (key, value) in items {
                match value {
                    Some(value) => table.insert(&key[..], &value[..]).map(|_| ()),
                    None => table.remove(&key[..]).map(|_| ()),
                }
                .map_err(failed("write"))?;
            }
        }
        transaction.commit().map_err(failed("commit a batch"))
    }
}

impl View for ReadOnlyTable<&'static [u8], &'static [u8]> {
    fn range(&self, start: &[u8], end: &[u8]) -> Result<Items<'_>, EngineError> {
        if end <= start {
            return Ok(Box::new(std::iter::empty()));
        }
        let items =
            ReadableTable::range::<&[u8]>(self, start..end).map_err(failed("read a range"))?;
        Ok(Box::new(items.map(|item| {
            let (key, value) = item.map_err(failed("read"))?;
            Ok((
                Bytes::copy_from_slice(key.value()),
                Bytes::copy_from_slice(value.value()),
            ))
        })))
    }

    fn item(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = ReadableTable::get(self, key).map_err(failed("read"))?;
        Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
    }
}

impl Store for RedbEngine {
    type Snapshot = ReadOnlyTable<&'static [u8], &'static [u8]>;

    fn write(&self, items: Vec<(Bytes, Option<Bytes>)>) -> Result<(), EngineError> {
        self.commit(items, Durability::None)
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.commit(Vec::new(), Durability::Immediate)
    }

    fn snapshot(&self) -> Result<Self::Snapshot, EngineError> {
        // The table keeps its transaction, and with it the moment, alive.
        self.database
            .begin_read()
            .map_err(failed("begin a read"))?
            .open_table(TABLE)
            .map_err(failed("open its table"))
    }
}
