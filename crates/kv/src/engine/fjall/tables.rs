//! Tables made of what the buffer froze.
//!
//! fjall's own way, a batch, writes each change to its journal and into a skip list, and from there to
//! a table. Ingestion makes a table of sorted changes at once, and puts it above all that the
//! database holds; it is on disk, synced, when it returns.

use super::behind::WriteBehind;
use super::buffer::Buffer;
use super::pace::{Pace, Paced, TABLE};
use super::run::{Cursors, Run, bytes_of};
use super::{KIND, failed};
use crate::engine::EngineError;
use ::fjall::{Database, Keyspace, PersistMode};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// While so many tables wait to be merged, no new one is added: every read has to look into all of them.
const MOST_UNMERGED: usize = 20;
/// How often it is looked whether they have become fewer.
const MERGE_WAIT: Duration = Duration::from_millis(5);
/// After so many looks without a merge none is to be waited for.
const IDLE_LOOKS: u32 = 20;
/// Bytes written between two looks at the files.
const LOOK_BYTES: usize = 256 << 10;

/// The database, and what is in front of it.
pub(super) struct Tables {
    pub(super) database: Database,
    pub(super) keyspace: Keyspace,
    pub(super) buffer: Buffer,
    pub(super) behind: Mutex<WriteBehind>,
    pub(super) pace: Arc<Pace>,
}

impl Tables {
    /// Makes a table of everything that the buffer holds, on a thread of its own,
    /// whose priority is this one's.
    pub(super) fn make_apart(
        self: &Arc<Tables>,
    ) -> Result<JoinHandle<Result<(), EngineError>>, EngineError> {
        let frozen = self.buffer.freeze();
        let tables = Arc::clone(self);
        std::thread::Builder::new()
            .name("synod-tables".into())
            .spawn(move || tables.make(&frozen))
            .map_err(|source| EngineError::Backend {
                kind: KIND,
                action: "start a thread that makes a table",
                source: source.into(),
            })
    }

    /// Makes a table of what is frozen, and has the buffer forget it.
    fn make(&self, frozen: &[Arc<Run>]) -> Result<(), EngineError> {
        self.wait_for_merges()?;
        let mut ingestion = self
            .keyspace
            .start_ingestion()
            .map_err(failed("begin a table"))?;
        let mut paced = Paced::new(Arc::clone(&self.pace), TABLE, Instant::now());
        let mut cursors = Cursors::all(frozen);
        let mut bytes = 0;
        while let Some((run, entry)) = cursors.next() {
            let change = cursors.run(run).change(entry);
            bytes += bytes_of(&change);
            let (key, value) = change;
            let written = match value {
                Some(value) => ingestion.write(key, value),
                None => ingestion.write_tombstone(key),
            };
            written.map_err(failed("write a table"))?;
            if bytes >= LOOK_BYTES {
                self.wrote(bytes)?;
                paced.did(std::mem::take(&mut bytes));
            }
        }
        ingestion.finish().map_err(failed("add a table"))?;
        self.buffer.forget_frozen();
        Ok(())
    }

    /// Waits while there are too many tables, and has merges hurry before that.
    fn wait_for_merges(&self) -> Result<(), EngineError> {
        let mut idle = 0;
        loop {
            // An error that a worker of the database met shows itself here only.
            let is_sound = self.database.persist(PersistMode::Buffer);
            is_sound.map_err(failed("go on after an error"))?;
            let unmerged = self.keyspace.l0_table_count();
            self.pace.set_crowded(unmerged >= MOST_UNMERGED * 3 / 4);
            // A merge is asked for with each new table. If none is under way, another table has
            // one begin.
            let is_merging = self.database.active_compactions() > 0;
            idle = if is_merging { 0 } else { idle + 1 };
            if unmerged < MOST_UNMERGED || idle > IDLE_LOOKS || self.pace.is_closing() {
                return Ok(());
            }
            std::thread::sleep(MERGE_WAIT);
        }
    }

    /// So many bytes more were written to files: they are synced as they grow.
    pub(super) fn wrote(&self, bytes: usize) -> Result<(), EngineError> {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind
            .wrote(bytes)
            .map_err(|(path, source)| EngineError::Backend {
                kind: KIND,
                action: "write behind",
                source: format!("{}: {source}", path.display()).into(),
            })
    }
}
