//! From a view of a cluster that runs to the steps that bring it where its
//! policies want it.

use crate::planner::Planner;
use crate::problem::Problem;
use crate::step::Step;
use crate::view::{View, ViewError};

/// What is to be done, and what stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replan {
    /// The steps; shards that can afford to lose fewest voters come first.
    pub steps: Vec<Step>,
    /// What a person should know.
    pub problems: Vec<Problem>,
    /// So many shards' sizes are not known, and these are too many to even out by them what
    /// nodes hold.
    pub unweighed: Option<usize>,
}

/// Plans the way of a cluster to where its policies want it:
///
/// - Replicas leave nodes that are down, leaving, or not allowed by the policy;
///   missing ones are made; voters are spread over places as the policy says.
/// - Then replicas go from full nodes to emptier ones. A replica counts by its bytes, and for
///   some besides; nothing moves while no move leaves two nodes apart still by a tenth of the
///   mean, or the sizes of more than a tenth of the shards are unknown.
/// - Leaders go to voters that the policy prefers, then to those near the
///   origin of the requests, then to nodes whose leaders are asked less: once a hand-over
///   leaves two nodes apart still by a fifth of the mean.
/// - A replica is put only where there is room for it, and not where it was refused.
///
/// No step leaves a shard weaker than it is in `view`: it can lose as many
/// voters (or as many as its policy's number of voters allows), as many of them
/// have its data, and in no tier are there more places whose loss alone would
/// stop it. What cannot be had that way is left, and told as a [`Problem`].
///
/// No step undoes one before it, and planning again once all are done gives
/// none. A shard without a quorum is left alone: it cannot change.
///
/// # Errors
///
/// The view makes no sense: see [`ViewError`].
pub fn replan(view: &View) -> Result<Replan, ViewError> {
    let mut planner = Planner::new(view)?;
    planner.settle();
    let order = planner.by_urgency();
    Ok(Replan {
        steps: order
            .into_iter()
            .flat_map(|shard| planner.route(shard))
            .collect(),
        problems: planner.problems(),
        unweighed: planner.waits_for_sizes(),
    })
}
