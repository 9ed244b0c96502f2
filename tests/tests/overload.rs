//! Many times the load that can be served: throughput stays, what is admitted is
//! served in bounded time, the rest is told to come back and leaves nothing behind,
//! memory stays bounded, leases hold, and what others do meanwhile stays right.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use synod_client::{Client, Range};
use synod_harness::cluster::Cluster;
use synod_harness::history::Outcome;
use synod_harness::workload::bank::Bank;
use synod_harness::workload::{Meter, Run};
use synod_paxos::GroupId;
use synod_rpc::{CallError, Pool, RequestBody, ServerBody};
use synod_shard::{ShardReply, ShardRequest};
use synod_tests::leaders::{led, led_evenly, terms};
use synod_tests::{connect, memory_mib, peak_memory_mib, settled, start, survive};
use synod_txn::request::{CommitRequest, Refusal};
use synod_txn::{ClientId, Participant, Request, Response, Write};

/// Closed loops that find the peak: the better of two, as few of them do not saturate a
/// machine and many more only queue.
const PEAK: [usize; 2] = [256, 1024];
/// The flood, in peaks: a little above the ten that are promised, as those on their way when it
/// ends do not count.
const FLOOD: f64 = 12.0;
const CONNECTIONS: usize = 12;
/// How long every sync takes longer than it would; see [`Flood`].
const SYNC: Duration = Duration::from_millis(400);

