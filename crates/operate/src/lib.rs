//! A running cluster, looked at as a whole and changed: what an operator's commands
//! and the keeper in the node that leads the meta shard have in common.
//!
//! Everything is asked of single nodes by their ordinary requests, nothing is kept:
//! whoever works here may end at any moment, and whoever comes next looks at what is there.
//!
//! | part | for |
//! |---|---|
//! | [`Survey`] | what all nodes say |
//! | [`Seen`] | the same as the planner takes it, with policies |
//! | [`Memory`] | what earlier surveys told of sizes and loads |
//! | [`Changer`] | one change of one shard, until it has happened |
//! | [`Wreck`] | shards whose majority is lost, and who could go on |
//! | [`walk()`] | the steps of a plan, several shards at a time |
//! | [`acting()`], [`change()`] | the cluster's records |
//! | [`Splitter`] | one split of a shard |
//! | [`Merger`] | one merge of two |
//! | [`hash()`], [`hashed()`] | how a directory's keys are stored |

mod change;
mod hash;
mod memory;
mod merge;
mod press;
mod records;
mod recover;
mod seen;
mod split;
mod survey;
mod walk;

pub use change::{Changer, Roles, Stopped, roles, with_role};
pub use hash::{hash, hashed};
pub use memory::Memory;
pub use merge::Merger;
pub use records::{Acting, FAILOVER, acting, change, find};
pub use recover::{Choice, InDoubt, LostShard, Wreck};
pub use seen::{Intent, Seen, policies};
pub use split::Splitter;
pub use survey::{Survey, Weight, map};
pub use walk::{Pace, Walked, plan, walk};

use std::sync::Arc;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// What was asked for makes no sense or is not allowed; nothing was changed.
    #[error("{0}")]
    Input(String),
    /// It did not happen, or not in time. Asking again is safe.
    #[error("{0}")]
    Failed(String),
    /// No node answered.
    #[error("{0}")]
    Unreachable(String),
}

/// Is told what is being done and waited for, in one line each time.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;
