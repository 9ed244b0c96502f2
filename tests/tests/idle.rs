//! What a cluster costs that nobody asks for anything.

use std::time::Duration;
use synod_harness::cluster::{Cluster, ask};
use synod_rpc::wire::TransportCounters;
use synod_tests::{cluster, settled};

const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(6);
/// Packets that a node may send a second: some 9 to each of two peers, some 5 to answer this
/// test's own pings, and its share of what the keeper asks. Two renewals at their own time,
/// each answered alone and twice as often, are 42.
const MOST: u64 = 32;

async fn transport(cluster: &Cluster) -> Vec<TransportCounters> {
    let pool = cluster.pool().expect("good certificates");
    let mut all = Vec::new();
    for node in cluster.nodes() {
        let counters = ask::counters(&pool, node.address, PATIENCE).await;
        all.push(counters.expect("it answers").transport);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_nothing_to_do_send_little() {
    let cluster = cluster(&["g", "p"]);
    settled(&cluster).await;
    // Elections and the first looks at everything are over.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let before = transport(&cluster).await;
    tokio::time::sleep(WATCHED).await;
    let after = transport(&cluster).await;
    for (before, after) in before.iter().zip(&after) {
        let packets = (after.packets_out - before.packets_out) / WATCHED.as_secs();
        assert!(packets > 3, "leases are renewed: {packets}");
        assert!(packets <= MOST, "{packets} packets a second");
    }
}