/// So many closed loops of puts for so long; commits a second.
async fn closed_loops(client: &Client, target: &Target, loops: usize, time: Duration) -> f64 {
    let (run, meter) = (Run::default(), Arc::new(Meter::default()));
    let begun = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..loops {
        let (client, run, meter) = (client.clone(), run.clone(), meter.clone());
        let prefix = target.shards[number % target.shards.len()].prefix.clone();
        callers.spawn(async move {
            let mut count = 0_u64;
            while !run.is_stopped() {
                let key = format!("{prefix}peak/{number}/{}", count % 100);
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
    while callers.join_next().await.is_some() {}
    meter.snapshot().committed as f64 / begun.elapsed().as_secs_f64()
}

/// What the flood was answered.
#[derive(Default)]
struct Answers {
    /// The calls, by their numbers, that were told that they are committed.
    committed: Mutex<Vec<u64>>,
    /// Told by a node to come back.
    overloaded: AtomicU64,
    /// Anything else, and the last such answer.
    other: AtomicU64,
    strange: Mutex<String>,
}

impl Answers {
    fn committed(&self) -> u64 {
        self.committed.lock().expect("nobody panicked").len() as u64
    }

    fn all(&self) -> u64 {
        let counters = [&self.overloaded, &self.other];
        let told = counters.map(|counter| counter.load(Ordering::Relaxed));
        self.committed() + told.iter().sum::<u64>()
    }

    fn take(&self, number: u64, answer: Result<ServerBody, CallError>) -> bool {
        let counter = match answer {
            Ok(ServerBody::Shard(ShardReply::Response(Response::Outcome {
                outcome: synod_txn::Outcome::Committed(_),
                ..
            }))) => {
                let mut committed = self.committed.lock().expect("nobody panicked");
                committed.push(number);
                return true;
            }
            // With a hint when to come back.
            Ok(ServerBody::Shard(ShardReply::Response(Response::Refused(
                Refusal::Overloaded {
                    retry_after_millis: 1..,
                },
            )))) => &self.overloaded,
            strange => {
                *self.strange.lock().expect("nobody panicked") = format!("{strange:?}");
                &self.other
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        false
    }
}

/// The flood: blind writes of one key each, so many a second, each in a call of its own.
///
/// It is an open loop: callers come when they come, whether those before them were answered or
/// not, and nobody backs off as the SDK does. Whoever is counted was answered by a node.
///
/// The disks are slow here. On good ones nodes serve some tens of thousands a second on two
/// processors, and whoever made ten times as many calls on the same two would measure himself: a
/// node that lacks a processor's time reads later, which its callers' own bounds feel, and has
/// nothing to refuse. Behind a slow disk, what is proposed waits, and a node must say that it does.
/// The peak is then that of closed loops which wait for the same disk: the flood may be served
/// beyond it, as one sync takes all that is there, and must not be below.
#[derive(Clone)]
struct Flood {
    target: Arc<Target>,
    answers: Arc<Answers>,
    latencies: Arc<Meter>,
    run: Run,
}

impl Flood {
    /// The part of one connection; returns how many calls it made.
    async fn pour(self, pool: Pool, lane: usize, rate: f64) -> u64 {
        let begun = Instant::now();
        let mut asked = 0;
        while !self.run.is_stopped() {
            let due = (begun.elapsed().as_secs_f64() * rate) as u64;
            while asked < due {
                let number = asked * CONNECTIONS as u64 + lane as u64;
                let (flood, pool) = (self.clone(), pool.clone());
                tokio::spawn(async move { flood.call(&pool, number).await });
                asked += 1;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        asked
    }

    /// One call, for a key that no other one writes.
    async fn call(&self, pool: &Pool, number: u64) {
        let shard = self.target.shard_of(number);
        let key = bytes::Bytes::from(format!("{}flood/{number:012}", shard.prefix));
        let (attempt, priority) =
            synod_txn::client::Retry::new(synod_txn::client::RetrySettings::default(), number)
                .next_attempt(shard.now(), u128::from(number));
        let request = Request::Commit(Box::new(CommitRequest {
            attempt,
            priority,
            client: ClientId(number + 1),
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
        let invoked = self.run.now();
        let deadline = Instant::now() + Duration::from_secs(20);
        let answer = pool.call(shard.leader, body, deadline).await;
        if self.answers.take(number, answer) {
            let outcome = Outcome::Committed(None);
            self.latencies.count(&self.run, invoked, outcome, 1);
        }
    }
}

/// A shard and its leader, as the flood knows them.
struct Led {
    id: GroupId,
    /// What its keys here begin with; none of them is an account's or a list's.
    prefix: String,
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

impl Target {
    fn shard_of(&self, number: u64) -> &Led {
        // Each connection sends to every shard.
        let turn = number / CONNECTIONS as u64 + number;
        &self.shards[(turn % self.shards.len() as u64) as usize]
    }
}

async fn target(cluster: &Cluster) -> Target {
    let pool = cluster.pool().expect("a socket");
    let mut shards = Vec::new();
    // All but the meta shard.
    let users = led(cluster).await.into_iter().filter(|(_, s)| s.id.0 != 1);
    for (leader, shard) in users {
        let body = RequestBody::Shard(ShardRequest {
            hashing: None,
            shard: shard.id,
            generation: 1,
            request: Request::Locate,
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        let answer = pool.call(leader, body, deadline).await;
        let Ok(ServerBody::Shard(ShardReply::Response(Response::Located { term, now }))) = answer
        else {
            panic!("{answer:?}");
        };
        let start = String::from_utf8_lossy(&shard.span.start);
        let prefix = if start.is_empty() { "a" } else { &start };
        shards.push(Led {
            id: shard.id,
            prefix: format!("{prefix}~"),
            leader,
            term,
            told: now,
            at: Instant::now(),
        });
    }
    Target { shards }
}

fn slow_syncs(cluster: &Cluster, by: Duration) {
    for node in cluster.nodes() {
        node.faults().slow_syncs(by);
    }
}

/// That exactly those calls left something behind that were told so: who was told to come back
/// was told before anything was proposed.
async fn only_what_was_committed_is_there(client: &Client, target: &Target, answers: &Answers) {
    let committed = answers.committed.lock().expect("nobody panicked").clone();
    let calls = committed.len();
    let mut missing: HashSet<u64> = committed.into_iter().collect();
    assert_eq!(missing.len(), calls, "a call was answered twice");
    for shard in &target.shards {
        let prefix = format!("{}flood/", shard.prefix);
        let mut rest = Some(Range::prefix(&prefix));
        while let Some(range) = rest {
            let page = client.scan_page(range).await.expect("it is served");
            for (key, _) in &page.rows {
                let key = String::from_utf8_lossy(key);
                let number = key.strip_prefix(&prefix).and_then(|n| n.parse().ok());
                let was_told = number.is_some_and(|number| missing.remove(&number));
                assert!(was_told, "{key} was refused, and is there");
            }
            rest = page.rest;
        }
    }
    assert!(missing.is_empty(), "committed, and gone: {missing:?}");
}

/// What a flood must show, whatever it is.
struct Promise {
    time: Duration,
    /// Of the peak, this is served.
    share: f64,
    /// Of the peak, this is offered.
    offered: f64,
}

async fn flood(promise: Promise) {
    let Promise {
        time,
        share,
        offered: wanted,
    } = promise;
    let mut options = survive::options();
    options.splits = Bank::splits(survive::ACCOUNTS, 2);
    options.faults = true;
    // For such disks: a lease outlasts several syncs, as what renews it waits for those before it, and
    // a few in a row are no reason to hand leaderships over.
    options.extra_config = "[timing]\nlease_millis = 5000\nstall_millis = 10000\n".to_owned();
    let mut cluster = start(options);
    settled(&cluster).await;
    led_evenly(&cluster).await;
    let target = Arc::new(target(&cluster).await);
    assert_eq!(target.shards.len(), 2);
    let client = connect(&cluster)
        .await
        .with_timeout(Duration::from_secs(60));
    slow_syncs(&cluster, SYNC);
    let short = time.min(Duration::from_secs(5)) / 2;
    closed_loops(&client, &target, PEAK[0], short / 2).await;
    let mut peak = 0.0_f64;
    for loops in PEAK {
        let rate = closed_loops(&client, &target, loops, short).await;
        eprintln!("{loops} closed loops: {rate:.0}/s");
        peak = peak.max(rate);
    }
    slow_syncs(&cluster, Duration::ZERO);
    let before = terms(&cluster).await;
    let at_rest = memory_mib(&cluster, "VmRSS:");

    let flood = Flood {
        target: target.clone(),
        answers: Arc::default(),
        latencies: Arc::default(),
        run: Run::default(),
    };
    let (answers, latencies) = (flood.answers.clone(), flood.latencies.clone());
    // Transfers and list appends go on beside it, and are checked afterwards.
    let mut memory = Vec::new();
    let (mut served, mut offered, mut beside) = (0.0, 0.0, 0);
    survive::survive(&mut cluster, async |cluster, meter| {
        slow_syncs(cluster, SYNC);
        let mut lanes = tokio::task::JoinSet::new();
        for lane in 0..CONNECTIONS {
            let pool = cluster.pool().expect("a socket");
            let rate = peak * FLOOD / CONNECTIONS as f64;
            lanes.spawn(flood.clone().pour(pool, lane, rate));
        }
        let begun = Instant::now();
        let before = meter.snapshot().committed;
        while begun.elapsed() < time {
            tokio::time::sleep(time / 60).await;
            memory.push(memory_mib(cluster, "VmRSS:"));
        }
        let seconds = begun.elapsed().as_secs_f64();
        served = answers.committed() as f64 / seconds;
        offered = answers.all() as f64 / seconds;
        beside = meter.snapshot().committed - before;
        flood.run.stop();
        let mut asked = 0;
        while let Some(lane) = lanes.join_next().await {
            asked += lane.expect("no caller panics");
        }
        let begun = Instant::now();
        while answers.all() < asked {
            assert!(begun.elapsed() < Duration::from_secs(30), "unanswered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        slow_syncs(cluster, Duration::ZERO);
    })
    .await;

    let p99 = Duration::from_micros(latencies.latency_micros(0.99));
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let third = memory.len() / 3;
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or_default();
    let (early, late) = (
        most(&memory[..third]),
        most(&memory[memory.len() - third..]),
    );
    eprintln!(
        "peak {peak:.0}/s; offered {offered:.0}/s, served {served:.0}/s, p99 {p99:?}; {} told to come \
         back, {} other; {beside} transactions beside it; {at_rest} MiB before, \
         {early} MiB in its first third, {late} MiB in its last, {} MiB at most",
        get(&answers.overloaded),
        get(&answers.other),
        peak_memory_mib(&cluster),
    );
    assert_eq!(terms(&cluster).await, before, "a leader changed");
    assert!(served > peak * share, "{served:.0}/s after {peak:.0}/s");
    assert!(offered >= peak * wanted, "{offered:.0}/s is no flood");
    assert!(get(&answers.overloaded) > 0, "no node was overloaded");
    assert!(p99 < Duration::from_secs(3), "{p99:?}");
    assert!(beside > 0, "others were starved");
    assert!(peak_memory_mib(&cluster) < 1024, "memory grew");
    assert!(late <= early + early / 4 + 128, "memory grows: {memory:?}");
    assert_eq!(
        get(&answers.other),
        0,
        "neither served nor told to come back: {}",
        answers.strange.lock().expect("nobody panicked")
    );
    client.put("a", "1").await.expect("it serves as before");
    only_what_was_committed_is_there(&client, &target, &answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_served_at_the_peak_and_the_rest_told_to_come_back() {
    // Five seconds on a machine shared with other tests say little of throughput, and
    // there whoever makes the flood may be the one who is slow.
    flood(Promise {
        time: Duration::from_secs(5),
        share: 0.5,
        offered: 1.0,
    })
    .await;
}

/// `cargo test --release -p synod-tests --test overload -- --ignored`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes more than a minute; see docs/testing.md"]
async fn a_flood_of_a_minute() {
    flood(Promise {
        time: Duration::from_secs(60),
        share: 0.8,
        offered: 10.0,
    })
    .await;
}
