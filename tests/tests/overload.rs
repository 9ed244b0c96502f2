//! Many times the load that can be served: throughput stays, what is admitted is
//! served in bounded time, the rest is told to come back, leases hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use synod_client::Client;
use synod_harness::cluster::{Cluster, ask};
use synod_harness::history::Outcome;
use synod_harness::workload::{Meter, Run};
use synod_paxos::GroupId;
use synod_rpc::{Pool, RequestBody, ServerBody};
use synod_shard::{ShardReply, ShardRequest};
use synod_tests::{cluster, connect, settled};
use synod_txn::request::{CommitRequest, Refusal};
use synod_txn::{ClientId, Participant, Request, Response, Write};

/// Clients of the peak: enough to be saturated.
const PEAK: usize = 64;
/// Calls of the flood under way at once, over all its connections.
const FLOOD: usize = 12_000;
const CONNECTIONS: usize = 12;

/// Terms of all leaders.
async fn terms(cluster: &Cluster) -> Vec<(GroupId, String)> {
    let pool = cluster.pool().expect("good certificates");
    let mut terms = Vec::new();
    for node in cluster.nodes() {
        let status = ask::status(&pool, node.address, Duration::from_secs(30)).await;
        let shards = status.expect("it answers").shards;
        terms.extend(
            shards
                .into_iter()
                .filter(|s| s.in_office)
                .map(|s| (s.id, s.term)),
        );
    }
    terms.sort();
    terms
}

