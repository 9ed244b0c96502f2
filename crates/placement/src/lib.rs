//! From a view of the cluster to replica placements: which nodes hold each
//! shard, which of them leads, why, and what would lose quorum.
//!
//! Localities as ordered tiers, and spreading replicas over the widest of
//! them, come from CockroachDB (Taft et al., "CockroachDB: The Resilient
//! Geo-Distributed SQL Database", SIGMOD 2020); placing them by data centre
//! under a policy for each directory of keys, from Spanner (Corbett et al.,
//! OSDI 2012).
//!
//! Everything here is a pure function: the same view gives the same plan, on
//! whichever node it is made.
//!
//! - [`Locality`]: where a node is.
//! - [`plan`]: voters and leader of every shard of a new cluster.
//! - [`survives`]: what a set of voters outlives.
//!
//! Not here yet: moving replicas of a running cluster (repair, rebalancing,
//! drain), witnesses and learners, and leader preferences of a policy.

mod balance;
mod caps;
mod check;
mod class;
mod fill;
mod lead;
mod leaders;
mod locality;
mod nearest;
mod plan;
mod planner;
mod policy;
mod problem;
mod replan;
mod route;
mod spread;
mod step;
mod strength;
mod survive;
mod target;
mod tiers;
mod topology;
mod view;

pub use check::check;
pub use locality::{Locality, LocalityError, MAX_TIERS, NODE_TIER, TIERS};
pub use nearest::nearest;
pub use plan::{DEFAULT_REPLICAS, MAX_SHARDS, NodeView, PlanError, PlanRequest, ShardPlan, plan};
pub use policy::{
    Expr, MAX_ITEMS, MAX_LEARNERS, MAX_POLICY_BYTES, MAX_VOTERS, Policies, Policy, PolicyError,
    PolicyErrorKind, Rules, RulesError,
};
pub use problem::{Claim, Problem};
pub use replan::{Replan, replan};
pub use step::{ApplyError, Change, Step};
pub use survive::{Domain, Survival, survives};
pub use tiers::{TierOrderError, Tiers};
pub use view::{Directory, Node, NodeState, Role, Shard, View, ViewError};
