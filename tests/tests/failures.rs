//! Machines are lost; acknowledged money is not.

use std::time::Duration;
use synod_client::Client;
use synod_harness::check::{bank, list_append};
use synod_harness::cluster::{Cluster, Options, wait_for};
use synod_harness::history::History;
use synod_harness::workload::bank::Bank;
use synod_harness::workload::list_append::Lists;
use synod_harness::workload::{Meter, Run};
use synod_tests::{connect, program, start};

const ACCOUNTS: u32 = 24;
const CLIENTS: u32 = 6;

fn bank() -> Bank {
    Bank {
        accounts: ACCOUNTS,
        initial: 1_000,
        seed: 7,
    }
}

fn cluster(extra: &str) -> Cluster {
    let mut options = Options::new(program());
    options.splits = Bank::splits(ACCOUNTS, 4);
    options.extra_config = extra.to_owned();
    start(options)
}

/// Runs transfers and list-append transactions while `disturb` does its worst,
/// then checks both histories against what is left.
async fn survive(cluster: &mut Cluster, disturb: impl AsyncFnOnce(&mut Cluster, &Meter)) {
    let client = connect(cluster).await;
    let bank = bank();
    bank.open(&client)
        .await
        .expect("the accounts can be opened");
    let lists = std::sync::Arc::new(Lists::new(ACCOUNTS, 11));
    let meter = std::sync::Arc::new(Meter::default());
    let run = Run::default();

    let mut transfers = tokio::task::JoinSet::new();
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (bank, meter) = (bank.clone(), meter.clone());
        let (client, run) = (client.clone(), run.clone());
        transfers.spawn(async move { bank.transfer(client, run, &meter, number).await });
    }
    for number in 0..CLIENTS {
        let (lists, meter) = (lists.clone(), meter.clone());
        let (client, run) = (client.clone(), run.clone());
        appends.spawn(async move { lists.client(client, run, &meter, 100 + number).await });
    }
    disturb(cluster, &meter).await;
    run.stop();

    let mut history = History::default();
    while let Some(part) = transfers.join_next().await {
        let part = part.expect("a client ends in order");
        history.transactions.extend(part.transactions);
    }
    let mut list_history = History::default();
    while let Some(part) = appends.join_next().await {
        let part = part.expect("a client ends in order");
        list_history.transactions.extend(part.transactions);
    }
    let last = bank
        .final_state(&client)
        .await
        .expect("the cluster serves again");
    let findings = bank::check(&history, &bank.initial_balances(), &last);
    assert!(findings.is_clean(), "{findings}");
    let rest = lists
        .read_all(&client, &run, 999)
        .await
        .expect("the cluster serves again");
    list_history.transactions.extend(rest.transactions);
    let findings = list_append::check(&list_history);
    assert!(findings.is_clean(), "{findings}");
}

/// Waits until `more` further transactions have committed.
async fn progress(meter: &Meter, more: u64) {
    let goal = meter.snapshot().committed + more;
    let wait = async {
        while meter.snapshot().committed < goal {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap_or_else(|_| panic!("{:?} after a minute, wanted {goal}", meter.snapshot()));
}

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
            progress(meter, 50).await;
            cluster.node_mut(index).resume();
        }
        progress(meter, 100).await;
    })
    .await;
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
