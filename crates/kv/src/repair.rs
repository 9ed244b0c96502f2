//! What can be repaired in a stopped node's directory.

use crate::identity::DirectoryError;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Takes a directory for this process, as long as the file is kept.
pub(crate) fn lock(path: &Path) -> Result<File, DirectoryError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))
        .map_err(|source| DirectoryError::Io {
            action: "open the lock of",
            path: path.to_owned(),
            source,
        })?;
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&file, exclusive).map_err(|_| DirectoryError::Locked {
        path: path.to_owned(),
    })?;
    Ok(file)
}

/// Sets the engine's files of a stopped node aside; returns where they are now.
/// The node fetches its data from its log and its peers at the next start. The
/// log, with everything the node has promised, stays untouched.
///
/// # Errors
/// When the directory is no node's, is in use, or has no engine. Nothing was
/// changed then.
pub fn set_engine_aside(directory: &Path) -> Result<PathBuf, DirectoryError> {
    let io = |action, path: PathBuf| {
        move |source| DirectoryError::Io {
            action,
            path,
            source,
        }
    };
    let identity = directory.join("identity");
    std::fs::metadata(&identity).map_err(io("find a node's", identity.clone()))?;
    let _lock = lock(directory)?;
    move_engine_aside(directory).map_err(io("set aside", directory.join("engine")))
}

/// Gives the engine's directory another name, durably; returns it.
pub(crate) fn move_engine_aside(directory: &Path) -> std::io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let stamp = now.unwrap_or_default().as_nanos();
    let aside = directory.join(format!("engine-aside-{stamp}"));
    std::fs::rename(directory.join("engine"), &aside)?;
    File::open(directory)?.sync_all()?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Directory;

    #[test]
    fn only_a_stopped_node_s_engine_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            set_engine_aside(dir.path()),
            Err(DirectoryError::Io { .. })
        ));
        let node = Directory::open(dir.path(), "a", 1).unwrap();
        std::fs::create_dir(dir.path().join("engine")).unwrap();
        assert!(matches!(
            set_engine_aside(dir.path()),
            Err(DirectoryError::Locked { .. })
        ));
        drop(node);
        let aside = set_engine_aside(dir.path()).unwrap();
        assert!(aside.is_dir() && !dir.path().join("engine").exists());
        assert!(set_engine_aside(dir.path()).is_err(), "there is none left");
    }
}
