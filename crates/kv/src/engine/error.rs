//! Why the engine cannot be used.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// Why the engine cannot be used. All but [`EngineError::KeyTooLong`] are fatal
/// to the node: it stops rather than serve wrong data. Retrying in the same
/// process is not safe; a restart replays the log.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The operating system said no.
    #[error(
        "the engine's files: {0}; free or repair the disk, then restart the node, and if that does \
         not help run `synod repair engine --data DIR` with its directory first"
    )]
    Io(#[from] io::Error),
    /// The backend failed.
    #[error(
        "the {kind} engine cannot {action}: {source}; restart the node, and if that does not help \
         run `synod repair engine --data DIR` with its directory first"
    )]
    Backend {
        /// Which one.
        kind: &'static str,
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An item is not what was written.
    #[error(
        "the engine's item {key} is damaged ({what}); run `synod repair engine --data DIR` with \
         this node's directory and start it again: it fetches the data from its log and its peers"
    )]
    Damaged {
        /// The key, readable, with its timestamp if it has one.
        key: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The directory was made by another engine, or another version of it.
    #[error(
        "{path} holds the engine `{found}`, not `{wanted}`: set the engine the data was written \
         with, or set the directory aside and the node fetches the data from its peers"
    )]
    OtherKind {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What was to be opened.
        wanted: String,
    },
    /// It is open already.
    #[error("another process has the engine open; end that one first, nothing was changed")]
    InUse,
    /// A key is longer than any engine takes. Nothing was applied.
    #[error("a key of {bytes} bytes is too long (at most {limit}); nothing was applied")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl EngineError {
    /// Whether the files themselves are to blame, so that opening them again will not help: not
    /// who opens them, how, and what the system allows for now.
    #[must_use]
    pub fn blames_files(&self) -> bool {
        match self {
            EngineError::Damaged { .. } => true,
            EngineError::OtherKind { .. } | EngineError::InUse | EngineError::KeyTooLong { .. } => {
                false
            }
            EngineError::Io(error) => is_of_content(error),
            EngineError::Backend { source, .. } => {
                let first: &(dyn std::error::Error + 'static) = &**source;
                let mut chain = std::iter::successors(Some(first), |error| error.source());
                chain
                    .find_map(|error| error.downcast_ref::<io::Error>())
                    .is_none_or(is_of_content)
            }
        }
    }
}

/// Whether the system's answer says that files are missing, too short, or of an engine that was
/// never finished; else it is about rights, limits, or the disk.
fn is_of_content(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::UnexpectedEof
            | ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::AlreadyExists
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_start_may_find_well_is_not_the_files_fault() {
        let backend = |kind: ErrorKind| EngineError::Backend {
            kind: "any",
            action: "open",
            source: Box::new(io::Error::from(kind)),
        };
        for kind in [
            ErrorKind::PermissionDenied,
            ErrorKind::StorageFull,
            ErrorKind::OutOfMemory,
            ErrorKind::Other,
        ] {
            assert!(!backend(kind).blames_files(), "{kind}");
            assert!(!EngineError::Io(kind.into()).blames_files(), "{kind}");
        }
        assert!(backend(ErrorKind::NotFound).blames_files());
        assert!(backend(ErrorKind::UnexpectedEof).blames_files());
        let mismatch = EngineError::Backend {
            kind: "any",
            action: "open",
            source: "the checksum is another".into(),
        };
        assert!(mismatch.blames_files());
    }
}
