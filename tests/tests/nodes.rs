//! Nodes join, fill up, fall silent, are replaced, emptied and taken out, all by the
//! cluster itself, while it serves.

use std::collections::BTreeSet;
use std::time::Duration;
use synod_harness::cluster::{Cluster, ask};
use synod_rpc::Pool;
use synod_rpc::status::Health;
use synod_tests::damage::damage_log;
use synod_tests::{connect, eventually, spread, synod, text, under_load};

const LIMIT: Duration = Duration::from_secs(1);

/// A node that is silent for three seconds is replaced.
fn nodes(count: usize) -> Cluster {
    spread(count, "[placement]\ndown_seconds = 3\nlook_seconds = 1\n")
}

/// Runs the program and wants this exit status and these words.
fn says(cluster: &Cluster, arguments: &[&str], status: i32, words: &str) {
    let out = synod(cluster, arguments, "");
    let said = text(&out);
    assert_eq!(out.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(
        said.contains(words),
        "{arguments:?}: no `{words}` in: {said}"
    );
}

/// How many shards count on a node, as another one knows them, and how many replicas it
/// has, if it answers.
async fn of_node(pool: &Pool, cluster: &Cluster, asked: usize, node: usize) -> (usize, usize) {
    let map = ask::map(pool, cluster.nodes()[asked].address, LIMIT).await;
    let map = map.unwrap_or_default();
    let known = map
        .nodes
        .iter()
        .find(|n| n.name == cluster.nodes()[node].name);
    let counting = known.map_or(0, |known| {
        let shards = map.shards.iter();
        shards
            .filter(|s| s.configuration.is_member(known.id))
            .count()
    });
    let members = ask::members(pool, cluster.nodes()[node].address, None, LIMIT).await;
    let held = members.unwrap_or_default();
    let held = held.iter().filter(|m| !m.emptied && m.holds_data).count();
    (counting, held)
}

/// The nodes whose shards are led, by name.
async fn leaders(pool: &Pool, cluster: &Cluster) -> Vec<String> {
    let mut leaders = Vec::new();
    for node in cluster.nodes() {
        let members = ask::members(pool, node.address, None, LIMIT).await;
        let led = members.unwrap_or_default();
        let led = led.iter().filter(|m| m.in_office).count();
        leaders.extend(std::iter::repeat_n(node.name.clone(), led));
    }
    leaders
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_fill_up_and_leave_and_nobody_forgets_it() {
    let mut cluster = nodes(3);
    let pool = cluster.pool().expect("a pool");
    under_load(&mut cluster, async |cluster| {
        let new = cluster.add_node("region=local,dc=dc-4").expect("a node");
        let address = cluster.nodes()[new].address.to_string();
        says(cluster, &["node", "join", &address], 0, "n4 has joined");
        // Once more is harmless.
        says(
            cluster,
            &["node", "join", &address],
            0,
            "belongs to the cluster already",
        );
        eventually("the new node is filled up", async || {
            let (counting, held) = of_node(&pool, cluster, 0, new).await;
            counting >= 2 && held == counting
        })
        .await;
        // Everything goes off and on again: the first nodes still know the last.
        for node in 0..4 {
            cluster.node_mut(node).kill();
        }
        for node in 0..4 {
            cluster.start_node(node).expect("the node starts again");
        }
        for node in 0..4 {
            eventually("every node knows the new one", async || {
                of_node(&pool, cluster, node, new).await.0 >= 2
            })
            .await;
        }
        // One of the first goes for good. The others do without it, also as a memory.
        says(
            cluster,
            &["node", "decommission", "n1"],
            0,
            "may be stopped for good",
        );
        assert_eq!(of_node(&pool, cluster, new, 0).await.0, 0);
        eventually("it knows that it was taken out", async || {
            let status = ask::status(&pool, cluster.nodes()[0].address, LIMIT).await;
            status.is_ok_and(
                |s| matches!(s.health, Health::Degraded(why) if why.contains("taken out")),
            )
        })
        .await;
        cluster.node_mut(0).kill();
        says(
            cluster,
            &["node", "decommission", "n1"],
            0,
            "does not belong",
        );
        for node in 1..4 {
            cluster.node_mut(node).kill();
            cluster.start_node(node).expect("the node starts again");
        }
        eventually("no map names it", async || {
            let map = ask::map(&pool, cluster.nodes()[new].address, LIMIT).await;
            map.is_ok_and(|map| map.nodes.len() == 3)
        })
        .await;
        // It is taken in again, and used as soon as another one goes.
        cluster.start_node(0).expect("the node starts again");
        says(
            cluster,
            &["node", "rejoin", "n1"],
            0,
            "takes replicas again",
        );
        eventually("it has replicas again", async || {
            of_node(&pool, cluster, new, 0).await.1 >= 2
        })
        .await;
        says(
            cluster,
            &["node", "drain", "n2"],
            0,
            "may be stopped for good",
        );
        assert_eq!(of_node(&pool, cluster, new, 1).await.0, 0);
    })
    .await;
}

/// As the operator's guide has it: the node stays off, a new one joins, and the old one is taken out, which
/// nobody can ask any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_is_damaged_makes_room_for_a_new_one() {
    let mut cluster = spread(3, "[placement]\ndown_seconds = 3600\nlook_seconds = 1\n");
    let pool = cluster.pool().expect("a pool");
    under_load(&mut cluster, async |cluster| {
        let (_, words) = damage_log(cluster, 0);
        assert!(words.contains("is damaged at byte 512"), "{words}");
        let new = cluster.add_node("region=local,dc=dc-1").expect("a node");
        let address = cluster.nodes()[new].address.to_string();
        says(cluster, &["node", "join", &address], 0, "n4 has joined");
        let gone = ["node", "decommission", "n1"];
        says(cluster, &gone, 0, "it may stay away for good");
        let (counting, _) = of_node(&pool, cluster, 1, 0).await;
        assert_eq!(counting, 0, "nothing counts on the old one");
        eventually("the new node has what the old one had", async || {
            let (counting, held) = of_node(&pool, cluster, 1, new).await;
            counting == 4 && held == counting
        })
        .await;
        eventually("no map names the old one", async || {
            let map = ask::map(&pool, cluster.nodes()[new].address, LIMIT).await;
            map.is_ok_and(|map| map.nodes.len() == 3)
        })
        .await;
        // Now that all three are whole any one of them may go.
        cluster.node_mut(1).kill();
        let client = connect(cluster).await;
        for shard in ["a", "h", "q"] {
            let put = client.put(format!("{shard}/after"), "1").await;
            put.expect("the cluster serves");
        }
        cluster.start_node(1).expect("the node starts again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_replaced_and_used_again() {
    let mut cluster = nodes(4);
    let pool = cluster.pool().expect("a pool");
    under_load(&mut cluster, async |cluster| {
        // The keeper may be on the node that is lost.
        for lost in [0, 1] {
            let other = lost + 1;
            eventually("it holds something", async || {
                of_node(&pool, cluster, other, lost).await.1 >= 2
            })
            .await;
            cluster.node_mut(lost).kill();
            eventually("no shard counts on the lost node", async || {
                of_node(&pool, cluster, other, lost).await.0 == 0
            })
            .await;
            cluster.start_node(lost).expect("the node starts again");
        }
        eventually("the last one is used again", async || {
            of_node(&pool, cluster, 2, 1).await.1 >= 2
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_kept_and_nonsense_is_refused() {
    let cluster = nodes(4);
    let pool = cluster.pool().expect("a pool");
    says(
        &cluster,
        &["placement", "policy"],
        0,
        "the cluster: voters = 3",
    );
    let leaders_in = "voters = 3, leaders = [dc=dc-2]";
    says(
        &cluster,
        &["placement", "policy", leaders_in],
        0,
        leaders_in,
    );
    eventually("n2 leads all that it may", async || {
        let names: BTreeSet<String> = leaders(&pool, &cluster).await.into_iter().collect();
        let (counting, _) = of_node(&pool, &cluster, 0, 1).await;
        let led = leaders(&pool, &cluster).await;
        let n2 = led.iter().filter(|name| *name == "n2").count();
        names.contains("n2") && n2 == counting && led.len() == 4
    })
    .await;
    for (arguments, status, words) in [
        (&["placement", "policy", "voters = 1"][..], 2, "--anyway"),
        (&["placement", "policy", ""], 2, "says nothing"),
        (
            &["placement", "policy", "--remove", "--of", "q/"],
            2,
            "no such policy",
        ),
        (&["placement", "policy", "voters = 4"], 2, "is even"),
        (
            &["placement", "policy", "voters = 5"],
            2,
            "Nothing was changed",
        ),
        (&["placement", "policy", "survive = planet"], 2, "planet"),
        (
            &[
                "placement",
                "policy",
                "voters = 5",
                "--of",
                "a/",
                "--anyway",
            ],
            0,
            "a/…: voters = 5",
        ),
        (
            &["placement", "policy", "--remove", "--of", "a/"],
            0,
            "the cluster:",
        ),
        (
            &["placement", "apply", "--policy", "voters = 1"],
            2,
            "would undo this",
        ),
        (&["node", "drain", "n9"], 2, "there are n1, n2, n3, n4"),
        (&["node", "rejoin", "n9"], 2, "there are n1, n2, n3, n4"),
        (&["node", "join", "nowhere"], 2, "write HOST:PORT"),
        (&["node", "join", "127.0.0.1:1"], 4, "does not answer"),
        (&["placement", "auto", "off"], 0, "only people"),
        (&["placement", "show"], 0, "only people"),
        (&["placement", "auto", "on"], 0, "by itself"),
    ] {
        says(&cluster, arguments, status, words);
    }
    // A node of another cluster does not come in, nor does one from here go there.
    let other = nodes(1);
    let address = other.nodes()[0].address.to_string();
    let out = synod(&cluster, &["node", "join", &address], "");
    assert_ne!(out.status.code(), Some(0), "{}", text(&out));
}
