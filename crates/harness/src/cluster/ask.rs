//! Questions to single nodes: status, counters, information.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_paxos::{GroupId, NodeId};
use synod_rpc::wire::{Counters, MembersStatus, NodeStatus};
use synod_rpc::{NodeRequest, NodeResponse, Pool, RequestBody, ServerBody};
use synod_shard::ShardMap;

/// How long a node may take to answer while others wait for it.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two looks at nodes that catch up.
const POLL: Duration = Duration::from_millis(50);
/// A follower this near to its leader's end of log has caught up.
const CAUGHT_UP: u64 = 200;

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
    let deadline = Instant::now() + limit;
    match pool.call(node, RequestBody::Node(request), deadline).await {
        Ok(ServerBody::Node(NodeResponse::Refused { reason })) => Err(reason),
        Ok(ServerBody::Node(NodeResponse::Overloaded { .. })) => Err(format!(
            "the node at {node} has too much to do; retry later"
        )),
        Ok(ServerBody::Node(response)) => Ok(response),
        Ok(ServerBody::Shard(_)) => Err(format!("the node at {node} answered for a shard")),
        Err(error) => Err(error.to_string()),
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

/// Whether every one of these nodes answers, and no follower is far behind its leader.
async fn is_level(pool: &Pool, nodes: &[SocketAddr]) -> bool {
    for node in nodes {
        let Ok(status) = status(pool, *node, ANSWER).await else {
            return false;
        };
        let led = status.shards.iter().filter(|shard| shard.in_office);
        let mut followers = led.flat_map(|s| s.followers.iter().map(|f| (s.last.0, f.matched.0)));
        if followers.any(|(last, matched)| matched + CAUGHT_UP < last) {
            return false;
        }
    }
    true
}

/// Waits until every one of these nodes answers and no follower is far behind
/// its leader; false if that takes longer than `limit`.
pub async fn caught_up(pool: &Pool, nodes: &[SocketAddr], limit: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if is_level(pool, nodes).await {
            return true;
        }
        tokio::time::sleep(POLL).await;
    }
    false
}

/// How many shards a node leads, the meta shard not counted.
#[must_use]
pub fn shards_led(status: &NodeStatus) -> usize {
    let user = status.shards.iter().filter(|s| s.id.0 != 1);
    user.filter(|s| s.in_office).count()
}

/// The node that leads most shards, among those that answer: its id, name and
/// how many.
pub async fn busiest_leader(
    pool: &Pool,
    nodes: &[SocketAddr],
    limit: Duration,
) -> Option<(NodeId, String, usize)> {
    let mut best: Option<(NodeId, String, usize)> = None;
    for &node in nodes {
        let Ok(status) = status(pool, node, limit).await else {
            continue;
        };
        let led = shards_led(&status);
        if best.as_ref().is_none_or(|(_, _, most)| led > *most) {
            best = Some((status.id, status.name, led));
        }
    }
    best
}
