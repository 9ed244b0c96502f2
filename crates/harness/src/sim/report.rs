//! What a run found.

use super::client::CommitTimes;
use super::fault::Kind;
use crate::history::{History, ListOp};
use std::collections::BTreeMap;
use std::fmt;

/// What kind of wrong it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// A promise was broken.
    Safety,
    /// Something that must happen did not, within its bound.
    Liveness,
    /// The code under test panicked.
    Crash,
    /// The simulator itself failed: it says nothing about Synod.
    Harness,
}

impl Wrong {
    /// The exit status of a command that found it.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Wrong::Safety => 10,
            Wrong::Liveness => 11,
            Wrong::Crash => 12,
            Wrong::Harness => 13,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrong::Safety => "safety",
            Wrong::Liveness => "liveness",
            Wrong::Crash => "crash",
            Wrong::Harness => "harness",
        })
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What kind.
    pub wrong: Wrong,
    /// The rule or check that says so: `P7`, `bank`, `rest`, …
    pub rule: String,
    /// When; nanoseconds since the run's start. None: seen in the histories.
    pub at: Option<u64>,
    /// In words.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.wrong, self.rule)?;
        if let Some(at) = self.at {
            write!(f, " at {:.3} ms", at as f64 / 1e6)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// What a run did and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Transactions committed.
    pub commits: u64,
    /// Transactions whose client was told `unknown`, or vanished.
    pub unknown: u64,
    /// Transactions aborted for good.
    pub aborted: u64,
    /// Faults injected, by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Simulated time; nanoseconds.
    pub simulated: u64,
    /// Events processed.
    pub events: u64,
    /// Nodes whose damaged disks kept them out.
    pub lost_nodes: u64,
    /// A hash of everything that happened, in order.
    pub trace: u64,
    /// What is wrong; empty if nothing is.
    pub violations: Vec<Violation>,
    /// What happened last before the violation, if the run kept a trace.
    pub lines: Vec<String>,
    /// When something was committed; empty unless the run was to tell.
    pub commit_times: CommitTimes,
    /// What the clients did to lists, if the run was to tell.
    pub lists: Option<History<ListOp>>,
}

impl Report {
    /// Faults injected.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }
}
