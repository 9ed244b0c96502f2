//! SIGTERM: a node hands its shards over before it goes. No call fails, and
//! clients hardly notice.

use std::time::Duration;
use synod_client::{Client, Error, Transaction};
use synod_harness::check::register;
use synod_harness::cluster::Options;
use synod_harness::history::{History, Nanos, Outcome, RegisterOp};
use synod_harness::workload::probe::{Probe, Written};
use synod_harness::workload::{Gap, Run};
use synod_tests::{connect, program, settled, start, terminate};
use tokio::task::JoinHandle;

const SPLITS: [&str; 5] = ["b", "c", "d", "e", "f"];
/// Longest time in which a client may get nothing done when a node is stopped as planned. Measured
/// on a machine with little else to do: 5 to 20 ms. What is promised is promised of a release build.
const GAP: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 100 });
/// Tests share their machine with others: one stop of three may take longer, but
/// not as long as a failover, which waits for a lease of 600 ms to end.
const LONGEST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 250 });
/// A shard that was not handed over has its failover only after the process is gone:
/// so long the node stays away, and clients are looked at.
const AWAY: Duration = Duration::from_secs(2);
/// Between two operations of a client.
const PAUSE: Duration = Duration::from_millis(5);

fn probes() -> Vec<Probe> {
    ["a", "b", "c", "d", "e", "f"]
        .map(|prefix| Probe {
            key: format!("{prefix}/probe"),
        })
        .into()
}

/// Reads under lease until the run stops, or a read fails.
async fn read(probe: Probe, client: Client, run: Run) -> Result<History<RegisterOp>, Error> {
    let mut history = History::default();
    while !run.is_stopped() {
        probe.read_into(&client, &run, &mut history).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(history)
}

/// Two counters in two shards that only change together.
struct Pair([String; 2]);

impl Pair {
    /// Counts both up until the run stops, or a transaction fails; returns when each was
    /// acknowledged.
    async fn count(self, client: Client, run: Run) -> Result<Vec<Nanos>, Error> {
        let mut acks = Vec::new();
        while !run.is_stopped() {
            let count_up = async |txn: &mut Transaction| {
                for key in &self.0 {
                    let counter = number(txn.get_for_update(key).await?.as_deref());
                    txn.put(key, (counter + 1).to_string()).await?;
                }
                Ok::<(), Error>(())
            };
            client.transact(count_up).await?;
            acks.push(run.now());
            tokio::time::sleep(PAUSE).await;
        }
        Ok(acks)
    }
}

fn pairs() -> Vec<Pair> {
    [["a", "d"], ["b", "e"], ["c", "f"]]
        .map(|prefixes| Pair(prefixes.map(|prefix| format!("{prefix}/counter"))))
        .into()
}

fn number(value: Option<&[u8]>) -> usize {
    let text = value.map_or("0".into(), String::from_utf8_lossy);
    text.parse().expect("a counter is a number")
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
    let reader = |probe| tokio::spawn(read(probe, client.clone(), run.clone()));
    let readers: Vec<_> = probes().into_iter().map(reader).collect();
    let counter = |pair: Pair| tokio::spawn(pair.count(client.clone(), run.clone()));
    let counters: Vec<_> = pairs().into_iter().map(counter).collect();
    let mut stops = Vec::new();
    for index in 0..cluster.nodes().len() {
        settled(&cluster).await;
        let from = run.now();
        terminate(&mut cluster, index);
        tokio::time::sleep(AWAY).await;
        stops.push((from, run.now()));
        cluster.start_node(index).expect("the node starts again");
    }
    settled(&cluster).await;
    run.stop();

    let mut gaps = vec![Duration::ZERO; stops.len()];
    for ((writer, reader), probe) in writers.into_iter().zip(readers).zip(probes()) {
        let mut written = writer.await.expect("a writer ends in order");
        let failed = written.history.transactions.iter();
        let failed = failed.filter(|t| !matches!(t.outcome, Outcome::Committed(_)));
        assert_eq!(failed.count(), 0, "calls failed at {}", probe.key);
        lengthen(&mut gaps, &written.acks, &stops);
        let read = reader.await.expect("a reader ends in order");
        let read = read.unwrap_or_else(|error| panic!("a read of {} failed: {error}", probe.key));
        let answers: Vec<Nanos> = read.transactions.iter().map(|t| t.completed).collect();
        lengthen(&mut gaps, &answers, &stops);
        written.history.transactions.extend(read.transactions);
        probe
            .read_into(&client, &run, &mut written.history)
            .await
            .expect("the cluster serves");
        let findings = register::check(&written.history);
        assert!(findings.is_clean(), "{findings}");
    }
    for (counter, pair) in counters.into_iter().zip(pairs()) {
        let counted = counter.await.expect("a client ends in order");
        let acks = counted.unwrap_or_else(|error| panic!("{:?}: {error}", pair.0));
        lengthen(&mut gaps, &acks, &stops);
        for key in &pair.0 {
            let value = client.get(key).await.expect("the cluster serves");
            assert_eq!(number(value.as_deref()), acks.len(), "{key}");
        }
    }
    eprintln!("longest gaps by node: {gaps:?}");
    gaps.sort();
    assert!(gaps[1] < GAP && gaps[2] < LONGEST, "{gaps:?}");
}

/// Lengthens each stop's gap to the longest one between these answers during it.
fn lengthen(gaps: &mut [Duration], answers: &[Nanos], stops: &[(Nanos, Nanos)]) {
    for (gap, (from, until)) in gaps.iter_mut().zip(stops) {
        let end = answers.partition_point(|at| at <= until);
        *gap = (*gap).max(Gap::longest(&answers[..end], *from, *until).length);
    }
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
