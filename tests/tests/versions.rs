//! Nodes are given a newer program one after the other while the cluster serves, and what that
//! brings begins once all have it. The next program is this one, told to claim one cluster
//! version more: then the entry that begins it is what an older one cannot follow.
#![cfg(debug_assertions)] // Only a test build may claim a version.

use std::process::Output;
use std::time::Duration;
use synod_client::Client;
use synod_harness::check::register;
use synod_harness::cluster::{Cluster, ask, wait_for};
use synod_harness::history::Outcome;
use synod_harness::workload::Run;
use synod_harness::workload::probe::{Probe, Written};
use synod_paxos::{ClusterVersion, NodeId};
use synod_rpc::placement::RecordChange;
use synod_rpc::versions::VersionsStatus;
use synod_rpc::wire::Health;
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::META_SHARD;
use synod_tests::survive::{self, progress, survive};
use synod_tests::{connect, eventually, settled, start, synod, terminate, text};
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(1);
/// What the program knows, and one more.
const NEWEST: u32 = ClusterVersion::NEWEST.0;
const NEXT: u32 = NEWEST + 1;
/// One in the first shard, one in the last.
const PROBES: [&str; 2] = ["a", "z"];

/// Runs `synod` and wants this exit status, and these words in what it says.
fn says(cluster: &Cluster, arguments: &[&str], status: i32, words: &[&str]) {
    let output: Output = synod(cluster, arguments, "");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?}: no `{word}` in: {text}");
    }
}

const UPGRADE: &[&str] = &["cluster", "upgrade"];

/// Stops a node in order, and starts it as another program.
fn restart_as(cluster: &mut Cluster, index: usize, newest: Option<u32>) {
    terminate(cluster, index);
    cluster.node_mut(index).claim_version(newest);
    cluster.start_node(index).expect("the node starts again");
}

/// Writers of which no call may fail.
fn writers(client: &Client, run: &Run) -> Vec<JoinHandle<Written>> {
    let writer = |prefix: &str| {
        let (client, run) = (client.clone(), run.clone());
        let key = format!("{prefix}/probe");
        tokio::spawn(async move { Probe { key }.write(client, run).await })
    };
    PROBES.into_iter().map(writer).collect()
}

async fn none_failed(client: &Client, run: &Run, writers: Vec<JoinHandle<Written>>) {
    run.stop();
    for (prefix, writer) in PROBES.into_iter().zip(writers) {
        let mut written = writer.await.expect("a writer ends in order");
        let failed = written.history.transactions.iter();
        let failed = failed.filter(|t| !matches!(t.outcome, Outcome::Committed(_)));
        assert_eq!(failed.count(), 0, "calls failed at {prefix}");
        let key = format!("{prefix}/probe");
        let probe = Probe { key };
        let read = probe.read_into(client, run, &mut written.history);
        read.await.expect("the cluster serves");
        let findings = register::check(&written.history);
        assert!(findings.is_clean(), "{findings}");
    }
}

