//! Why the log cannot be used.

use super::Sequence;
use std::path::PathBuf;

/// What to do about a log that cannot be read.
const REPAIR: &str = "nothing was changed. This node may have forgotten promises, so there is no \
    repairing it: keep it off, the others serve without it; \
    see `synod repair --help` for how to become whole again";

/// Why the log cannot be used. None of these may be retried in the same
/// process: after a failed write or sync nobody knows what is on the disk.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
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
    /// A batch that was synced once cannot be read any more.
    #[error("{path} is damaged at byte {offset}: {what}; {REPAIR}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A fault of the program.
    #[error(
        "the log's thread ended with a panic, whose text is above; what it had not acknowledged may \
         be lost, and restarting the node is safe"
    )]
    Panicked,
    /// Something the log must hold is not in it.
    #[error("{path} has lost {what}; {REPAIR}")]
    Lost {
        /// The file or directory.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// It belongs to another cluster.
    #[error(
        "{path} belongs to cluster {found:032x}, not to {wanted:032x}: start this node with its \
         own directory"
    )]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: u128,
        /// Who wants it.
        wanted: u128,
    },
    /// It was written in a format that this program does not know.
    #[error(
        "{path} has log format {found}, this program knows {known}: start the version that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// The batch is whole, but its records are not ones that this program knows.
    #[error(
        "the records of batch {sequence} in {path} cannot be decoded ({what}): start the version \
         that wrote them"
    )]
    Undecodable {
        /// The file in which the append ends.
        path: PathBuf,
        /// Its last batch.
        sequence: Sequence,
        /// What the decoder said.
        what: String,
    },
    /// More than one append may hold. Nothing was written; smaller appends work.
    #[error(
        "{bytes} bytes of records are too many for one append (at most {limit}); append them in parts"
    )]
    TooLarge {
        /// Their size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The options cannot be used.
    #[error(
        "a log segment of {bytes} bytes is not possible: choose a multiple of 4096 from {least} to {most}"
    )]
    SegmentSize {
        /// What was asked for.
        bytes: u64,
        /// The smallest size.
        least: u64,
        /// The largest size.
        most: u64,
    },
    /// An earlier write or sync failed; what is on disk is unknown.
    #[error("the log failed earlier ({reason}) and takes nothing more; restart the node")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The log's thread has ended.
    #[error("the log's thread has ended; restart the node")]
    Stopped,
}
