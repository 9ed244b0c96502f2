//! SIGTERM: a node hands its shards over before it goes. No call fails, and
//! writes hardly notice.

use std::time::Duration;
use synod_client::{Error, Transaction};
use synod_harness::check::register;
use synod_harness::cluster::Options;
use synod_harness::history::Outcome;
use synod_harness::workload::probe::{Probe, Written};
use synod_harness::workload::{Gap, Run};
use synod_tests::{connect, program, settled, start, terminate};
use tokio::task::JoinHandle;

const SPLITS: [&str; 5] = ["b", "c", "d", "e", "f"];
/// Longest time without an acknowledged write that a planned stop may cost.
/// Measured on an idle machine: 5 to 20 ms.
const GAP: Duration = Duration::from_millis(100);
/// Tests share their machine with others: one stop of three may take longer, but
/// not as long as a failover, which waits for a lease of 600 ms to end.
const LONGEST: Duration = Duration::from_millis(400);

fn probes() -> Vec<Probe> {
    ["a", "b", "c", "d", "e", "f"]
        .map(|prefix| Probe {
            key: format!("{prefix}/probe"),
        })
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_call_and_hardly_delays_any() {
    let mut options = Options::new(program());
    options.splits = SPLITS.map(str::to_owned).into();
    let mut cluster = start(options);
    let client = connect(&cluster).await;
    let run = Run::default();
    let writers: Vec<JoinHandle<Written>> = probes()
        .into_iter()
        .map(|probe| {
            let (client, run) = (client.clone(), run.clone());
            tokio::spawn(async move { probe.write(client, run).await })
        })
        .collect();
    let mut stops = Vec::new();
    for index in 0..cluster.nodes().len() {
        settled(&cluster).await;
        let from = run.now();
        terminate(&mut cluster, index);
        stops.push((from, run.now()));
        cluster.start_node(index).expect("the node starts again");
    }
    settled(&cluster).await;
    run.stop();

    let mut gaps = vec![Duration::ZERO; stops.len()];
    for (writer, probe) in writers.into_iter().zip(probes()) {
        let mut written = writer.await.expect("a writer ends in order");
        let failed = written.history.transactions.iter();
        let failed = failed.filter(|t| !matches!(t.outcome, Outcome::Committed(_)));
        assert_eq!(failed.count(), 0, "calls failed at {}", probe.key);
        for (gap, (from, until)) in gaps.iter_mut().zip(&stops) {
            let end = written.acks.partition_point(|at| at <= until);
            let stop = Gap::longest(&written.acks[..end], *from, *until);
            *gap = (*gap).max(stop.length);
        }
        probe
            .read_into(&client, &run, &mut written.history)
            .await
            .expect("the cluster serves");
        let findings = register::check(&written.history);
        assert!(findings.is_clean(), "{findings}");
    }
    eprintln!("longest gaps by node: {gaps:?}");
    gaps.sort();
    assert!(gaps[1] < GAP && gaps[2] < LONGEST, "{gaps:?}");
}

/// Shards that one commit is spread over; a third of them changes leaders when a node goes.
const MANY: usize = 48;
/// Attempts that a commit may take while that happens. With an attempt for each new leader that
/// was learned of it took 25.
const ATTEMPTS: u32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_over_many_shards_learns_of_all_new_leaders_together() {
    let keys: Vec<String> = (0..MANY).map(|n| format!("k{n:02}")).collect();
    let mut options = Options::new(program());
    options.splits = keys[1..].to_vec();
    let mut cluster = start(options);
    let client = connect(&cluster).await;
    settled(&cluster).await;
    let run = Run::default();
    let writer = tokio::spawn({
        let run = run.clone();
        async move {
            let mut most = 0;
            while !run.is_stopped() {
                let write_all = async |txn: &mut Transaction| {
                    for key in &keys {
                        txn.put(key, "v").await?;
                    }
                    Ok::<(), Error>(())
                };
                let (_, receipt) = client.transact_with_receipt(write_all).await?;
                assert_eq!(receipt.shards as usize, MANY);
                most = most.max(receipt.attempts);
            }
            Ok::<u32, Error>(most)
        }
    });
    for index in 0..2 {
        terminate(&mut cluster, index);
        cluster.start_node(index).expect("the node starts again");
        settled(&cluster).await;
    }
    run.stop();
    let most = writer.await.expect("the writer ends in order");
    let most = most.expect("no commit fails");
    eprintln!("a commit took {most} attempts at most");
    assert!(most <= ATTEMPTS, "a commit took {most} attempts");
}
