//! A file that is written past the system's page cache.
//!
//! A sync of a few hundred bytes went through a page of the cache, and the kernel's work for that was a
//! quarter of what it cost: 60 µs of a processor, and 45 without; 90 µs until it was done, and 75. So
//! blocks are put together here, and go to the disk as they are (`O_DIRECT`). Where a file system
//! knows no such thing, writes go through the cache.
//!
//! A log is written from front to back, and its last block again and again, each time with
//! more in it. What stood there before stands there again, so a write that is cut short by a power cut
//! leaves what was synced as it was.

use super::disk::DiskFile;
use std::cell::RefCell;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Offsets, lengths and memory are multiples of this: no disk or file system in use asks for more.
pub(super) const BLOCK: usize = 4096;
/// Bytes that are put together at a time.
const PIECE: usize = 2 << 20;

/// See the module.
#[derive(Debug)]
pub struct LogFile {
    /// The way through the cache: for everything but writes.
    plain: File,
    direct: RefCell<Option<Direct>>,
}

impl LogFile {
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        let plain = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(LogFile {
            plain,
            direct: RefCell::new(Direct::open(path)),
        })
    }
}

impl DiskFile for LogFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.plain.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.plain.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut direct = self.direct.borrow_mut();
        if let Some(way) = direct.as_mut() {
            match way.write_at(&self.plain, data, offset) {
                Err(error) if is_refused(&error) => {
                    tracing::info!(%error, "the log is written through the cache");
                    *direct = None;
                }
                written => return written,
            }
        }
        self.plain.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.plain.sync_data()
    }
}

/// Whether it says that there is no such way, rather than that the disk has failed.
fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, Unsupported};
    matches!(error.kind(), InvalidInput | Unsupported)
}

/// The way past the cache.
struct Direct {
    file: File,
    /// As much as was needed so far: many files are only looked at.
    memory: Vec<u8>,
    /// Where `memory` is aligned.
    skip: usize,
    /// Where the last block written begins, which the next write mostly goes on with. It is at the
    /// beginning of `memory`.
    last: Option<u64>,
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Direct");
        shown.field("file", &self.file).field("last", &self.last);
        shown.finish_non_exhaustive()
    }
}

impl Direct {
    /// None where there is no such way.
    #[cfg(feature = "server")]
    fn open(path: &Path) -> Option<Direct> {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::DIRECT.bits();
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags.cast_signed())
            .open(path)
            .ok()?;
        Some(Direct {
            file,
            memory: Vec::new(),
            skip: 0,
            last: None,
        })
    }

    /// Only nodes write logs to real disks.
    #[cfg(not(feature = "server"))]
    fn open(_: &Path) -> Option<Direct> {
        None
    }

    /// Makes room for so many bytes; the first block stays as it is.
    fn reserve(&mut self, bytes: usize) {
        if self.memory.len() >= bytes + BLOCK {
            return;
        }
        let mut larger = vec![0; bytes.next_power_of_two() + BLOCK];
        // Were it not to be aligned, the system would refuse it.
        let skip = larger.as_ptr().align_offset(BLOCK).min(BLOCK);
        if let Some(block) = self.memory.get(self.skip..self.skip + BLOCK) {
            larger[skip..skip + BLOCK].copy_from_slice(block);
        }
        (self.memory, self.skip) = (larger, skip);
    }

    /// Writes; the rest of the last block becomes zeros. `plain` is the same file.
    fn write_at(&mut self, plain: &File, mut data: &[u8], mut offset: u64) -> io::Result<()> {
        while !data.is_empty() {
            let lead = (offset % BLOCK as u64) as usize;
            let first = offset - lead as u64;
            let (part, rest) = data.split_at(data.len().min(PIECE - lead));
            let used = lead + part.len();
            let blocks = used.next_multiple_of(BLOCK);
            self.reserve(blocks);
            let last = self.last.take();
            let memory = &mut self.memory[self.skip..][..blocks];
            if lead > 0 && last != Some(first) {
                plain.read_exact_at(&mut memory[..lead], first)?;
            }
            memory[lead..used].copy_from_slice(part);
            memory[used..].fill(0);
            self.file.write_all_at(memory, first)?;
            let begin = blocks - BLOCK;
            memory.copy_within(begin..blocks, 0);
            self.last = Some(first + begin as u64);
            offset += part.len() as u64;
            data = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 16 << 20;

    fn file(dir: &Path) -> LogFile {
        let path = dir.join("file");
        std::fs::write(&path, vec![7; BYTES]).unwrap();
        LogFile::open(&path).unwrap()
    }

    fn contents(file: &LogFile) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_in_a_row_stands_in_a_row() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        let mut model = vec![7; BYTES];
        let mut at = 0;
        for n in 0..300 {
            let length = match n % 60 {
                0 => PIECE + n * 700,
                1..10 => BLOCK * (n % 4 + 1) - at % BLOCK,
                _ => n * 7919 % (2 * BLOCK) + 1,
            };
            let data = vec![n as u8; length];
            file.write_at(&data, at as u64).unwrap();
            model[at..at + length].copy_from_slice(&data);
            at += length;
            if n % 50 == 0 {
                file.sync().unwrap();
            }
        }
        let found = contents(&file);
        assert!(found[..at] == model[..at]);
        let rest = at.next_multiple_of(BLOCK);
        assert!(found[at..rest].iter().all(|b| *b == 0 || *b == 7));
        assert!(
            found[rest..] == model[rest..],
            "later blocks are as they were"
        );
    }

    #[test]
    fn what_stands_before_a_write_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        for at in [100, 3 * BLOCK + 5, BLOCK - 1, PIECE - 10] {
            // A file opened anew knows nothing of its last block.
            let again = LogFile::open(&dir.path().join("file")).unwrap();
            let before = contents(&file);
            again.write_at(&[1; 20], at as u64).unwrap();
            let after = contents(&file);
            assert!(after[..at] == before[..at]);
            assert_eq!(after[at..at + 20], [1; 20]);
        }
    }

    #[test]
    fn without_a_way_past_the_cache_writes_go_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        *file.direct.borrow_mut() = None;
        file.write_at(&[1; 20], 100).unwrap();
        assert_eq!(
            contents(&file)[99..121],
            [&[7][..], &[1; 20], &[7]].concat()
        );
    }
}
