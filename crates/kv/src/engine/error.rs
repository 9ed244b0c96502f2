//! Why the engine cannot be used.

use std::path::PathBuf;

/// Why the engine cannot be used. All but [`EngineError::KeyTooLong`] are fatal
/// to the node: it stops rather than serve wrong data. Retrying in the same
/// process is not safe; a restart replays the log.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The operating system said no.
    #[error("the engine's files: {0}; free or repair the disk, then restart the node")]
    Io(#[from] std::io::Error),
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
    /// A key is longer than any engine takes. Nothing was applied.
    #[error("a key of {bytes} bytes is too long (at most {limit}); nothing was applied")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}
