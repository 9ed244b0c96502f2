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
//! whichever node it is made. (The planners of splits and merges remember what they asked for last,
//! and that of merges how long shards have been cold.)
//!
//! - [`Locality`], [`Tiers`]: where nodes are, in tiers of any name and number.
//! - [`Policy`], [`Policies`]: what is wanted, for each directory of keys, as text.
//! - [`plan`]: voters and leader of every shard of a new cluster.
//! - [`replan`]: from a [`View`] of a cluster that runs to [`Step`]s, and what
//!   stands in the way ([`Problem`]).
//! - [`check`]: what stands in the way of policies, before there are shards.
//! - [`explain`], [`explain_all`], [`what_if`], [`survives`]: why replicas are where they are, and
//!   what a failure would do.
//! - [`SplitPlanner`]: which shards are split, when, and where.
//! - [`MergePlanner`]: which neighbouring shards become one, and when.
//! - [`propose_move`], [`propose_leader`]: what a person wants moved, and what speaks against it.
//! - [`CopyRate`]: how fast copies are made.
//!
//! How a plan is made: the caps (`caps`, `class`) say how many voters each place
//! may hold; each shard is brought under them with as few moves as that takes
//! (`target`); replicas and leaders are evened out (`balance`, `lead`); and each
//! shard's way there is cut into steps (`route`), none of which leaves it
//! weaker than it was (`strength`).
//!
//! Not here: doing the steps (`crates/operate`). Labels and capacities of nodes, and
//! origins of requests, are not told by a cluster that runs yet. Evening out goes by the bytes
//! of replicas, in proportion to capacity, and by what leaders are asked (decision 20); what
//! followers do for a shard is not weighed.

mod balance;
mod by_hand;
mod caps;
mod check;
mod class;
mod copies;
mod explain;
mod fill;
mod lead;
mod leaders;
mod locality;
mod merges;
mod nearest;
mod patience;
mod plan;
mod planner;
mod policy;
mod problem;
mod replan;
mod route;
mod settings;
mod splits;
mod spread;
mod step;
mod strength;
mod survive;
mod target;
mod tiers;
mod topology;
mod view;

pub use by_hand::{Move, MoveError, propose_leader, propose_move};
pub use check::check;
pub use copies::CopyRate;
pub use explain::{
    Explanation, Reason, ReplicaReason, ShardLoss, WhatIf, explain, explain_all, what_if,
};
pub use locality::{Locality, LocalityError, MAX_TIERS, NODE_TIER, TIERS};
pub use merges::{Descent, Merge, MergeLimit, MergeLimits, MergePlanner, Merges, Neighbour, Scene};
pub use nearest::nearest;
pub use patience::Ended;
pub use plan::{DEFAULT_REPLICAS, MAX_SHARDS, NodeView, PlanError, PlanRequest, ShardPlan, plan};
pub use policy::{
    Expr, MAX_ITEMS, MAX_LEARNERS, MAX_POLICY_BYTES, MAX_VOTERS, Policies, Policy, PolicyError,
    PolicyErrorKind, Rules, RulesError, Sharding,
};
pub use problem::{Claim, Problem};
pub use replan::{Replan, replan};
pub use settings::{SettingError, check_setting, default_setting};
pub use splits::{
    Cause, Cut, ShardLoad, SplitLimit, SplitLimits, SplitPlanner, Splits, Wish, halve,
};
pub use step::{Aim, ApplyError, Change, Step};
pub use survive::{Domain, Survival, survives};
pub use tiers::{TierOrderError, Tiers};
pub use view::{Directory, Node, NodeState, Role, Shard, View, ViewError};
