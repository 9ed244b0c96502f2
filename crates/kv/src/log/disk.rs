//! What the log stands on: a directory of files written in place.

use super::LogError;
use super::direct::LogFile;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes that [`Disk::create_beside`] writes at once.
const PIECE_BYTES: usize = 512 << 10;
/// How long it rests between two pieces at most.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// A flat directory. What [`Disk::create`] and [`DiskFile::sync`] returned from
/// survives a power cut; a rename or removal does once [`Disk::sync_names`]
/// returned.
pub trait Disk: Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names in it, in no particular order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `bytes` zeros, durably with its name. The zeros are
    /// written, not merely reserved: later syncs are a third cheaper.
    ///
    /// # Errors
    /// When there is no room, or the name is taken.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Self::File>;

    /// As [`Disk::create`], but beside other work: in small pieces, so that syncs
    /// of other files wait for little. Gives up with [`io::ErrorKind::Interrupted`],
    /// leaving nothing, once `wanted` says no.
    ///
    /// # Errors
    /// As [`Disk::create`]; nothing is left then, if the disk lets it be removed.
    fn create_beside(&self, name: &str, bytes: u64, wanted: &dyn Fn() -> bool) -> io::Result<()> {
        let _ = wanted;
        self.create(name, bytes).map(drop)
    }

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// When there is none.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file, replacing none.
    ///
    /// # Errors
    /// When there is none.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Deletes a file.
    ///
    /// # Errors
    /// When there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes renames and removals durable.
    ///
    /// # Errors
    /// When the sync fails; names are then unknown.
    fn sync_names(&self) -> io::Result<()>;

    /// The name as people see it, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// A file of a [`Disk`].
pub trait DiskFile: Send + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// When the file cannot be asked.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When the file is too short or cannot be read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `data` at `offset`; durable only after [`DiskFile::sync`]. Files are written
    /// from front to back: what stands behind it, up to the next multiple of 4096 bytes, may become zeros.
    ///
    /// # Errors
    /// When not everything could be written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// When the sync fails; what is on disk is then unknown.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    directory: PathBuf,
}

impl RealDisk {
    /// Opens a directory, making it if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: &Path) -> Result<RealDisk, LogError> {
        let made = crate::files::make_directory(directory);
        made.map_err(|source| LogError::Io {
            action: "make the directory",
            path: directory.to_owned(),
            source,
        })?;
        Ok(RealDisk {
            directory: directory.to_owned(),
        })
    }
}

impl Disk for RealDisk {
    type File = LogFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            // Names that are not UTF-8 are none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<LogFile> {
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(self.path(name))?;
        let zeros = vec![0; 256 << 10];
        let mut at = 0;
        while at < bytes {
            let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
            let part = left.min(zeros.len());
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        file.sync_all()?;
        self.sync_names()?;
        self.open(name)
    }

    fn create_beside(&self, name: &str, bytes: u64, wanted: &dyn Fn() -> bool) -> io::Result<()> {
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(self.path(name))?;
        let filled = fill_beside(&file, bytes, wanted).and_then(|()| self.sync_names());
        if filled.is_err() {
            // What cannot be removed now is, by its length, when the log is opened next.
            let _ = self.remove(name);
        }
        filled
    }

    fn open(&self, name: &str) -> io::Result<LogFile> {
        LogFile::open(&self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Writes zeros in pieces, each synced, and rests after each as long as it took.
fn fill_beside(file: &File, bytes: u64, wanted: &dyn Fn() -> bool) -> io::Result<()> {
    let zeros = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < bytes {
        if !wanted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let begun = Instant::now();
        let left = usize::try_from(bytes - at).unwrap_or(usize::MAX);
        let part = left.min(zeros.len());
        file.write_all_at(&zeros[..part], at)?;
        file.sync_data()?;
        at += part as u64;
        std::thread::sleep(begun.elapsed().min(LONGEST_REST));
    }
    file.sync_all()
}
