//! A whole cluster in one thread, from one seed: the real workers and the real
//! client machine, with simulated network, disks, engines and clocks.
//!
//! The run has two halves: faults first, then they stop, and everything must
//! come to rest: every client ends, no intent or lock is left, replicas are
//! equal, and the history is strictly serializable. Equal seeds give equal
//! traces ([`Report::trace`]).

mod client;
mod config;
mod disk;
mod engine;
mod node;
mod random;
mod run;

pub use config::SimConfig;
pub use run::{Report, run};
