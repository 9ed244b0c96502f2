//! Requests of every size and kind that clients may not send, and of the
//! largest they may; clients that vanish; many at once.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use synod_client::{Client, Effect, Error, Range};
use synod_harness::cluster::{Cluster, ask};
use synod_rpc::cert::{CertFiles, Subject};
use synod_rpc::wire::NodeStatus;
use synod_rpc::{CertRole, NodeRequest, Pool, PoolOptions, RequestBody, TlsIdentity};
use synod_tests::{cluster, connect, program, settled, synod, text};

const KEY: usize = 8 << 10;
const VALUE: usize = 8 << 20;
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
/// write as ever. No leader changes in a release build; a debug build beside
/// other tests may be too slow for 56 MiB within a lease.
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

    let terms = |all: &[NodeStatus]| {
        let led = all.iter().flat_map(|n| &n.shards).filter(|s| s.in_office);
        let mut terms: Vec<_> = led.map(|s| (s.id, s.term.clone())).collect();
        terms.sort();
        terms
    };
    let before = terms(&statuses(&cluster).await);
    let other = connect(&cluster).await.with_timeout(PATIENCE);
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let small = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        let mut count = 0_u32;
        while stopped.try_recv().is_err() {
            let begun = Instant::now();
            other
                .put("b", count.to_string())
                .await
                .expect("it is served");
            longest = longest.max(begun.elapsed());
            count += 1;
        }
        (longest, count)
    });
    let value = vec![7; VALUE];
    client
        .put("a", value.clone())
        .await
        .expect("8 MiB are a value");
    assert_eq!(
        client.get("a").await.expect("read").as_deref(),
        Some(&value[..])
    );
    // Everything in one shard, and over both.
    for prefixes in [["a", "a"], ["a", "z"]] {
        client
            .transact(async |txn| {
                for number in 0..7_usize {
                    let key = format!("{}{number}", prefixes[number % 2]);
                    txn.put(key, value.clone()).await?;
                }
                Ok(())
            })
            .await
            .expect("56 MiB are a transaction");
    }
    for key in ["a0", "z1", "a6"] {
        let read = client.get(key).await.expect("read");
        assert_eq!(read.map(|v| v.len()), Some(VALUE), "{key}");
    }
    stop.send(()).expect("it goes on till now");
    let (longest, count) = small.await.expect("it ends in order");
    eprintln!("{count} small writes beside it, the longest took {longest:?}");
    let after = terms(&statuses(&cluster).await);
    if !cfg!(debug_assertions) {
        assert_eq!(after, before, "a leader changed");
    }
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

fn identity(cluster: &Cluster) -> TlsIdentity {
    let certs = cluster.certs();
    let files = CertFiles::of(
        &certs,
        &Subject {
            role: CertRole::User,
            name: "admin".to_owned(),
        },
    );
    let ca = CertFiles::ca(&certs).certificate;
    TlsIdentity::from_files(&ca, &files.certificate, &files.key).expect("good certificates")
}

/// This many connections to one node at once, each asking; the cluster serves.
async fn many_connections(connections: usize) {
    let mut cluster = cluster(&[]);
    let tls = identity(&cluster);
    let address = cluster.nodes()[0].address;
    let mut pools = Vec::new();
    // In lots, so that handshakes do not time each other out.
    while pools.len() < connections {
        let mut lot = tokio::task::JoinSet::new();
        for _ in 0..64.min(connections - pools.len()) {
            let pool = Pool::new(&tls, PoolOptions::default()).expect("a socket");
            lot.spawn(async move {
                let deadline = Instant::now() + PATIENCE;
                let body = RequestBody::Node(NodeRequest::Info);
                pool.call(address, body, deadline)
                    .await
                    .expect("it answers");
                pool
            });
        }
        while let Some(pool) = lot.join_next().await {
            pools.push(pool.expect("no panic"));
        }
    }
    let connected = pools.iter().filter(|p| p.is_connected(address)).count();
    assert_eq!(connected, connections, "some were lost meanwhile");
    let client: Client = connect(&cluster).await;
    client.put("a", "1").await.expect("it serves");
    let pid = cluster.nodes()[0].pid().expect("it runs");
    let memory = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = memory
        .lines()
        .find(|l| l.starts_with("VmHWM"))
        .unwrap_or_default();
    eprintln!("{connections} connections: {peak}");
    // Peers get in all the same.
    cluster.node_mut(1).kill();
    cluster.start_node(1).expect("the node starts");
    settled(&cluster).await;
}

#[tokio::test]
async fn hundreds_of_connections_to_one_node_are_served() {
    many_connections(300).await;
}

/// `ulimit -n 12000; cargo test --release -p synod-tests --test requests -- --ignored`
#[tokio::test]
#[ignore = "takes a minute and 10,000 sockets; see docs/testing.md"]
async fn ten_thousand_connections_to_one_node_are_served() {
    many_connections(9_900).await;
}
