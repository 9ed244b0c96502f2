//! What only one thread at a time does: where what is written goes, and when.

use super::run::Cursors;
use super::synced::Journals;
use super::tables::Tables;
use super::{KIND, failed, journal_failed};
use crate::engine::EngineError;
use ::fjall::PersistMode;
use std::sync::Arc;
use std::thread::JoinHandle;

/// When what is written goes to disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// See [`super::TABLE_BYTES`].
    pub(super) table: usize,
    /// See [`super::JOURNALED_BYTES`].
    pub(super) journaled: usize,
    /// See [`super::JOURNAL_BYTES`].
    pub(super) journal: u64,
    /// See [`super::SETTLED_BYTES`].
    pub(super) settled: usize,
}

/// A sync in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syncing {
    No,
    /// It begins when the table in the making is done.
    Due,
    /// It is done when the table in the making is.
    Making,
}

/// What only one thread at a time does.
pub(super) struct Writing {
    pub(super) journals: Journals,
    /// A table in the making.
    pub(super) making: Option<JoinHandle<Result<(), EngineError>>>,
    pub(super) syncing: Syncing,
    /// The journal that fjall was asked to leave.
    pub(super) left: Option<u64>,
    /// Something failed, or is under way: nothing is written above what may be missing.
    pub(super) is_broken: bool,
    pub(super) sizes: Sizes,
}

impl Writing {
    /// Makes a table of all that is in memory, in the background, after the one in the making.
    pub(super) fn make(&mut self, tables: &Arc<Tables>) -> Result<(), EngineError> {
        self.wait(tables)?;
        self.making = Some(tables.make_apart()?);
        if self.syncing == Syncing::Due {
            self.syncing = Syncing::Making;
        }
        Ok(())
    }

    /// Waits until the table in the making is done.
    pub(super) fn wait(&mut self, tables: &Arc<Tables>) -> Result<(), EngineError> {
        let Some(making) = self.making.take() else {
            return Ok(());
        };
        tables.pace.set_awaited(true);
        let made = making.join();
        tables.pace.set_awaited(false);
        if self.syncing == Syncing::Making {
            self.syncing = Syncing::No;
        }
        made.unwrap_or_else(|_| {
            Err(EngineError::Backend {
                kind: KIND,
                action: "make a table",
                source: "the thread that makes it panicked".into(),
            })
        })
    }

    /// Whether no table is in the making.
    fn is_made(&mut self, tables: &Arc<Tables>) -> Result<bool, EngineError> {
        if self
            .making
            .as_ref()
            .is_some_and(|making| !making.is_finished())
        {
            return Ok(false);
        }
        self.wait(tables)?;
        Ok(true)
    }

    /// Hands all that is in memory to fjall's journal, and that to the system.
    pub(super) fn journal(&mut self, tables: &Arc<Tables>) -> Result<(), EngineError> {
        // What is older goes first.
        self.wait(tables)?;
        let frozen = tables.buffer.freeze();
        let mut batch = tables.database.batch();
        let mut cursors = Cursors::all(&frozen);
        while let Some((run, entry)) = cursors.next() {
            let (key, value) = cursors.run(run).change(entry);
            match value {
                Some(value) => batch.insert(&tables.keyspace, key, value),
                None => batch.remove(&tables.keyspace, key),
            }
        }
        batch.commit().map_err(failed("apply a batch"))?;
        tables.buffer.forget_frozen();
        let written = tables.database.persist(PersistMode::Buffer);
        written.map_err(failed("write its journal"))
    }

    /// Makes all that is in memory durable by way of the journal.
    fn sync_journal(&mut self, tables: &Arc<Tables>) -> Result<(), EngineError> {
        self.journal(tables)?;
        // Before the sync: what is written while it runs may be lost.
        let written = self.journals.measure();
        let written = written.map_err(journal_failed("measure its journal"))?;
        tables
            .database
            .persist(PersistMode::SyncAll)
            .map_err(failed("sync its journal"))?;
        let noted = self.journals.note(written);
        noted.map_err(journal_failed("note what it synced"))?;
        if written.bytes() >= self.sizes.journal && self.left != Some(written.journal()) {
            // With a memtable fjall leaves the journal, once its worker has merged what it is
            // about. A few memtables more, and it lets nobody write.
            self.left = Some(written.journal());
            tables.pace.set_crowded(true);
            let left = tables.keyspace.rotate_memtable();
            left.map_err(failed("leave its journal"))?;
        }
        self.syncing = Syncing::No;
        Ok(())
    }

    /// Makes all that is in memory durable.
    pub(super) fn sync(&mut self, tables: &Arc<Tables>) -> Result<(), EngineError> {
        self.wait(tables)?;
        self.begin_sync(tables)?;
        self.wait(tables)
    }

    /// Makes a table of all that is in memory, or has the journal synced with it, if it is little.
    fn begin_sync(&mut self, tables: &Arc<Tables>) -> Result<(), EngineError> {
        if tables.buffer.held().active_bytes() >= self.sizes.journaled {
            self.make(tables)
        } else {
            self.sync_journal(tables)
        }
    }

    /// Leaves little in memory.
    pub(super) fn settle(&mut self, tables: &Arc<Tables>) -> Result<(), EngineError> {
        if tables.buffer.held().bytes() < self.sizes.settled {
            return Ok(());
        }
        self.sync(tables)
    }

    /// Goes on with a sync in the background.
    pub(super) fn go_on(&mut self, tables: &Arc<Tables>) -> Result<(), EngineError> {
        if self.is_made(tables)? && self.syncing == Syncing::Due {
            self.begin_sync(tables)?;
        }
        Ok(())
    }
}
