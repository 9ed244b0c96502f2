//! Shards are moved by hand while they serve, and by the cluster itself: so that nodes hold about
//! as much as each other and are asked about as much, at a rate that can be set.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use synod_harness::cluster::Cluster;
use synod_rpc::{Pool, ask};
use synod_tests::{connect, eventually, spread, synod, text, under_load};

const LIMIT: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

/// Looks often, and keeps little of its log: whoever comes takes in a snapshot.
fn nodes(count: usize) -> Cluster {
    let extra = "[placement]\nlook_seconds = 1\n\
                 [log]\nsegment_bytes = 1048576\ntrim_bytes = 4194304\n";
    spread(count, extra)
}

/// Runs the program, and wants this exit status and these words.
fn says(cluster: &Cluster, line: &str, status: i32, words: &str) {
    let arguments: Vec<&str> = line.split(' ').collect();
    let out = synod(cluster, &arguments, "");
    let said = text(&out);
    assert_eq!(out.status.code(), Some(status), "{line}: {said}");
    assert!(said.contains(words), "{line}: no `{words}` in: {said}");
}

/// Who holds a shard, by name; the first one leads it, if anybody does.
async fn members(pool: &Pool, cluster: &Cluster, shard: u64) -> Vec<String> {
    let (mut leader, mut members) = (Vec::new(), Vec::new());
    for node in cluster.nodes() {
        let told = ask::members(pool, node.address, None, LIMIT).await;
        let told = told.unwrap_or_default();
        let of = told.iter().find(|m| m.shard.0 == shard && !m.emptied);
        match of.map(|m| m.in_office) {
            Some(true) => leader.push(node.name.clone()),
            Some(false) => members.push(node.name.clone()),
            None => {}
        }
    }
    leader.extend(members);
    leader
}

