//! Clusters of real processes, workloads on them, and checkers of what they did.
//!
//! | part | for |
//! |---|---|
//! | [`cluster`] | `synod` processes in several data centres on one machine |
//! | [`lab`] | a declared cluster of several sites, a load, a plan of faults, and what must hold |
//! | [`workload`] | what clients do while things break, recorded as a history |
//! | [`load`] | what many clients do at once, and how long it takes them |
//! | [`history`] | the record: who asked what, when, and what they were told |
//! | [`rules`] | the rules by number, checked on a running cluster |
//! | [`sim`] | a whole cluster in one thread, from one seed |
//! | [`edn`] | histories as text, in Jepsen's form |
//! | [`check`] | pure functions from a history to the promises it breaks |

pub mod check;
#[cfg(feature = "processes")]
pub mod cluster;
pub mod duration;
pub mod edn;
pub mod explore;
pub mod history;
#[cfg(feature = "processes")]
pub mod lab;
#[cfg(feature = "processes")]
pub mod load;
#[cfg(feature = "processes")]
pub mod relay;
pub mod rules;
pub mod sim;
#[cfg(feature = "processes")]
pub mod workload;
