//! Requests of every size and kind that clients may not send, and of the
//! largest they may; clients that vanish.

use bytes::Bytes;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use synod_client::{Effect, Error, Range};
use synod_harness::cluster::{Cluster, ask};
use synod_paxos::{GroupId, Term, Timestamp};
use synod_rpc::wire::NodeStatus;
use synod_rpc::{Pool, RequestBody, ServerBody};
use synod_shard::{ShardReply, ShardRequest};
use synod_tests::leaders::{led_evenly, terms};
use synod_tests::small::Small;
use synod_tests::{cluster, connect, peak_memory_mib, program, settled, synod, text};
use synod_txn::request::{CommitRequest, Refusal};
use synod_txn::{ClientId, Participant, Request, Response, Write};

const KEY: usize = 8 << 10;
const VALUE: usize = 8 << 20;
const TRANSACTION: usize = 64 << 20;
/// What each write of a transaction counts for beside its key and value.
const WRITE: usize = 16;
/// How long a small write may take beside large ones or scans. A debug build beside
/// other tests is slow.
const LONGEST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });
const PATIENCE: Duration = Duration::from_secs(60);

async fn statuses(cluster: &Cluster) -> Vec<NodeStatus> {
    let pool = cluster.pool().expect("good certificates");
    let mut all = Vec::new();
    for node in cluster.nodes() {
        let status = ask::status(&pool, node.address, PATIENCE).await;
        all.push(status.expect("it answers"));
    }
    all
}

/// Commands that ever reached the nodes.
async fn requests(cluster: &Cluster) -> u64 {
    let pool = cluster.pool().expect("good certificates");
    let mut sum = 0;
    for node in cluster.nodes() {
        let counters = ask::counters(&pool, node.address, PATIENCE).await;
        sum += counters.expect("it answers").requests;
    }
    sum
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, words: &str) {
    let error = result.expect_err("it is refused");
    assert_eq!(error.effect(), Effect::None);
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains(words), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_before_anything_is_sent() {
    let cluster = cluster(&["m"]);
    let client = connect(&cluster).await;
    let before = requests(&cluster).await;
    refused(client.put("k".repeat(KEY + 1), "1").await, "8192 bytes");
    refused(client.put("", "1").await, "8192 bytes");
    refused(client.get("k".repeat(KEY + 1)).await, "8192 bytes");
    refused(client.delete("k".repeat(KEY + 1)).await, "8192 bytes");
    refused(client.put("a", vec![0; VALUE + 1]).await, "8388608 bytes");
    let big = client.transact(async |txn| {
        for number in 0..9 {
            txn.put(format!("a{number}"), vec![0; VALUE]).await?;
        }
        Ok(())
    });
    refused(big.await, "67108864");
    assert_eq!(requests(&cluster).await, before, "something was sent");
}

/// A key, a value and a transaction as large as they may be; meanwhile others
/// write as ever, and no leader changes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_just_small_enough_works_and_hurts_nobody() {
    let cluster = cluster(&["m"]);
    settled(&cluster).await;
    let client = connect(&cluster).await.with_timeout(PATIENCE);
    let key = "k".repeat(KEY);
    client.put(&key, "1").await.expect("8 KiB are a key");
    assert_eq!(
        client.get(&key).await.expect("read").as_deref(),
        Some(&b"1"[..])
    );

    let before = led_evenly(&cluster).await;
    let small = Small::begin(&cluster).await;
    let value = vec![7; VALUE];
    client
        .put("a", value.clone())
        .await
        .expect("8 MiB are a value");
    assert_eq!(
        client.get("a").await.expect("read").as_deref(),
        Some(&value[..])
    );
    let count = TRANSACTION / VALUE;
    let last = VALUE - count * (WRITE + "a0".len());
    let bytes = |number| if number + 1 < count { VALUE } else { last };
    // Everything in one shard, and over both.
    for prefixes in [["a", "a"], ["a", "z"]] {
        client
            .transact(async |txn| {
                for number in 0..count {
                    let key = format!("{}{number}", prefixes[number % 2]);
                    txn.put(key, &value[..bytes(number)]).await?;
                }
                Ok(())
            })
            .await
            .expect("64 MiB are a transaction");
    }
    for (key, bytes) in [("a0", VALUE), ("z1", VALUE), ("a7", last), ("z7", last)] {
        let read = client.get(key).await.expect("read");
        assert_eq!(read.map(|v| v.len()), Some(bytes), "{key}");
    }
    let longest = small.end().await;
    assert!(longest < LONGEST, "{longest:?}");
    assert_eq!(terms(&cluster).await, before, "a leader changed");
}

/// A shard and its leader, asked without the SDK and its own checks.
struct Raw {
    pool: Pool,
    leader: SocketAddr,
    shard: GroupId,
    term: Term,
    now: Timestamp,
}

