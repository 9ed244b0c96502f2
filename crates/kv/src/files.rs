//! The node's small files: each has a magic, a format version, the cluster's id
//! and a checksum, and is replaced as a whole (write, sync, rename, sync).
//!
//! ```text
//! magic 8 | format version u32 | cluster id u128 | length u32 | crc32 u32 | body (postcard)
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const FORMAT_VERSION: u32 = 1;
const HEADER_BYTES: usize = 8 + 4 + 16 + 4 + 4;

/// Why a small file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system said no.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error(
        "{path} is damaged or of another kind ({what}); restore it from a copy, or start this \
         node with an empty directory as a new node"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// It was written by a newer version.
    #[error(
        "{path} has format version {found}, this program knows {FORMAT_VERSION}: start the version that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> FileError + 'a {
    move |source| FileError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Writes `body` durably in place of what was there.
///
/// # Errors
/// When a system call fails; the old file then still stands.
pub fn store<T: Serialize>(
    path: &Path,
    magic: [u8; 8],
    cluster: u128,
    body: &T,
) -> Result<(), FileError> {
    let body = postcard::to_stdvec(body).map_err(|_| FileError::Damaged {
        path: path.to_owned(),
        what: "its contents cannot be encoded",
    })?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&cluster.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes);
    crc.update(&body);
    bytes.extend_from_slice(&crc.finalize().to_le_bytes());
    bytes.extend_from_slice(&body);

    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).map_err(io("create", &temporary))?;
    file.write_all(&bytes).map_err(io("write", &temporary))?;
    file.sync_all().map_err(io("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(io("rename", path))?;
    if let Some(parent) = path.parent() {
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(io("sync", parent))?;
    }
    Ok(())
}

/// Makes a directory, if there is none, whose own name is as durable as what will be in it.
pub(crate) fn make_directory(path: &Path) -> std::io::Result<()> {
    // Who found it made need not be allowed to open what it lies in.
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads a file back: the cluster's id and the body; none if there is no such file.
///
/// # Errors
/// When it cannot be read, or is not what [`store`] wrote.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    magic: [u8; 8],
) -> Result<Option<(u128, T)>, FileError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", path)(error)),
    };
    let damaged = |what| FileError::Damaged {
        path: path.to_owned(),
        what,
    };
    let (head, body) = bytes
        .split_at_checked(HEADER_BYTES)
        .ok_or_else(|| damaged("too short"))?;
    if head[..8] != magic {
        return Err(damaged("wrong magic"));
    }
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if version != FORMAT_VERSION {
        return Err(FileError::Version {
            path: path.to_owned(),
            found: version,
        });
    }
    let mut cluster = [0; 16];
    cluster.copy_from_slice(&head[12..28]);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[..32]);
    crc.update(body);
    if crc.finalize().to_le_bytes() != head[32..36] {
        return Err(damaged("wrong checksum"));
    }
    let value = postcard::from_bytes(body).map_err(|_| damaged("cannot be decoded"))?;
    Ok(Some((u128::from_le_bytes(cluster), value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_loaded_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("thing");
        assert!(load::<String>(&path, *b"SYNODTST").unwrap().is_none());
        store(&path, *b"SYNODTST", 7, &"hello").unwrap();
        let (cluster, body) = load::<String>(&path, *b"SYNODTST").unwrap().unwrap();
        assert_eq!((cluster, body.as_str()), (7, "hello"));

        assert!(matches!(
            load::<String>(&path, *b"SYNODXXX"),
            Err(FileError::Damaged { .. })
        ));
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(
            load::<String>(&path, *b"SYNODTST"),
            Err(FileError::Damaged { .. })
        ));
    }
}
