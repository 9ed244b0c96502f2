//! What of the engine's journals a sync has covered, and the cut of what it has not.
//!
//! A power cut may keep a later page of what was never synced and lose an
//! earlier one. fjall cuts its journal at some such holes; at a batch whose end
//! is there and whose middle is not it gives up, and the engine would be lost
//! with everything in it (§8: it must not be). So every [`Journals::note`] leaves,
//! next to the database, a durable note of the newest journal's number and of
//! the length that the sync covered, and before fjall opens,
//! [`Journals::prepare`] looks at all journals itself:
//!
//! - Below the noted length, and in all journals but the newest (fjall syncs a
//!   journal before it begins the next), every batch must be whole. If not,
//!   something durable was damaged, and the engine is refused.
//! - Behind that, in the newest journal, the first position without a whole
//!   batch is the end. What follows is cut.
//!
//! **Nothing that was synced is cut.** The note is taken from whole batches that
//! are in the file *before* the sync begins, and is durable before the sync
//! returns; so whatever a sync that returned has covered lies in the noted
//! journal below the noted length, or in an older one. If the newest journal is
//! younger than the note, no sync that returned has covered any of it.
//!
//! **The log can replay what is cut.** A replica's log is trimmed, and a snapshot
//! reported as installed, only after a sync that returned. The checkpoint and the
//! applied mark that such a step relies on therefore outlive every cut: the
//! checkpoint stays at or above where the log was trimmed.
//!
//! **What is left is whole.** What goes to the journal is newer than all tables, and a memtable becomes a
//! table before anything newer does. So tables hold a prefix of what was written, and with what
//! is left of the journal a longer one.
//!
//! Without a note (the directory is new, or older than this code; or the note is
//! damaged) nothing is known to be synced or not: nothing is cut, and fjall
//! judges by itself. The first sync after it leaves a note.

use super::journal::{self, End};
use crate::files::{self, FileError};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const NOTE: &str = "SYNCED";
const MAGIC: [u8; 8] = *b"SYNODFJS";
/// The note never leaves the node's directory, which knows the cluster.
const NO_CLUSTER: u128 = 0;
/// How often a journal may vanish while it is looked for.
const LOOKS: u32 = 16;
/// An engine that was closed in this process may take a moment to let go.
const LOCK_TRIES: u32 = 3;
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// Why the engine's journals cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system said no.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Something that was synced cannot be read any more.
    #[error("{path} is damaged at byte {offset}: {what}; nothing was changed")]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// The first byte that is not in a whole batch.
        offset: u64,
        /// What proves that there was one.
        what: String,
    },
    /// A journal that was synced is not there any more.
    #[error("{path} is missing, but {bytes} bytes of it were synced; nothing was changed")]
    Missing {
        /// The journal.
        path: PathBuf,
        /// How much of it was synced.
        bytes: u64,
    },
    /// Another process has the engine open.
    #[error("{path} is locked: another process uses this engine")]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The note cannot be written or read.
    #[error(transparent)]
    Note(#[from] FileError),
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Everything through byte `bytes` of journal `journal`, and all older journals,
/// are covered by one sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Synced {
    journal: u64,
    bytes: u64,
}

impl Synced {
    /// The newest journal's number.
    pub(super) const fn journal(self) -> u64 {
        self.journal
    }

    /// How much of the newest journal it is.
    pub(super) const fn bytes(self) -> u64 {
        self.bytes
    }
}

/// The journals of one database.
#[derive(Debug)]
pub(super) struct Journals {
    /// fjall's directory.
    directory: PathBuf,
    /// Where the note is.
    note: PathBuf,
    /// What the note says.
    noted: Option<Synced>,
    /// The newest journal when it was last looked at, and its whole batches.
    seen: (u64, End),
}

impl Journals {
    /// Looks at the journals of the database `directory`, whose note is in
    /// `home`, and cuts what was not synced and is not whole. To be called before
    /// fjall opens.
    pub(super) fn prepare(home: &Path, directory: &Path) -> Result<Journals, JournalError> {
        let note = home.join(NOTE);
        let journals = Journals {
            directory: directory.to_owned(),
            noted: load(&note)?,
            note,
            seen: (0, End::default()),
        };
        if let Some(noted) = journals.noted {
            // Somebody else's journal is never cut under their hands.
            let _lock = lock(&directory.join("lock"))?;
            journals.check(noted)?;
        }
        Ok(journals)
    }