impl Raw {
    async fn new(cluster: &Cluster, shard: GroupId) -> Raw {
        let pool = cluster.pool().expect("a socket");
        let all = statuses(cluster).await;
        let leads = |n: &NodeStatus| n.shards.iter().any(|s| s.id == shard && s.in_office);
        let index = all.iter().position(leads).expect("a leader");
        let mut raw = Raw {
            pool,
            leader: cluster.nodes()[index].address,
            shard,
            term: Term::default(),
            now: Timestamp(0),
        };
        let Response::Located { term, now } = raw.ask(Request::Locate).await else {
            panic!("it does not lead");
        };
        (raw.term, raw.now) = (term, now);
        raw
    }

    async fn ask(&self, request: Request) -> Response {
        let body = RequestBody::Shard(ShardRequest {
            hashing: None,
            shard: self.shard,
            generation: 1,
            request,
        });
        let deadline = Instant::now() + PATIENCE;
        match self.pool.call(self.leader, body, deadline).await {
            Ok(ServerBody::Shard(ShardReply::Response(response))) => response,
            other => panic!("{other:?}"),
        }
    }

    /// A commit of these writes in this shard alone.
    async fn commit(&self, number: u64, writes: Vec<Write>) -> Response {
        let retry = synod_txn::client::RetrySettings::default();
        let (attempt, priority) =
            synod_txn::client::Retry::new(retry, number).next_attempt(self.now, u128::from(number));
        let anchor = Bytes::from_static(b"a");
        let participants = vec![Participant {
            anchor,
            shard: self.shard,
            term: self.term,
        }];
        self.ask(Request::Commit(Box::new(CommitRequest {
            attempt,
            priority,
            client: ClientId(1),
            session: None,
            writes,
            reads: Vec::new(),
            participants,
            here: 0,
            coordinator: 0,
            timeout_millis: 30_000,
            snapshot: None,
        })))
        .await
    }
}

/// What a client sends that does not check it itself: refused in words, and neither its
/// connection nor the node ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_by_the_node_as_well() {
    let cluster = cluster(&["m"]);
    settled(&cluster).await;
    let before = led_evenly(&cluster).await;
    let raw = Raw::new(&cluster, GroupId(2)).await;
    let write = |key: String, bytes: usize| Write {
        key: key.into(),
        value: Some(vec![7; bytes].into()),
    };
    let count = TRANSACTION / VALUE;
    let last = VALUE - count * (WRITE + "a0".len());
    let mut large: Vec<_> = { 0..count - 1 }
        .map(|number| write(format!("a{number}"), VALUE))
        .collect();
    large.push(write(format!("a{}", count - 1), last + 1));
    let requests = [
        (
            vec![write("k".repeat(KEY + 1), 1)],
            "a key of 8193 bytes is longer than 8192",
        ),
        (
            vec![write("a".to_owned(), VALUE + 1)],
            "a value of 8388609 bytes is longer than 8388608",
        ),
        (large, "the writes take 67108865 bytes, more than 67108864"),
    ];
    for (number, (writes, words)) in (1..).zip(requests) {
        let response = raw.commit(number, writes).await;
        assert!(
            matches!(&response, Response::Refused(Refusal::Invalid(why)) if why.contains(words)),
            "no `{words}` in {response:?}"
        );
    }
    let refused = ask::counters(&raw.pool, raw.leader, PATIENCE).await;
    assert_eq!(refused.expect("it answers").transport.bad_frames, 0);
    // Over the same connection, in the same term.
    let response = raw.commit(9, vec![write("a".to_owned(), 1)]).await;
    assert!(matches!(response, Response::Outcome { .. }), "{response:?}");
    assert_eq!(terms(&cluster).await, before, "a leader changed");
    let client = connect(&cluster).await;
    let rows = client.scan_page(Range::all()).await.expect("it is served");
    let keys: Vec<_> = rows.rows.iter().map(|(key, _)| &key[..]).collect();
    assert_eq!(keys, [b"a"], "something of what was refused is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_without_end_comes_in_pages() {
    let cluster = cluster(&["m"]);
    let client = connect(&cluster).await;
    let value = vec![b'v'; 1 << 20];
    for number in 0..12 {
        let key = format!("{}{number:02}", if number < 6 { "a" } else { "z" });
        client.put(key, value.clone()).await.expect("it is served");
    }
    let mut rest = Some(Range::new("", ""));
    let (mut rows, mut pages) = (0, 0);
    while let Some(range) = rest {
        let page = client.scan_page(range).await.expect("it is served");
        assert!(page.rows.len() <= 5, "{} MiB in a page", page.rows.len());
        rows += page.rows.len();
        pages += 1;
        rest = page.rest;
    }
    assert_eq!(rows, 12);
    assert!(pages >= 3, "{pages}");
}

