//! Real processes behind a bad network: packets lost, late, doubled and
//! overtaken, links that pass one way only, a leader that nobody hears.

use std::time::Duration;
use synod_harness::cluster::{Cluster, Options, ask};
use synod_harness::relay::{End, Link, Relay};
use synod_tests::survive::{options, progress, survive};
use synod_tests::{settled, start};

fn behind_a_relay(seed: u64) -> Options {
    let mut options = options();
    options.relay = Some(seed);
    options
}

fn relay(cluster: &Cluster) -> &Relay {
    cluster.relay().expect("the options ask for one")
}

async fn busiest(cluster: &Cluster) -> usize {
    let pool = cluster.pool().expect("good certificates");
    let busiest = ask::busiest_leader(&pool, &cluster.endpoints(), Duration::from_secs(2)).await;
    let (_, name, _) = busiest.expect("somebody leads");
    cluster.index_of(&name).expect("a node of this cluster")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_packet_in_five_is_lost_doubled_or_overtaken() {
    let mut cluster = start(behind_a_relay(1));
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 50).await;
        for share in [0.05, 0.2] {
            let link = Link::unreliable(share);
            relay(cluster).set_between_nodes(&link);
            for node in 0..cluster.nodes().len() {
                relay(cluster).set_both(End::Clients, End::Node(node), &link);
            }
            progress(meter, 50).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_packets_between_sites_only_cost_time() {
    let mut cluster = start(behind_a_relay(2));
    survive(&mut cluster, async |cluster, meter| {
        let link = Link {
            latency: Duration::from_millis(15),
            jitter: Duration::from_millis(10),
            loss: 0.01,
            ..Link::default()
        };
        relay(cluster).set_between_nodes(&link);
        progress(meter, 100).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_pass_one_way_only_stop_nobody() {
    let mut cluster = start(behind_a_relay(3));
    survive(&mut cluster, async |cluster, meter| {
        for to_others in [true, false] {
            progress(meter, 50).await;
            settled(cluster).await;
            let leader = busiest(cluster).await;
            for other in (0..cluster.nodes().len()).filter(|other| *other != leader) {
                let (mut from, mut to) = (End::Node(leader), End::Node(other));
                if !to_others {
                    (from, to) = (to, from);
                }
                relay(cluster).set(from, to, Link::broken());
            }
            progress(meter, 100).await;
            relay(cluster).set_around(leader, &Link::default(), false);
        }
        progress(meter, 50).await;
    })
    .await;
}

/// Clients still reach the node that is cut off; it must tell them nothing old.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_with_its_clients_serves_nothing_stale() {
    let mut cluster = start(behind_a_relay(4));
    survive(&mut cluster, async |cluster, meter| {
        for _ in 0..2 {
            progress(meter, 50).await;
            settled(cluster).await;
            let leader = busiest(cluster).await;
            relay(cluster).set_around(leader, &Link::broken(), false);
            progress(meter, 100).await;
            relay(cluster).set_around(leader, &Link::default(), false);
        }
        settled(cluster).await;
        progress(meter, 50).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_nobody_reaches_is_done_without() {
    let mut cluster = start(behind_a_relay(5));
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 50).await;
        settled(cluster).await;
        let leader = busiest(cluster).await;
        relay(cluster).set_around(leader, &Link::broken(), true);
        progress(meter, 100).await;
        relay(cluster).set_around(leader, &Link::default(), true);
        settled(cluster).await;
        progress(meter, 50).await;
    })
    .await;
}
