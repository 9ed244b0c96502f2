//! The lab: a cluster of real `synod` processes in several data centres on one
//! machine, with clients in each of them, that is loaded, broken by a plan, and
//! judged.
//!
//! | part | for |
//! |---|---|
//! | [`Scenario`] | what is run, as a file says it: topology, load, faults, expectations |
//! | [`run`] | runs one, and gives back its [`Report`] |
//! | [`Cluster`] | the same cluster for tests of one's own, in Rust |
//! | [`Select`], [`Action`] | what can be done to which part of a cluster |
//! | [`report`] | what was found, as data, text and a page |
//!
//! Everything is on loopback. All packets pass a [`relay`](crate::relay) that gives
//! each link its delay, loss and bandwidth; the clients of a site send from a loopback
//! address of their own, so that theirs are the links of their site. Whoever starts,
//! asks and administers the cluster is outside of all sites, on perfect links.
//!
//! What is not here: power cuts that lose what the page cache holds, and links shared
//! by several pairs of ends (bandwidth is of each pair).

mod action;
mod cluster;
mod engine;
mod error;
mod load;
mod record;
pub mod report;
mod scenario;
mod select;
mod topology;
mod verdict;

pub use action::{Action, Deed, Harm, Links, Worse};
pub use cluster::{Begun, Builder, Cluster, Condition};
pub use engine::{Options, Outcome, Progress, run};
pub use error::LabError;
pub use load::{Kind, Script, Workload, Ycsb, YcsbMix};
pub use report::{FaultMark, Report};
pub use scenario::{
    BadScenario, MAX_SCENARIO, Mistake, Planned, SHIPPED, Scenario, Settings, Shipped,
};
pub use select::{Part, Select};
pub use topology::{Dc, NodePlan, Path, Topology};
pub use verdict::{Expect, ExpectSite};