/// Several who read everything, over and over, in as large pages as there are: nodes hold
/// some pages, never all, and small writes go on.
#[tokio::test(flavor = "multi_thread")]
async fn scans_without_end_beside_each_other_are_bounded_and_let_writes_through() {
    const SCANNERS: usize = 8;
    const VALUES: usize = 128;
    let cluster = cluster(&["m"]);
    settled(&cluster).await;
    let client = connect(&cluster).await.with_timeout(PATIENCE);
    let value = vec![b'v'; 1 << 20];
    for number in 0..VALUES {
        let key = format!("{}{number:03}", if number % 2 == 0 { "c" } else { "z" });
        client.put(key, value.clone()).await.expect("it is served");
    }
    let loaded = peak_memory_mib(&cluster);
    let small = Small::begin(&cluster).await;
    let rounds = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut scanners = tokio::task::JoinSet::new();
    for number in 0..SCANNERS {
        let client = connect(&cluster).await.with_timeout(PATIENCE);
        let (rounds, stop) = (rounds.clone(), stop.clone());
        scanners.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let all = Range::new("c", "");
                let mut rest = Some(if number % 2 == 0 { all } else { all.reverse() });
                let mut rows = 0;
                while let Some(range) = rest {
                    let page = client.scan_page(range).await.expect("it is served");
                    rows += page.rows.len();
                    rest = page.rest;
                }
                assert_eq!(rows, VALUES);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // As many as there are scanners twice over, and writes in between.
    let begun = Instant::now();
    while rounds.load(Ordering::Relaxed) < 2 * SCANNERS as u64 || small.count() < 50 {
        assert!(begun.elapsed() < PATIENCE * 2, "{rounds:?} rounds");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(scanner) = scanners.join_next().await {
        scanner.expect("it ends in order");
    }
    let longest = small.end().await;
    let peak = peak_memory_mib(&cluster);
    eprintln!("{rounds:?} rounds; {loaded} MiB before, {peak} MiB at most");
    assert!(longest < LONGEST, "{longest:?}");
    assert!(peak < loaded + 256, "{peak} MiB after {loaded} MiB");
}

/// Packets of nonsense at a node's port hurt nobody.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_at_the_port_is_ignored() {
    let cluster = cluster(&[]);
    let client = connect(&cluster).await;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut state = 1_u64;
    for length in (0..2_000).map(|n| n * 7 % 1_500) {
        let packet: Vec<u8> = (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for node in cluster.nodes() {
            let _ = socket.send_to(&packet, node.address);
        }
    }
    client.put("a", "1").await.expect("it serves");
    settled(&cluster).await;
}

/// A client that is killed while it holds a lock: others get it soon.
#[tokio::test(flavor = "multi_thread")]
async fn locks_of_a_client_that_vanished_are_freed() {
    use std::io::{BufRead, BufReader, Write};
    let cluster = cluster(&[]);
    let client = connect(&cluster).await.with_timeout(PATIENCE);
    client.put("a", "1").await.expect("it serves");
    let mut command = Command::new(program());
    command
        .args(["txn", "-", "--json", "--certs"])
        .arg(cluster.certs());
    command.args(["--endpoint", &cluster.nodes()[0].address.to_string()]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    input
        .write_all(b"begin\nlet x = get a for update\n")
        .expect("it listens");
    let mut line = String::new();
    while !line.contains("\"get\"") {
        line.clear();
        let read = output.read_line(&mut line).expect("it answers");
        assert!(read > 0, "it ended");
    }
    child.kill().expect("it runs");
    let _ = child.wait();
    let begun = Instant::now();
    client.put("a", "2").await.expect("the lock is freed");
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
}

/// Scripts with every kind of mistake: line and column, nothing sent, status 2.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_with_a_mistake_sends_nothing() {
    let cluster = cluster(&[]);
    let client = connect(&cluster).await;
    let before = requests(&cluster).await;
    let scripts = [
        ("put a 1\nbegin\n  frobnicate b\ncommit\n", 3, 3),
        ("begin\n  put a\ncommit\n", 2, 8),
        ("begin\nput a 1\n", 1, 1),
        ("put a 1\ncommit\n", 2, 1),
        ("put a \"open\n", 1, 7),
        ("put a x'0g'\n", 1, 9),
        ("put a ${b}\n", 1, 7),
        ("put a ${1 +}\n", 1, 12),
        ("begin\nrollback to nowhere\ncommit\n", 2, 1),
        ("begin read-only\nput a 1\ncommit\n", 2, 1),
        ("scan a limit many\n", 1, 14),
        ("put a 1 2\n", 1, 9),
    ];
    for (script, line, column) in scripts {
        let out = synod(&cluster, &["txn", "-"], script);
        let said = text(&out);
        assert_eq!(out.status.code(), Some(2), "{script:?}: {said}");
        assert!(said.contains("nothing was sent"), "{script:?}: {said}");
        let place = format!("line {line}, column {column}");
        assert!(said.contains(&place), "{script:?}: no `{place}` in {said}");
    }
    assert_eq!(requests(&cluster).await, before, "something was sent");
    drop(client);
}
