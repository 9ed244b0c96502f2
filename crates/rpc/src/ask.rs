//! Questions to single nodes: status, counters, members, loads, the map.

use crate::copies::CopiesStatus;
use crate::load::{LoadStatus, MergesStatus};
use crate::members::MembersStatus;
use crate::placement::PlacementStatus;
use crate::recover::Remains;
use crate::status::{Counters, HearsStatus, NodeStatus};
use crate::versions::VersionsStatus;
use crate::{NodeRequest, NodeResponse, Pool, RequestBody, ServerBody};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_paxos::GroupId;
use synod_placement::SplitLimits;
use synod_shard::ShardMap;

/// Why a node's answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It refuses; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// It did not answer, or has too much to do. What was asked for may have happened;
    /// every request to a node may be repeated.
    #[error("{0}")]
    Lost(String),
}

/// Asks one node. The error is in words for people.
///
/// # Errors
/// When the node cannot be reached, refuses, or does not answer within `limit`.
pub async fn ask(
    pool: &Pool,
    node: SocketAddr,
    request: NodeRequest,
    limit: Duration,
) -> Result<NodeResponse, String> {
    let asked = try_ask(pool, node, request, limit).await;
    asked.map_err(|error| error.to_string())
}

/// The same, for those to whom it matters why there is no answer.
///
/// # Errors
/// As [`ask`].
pub async fn try_ask(
    pool: &Pool,
    node: SocketAddr,
    request: NodeRequest,
    limit: Duration,
) -> Result<NodeResponse, AskError> {
    let deadline = Instant::now() + limit;
    match pool.call(node, RequestBody::Node(request), deadline).await {
        Ok(ServerBody::Node(NodeResponse::Refused { reason })) => Err(AskError::Refused(reason)),
        Ok(ServerBody::Node(NodeResponse::Overloaded { .. })) => Err(AskError::Lost(format!(
            "the node at {node} has too much to do; retry later"
        ))),
        Ok(ServerBody::Node(response)) => Ok(response),
        Ok(ServerBody::Shard(_)) => Err(AskError::Lost(format!(
            "the node at {node} answered for a shard"
        ))),
        Err(error) => Err(AskError::Lost(error.to_string())),
    }
}

/// A node's state.
///
/// # Errors
/// As [`ask`].
pub async fn status(pool: &Pool, node: SocketAddr, limit: Duration) -> Result<NodeStatus, String> {
    match ask(pool, node, NodeRequest::Status, limit).await? {
        NodeResponse::Status(status) => Ok(*status),
        other => Err(format!("the node at {node} answered {other:?} to Status")),
    }
}

/// What a node's replicas know of their shards' members; of one shard, or of all.
///
/// # Errors
/// As [`ask`].
pub async fn members(
    pool: &Pool,
    node: SocketAddr,
    of: Option<GroupId>,
    limit: Duration,
) -> Result<Vec<MembersStatus>, String> {
    match ask(pool, node, NodeRequest::Members { of }, limit).await? {
        NodeResponse::Members(members) => Ok(members),
        other => Err(format!("the node at {node} answered {other:?} to Members")),
    }
}

/// What a node's replicas hold, should they have to go on without the others.
///
/// # Errors
/// As [`ask`].
pub async fn remains(
    pool: &Pool,
    node: SocketAddr,
    limit: Duration,
) -> Result<Vec<Remains>, String> {
    match ask(pool, node, NodeRequest::Remains, limit).await? {
        NodeResponse::Remains(remains) => Ok(remains),
        other => Err(format!("the node at {node} answered {other:?} to Remains")),
    }
}

/// The shard map that a node knows.
///
/// # Errors
/// As [`ask`].
pub async fn map(pool: &Pool, node: SocketAddr, limit: Duration) -> Result<ShardMap, String> {
    match ask(pool, node, NodeRequest::Map, limit).await? {
        NodeResponse::Map(map) => Ok(*map),
        other => Err(format!("the node at {node} answered {other:?} to Map")),
    }
}

/// A node's totals.
///
/// # Errors
/// As [`ask`].
pub async fn counters(pool: &Pool, node: SocketAddr, limit: Duration) -> Result<Counters, String> {
    match ask(pool, node, NodeRequest::Counters, limit).await? {
        NodeResponse::Counters(counters) => Ok(*counters),
        other => Err(format!("the node at {node} answered {other:?} to Counters")),
    }
}

/// The size and load of the shards that a node leads: of all, or of some that are beyond
/// these limits, with where they can be cut.
///
/// # Errors
/// As [`ask`].
pub async fn loads(
    pool: &Pool,
    node: SocketAddr,
    above: Option<SplitLimits>,
    limit: Duration,
) -> Result<LoadStatus, String> {
    match ask(pool, node, NodeRequest::Loads { above }, limit).await? {
        NodeResponse::Loads(loads) => Ok(*loads),
        other => Err(format!("the node at {node} answered {other:?} to Loads")),
    }
}

/// How fast a node sends copies of shards, and what it takes in; it is told the `rate`, if any.
///
/// # Errors
/// As [`ask`].
pub async fn copies(
    pool: &Pool,
    node: SocketAddr,
    rate: Option<u64>,
    limit: Duration,
) -> Result<CopiesStatus, String> {
    match ask(pool, node, NodeRequest::Copies { rate }, limit).await? {
        NodeResponse::Copies(copies) => Ok(*copies),
        other => Err(format!("the node at {node} answered {other:?} to Copies")),
    }
}

/// What a node knows of the cluster's records, and what it does about them.
///
/// # Errors
/// As [`ask`].
pub async fn placement(
    pool: &Pool,
    node: SocketAddr,
    limit: Duration,
) -> Result<PlacementStatus, String> {
    match ask(pool, node, NodeRequest::Placement, limit).await? {
        NodeResponse::Placement(status) => Ok(*status),
        other => Err(format!(
            "the node at {node} answered {other:?} to Placement"
        )),
    }
}

/// Which cluster versions a node's program knows, and where its shards are. Programs from before
/// there were versions do not understand the question.
///
/// # Errors
/// As [`ask`].
pub async fn versions(
    pool: &Pool,
    node: SocketAddr,
    limit: Duration,
) -> Result<VersionsStatus, String> {
    match ask(pool, node, NodeRequest::Versions, limit).await? {
        NodeResponse::Versions(status) => Ok(*status),
        other => Err(format!("the node at {node} answered {other:?} to Versions")),
    }
}

/// How well a node hears the others. Programs of before do not understand the question.
///
/// # Errors
/// As [`ask`].
pub async fn hears(pool: &Pool, node: SocketAddr, limit: Duration) -> Result<HearsStatus, String> {
    match ask(pool, node, NodeRequest::Hears, limit).await? {
        NodeResponse::Hears(status) => Ok(status),
        other => Err(format!("the node at {node} answered {other:?} to Hears")),
    }
}

/// What the cluster merges by itself; none if the node does not lead the meta shard. Programs of
/// before do not understand the question.
///
/// # Errors
/// As [`ask`].
pub async fn merges(
    pool: &Pool,
    node: SocketAddr,
    limit: Duration,
) -> Result<Option<MergesStatus>, String> {
    match ask(pool, node, NodeRequest::Merges, limit).await? {
        NodeResponse::Merges(status) => Ok(status.map(|status| *status)),
        other => Err(format!("the node at {node} answered {other:?} to Merges")),
    }
}
