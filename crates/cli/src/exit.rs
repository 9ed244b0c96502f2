//! How the program ends: one message on standard error, and one exit status.

use std::fmt;
use std::process::ExitCode;

/// Exit statuses (they are the same for every command).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Everything was done.
    Done = 0,
    /// A transaction was aborted or rolled back by `require`, or a check failed.
    Aborted = 1,
    /// The arguments, a file or a script are bad; nothing was sent.
    BadInput = 2,
    /// The outcome of a commit is unknown.
    Unknown = 3,
    /// No cluster answered, or a node cannot run.
    NoCluster = 4,
    /// The lab: a promise was broken.
    Safety = 10,
    /// The lab: something that must happen did not, within its bound.
    Liveness = 11,
    /// The lab: the code under test panicked.
    Crash = 12,
    /// The lab itself failed, which says nothing about Synod.
    Harness = 13,
    /// Ended by SIGINT, after what it had started.
    Interrupted = 130,
    /// Ended by SIGTERM, after what it had started.
    Terminated = 143,
}

/// What the statuses mean, for `--help`.
pub const HELP: &str = "Exit status: 0 done, 1 aborted or a check failed, 2 bad arguments or input \
(nothing was sent), 3 unknown outcome, 4 no cluster answered, or a node cannot run, \
130 and 143 ended by SIGINT and SIGTERM.";

/// Why a command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub status: Status,
    /// What happened, to what, what to do. Empty if all was said already.
    pub message: String,
}

impl Failure {
    /// Of this kind.
    pub fn new(status: Status, message: impl fmt::Display) -> Failure {
        Failure {
            status,
            message: message.to_string(),
        }
    }

    /// Bad arguments or files.
    pub fn input(message: impl fmt::Display) -> Failure {
        Failure::new(Status::BadInput, message)
    }

    /// The cluster cannot be reached, or a process cannot go on.
    pub fn cluster(message: impl fmt::Display) -> Failure {
        Failure::new(Status::NoCluster, message)
    }

    /// A check failed.
    pub fn failed(message: impl fmt::Display) -> Failure {
        Failure::new(Status::Aborted, message)
    }
}

impl From<synod_operate::Trouble> for Failure {
    fn from(trouble: synod_operate::Trouble) -> Failure {
        use synod_operate::Trouble;
        match &trouble {
            Trouble::Input(_) => Failure::input(trouble),
            Trouble::Failed(_) => Failure::failed(trouble),
            Trouble::Unreachable(_) => Failure::cluster(trouble),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(status as u8)
    }
}
