//! Who leads which shard, and whether that stays so.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_harness::cluster::{Cluster, ask};
use synod_paxos::GroupId;
use synod_rpc::wire::ShardStatus;

/// How long [`led_evenly`] waits, at most.
const PATIENCE: Duration = Duration::from_secs(180);

/// Shards with a leader in office, each once, and where that is.
///
/// # Panics
/// When a node does not answer.
pub async fn led(cluster: &Cluster) -> Vec<(SocketAddr, ShardStatus)> {
    let pool = cluster.pool().expect("good certificates");
    let mut led = Vec::new();
    for node in cluster.nodes() {
        let status = ask::status(&pool, node.address, Duration::from_secs(60)).await;
        let shards = status.expect("it answers").shards;
        let here = shards.into_iter().filter(|s| s.in_office);
        led.extend(here.map(|s| (node.address, s)));
    }
    led.sort_by_key(|(_, shard)| shard.id);
    led
}

/// Terms of all leaders in office. They stay as they are as long as no lease is lost.
///
/// # Panics
/// As [`led`].
pub async fn terms(cluster: &Cluster) -> Vec<(GroupId, String)> {
    let led = led(cluster).await.into_iter();
    led.map(|(_, shard)| (shard.id, shard.term)).collect()
}

/// Waits until each of the three shards is led by a node of its own: as long as one leads two, the
/// cluster hands one of them over sooner or later, and that is no lease lost. Returns their terms.
///
/// # Panics
/// As [`led`], and when it takes too long.
pub async fn led_evenly(cluster: &Cluster) -> Vec<(GroupId, String)> {
    let begun = Instant::now();
    loop {
        let led = led(cluster).await;
        let leaders: HashSet<_> = led.iter().map(|(address, _)| *address).collect();
        if led.len() == 3 && leaders.len() == 3 {
            return led.into_iter().map(|(_, s)| (s.id, s.term)).collect();
        }
        assert!(begun.elapsed() < PATIENCE, "{led:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
