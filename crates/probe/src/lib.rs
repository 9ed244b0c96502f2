//! Two probes of the simulator into the code it runs.
//!
//! - A [`Mark`] stands on a rare path. A sweep counts how often each was passed,
//!   and one that is never passed proves that the sweep is too tame
//!   (`FoundationDB`'s `CODE_PROBE`).
//! - A [`Mutation`] is a named breach of one rule. Compiled in only with the
//!   feature `mutations`, it shows that the simulator's checks bite.
//!
//! Both are per thread, so that seeds can run side by side. Nothing a program
//! does depends on a mark, and without the features both cost nothing.

mod mark;
mod mutation;

pub use mark::{Mark, hits, mark, reset_marks};
pub use mutation::{Mutation, mutate, mutated};
