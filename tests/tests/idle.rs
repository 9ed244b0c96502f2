//! What a cluster costs that nobody asks for anything, and how it hears who falls silent.

use std::time::Duration;
use synod_harness::cluster::{Cluster, ask};
use synod_paxos::NodeId;
use synod_rpc::wire::{Heard, TransportCounters};
use synod_tests::{cluster, eventually, settled, synod, text};

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
    let mut seen = Vec::new();
    // A machine that is busy with something else makes leases and leaders go, and that costs packets.
    for _ in 0..4 {
        let before = transport(&cluster).await;
        tokio::time::sleep(WATCHED).await;
        let after = transport(&cluster).await;
        let sent = before.iter().zip(&after);
        let sent = sent.map(|(before, after)| after.packets_out - before.packets_out);
        seen = sent.map(|packets| packets / WATCHED.as_secs()).collect();
        let quiet = |packets: &u64| *packets <= MOST;
        assert!(seen.iter().all(|p| *p > 3), "leases are renewed: {seen:?}");
        if seen.iter().all(quiet) {
            return;
        }
        eprintln!("not idle yet: {seen:?} packets a second");
    }
    panic!("{seen:?} packets a second");
}

/// What the first node hears of another one.
async fn heard(cluster: &Cluster, node: NodeId) -> Option<Heard> {
    let pool = cluster.pool().expect("good certificates");
    let hears = ask::hears(&pool, cluster.nodes()[0].address, PATIENCE).await;
    let others = hears.expect("it answers").others;
    let of = others.iter().find(|other| other.node == node);
    of.expect("a node of the cluster").heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_falls_silent_is_suspected_until_it_is_heard_again() {
    let mut cluster = cluster(&["m"]);
    settled(&cluster).await;
    let pool = cluster.pool().expect("good certificates");
    let last = ask::status(&pool, cluster.nodes()[2].address, PATIENCE).await;
    let last = last.expect("it answers").id;
    let is_gone = async |cluster: &Cluster| {
        let heard = heard(cluster, last).await;
        heard.is_some_and(|heard| heard.suspicion.is_gone())
    };
    eventually("it is heard", async || {
        heard(&cluster, last).await.is_some() && !is_gone(&cluster).await
    })
    .await;
    cluster.node_mut(2).kill();
    eventually("it counts as gone", async || is_gone(&cluster).await).await;
    let status = text(&synod(&cluster, &["status"], ""));
    assert!(
        status.contains("SUSPICION") && status.contains("gone"),
        "{status}"
    );
    cluster.start_node(2).expect("it starts again");
    eventually("it is there again", async || !is_gone(&cluster).await).await;
}