/// Who leads each shard.
async fn leaders(pool: &Pool, cluster: &Cluster) -> BTreeMap<u64, String> {
    let mut leaders = BTreeMap::new();
    for node in cluster.nodes() {
        let told = ask::members(pool, node.address, None, LIMIT).await;
        let led = told.unwrap_or_default();
        let led = led.iter().filter(|m| m.in_office);
        leaders.extend(led.map(|m| (m.shard.0, node.name.clone())));
    }
    leaders
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_moved_by_hand_while_it_serves() {
    let mut cluster = nodes(4);
    says(&cluster, "placement auto off", 0, "only people");
    let pool = cluster.pool().expect("a pool");
    under_load(&mut cluster, async |cluster| {
        let before = members(&pool, cluster, 2).await;
        let names = cluster.nodes().iter().map(|node| node.name.clone());
        let spare = { names }.find(|name| !before.contains(name));
        let spare = spare.expect("four nodes, three replicas");
        let (leader, other) = (&before[0], &before[1]);
        // First one that only follows, then the one that leads, to where that one was.
        let line = format!("shard move 2 --from {other} --to {spare}");
        says(cluster, &line, 0, &format!("{spare} has replaced {other}"));
        says(cluster, &line, 0, "has a replica of it already");
        let line = format!("shard move 2 --from {leader} --to {other}");
        says(cluster, &line, 0, &format!("{other} has replaced {leader}"));
        let now = members(&pool, cluster, 2).await;
        assert!(now.len() == 3 && !now.contains(leader), "{now:?}");
        let line = format!("shard transfer-leader 2 {spare}");
        if now[0] != spare {
            says(cluster, &line, 0, &format!("{spare} leads it now"));
        }
        says(cluster, &line, 0, "leads it already");
        says(cluster, "shard transfer-leader 2", 0, "leads it now");
        assert_ne!(members(&pool, cluster, 2).await[0], spare);
        // What makes no sense, or no policy allows, is refused with reasons.
        says(cluster, "shard move 9 --to n1", 2, "there is no shard 9");
        says(cluster, "shard move 2 --to n9", 2, "there is no node `n9`");
        let line = format!("shard move 2 --from {leader} --to {leader}");
        says(cluster, &line, 2, "has no replica on");
        let line = format!("shard transfer-leader 2 {leader}");
        says(cluster, &line, 2, "has no voter on");
        let index = { cluster.nodes().iter() }.position(|node| node.name == *leader);
        let forbid = format!("forbid = dc=dc-{}", index.expect("a node") + 1);
        let out = synod(cluster, &["placement", "policy", &forbid], "");
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
        let line = format!("shard move 2 --from {spare} --to {leader}");
        says(cluster, &line, 2, "allows no such replica");
        let line = format!("{line} --anyway");
        says(cluster, &line, 0, &format!("{leader} has replaced {spare}"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaders_are_asked_is_evened_out_and_stays_so() {
    let cluster = nodes(3);
    says(&cluster, "placement auto off", 0, "only people");
    let pool = cluster.pool().expect("a pool");
    // By their number the leaders are even: two, one and one.
    let lead = [(2, "n1"), (3, "n1"), (4, "n2"), (1, "n3")];
    for (shard, node) in lead {
        says(
            &cluster,
            &format!("shard transfer-leader {shard} {node}"),
            0,
            "leads it",
        );
    }
    let client = connect(&cluster).await;
    let asks = |key: &'static str| {
        let client = client.clone();
        tokio::spawn(async move {
            loop {
                // Who is asked while leaders change is asked again.
                let _ = client.get(key).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let asking = ["a/1", "a/2", "a/3", "h/1", "h/2", "h/3"].map(asks);
    let requests = async || {
        let node = cluster.nodes()[0].address;
        let loads = ask::loads(&pool, node, None, LIMIT).await;
        let shards = loads.map(|loads| loads.shards).unwrap_or_default();
        let asked = shards.iter().filter(|load| load.requests > 100);
        asked.count()
    };
    eventually("the load is known", async || requests().await == 2).await;
    says(&cluster, "placement auto on", 0, "by itself");
    let apart = async || {
        let leaders = leaders(&pool, &cluster).await;
        leaders.len() == 4 && leaders.get(&2) != leaders.get(&3)
    };
    eventually("the two that are asked are led by two nodes", apart).await;
    says(&cluster, "placement show", 0, "ASKED/S");
    let before = leaders(&pool, &cluster).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        leaders(&pool, &cluster).await,
        before,
        "it does not go to and fro"
    );
    asking.iter().for_each(|task| task.abort());
}

/// Bytes of copies that all nodes have sent.
async fn sent(pool: &Pool, cluster: &Cluster) -> u64 {
    let mut sent = 0;
    for node in cluster.nodes() {
        let copies = ask::copies(pool, node.address, None, LIMIT).await;
        sent += copies.map_or(0, |copies| copies.sent);
    }
    sent
}

/// What `synod placement show` says each node holds; bytes by name.
fn held(cluster: &Cluster) -> BTreeMap<String, u64> {
    let out = synod(cluster, &["placement", "show", "--json"], "");
    let shown: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let nodes = shown["nodes"].as_array().expect("nodes");
    let held = nodes.iter().map(|node| {
        let name = node["node"].as_str().unwrap_or_default().to_owned();
        (name, node["bytes"].as_u64().unwrap_or(0))
    });
    held.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_is_filled_with_its_part_of_the_bytes_at_the_rate_that_is_set() {
    let mut cluster = nodes(3);
    let pool = cluster.pool().expect("a pool");
    says(
        &cluster,
        "shard auto --copy-rate 1MiB",
        2,
        "shard.copy_rate is from",
    );
    says(
        &cluster,
        "shard auto --size 0 --copy-rate 4MiB",
        0,
        "shard.copy_rate = 4194304",
    );
    for node in cluster.nodes() {
        eventually("every node knows the rate", async || {
            let copies = ask::copies(&pool, node.address, None, LIMIT).await;
            copies.is_ok_and(|copies| copies.rate == 4 * MIB)
        })
        .await;
    }
    let client = connect(&cluster).await;
    let value = vec![b'v'; 64 << 10];
    for shard in ["a", "h", "q"] {
        for key in 0..256 {
            let put = client.put(format!("{shard}/bulk/{key}"), value.clone());
            put.await.expect("the cluster serves");
        }
    }
    eventually("sizes are known", async || {
        held(&cluster).values().all(|b| *b >= 48 * MIB)
    })
    .await;
    let before = sent(&pool, &cluster).await;
    let new = cluster.add_node("region=local,dc=dc-4").expect("a node");
    let address = cluster.nodes()[new].address.to_string();
    says(
        &cluster,
        &format!("node join {address}"),
        0,
        "n4 has joined",
    );
    let begun = Instant::now();
    eventually("the new node holds its part", async || {
        let copies = ask::copies(&pool, cluster.nodes()[new].address, None, LIMIT).await;
        let taken = copies.map_or(0, |copies| copies.taken);
        let held = held(&cluster).get("n4").copied().unwrap_or(0);
        taken >= 32 * MIB && held >= 32 * MIB
    })
    .await;
    let (took, sent) = (begun.elapsed(), sent(&pool, &cluster).await - before);
    eprintln!("{} MiB in {took:?}", sent / MIB);
    // Two copies of sixteen at least; three senders may send at once.
    assert!(sent >= 32 * MIB, "{sent}");
    let allowed = 3 * 4 * MIB * (took.as_secs() + 1) + 3 * MIB;
    assert!(
        sent <= allowed && took > Duration::from_secs(3),
        "{sent} in {took:?}"
    );
    for shard in ["a", "h", "q"] {
        let read = client
            .get(format!("{shard}/bulk/255"))
            .await
            .expect("a read");
        assert_eq!(read.map(|value| value.len()), Some(64 << 10));
    }
}