/// What a node says of versions, if it answers.
async fn versions(pool: &Pool, cluster: &Cluster, index: usize) -> Option<VersionsStatus> {
    let address = cluster.nodes()[index].address;
    ask::versions(pool, address, LIMIT).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_upgraded_one_by_one_and_no_call_fails() {
    let mut cluster = survive::cluster("");
    survive(&mut cluster, async |cluster, meter| {
        let client = connect(cluster).await;
        let run = Run::default();
        let writers = writers(&client, &run);
        for index in 0..3 {
            settled(cluster).await;
            if index > 0 {
                let left = format!("n{} knows 1 to {NEWEST}", index + 1);
                says(cluster, UPGRADE, 1, &[&left, "Nothing was changed"]);
            }
            progress(meter, 50).await;
            restart_as(cluster, index, Some(NEXT));
        }
        settled(cluster).await;
        progress(meter, 50).await;
        let all = format!("cluster version {NEWEST}; all nodes know {NEXT}");
        says(cluster, &["status"], 0, &[&all]);
        let dry = ["cluster", "upgrade", "--dry-run"];
        says(cluster, &dry, 0, &["all 3 nodes know", "can be raised"]);
        let done = format!("the cluster is at version {NEXT}, in all 5 shards");
        // Again is harmless, and back there is no way.
        says(cluster, UPGRADE, 0, &[&done]);
        says(cluster, UPGRADE, 0, &[&done]);
        let back = NEWEST.to_string();
        let back = ["cluster", "upgrade", "--to", &back];
        says(cluster, &back, 2, &["never lowered"]);
        says(
            cluster,
            &["status"],
            0,
            &[&format!("cluster version {NEXT}")],
        );
        progress(meter, 50).await;
        none_failed(&client, &run, writers).await;

        restart_as(cluster, 2, None);
        wait_for("the old program's end", Duration::from_secs(30), || {
            cluster.node_mut(2).exit_status().is_some()
        })
        .expect("an old program does not start");
        let status = cluster.node_mut(2).exit_status();
        assert_eq!(status.and_then(|s| s.code()), Some(4));
        let said = cluster.nodes()[2].log_tail(5);
        let why = format!("cluster version {NEXT}, this program knows 1 to {NEWEST}: start");
        assert!(said.contains(&why), "{said}");
        // Who is silent stands in the way, too.
        says(cluster, UPGRADE, 1, &["n3: "]);
        cluster.node_mut(2).claim_version(Some(NEXT));
        cluster.start_node(2).expect("the node starts again");
        settled(cluster).await;
        progress(meter, 50).await;
    })
    .await;
    let old = cluster.add_node("region=local,dc=dc-4").expect("it starts");
    let address = cluster.nodes()[old].address.to_string();
    let why = format!("the cluster is at version {NEXT}, and node n4 knows 1 to {NEWEST}");
    says(&cluster, &["node", "join", &address], 2, &[&why]);
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_split_once_all_nodes_know_how() {
    let mut options = survive::options();
    options.version = Some(1);
    let mut cluster = start(options);
    let split = ["shard", "split", "--at", "bank/00003"];
    restart_as(&mut cluster, 0, Some(1));
    settled(&cluster).await;
    says(
        &cluster,
        &split,
        2,
        &["the cluster is at version 1", "run `synod cluster upgrade`"],
    );
    says(&cluster, UPGRADE, 1, &["n1 knows 1\n"]);
    says(&cluster, &["status"], 0, &["cluster version 1\n"]);
    restart_as(&mut cluster, 0, None);
    settled(&cluster).await;
    let to = ["cluster", "upgrade", "--to", "2"];
    says(
        &cluster,
        &to,
        0,
        &["the cluster is at version 2, in all 5 shards"],
    );
    says(&cluster, &split, 0, &["is led by"]);
    // What was split off is where the others are, and stays there.
    for index in 0..3 {
        settled(&cluster).await;
        restart_as(&mut cluster, index, None);
    }
    settled(&cluster).await;
    says(
        &cluster,
        &to,
        0,
        &["the cluster is at version 2, in all 6 shards"],
    );
}

/// Has the version raised without asking whether all nodes know it.
async fn raise_rashly(pool: &Pool, cluster: &Cluster, newer: NodeId) {
    eventually("the version is raised", async || {
        for node in cluster.nodes() {
            let change = RecordChange::Version(ClusterVersion(NEXT));
            let request = NodeRequest::ChangeRecords(Box::new(change));
            match ask::ask(pool, node.address, request, LIMIT).await {
                Ok(NodeResponse::Done) => return true,
                Err(why) if why.contains(&format!("knows cluster versions 1 to {NEWEST}, not")) => {
                    let away = NodeRequest::TransferLeader {
                        shard: META_SHARD,
                        to: newer,
                    };
                    let _ = ask::ask(pool, node.address, away, LIMIT).await;
                }
                _ => {}
            }
        }
        false
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_overtaken_votes_and_leads_nothing() {
    let mut cluster = survive::cluster("");
    let pool = cluster.pool().expect("good certificates");
    for index in 0..2 {
        settled(&cluster).await;
        restart_as(&mut cluster, index, Some(NEXT));
    }
    settled(&cluster).await;
    let first = versions(&pool, &cluster, 0).await.expect("it answers");
    raise_rashly(&pool, &cluster, first.node).await;

    eventually("the others lead, in the new version", async || {
        let mut led = 0;
        for index in 0..2 {
            let told = versions(&pool, &cluster, index).await;
            let shards = told.into_iter().flat_map(|told| told.shards);
            led += shards
                .filter(|s| s.in_office && s.version == ClusterVersion(NEXT))
                .count();
        }
        led == 5
    })
    .await;
    eventually("the old one stands still", async || {
        let told = versions(&pool, &cluster, 2).await.expect("it answers");
        told.shards.iter().all(|shard| {
            let why = shard.halted.as_deref().unwrap_or_default();
            why.contains(&format!("needs cluster version {NEXT}")) && !shard.in_office
        })
    })
    .await;
    let address = cluster.nodes()[2].address;
    let status = ask::status(&pool, address, LIMIT).await;
    let health = status.expect("it answers").health;
    let why = format!("the cluster is at version {NEXT}, and this program knows 1 to {NEWEST}");
    assert!(
        matches!(&health, Health::Degraded(said) if said.contains(&why)),
        "{health:?}"
    );

    // Its vote counts.
    let client = connect(&cluster).await;
    cluster.node_mut(1).kill();
    eventually("two of three decide", async || {
        client.put("a", "1").await.is_ok() && client.put("z", "2").await.is_ok()
    })
    .await;
    cluster.start_node(1).expect("the node starts again");
    // With the right program it goes on where it stood.
    restart_as(&mut cluster, 2, Some(NEXT));
    settled(&cluster).await;
    cluster.node_mut(1).kill();
    let read = client.get("z").await.expect("two of three serve");
    assert_eq!(read.as_deref(), Some(&b"2"[..]));
}
