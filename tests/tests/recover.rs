//! A majority of every shard is lost for good, and a person decides that survivors go on
//! alone: nothing happens without him, the plan names what is in doubt, everything that the
//! survivors held is served, and a majority that returns after all revives nothing.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Duration;
use synod_client::Client;
use synod_harness::cluster::{Cluster, Options, ask};
use synod_paxos::{GroupId, NodeId};
use synod_rpc::{NodeRequest, Pool};
use synod_tests::{connect, eventually, program, settled, spread, start, synod, text};

const LIMIT: Duration = Duration::from_secs(1);
/// Nodes that are killed; the others survive.
const LOST: [usize; 3] = [0, 1, 2];
/// The survivor that leads every shard before.
const LEADER: usize = 3;
const SHARDS: [u64; 3] = [1, 2, 3];
const ROWS: u32 = 30;
/// A node that is silent for three seconds is replaced.
const QUICK: &str = "[placement]\ndown_seconds = 3\nlook_seconds = 1\n";

/// Five nodes with a replica of everything each; shard 3 begins at `m`.
fn five() -> Cluster {
    let mut options = Options::new(program());
    options.dcs = 5;
    options.replicas = 5;
    options.splits = vec!["m".to_owned()];
    options.extra_config = QUICK.to_owned();
    start(options)
}

/// Runs `synod recover …` by way of the survivors of five that have lost [`LOST`].
fn recover(cluster: &Cluster, arguments: &[&str]) -> (Option<i32>, String) {
    recover_by(cluster, &[LEADER, LEADER + 1], arguments)
}

/// Runs `synod recover …` by way of these nodes.
fn recover_by(cluster: &Cluster, by: &[usize], arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    command.arg("recover").args(arguments);
    command.arg("--certs").arg(cluster.certs());
    for node in by {
        let address = cluster.nodes()[*node].address;
        command.arg("--endpoint").arg(address.to_string());
    }
    let out: Output = command.output().expect("the program starts");
    (out.status.code(), text(&out))
}

fn key(row: u32) -> String {
    // Half of them in each shard.
    let shard = if row.is_multiple_of(2) { 'a' } else { 'z' };
    format!("{shard}/{row:03}")
}

async fn write(client: &Client, rows: std::ops::Range<u32>, value: &str) {
    for row in rows {
        client.put(key(row), value).await.expect("a write succeeds");
    }
}

async fn expect(client: &Client, rows: std::ops::Range<u32>, value: &str) {
    for row in rows {
        let read = client.get(key(row)).await.expect("a read succeeds");
        assert_eq!(read.as_deref(), Some(value.as_bytes()), "row {row}");
    }
}

/// The survivor leads every shard, and stays it.
async fn gather(cluster: &Cluster, pool: &Pool) {
    let off = synod(cluster, &["placement", "auto", "off"], "");
    assert_eq!(off.status.code(), Some(0), "{}", text(&off));
    let to = ask::status(pool, cluster.nodes()[LEADER].address, LIMIT).await;
    let to = to.expect("it answers").id;
    eventually("one survivor leads everything", async || {
        let mut led = 0;
        for node in cluster.nodes() {
            let members = ask::members(pool, node.address, None, LIMIT).await;
            for shard in members.unwrap_or_default().iter().filter(|m| m.in_office) {
                if node.address == cluster.nodes()[LEADER].address {
                    led += 1;
                } else {
                    let shard = shard.shard;
                    let request = NodeRequest::TransferLeader { shard, to };
                    let _ = ask::ask(pool, node.address, request, LIMIT).await;
                }
            }
        }
        led == SHARDS.len()
    })
    .await;
}

