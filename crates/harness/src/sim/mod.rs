//! A whole cluster in one thread, from one seed: the real workers under the
//! real node machine, the real log and its recovery, the real client machine,
//! with simulated network, disks and clocks.
//!
//! The run has two halves: faults first, then they stop, and everything must
//! come to rest: every client ends, no intent or lock is left, replicas are
//! equal, and the histories are what was promised. Equal seeds give equal
//! traces ([`Report::trace`]).

mod client;
mod clock;
mod config;
mod dying;
mod fault;
mod lanes;
mod model;
mod net;
mod node;
mod plan;
mod queue;
mod random;
mod replay;
mod report;
mod run;
mod scenario;
mod shrink;
mod sweep;
mod theme;
mod topology;
mod trace;

pub use client::CommitTimes;
pub use config::{Phase, SimConfig};
pub use fault::{Down, Fault, Kind, Planned};
pub use model::Beyond;
pub use plan::plan;
pub use replay::{MAX_RECIPE, Recipe, RecipeError};
pub use report::{Report, Violation, Wrong};
pub use run::{RunOptions, run_caught};
pub use scenario::{Scenario, Silence};
pub use shrink::{Shrunk, shrink};
pub use sweep::{Failure, Sweep, SweepOptions, sweep};
pub use theme::Theme;
