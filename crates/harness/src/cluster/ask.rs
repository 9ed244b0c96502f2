//! Questions to single nodes, and to all of them.

pub use synod_rpc::ask::{ask, counters, hears, map, members, placement, status, versions};

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_paxos::NodeId;
use synod_rpc::Pool;
use synod_rpc::status::NodeStatus;

/// How long a node may take to answer while others wait for it.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two looks at nodes that catch up.
const POLL: Duration = Duration::from_millis(50);
/// A follower this near to its leader's end of log has caught up.
const CAUGHT_UP: u64 = 200;

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
