//! SIGTERM: a node hands its shards over before it goes. No call fails, and
//! writes hardly notice.

use std::time::Duration;
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
