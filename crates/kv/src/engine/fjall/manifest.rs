//! Whether the lists of tables are what was written.
//!
//! fjall keeps the list of a keyspace's tables in a file per version, and next to it, in
//! `current`, which version counts and a checksum of its file; at opening it looks at the
//! number only. A list in which one bit of a count has flipped names fewer tables, and the others
//! are deleted as remains of a crash. So the checksum is compared here, before it opens.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// Number (8 bytes), checksum (16), and its kind (1), little-endian.
const CURRENT_BYTES: usize = 25;
/// The only kind there is: xxh3 with 128 bits.
const XXH3: u8 = 0;

/// Why a list of tables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The operating system said no.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{path} is damaged: {what}; nothing was changed")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> ManifestError + '_ {
    move |source| ManifestError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Checks the lists of all keyspaces below fjall's directory; there may be none yet.
pub(super) fn check(directory: &Path) -> Result<(), ManifestError> {
    let keyspaces = directory.join("keyspaces");
    let entries = match fs::read_dir(&keyspaces) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(&keyspaces)(error)),
    };
    for entry in entries {
        let keyspace = entry.map_err(io(&keyspaces))?.path();
        // What somebody left there is nothing to fjall either.
        if !keyspace.is_dir() {
            continue;
        }
        let current = keyspace.join("current");
        match fs::read(&current) {
            Ok(bytes) => check_one(&keyspace, &current, &bytes)?,
            // One that a crash interrupted in the making, or a file too few: fjall tells which.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(&current)(error)),
        }
    }
    Ok(())
}

fn check_one(keyspace: &Path, current: &Path, bytes: &[u8]) -> Result<(), ManifestError> {
    let damaged = |path: &Path, what| ManifestError::Damaged {
        path: path.to_owned(),
        what,
    };
    let Ok(bytes) = <&[u8; CURRENT_BYTES]>::try_from(bytes) else {
        return Err(damaged(current, "it has another length"));
    };
    let (number, rest) = bytes.split_at(8);
    let (checksum, kind) = rest.split_at(16);
    if kind != [XXH3] {
        return Err(damaged(current, "its kind of checksum is unknown"));
    }
    let number = number.try_into().map_or(0, u64::from_le_bytes);
    let checksum = checksum.try_into().map_or(0, u128::from_le_bytes);
    let list = keyspace.join(format!("v{number}"));
    let content = fs::read(&list).map_err(io(&list))?;
    if xxh3_128(&content) != checksum {
        return Err(damaged(
            &list,
            "its checksum is another than `current` says",
        ));
    }
    Ok(())
}
