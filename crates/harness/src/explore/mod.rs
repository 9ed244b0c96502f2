//! Small cases, explored completely, on the real machines of ring 0.
//!
//! A [`Model`] says which steps are possible in a state and what each does; the
//! search visits every state that any order of steps reaches, breadth first, so
//! that the first violation found has a shortest path. States are told apart by
//! a 128-bit hash of their canonical encoding (explicit-state model checking as
//! in Holzmann's SPIN and Lamport's TLC; with 10⁸ states the chance that two
//! hashes meet is below 10⁻²²).
//!
//! | part | what is explored |
//! |---|---|
//! | [`consensus`] | three replicas of one group: campaigns, proposals, losses, reordering, repetition, crashes between the parts of a step; with or without leases and time |
//! | [`commit`] | two shards: one transaction over both, an older one that wounds it, leader changes with the deposed leader still running |
//!
//! [`cases`] names the bounds that tests and the program `explore` use.
//!
//! What is bounded is counted in a budget inside the state (campaigns, proposals,
//! crashes, …). Within the budget nothing is sampled: the frontier empties.

mod canonical;
pub mod cases;
pub mod commit;
pub mod consensus;
mod hash;
mod search;

pub use cases::Case;
pub use search::{Found, Limits, Model, Report, explore};