/// Waits until each shard is led by who is meant to: whoever else came first hands over to it, and that is
/// no lease lost.
async fn led_as_preferred(cluster: &Cluster) {
    let begun = Instant::now();
    loop {
        let terms = terms(cluster).await;
        // A ballot names a priority only of who has one.
        if terms.len() >= 3 && terms.iter().all(|(_, term)| term.contains('^')) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "{terms:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Closed loops of puts for so long; commits a second.
async fn closed_loops(client: &Client, meter: &Arc<Meter>, time: Duration) -> f64 {
    let run = Run::default();
    let before = meter.snapshot().committed;
    let begun = Instant::now();
    let mut loops = tokio::task::JoinSet::new();
    for number in 0..PEAK {
        let (client, run, meter) = (client.clone(), run.clone(), meter.clone());
        loops.spawn(async move {
            let mut count = 0_u64;
            while !run.is_stopped() {
                let key = format!("{}{number}/{}", ["a", "z"][number % 2], count % 100);
                let invoked = run.now();
                let put = client.put(key, vec![7; 128]).await;
                let outcome = match put {
                    Ok(_) => Outcome::Committed(None),
                    Err(_) => Outcome::Aborted,
                };
                meter.count(&run, invoked, outcome, 1);
                count += 1;
            }
        });
    }
    tokio::time::sleep(time).await;
    run.stop();
    while loops.join_next().await.is_some() {}
    (meter.snapshot().committed - before) as f64 / begun.elapsed().as_secs_f64()
}

/// What the flood was answered.
#[derive(Default)]
struct Answers {
    committed: AtomicU64,
    overloaded: AtomicU64,
    other: AtomicU64,
}

/// One caller of the flood: blind writes of its own keys, one after the other,
/// at once again when it was refused. It never backs off as the SDK does.
async fn hammer(
    pool: Pool,
    cluster: Arc<Target>,
    number: usize,
    answers: Arc<Answers>,
    latencies: Arc<Meter>,
    run: Run,
) {
    let mut count = 0_u64;
    while !run.is_stopped() {
        let shard = &cluster.shards[number % cluster.shards.len()];
        let key = bytes::Bytes::from(format!("{}flood/{number}/{}", shard.prefix, count % 10));
        let (attempt, priority) = synod_txn::client::Retry::new(
            synod_txn::client::RetrySettings::default(),
            number as u64,
        )
        .next_attempt(shard.now(), ((number as u128) << 64) | u128::from(count));
        let request = Request::Commit(Box::new(CommitRequest {
            attempt,
            priority,
            client: ClientId(number as u64 + 1),
            session: None,
            writes: vec![Write {
                key: key.clone(),
                value: Some(bytes::Bytes::from_static(&[7; 128])),
            }],
            reads: Vec::new(),
            participants: vec![Participant {
                anchor: key,
                shard: shard.id,
                term: shard.term,
            }],
            here: 0,
            coordinator: 0,
            timeout_millis: 5_000,
            snapshot: None,
        }));
        let body = RequestBody::Shard(ShardRequest {
            hashing: None,
            shard: shard.id,
            generation: 1,
            request,
        });
        let invoked = run.now();
        let deadline = Instant::now() + Duration::from_secs(20);
        let answer = pool.call(shard.leader, body, deadline).await;
        count += 1;
        match answer {
            Ok(ServerBody::Shard(ShardReply::Response(Response::Outcome { .. }))) => {
                answers.committed.fetch_add(1, Ordering::Relaxed);
                latencies.count(&run, invoked, Outcome::Committed(None), 1);
            }
            Ok(ServerBody::Shard(ShardReply::Response(Response::Refused(
                Refusal::Overloaded { retry_after_millis },
            )))) => {
                assert!(retry_after_millis > 0, "a hint when to come back");
                answers.overloaded.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                answers.other.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A shard and its leader, as the flood knows them.
struct Led {
    id: GroupId,
    prefix: &'static str,
    leader: std::net::SocketAddr,
    term: synod_paxos::Term,
    told: synod_paxos::Timestamp,
    at: Instant,
}

impl Led {
    fn now(&self) -> synod_paxos::Timestamp {
        let passed = u64::try_from(self.at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.told.plus(passed)
    }
}

struct Target {
    shards: Vec<Led>,
}

async fn target(cluster: &Cluster, pool: &Pool) -> Target {
    let mut shards = Vec::new();
    for node in cluster.nodes() {
        let status = ask::status(pool, node.address, Duration::from_secs(10)).await;
        for shard in status.expect("it answers").shards {
            let prefix = match shard.id.0 {
                2 => "a",
                3 => "z",
                _ => continue,
            };
            if !shard.in_office {
                continue;
            }
            let body = RequestBody::Shard(ShardRequest {
                hashing: None,
                shard: shard.id,
                generation: 1,
                request: Request::Locate,
            });
            let deadline = Instant::now() + Duration::from_secs(10);
            let answer = pool.call(node.address, body, deadline).await;
            let Ok(ServerBody::Shard(ShardReply::Response(Response::Located { term, now }))) =
                answer
            else {
                panic!("{answer:?}");
            };
            shards.push(Led {
                id: shard.id,
                prefix,
                leader: node.address,
                term,
                told: now,
                at: Instant::now(),
            });
        }
    }
    assert_eq!(shards.len(), 2);
    Target { shards }
}

fn peak_memory_mib(cluster: &Cluster) -> u64 {
    let of = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let pids = cluster.nodes().iter().filter_map(|n| n.pid());
    pids.filter_map(of).max().unwrap_or_default() / 1024
}

/// `share` of the peak must be served.
async fn flood(time: Duration, share: f64) {
    let cluster = cluster(&["m"]);
    settled(&cluster).await;
    led_as_preferred(&cluster).await;
    let client = connect(&cluster).await;
    let warm = Arc::new(Meter::default());
    closed_loops(&client, &warm, Duration::from_secs(1)).await;
    let meter = Arc::new(Meter::default());
    let peak = closed_loops(&client, &meter, time.min(Duration::from_secs(5))).await;
    let before = terms(&cluster).await;

    let pools: Vec<Pool> = (0..CONNECTIONS)
        .map(|_| cluster.pool().expect("a socket"))
        .collect();
    let target = Arc::new(target(&cluster, &pools[0]).await);
    let (answers, latencies) = (Arc::new(Answers::default()), Arc::new(Meter::default()));
    let run = Run::default();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..FLOOD {
        callers.spawn(hammer(
            pools[number % CONNECTIONS].clone(),
            target.clone(),
            number,
            answers.clone(),
            latencies.clone(),
            run.clone(),
        ));
    }
    let begun = Instant::now();
    tokio::time::sleep(time).await;
    let served = answers.committed.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    run.stop();
    while let Some(ended) = callers.join_next().await {
        ended.expect("no caller panics");
    }

    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let p99 = Duration::from_micros(latencies.latency_micros(0.99));
    eprintln!(
        "peak {peak:.0}/s; under the flood {served:.0}/s, p99 {p99:?}, {} overloaded, {} other; \
         {} MiB",
        get(&answers.overloaded),
        get(&answers.other),
        peak_memory_mib(&cluster)
    );
    assert_eq!(terms(&cluster).await, before, "a leader changed");
    assert!(served > peak * share, "{served:.0}/s after {peak:.0}/s");
    assert!(p99 < Duration::from_secs(3), "{p99:?}");
    assert!(peak_memory_mib(&cluster) < 1024, "memory grew");
    assert_eq!(
        get(&answers.other),
        0,
        "neither served nor told to come back"
    );
    client.put("a", "1").await.expect("it serves as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_served_at_the_peak_and_the_rest_told_to_come_back() {
    // Five seconds on a machine shared with other tests say little of throughput.
    flood(Duration::from_secs(5), 0.5).await;
}

/// `cargo test --release -p synod-tests --test overload -- --ignored`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes more than a minute; see docs/testing.md"]
async fn a_flood_of_a_minute() {
    flood(Duration::from_secs(60), 0.8).await;
}