/// What the nodes that answer say of every shard's members: epochs, and who votes.
async fn voters(pool: &Pool, cluster: &Cluster) -> Vec<(GroupId, u32, Vec<NodeId>)> {
    let mut all = Vec::new();
    for node in cluster.nodes() {
        let members = ask::members(pool, node.address, None, LIMIT).await;
        for m in members.unwrap_or_default().iter().filter(|m| m.in_office) {
            all.push((
                m.shard,
                m.configuration.epoch.era(),
                m.configuration.voters.clone(),
            ));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn survivors_go_on_alone_and_a_majority_that_returns_does_not_revive() {
    let mut cluster = five();
    settled(&cluster).await;
    let pool = cluster.pool().expect("a pool");
    let client = connect(&cluster).await;
    write(&client, 0..ROWS, "before").await;
    gather(&cluster, &pool).await;
    let (status, said) = recover(&cluster, &["plan"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("nothing to recover"), "{said}");

    // A transaction over both shards has its locks when the majority goes; its commit reaches
    // leaders that cannot decide it any more.
    let mut transfer = client.with_timeout(Duration::from_secs(4)).begin();
    for row in [0, 1] {
        let read = transfer.get_for_update(key(row)).await;
        assert!(read.expect("it is locked").is_some());
        transfer.put(key(row), "moved").await.expect("it is noted");
    }
    for node in LOST {
        cluster.node_mut(node).kill();
    }
    let told = transfer.commit().await;
    eprintln!("the commit that nobody could decide: {told:?}");
    eventually("the plan names what is lost and in doubt", async || {
        let (status, said) = recover(&cluster, &["plan"]);
        assert_eq!(status, Some(0), "{said}");
        let lines: Vec<&str> = said.lines().collect();
        let listed = |id: u64| {
            lines
                .iter()
                .any(|l| l.starts_with(&format!("shard {id}: n")))
        };
        SHARDS.into_iter().all(listed) && said.contains("in doubt: ")
    })
    .await;
    let (_, json) = recover(&cluster, &["plan", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&json).expect("one JSON object");
    assert_eq!(plan["lost"], serde_json::json!(["n1", "n2", "n3"]));
    assert_eq!(plan["shards"][0]["id"], 1, "the meta shard comes first");
    let named: BTreeSet<String> = { plan["shards"].as_array().expect("a list").iter() }
        .flat_map(|shard| shard["in_doubt"].as_array().expect("a list"))
        .map(|t| t["txn"].to_string())
        .collect();
    assert_eq!(named.len(), 1, "one transaction is in doubt: {json}");

    refusals(&cluster);
    assert!(client.with_timeout(LIMIT).put("a/000", "x").await.is_err());
    let lost = ["apply", "--lost", "n1,n2,n3", "--yes"];
    let (status, said) = recover(&cluster, &lost);
    eprintln!("{said}");
    assert_eq!(status, Some(0), "{said}");
    for shard in SHARDS {
        assert!(said.contains(&format!("shard {shard}: led by n")), "{said}");
    }
    // Once more finds nothing to do.
    let (status, said) = recover(&cluster, &lost);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("nothing to recover"), "{said}");

    let client = connect(&cluster).await;
    expect(&client, 2..ROWS, "before").await;
    // All of it or nothing.
    let first = client.get(key(0)).await.expect("it was decided");
    let second = client.get(key(1)).await.expect("it was decided");
    assert_eq!(first, second);
    assert!(told.is_err() || first.as_deref() == Some(b"moved"));
    write(&client, 0..ROWS, "alone").await;
    revenants(&mut cluster, &pool, &client).await;
}

/// Nothing happens unless somebody knows what is lost, and says so.
fn refusals(cluster: &Cluster) {
    for (arguments, words) in [
        (&["apply"][..], "run it with --lost n1,n2,n3 --yes"),
        (&["apply", "--lost", "n1,n2,n3"], "nothing was changed"),
        (
            &["apply", "--lost", "n1,n2", "--yes"],
            "nothing was changed",
        ),
        (
            &["apply", "--lost", "n1,n2,n3,n5", "--yes"],
            "n5 answers, so it is not lost",
        ),
        (&["apply", "--lost", "n9", "--yes"], "there is no node `n9`"),
    ] {
        let (status, said) = recover(cluster, arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(!said.contains("goes on alone after"), "{said}");
    }
}

/// The lost nodes return with all they had, three of five of the old members.
async fn revenants(cluster: &mut Cluster, pool: &Pool, client: &Client) {
    for node in LOST {
        cluster.start_node(node).expect("the node starts again");
    }
    write(client, 0..ROWS, "after").await;
    let on = synod(cluster, &["placement", "auto", "on"], "");
    assert_eq!(on.status.code(), Some(0), "{}", text(&on));
    eventually(
        "every shard has five voters again, in a new era",
        async || {
            let all = voters(pool, cluster).await;
            SHARDS.iter().all(|shard| {
                let of: Vec<_> = all.iter().filter(|(id, ..)| id.0 == *shard).collect();
                of.len() == 1 && of[0].1 == 1 && of[0].2.len() == 5
            })
        },
    )
    .await;
    write(client, 0..10, "whole").await;
    settled(cluster).await;
    // A survivor goes: what those who returned hold is what was written without them.
    cluster.node_mut(LEADER).kill();
    cluster.node_mut(LEADER + 1).kill();
    let fresh = connect(cluster).await;
    expect(&fresh, 0..10, "whole").await;
    expect(&fresh, 10..ROWS, "after").await;
    write(&fresh, 0..ROWS, "last").await;
    expect(&fresh, 0..ROWS, "last").await;
}

/// Two voters of the meta shard, of the pairs the one that has most other shards' majorities.
async fn pair(pool: &Pool, cluster: &Cluster) -> [usize; 2] {
    let map = ask::map(pool, cluster.nodes()[0].address, LIMIT).await;
    let map = map.expect("a map");
    let at = |id: NodeId| {
        let node = map.node(id).expect("it is known");
        cluster.index_of(&node.name).expect("it is there")
    };
    let meta = map.shard(GroupId(1)).expect("there is one");
    let of = &meta.configuration.voters;
    let pairs = [(0, 1), (0, 2), (1, 2)].map(|(a, b)| [of[a], of[b]]);
    let lost = |pair: &[NodeId; 2]| {
        let shards = map.shards.iter();
        shards
            .filter(|s| pair.iter().all(|id| s.configuration.is_voter(*id)))
            .count()
    };
    pairs
        .into_iter()
        .max_by_key(lost)
        .expect("three pairs")
        .map(at)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_fills_up_by_itself_and_is_there_after_a_restart() {
    // Three replicas of each shard on five nodes: some shards keep their majority.
    let mut cluster = spread(5, QUICK);
    settled(&cluster).await;
    let pool = cluster.pool().expect("a pool");
    let client = connect(&cluster).await;
    write(&client, 0..ROWS, "before").await;
    let lost = pair(&pool, &cluster).await;
    let left: Vec<usize> = (0..5).filter(|node| !lost.contains(node)).collect();
    let mut names = lost.map(|node| cluster.nodes()[node].name.clone());
    names.sort();
    let gone: BTreeSet<NodeId> = {
        let map = ask::map(&pool, cluster.nodes()[left[0]].address, LIMIT).await;
        let nodes = map.expect("a map").nodes;
        let gone = nodes.iter().filter(|n| names.contains(&n.name));
        gone.map(|n| n.id).collect()
    };
    for node in lost {
        cluster.node_mut(node).kill();
    }
    let names = names.join(",");
    eventually("the plan names the meta shard", async || {
        let (_, said) = recover_by(&cluster, &left, &["plan"]);
        said.contains("shard 1: n")
    })
    .await;
    let apply = ["apply", "--lost", &names, "--yes"];
    let (status, said) = recover_by(&cluster, &left, &apply);
    eprintln!("{said}");
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("shard 1: led by n"), "{said}");

    eventually(
        "every shard has three voters among those left",
        async || {
            let all = voters(&pool, &cluster).await;
            (1..=4).all(|shard| {
                let mut of = all.iter().filter(|(id, ..)| id.0 == shard);
                of.any(|(.., voters)| {
                    voters.len() == 3 && voters.iter().all(|voter| !gone.contains(voter))
                })
            })
        },
    )
    .await;
    let client = connect(&cluster).await;
    expect(&client, 0..ROWS, "before").await;
    write(&client, 0..10, "after").await;
    for node in &left {
        cluster.node_mut(*node).kill();
    }
    for node in &left {
        cluster.start_node(*node).expect("the node starts again");
    }
    let fresh = connect(&cluster).await;
    eventually("all shards serve again", async || {
        fresh.get(key(0)).await.is_ok() && fresh.get(key(1)).await.is_ok()
    })
    .await;
    expect(&fresh, 0..10, "after").await;
    expect(&fresh, 10..ROWS, "before").await;
    let (status, said) = recover_by(&cluster, &left, &["plan"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("nothing to recover"), "{said}");
}