    /// Whether there is a note.
    pub(super) const fn is_noted(&self) -> bool {
        self.noted.is_some()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number}.jnl"))
    }

    /// The journals' numbers, ascending.
    fn numbers(&self) -> Result<Vec<u64>, JournalError> {
        let failed = || io("list", &self.directory);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".jnl"));
            // Other names are for fjall to judge.
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn check(&self, noted: Synced) -> Result<(), JournalError> {
        let numbers = self.numbers()?;
        let newest = numbers.last().copied();
        if newest.is_none_or(|newest| newest < noted.journal) {
            return Err(JournalError::Missing {
                path: self.path(noted.journal),
                bytes: noted.bytes,
            });
        }
        let mut last = None;
        for number in numbers {
            let begin = End {
                offset: 0,
                sequence: last,
            };
            last = self.check_one(number, Some(number) == newest, begin, noted)?;
        }
        Ok(())
    }

    /// Checks one journal, and cuts it if it is the newest one. Returns the last
    /// sequence number.
    fn check_one(
        &self,
        number: u64,
        is_newest: bool,
        begin: End,
        noted: Synced,
    ) -> Result<Option<u64>, JournalError> {
        let path = self.path(number);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let file = opened.map_err(io("open", &path))?;
        let end = journal::follow(&file, begin).map_err(io("read", &path))?;
        let written = journal::written(&file, end.offset).map_err(io("read", &path))?;
        let damaged = |what: String| JournalError::Damaged {
            path: path.clone(),
            offset: end.offset,
            what,
        };
        if number == noted.journal && end.offset < noted.bytes {
            return Err(damaged(format!(
                "no whole batch, but everything up to byte {} was synced",
                noted.bytes
            )));
        }
        if written == end.offset {
            return Ok(end.sequence);
        }
        if !is_newest {
            return Err(damaged(
                "no whole batch, but a later journal proves that it was synced".to_owned(),
            ));
        }
        tracing::warn!(
            journal = %path.display(),
            offset = end.offset,
            bytes = written - end.offset,
            "the engine's journal ends with what was never synced and is not whole; it is cut, \
             and the log replays what is missing"
        );
        file.set_len(end.offset).map_err(io("cut", &path))?;
        file.sync_all().map_err(io("sync", &path))?;
        Ok(end.sequence)
    }

    /// How much of the newest journal is in its file now: what a sync that
    /// begins after this will cover, at least.
    pub(super) fn measure(&mut self) -> Result<Synced, JournalError> {
        let mut vanished = None;
        for _ in 0..LOOKS {
            let newest = self.numbers()?.pop().unwrap_or(0);
            let path = self.path(newest);
            let file = match File::open(&path) {
                Ok(file) => file,
                // The next one was begun, and this one's memtables written out.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    vanished = Some(io("open", &path)(error));
                    continue;
                }
                Err(error) => return Err(io("open", &path)(error)),
            };
            let known = if self.seen.0 == newest {
                self.seen.1
            } else {
                End::default()
            };
            let end = journal::follow(&file, known).map_err(io("read", &path))?;
            self.seen = (newest, end);
            return Ok(Synced {
                journal: newest,
                bytes: end.offset,
            });
        }
        Err(vanished.unwrap_or_else(|| io("list", &self.directory)(ErrorKind::NotFound.into())))
    }

    /// Notes durably that a sync has covered this.
    pub(super) fn note(&mut self, synced: Synced) -> Result<(), JournalError> {
        if self.noted != Some(synced) {
            files::store(&self.note, MAGIC, NO_CLUSTER, &synced)?;
            self.noted = Some(synced);
        }
        Ok(())
    }
}

fn load(note: &Path) -> Result<Option<Synced>, JournalError> {
    match files::load::<Synced>(note, MAGIC) {
        Ok(found) => Ok(found.map(|(_, synced)| synced)),
        Err(error @ FileError::Io { .. }) => Err(error.into()),
        Err(FileError::Damaged { .. } | FileError::Version { .. }) => {
            tracing::warn!(
                note = %note.display(),
                "the note of what the engine synced cannot be read; nothing of its journal will be cut"
            );
            Ok(None)
        }
    }
}

/// Takes the lock that fjall holds while it is open; none if it was never made.
fn lock(path: &Path) -> Result<Option<File>, JournalError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open", path)(error)),
    };
    for again in (0..LOCK_TRIES).rev() {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => return Err(io("lock", path)(error)),
            Err(TryLockError::WouldBlock) if again > 0 => thread::sleep(LOCK_WAIT),
            Err(TryLockError::WouldBlock) => {}
        }
    }
    Err(JournalError::Locked {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests;
