//! Writes the engine's tables to disk a little at a time.
//!
//! fjall hands its tables to the operating system and syncs each
//! as a whole at its end: tens of megabytes at once, and on replicas of the same
//! shards all at the same time. A log sync that comes then waits behind them for
//! 50 to 300 ms. So who writes looks every now and then at what has grown,
//! and syncs that while it is still small. Nothing relies on these syncs.

use std::collections::BTreeMap;
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

/// So many of the newest tables are looked at: one is made of what was written, and some of others at
/// the same time.
const NEWEST: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct WriteBehind {
    /// Where tables are, named by rising numbers.
    directory: PathBuf,
    /// Bytes of the newest ones that are synced.
    synced: BTreeMap<u64, u64>,
    looked: Instant,
    written: usize,
}

impl WriteBehind {
    /// For the tree in `tree`.
    pub(super) fn new(tree: &Path) -> WriteBehind {
        WriteBehind {
            directory: tree.join("tables"),
            synced: BTreeMap::new(),
            looked: Instant::now(),
            written: 0,
        }
    }

    /// So many bytes were written. Syncs what has grown since the last look,
    /// if it is time for one. Returns the path and error of a sync that failed.
    pub(super) fn wrote(&mut self, bytes: usize) -> Result<(), (PathBuf, io::Error)> {
        self.written += bytes;
        if self.written < WRITTEN_BYTES || self.looked.elapsed() < EVERY {
            return Ok(());
        }
        self.written = 0;
        let outcome = match self.look() {
            // Files come and go; the next look sees it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            looked => looked.map_err(|error| (self.directory.clone(), error)),
        };
        self.looked = Instant::now();
        outcome
    }

    fn look(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            if let Some(number) = number {
                self.synced.entry(number).or_insert(0);
                if self.synced.len() > NEWEST {
                    // What is left of older ones, their writer syncs.
                    self.synced.pop_first();
                }
            }
        }
        for (number, synced) in &mut self.synced {
            let path = self.directory.join(number.to_string());
            let bytes = match fs::metadata(&path) {
                Ok(found) => found.blocks() * BLOCK_BYTES,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if bytes >= *synced + PIECE_BYTES {
                *synced = bytes;
                File::open(&path)?.sync_data()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_newest_files_are_synced_as_they_grow() {
        let dir = tempfile::tempdir().unwrap();
        let tables = dir.path().join("tables");
        fs::create_dir(&tables).unwrap();
        fs::write(tables.join("lock"), b"").unwrap();
        let mut files = WriteBehind::new(dir.path());
        files.look().unwrap();
        assert!(files.synced.is_empty(), "no table");
        let mut grow = |number: u64, bytes: u64| {
            let mut file = File::options()
                .create(true)
                .append(true)
                .open(tables.join(number.to_string()))
                .unwrap();
            file.write_all(&vec![7; usize::try_from(bytes).unwrap()])
                .unwrap();
            files.look().unwrap();
            files.synced.get(&number).map(|synced| synced / PIECE_BYTES)
        };
        assert_eq!(grow(9, PIECE_BYTES / 2), Some(0), "not worth a sync");
        assert_eq!(grow(9, PIECE_BYTES), Some(1));
        assert_eq!(grow(10, 2 * PIECE_BYTES), Some(2), "by number, not by name");
        assert_eq!(grow(9, PIECE_BYTES), Some(2));
        for number in 11..13 {
            assert_eq!(grow(number, 1), Some(0));
        }
        assert_eq!(grow(13, 1), Some(0));
        assert_eq!(grow(9, PIECE_BYTES), None, "an old one is left alone");
    }
}
