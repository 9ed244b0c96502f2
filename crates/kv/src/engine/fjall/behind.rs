//! Writes the engine's files to disk a little at a time.
//!
//! fjall hands its journal and its tables to the operating system and syncs each
//! as a whole at its end: tens of megabytes at once, and on replicas of the same
//! shards all at the same time. A log sync that comes then waits behind them for
//! 50 to 300 ms. So the engine's thread looks after each batch what has grown,
//! and syncs that while it is still small. Nothing relies on these syncs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A look costs a few system calls: one comes once so much was written, and none
/// closer than this to the last.
const WRITTEN_BYTES: usize = 128 << 10;
const EVERY: Duration = Duration::from_millis(5);
/// A file that grew by so many bytes is synced.
const PIECE_BYTES: u64 = 1 << 20;
/// Bytes of one block as the system counts them.
const BLOCK_BYTES: u64 = 512;

/// A directory in which files named by rising numbers are written one after
/// the other.
#[derive(Debug)]
struct Growing {
    directory: PathBuf,
    /// What follows the number in a name.
    suffix: &'static str,
    newest: u64,
    /// Bytes of the newest file that are synced.
    synced: u64,
}

impl Growing {
    fn new(directory: PathBuf, suffix: &'static str) -> Growing {
        Growing {
            directory,
            suffix,
            newest: 0,
            synced: 0,
        }
    }

    fn number(&self, name: &OsStr) -> Option<u64> {
        name.to_str()?.strip_suffix(self.suffix)?.parse().ok()
    }

    fn look(&mut self) -> io::Result<()> {
        let mut newest = None;
        for entry in fs::read_dir(&self.directory)? {
            newest = newest.max(self.number(&entry?.file_name()));
        }
        let Some(newest) = newest else {
            return Ok(());
        };
        if newest != self.newest {
            // What is left of the one before, its writer syncs.
            self.newest = newest;
            self.synced = 0;
        }
        let path = self.directory.join(format!("{newest}{}", self.suffix));
        let bytes = fs::metadata(&path)?.blocks() * BLOCK_BYTES;
        if bytes >= self.synced + PIECE_BYTES {
            self.synced = bytes;
            File::open(&path)?.sync_data()?;
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct WriteBehind {
    journals: Growing,
    tables: Growing,
    looked: Instant,
    written: usize,
}

impl WriteBehind {
    /// For the database in `database` and the tree in `tree`.
    pub(super) fn new(database: &Path, tree: &Path) -> WriteBehind {
        WriteBehind {
            journals: Growing::new(database.to_owned(), ".jnl"),
            tables: Growing::new(tree.join("tables"), ""),
            looked: Instant::now(),
            written: 0,
        }
    }

    /// So many bytes went to the journal. Syncs what has grown since the last look,
    /// if it is time for one. Returns the path and error of a sync that failed.
    pub(super) fn wrote(&mut self, bytes: usize) -> Result<(), (PathBuf, io::Error)> {
        self.written += bytes;
        if self.written < WRITTEN_BYTES || self.looked.elapsed() < EVERY {
            return Ok(());
        }
        self.written = 0;
        let mut outcome = Ok(());
        for files in [&mut self.journals, &mut self.tables] {
            match files.look() {
                Ok(()) => {}
                // Files come and go; the next look sees it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => outcome = Err((files.directory.clone(), error)),
            }
        }
        self.looked = Instant::now();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_newest_file_is_synced_as_it_grows() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Growing::new(dir.path().to_owned(), ".jnl");
        files.look().unwrap();
        assert_eq!((files.newest, files.synced), (0, 0), "an empty directory");
        fs::write(dir.path().join("lock"), b"").unwrap();
        let mut grow = |number: u64, bytes: u64| {
            let path = dir.path().join(format!("{number}.jnl"));
            let mut file = File::options()
                .create(true)
                .append(true)
                .open(path)
                .unwrap();
            file.write_all(&vec![7; usize::try_from(bytes).unwrap()])
                .unwrap();
            files.look().unwrap();
            (files.newest, files.synced / PIECE_BYTES)
        };
        assert_eq!(grow(9, PIECE_BYTES / 2), (9, 0), "not worth a sync");
        assert_eq!(grow(9, PIECE_BYTES), (9, 1));
        assert_eq!(grow(10, 2 * PIECE_BYTES), (10, 2), "by number, not by name");
        assert_eq!(grow(9, PIECE_BYTES), (10, 2), "the older one is left alone");
    }
}
