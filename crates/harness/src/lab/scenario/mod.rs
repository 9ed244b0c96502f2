//! Scenarios: what is run, as a file says it (`docs/testing.md` tells the format).
//!
//! A file is read as a whole and checked against itself before anything is started.

mod catalogue;
mod check;
mod expect;
mod faults;
mod file;
#[cfg(test)]
mod tests;
mod values;
mod workload;

pub use catalogue::{SHIPPED, Shipped};

use super::action::Action;
use super::load::Workload;
use super::topology::Topology;
use super::verdict::Expect;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// A scenario that makes sense.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What happens, in a sentence.
    pub about: String,
    /// How long the load runs.
    pub length: Duration,
    /// What chance is drawn from.
    pub seed: u64,
    /// Length of the stretches of time that are reported.
    pub bucket: Duration,
    /// Where nodes and clients are.
    pub topology: Topology,
    /// Shards of the users' keys.
    pub shards: usize,
    /// Where the keys are cut, `shards` - 1 times.
    pub splits: Vec<String>,
    /// Replicas of each shard.
    pub replicas: usize,
    /// Settings of every node besides those that the lab gives.
    pub settings: Settings,
    /// What the clients do.
    pub workload: Workload,
    /// What is done to the cluster, by time.
    pub faults: Vec<Planned>,
    /// What must hold at the end.
    pub expect: Expect,
}

/// Settings of every node, in TOML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Lines for `[node]`.
    pub node: String,
    /// Whole sections.
    pub sections: String,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// How `heal` names it.
    pub name: Option<String>,
    /// When it begins, from the beginning of the load.
    pub at: Duration,
    /// How long it holds; none = of one moment, or to the end of the load.
    pub lasts: Option<Duration>,
    /// Between two times that it is done, from the first to the end of the load; none = it
    /// is done once.
    pub every: Option<Duration>,
    /// What is done.
    pub action: Action,
}

/// A mistake in a scenario, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1; none if it is of the whole file.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Mistakes of one file that are told, at most.
const MAX_MISTAKES: usize = 20;

/// Why a text is no scenario. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct BadScenario {
    /// Its mistakes, in order; the first twenty.
    pub mistakes: Vec<Mistake>,
}

/// Bytes of a scenario, at most.
pub const MAX_SCENARIO: usize = 1 << 20;

impl Scenario {
    /// Reads and checks a text. `name` is what reports call it; scripts that it names
    /// are files in `directory`.
    ///
    /// # Errors
    /// [`BadScenario`], with the line of each mistake.
    pub fn read(name: &str, text: &str, directory: &Path) -> Result<Scenario, BadScenario> {
        let file = file::read(text).map_err(|mistake| BadScenario {
            mistakes: vec![mistake],
        })?;
        check::check(name, text, file, directory)
    }

    /// The same with another length.
    ///
    /// # Errors
    /// When a fault begins behind its end.
    pub fn with_length(mut self, length: Duration) -> Result<Scenario, BadScenario> {
        self.length = length;
        match check::length(&self) {
            None => Ok(self),
            Some(mistake) => Err(BadScenario {
                mistakes: vec![mistake],
            }),
        }
    }
}
