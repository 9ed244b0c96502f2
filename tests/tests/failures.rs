//! Machines are lost; acknowledged money is not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_client::{Client, Value};
use synod_harness::check::register;
use synod_harness::cluster::{Cluster, Node, USER, ask, wait_for};
use synod_harness::workload::Run;
use synod_harness::workload::probe::Probe;
use synod_rpc::{CallError, CertRole, Pool, PoolOptions, ServerBody, TlsIdentity};
use synod_shard::{ShardReply, ShardRequest};
use synod_tests::survive::{ACCOUNTS, cluster, progress, survive};
use synod_tests::{connect, eventually, settled};
use synod_txn::{Request, Response};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a leader is paused at least: longer than its lease of 600 ms and the election of the
/// next one. A connection is lost after 3 s.
const NAP: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread")]
async fn each_node_is_killed_in_turn_and_nothing_is_lost() {
    let mut cluster = cluster("");
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 50).await;
        for index in 0..cluster.nodes().len() {
            cluster.node_mut(index).kill();
            progress(meter, 100).await;
            cluster.start_node(index).expect("the node starts again");
            progress(meter, 50).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_killed_whole_comes_back_with_everything_acknowledged() {
    let mut cluster = cluster("");
    survive(&mut cluster, async |cluster, meter| {
        for _ in 0..2 {
            progress(meter, 100).await;
            for index in 0..cluster.nodes().len() {
                cluster.node_mut(index).kill();
            }
            for index in 0..cluster.nodes().len() {
                cluster.start_node(index).expect("the node starts again");
            }
        }
        progress(meter, 100).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_wakes_and_serves_nothing_stale() {
    let mut cluster = cluster("");
    survive(&mut cluster, async |cluster, meter| {
        for index in 0..cluster.nodes().len() {
            progress(meter, 50).await;
            cluster.node_mut(index).pause();
            tokio::join!(progress(meter, 50), tokio::time::sleep(NAP));
            cluster.node_mut(index).resume();
        }
        progress(meter, 100).await;
    })
    .await;
}

/// What is the newest value of a key? Asked of one node alone, whoever leads.
#[derive(Clone)]
struct Question {
    pool: Pool,
    request: ShardRequest,
}

impl Question {
    async fn about(key: &'static str, cluster: &Cluster) -> Question {
        let identity = TlsIdentity::from_dir(&cluster.certs(), CertRole::User, USER);
        let options = PoolOptions {
            // The SDK gives up a node that is silent for 800 ms. Here that one is to be heard.
            silence: PATIENCE,
            ..PoolOptions::default()
        };
        let pool = Pool::new(&identity.expect("good certificates"), options).expect("a pool");
        let map = ask::map(&pool, cluster.nodes()[0].address, PATIENCE).await;
        let map = map.expect("it answers");
        let shard = map.shard_of(key.as_bytes()).expect("every key has a shard");
        let request = ShardRequest {
            shard: shard.id,
            generation: shard.generation,
            request: Request::Latest {
                keys: vec![key.into()],
                scan: None,
            },
            hashing: None,
        };
        Question { pool, request }
    }

    /// The node's answer; none if it refuses.
    async fn ask(self, node: SocketAddr) -> Result<Option<Value>, CallError> {
        let deadline = Instant::now() + PATIENCE;
        match self.pool.call_shard(node, &self.request, deadline).await? {
            ServerBody::Shard(ShardReply::Response(Response::Read { versions, .. })) => {
                let version = versions.into_iter().next().flatten();
                Ok(version.expect("the key was written").value)
            }
            ServerBody::Shard(ShardReply::Response(Response::Refused(_))) => Ok(None),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// The node that answers it, by index.
    async fn leader(&self, cluster: &Cluster) -> usize {
        let mut leader = None;
        eventually("a leader that answers", async || {
            for (index, node) in cluster.nodes().iter().enumerate() {
                if let Ok(Some(_)) = self.clone().ask(node.address).await {
                    leader = Some(index);
                }
            }
            leader.is_some()
        })
        .await;
        leader.expect("it was found")
    }
}

/// What a leader is asked in its sleep it reads when it wakes: without a lease, and the first of it
/// before it hears of its successor. So even those who asked before the last write get that one.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_asked_while_it_sleeps_answers_nothing_stale() {
    const NAPS: u32 = 3;
    /// A nap that takes longer than this, because the others were slow, may cost the connection.
    const LONGEST_NAP: Duration = Duration::from_millis(2_500);
    let mut cluster = synod_tests::cluster(&["m"]);
    let client = connect(&cluster).await;
    let question = Question::about("a", &cluster).await;
    let (mut naps, mut round) = (0, 0);
    while naps < NAPS {
        round += 1;
        assert!(round <= 5 * NAPS, "the others are too slow to replace it");
        let old = client.put("a", format!("old {round}")).await;
        old.expect("the cluster serves");
        settled(&cluster).await;
        let index = question.leader(&cluster).await;
        let sleeper = cluster.nodes()[index].address;
        cluster.node_mut(index).pause();
        let began = Instant::now();
        wait_for("its sleep", PATIENCE, || sleeps(&cluster.nodes()[index])).expect("it sleeps");
        let mut answers = JoinSet::new();
        let mut ask_often = || {
            for _ in 0..100 {
                answers.spawn(question.clone().ask(sleeper));
            }
        };
        ask_often();
        let new = format!("new {round}");
        let put = client.put("a", new.clone()).await;
        put.expect("the others elect a leader");
        ask_often();
        tokio::time::sleep(NAP.saturating_sub(began.elapsed())).await;
        ask_often();
        let nap = began.elapsed();
        cluster.node_mut(index).resume();

        let answers = answers.join_all().await;
        let heard = answers.iter().flatten().count();
        let values: Vec<Value> = answers.into_iter().flatten().flatten().collect();
        let read = values.len();
        eprintln!("{heard} answers after {nap:?}, {read} of them values");
        let stale = values.iter().filter(|value| **value != new.as_bytes());
        assert_eq!(stale.count(), 0, "stale ones of {read} values");
        if nap < LONGEST_NAP {
            assert!(heard > 0, "it never answered");
            naps += 1;
        }
    }
}

/// Whether its process is stopped.
fn sleeps(node: &Node) -> bool {
    let pid = node.pid().expect("it runs");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.contains(") T "))
}

/// With a log this small every few hundred transactions trim it, so that a node
/// that was away needs a snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_for_long_takes_a_snapshot() {
    let mut cluster = cluster("[log]\nsegment_bytes = 1048576\ntrim_bytes = 4194304\n");
    survive(&mut cluster, async |cluster, meter| {
        progress(meter, 20).await;
        cluster.node_mut(2).kill();
        let client = connect(cluster).await;
        let bulk = vec![b'x'; 64 << 10];
        for number in 0..160 {
            put(&client, number, &bulk).await;
        }
        progress(meter, 100).await;
        cluster.start_node(2).expect("the node starts again");
        wait_for("a snapshot at n3", Duration::from_secs(60), || {
            cluster.nodes()[2]
                .log_tail(10_000)
                .contains("a snapshot is installed")
        })
        .expect("the node that was away catches up");
        // Now it must carry the load with one of the others.
        cluster.node_mut(0).kill();
        progress(meter, 100).await;
        cluster.start_node(0).expect("the node starts again");
    })
    .await;
}

async fn put(client: &Client, number: u32, value: &[u8]) {
    let key = format!("bank/{:05}/bulk/{number}", number % ACCOUNTS);
    client
        .put(key, value.to_vec())
        .await
        .expect("two of three nodes are enough");
}

/// Nodes, one, two or all at a time, at any moment, again and again.
async fn kill_again_and_again(rounds: u32) {
    let mut cluster = cluster("[log]\nsegment_bytes = 1048576\ntrim_bytes = 4194304\n");
    let mut random = 42_u64;
    survive(&mut cluster, async |cluster, meter| {
        for round in 0..rounds {
            // SplitMix64's step; which node, how many, and after how much work.
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let bits = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            progress(meter, bits % 40).await;
            let (first, count) = ((bits >> 8) % 3, [1, 1, 1, 2, 3][(bits >> 16) as usize % 5]);
            let killed: Vec<usize> = (first..first + count).map(|i| (i % 3) as usize).collect();
            for &index in &killed {
                cluster.node_mut(index).kill();
            }
            if count == 1 && round % 2 == 0 {
                progress(meter, 10).await;
            }
            for index in killed {
                cluster.start_node(index).expect("the node starts again");
            }
        }
        progress(meter, 50).await;
    })
    .await;
}

/// Whoever leads most is killed a second after the last one was, while that one
/// still votes for nobody (L5): writes go on after each kill.
#[tokio::test(flavor = "multi_thread")]
async fn leaders_killed_a_second_apart_are_replaced_each_time() {
    const KILLS: usize = 5;
    let mut cluster = synod_tests::cluster(&["m"]);
    settled(&cluster).await;
    let pool = cluster.pool().expect("good certificates");
    let client = connect(&cluster).await;
    let run = Run::default();
    let probes = ["a", "z"].map(|key| Probe {
        key: key.to_owned(),
    });
    let writers = probes.clone().map(|probe| {
        let (client, run) = (client.clone(), run.clone());
        tokio::spawn(async move { probe.write(client, run).await })
    });
    let second = Duration::from_secs(1);
    tokio::time::sleep(second).await;
    let mut kills = vec![run.now()];
    for _ in 0..KILLS {
        let next = tokio::time::sleep(second);
        let endpoints = cluster.endpoints();
        let busiest = ask::busiest_leader(&pool, &endpoints, Duration::from_millis(300)).await;
        let (_, name, _) = busiest.expect("somebody answers");
        let index = cluster.index_of(&name).expect("a node of this cluster");
        cluster.node_mut(index).kill();
        cluster.start_node(index).expect("the node starts again");
        next.await;
        kills.push(run.now());
    }
    settled(&cluster).await;
    tokio::time::sleep(second).await;
    run.stop();
    let until = run.now();
    for (writer, probe) in writers.into_iter().zip(probes) {
        let mut written = writer.await.expect("a writer ends in order");
        let gap = written.longest_gap(kills[0], until);
        let about = Duration::from_nanos(gap.from.saturating_sub(kills[0]));
        eprintln!(
            "{}: longest gap {:?}, {about:?} after the first kill",
            probe.key, gap.length
        );
        assert!(gap.length < Duration::from_secs(10), "{:?}", gap.length);
        let read = probe.read_into(&client, &run, &mut written.history).await;
        read.expect("the cluster serves");
        let findings = register::check(&written.history);
        assert!(findings.is_clean(), "{findings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_killed_ten_times_at_any_moment() {
    kill_again_and_again(10).await;
}

/// `cargo test --release -p synod-tests --test failures -- --ignored`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes; see docs/testing.md"]
async fn nodes_are_killed_two_hundred_times_at_any_moment() {
    kill_again_and_again(200).await;
}
