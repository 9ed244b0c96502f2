//! A directory is hashed while clients run that know nothing of it: nobody reads or writes a key
//! at the place where it was before, scans come in order, and what is not allowed is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use synod_client::{Client, Range};
use synod_harness::cluster::Cluster;
use synod_tests::{connect, settled, spread, synod, text};
use synod_txn::{Hashing, Key};

const SLOTS: u64 = 64;
const KEYS: u32 = 300;
const COUNTERS: u32 = 6;

/// Runs `synod …` aside from the runtime; what it printed, if it ends with this status.
async fn run(cluster: &Cluster, arguments: &[&str], status: i32) -> String {
    let out = tokio::task::block_in_place(|| synod(cluster, arguments, ""));
    assert_eq!(
        out.status.code(),
        Some(status),
        "{arguments:?}: {}",
        text(&out)
    );
    text(&out)
}

async fn policy(cluster: &Cluster, prefix: &str, text: &str, status: i32) -> String {
    let arguments = ["placement", "policy", text, "--of", prefix];
    run(cluster, &arguments, status).await
}

fn key(n: u32) -> String {
    format!("ev/{n:08}")
}

/// All rows of a range, page by page.
async fn scanned(client: &Client, range: Range) -> Vec<String> {
    let (mut rest, mut keys) = (Some(range), Vec::new());
    while let Some(range) = rest {
        let page = client.scan_page(range).await.expect("a scan succeeds");
        keys.extend(page.rows.iter().map(|(key, _)| name(key)));
        rest = page.rest;
    }
    keys
}

async fn scanned_at_once(client: &Client, range: Range) -> Vec<String> {
    let rows = client
        .transact(async |txn| txn.scan(range.clone()).await)
        .await;
    let rows = rows.expect("a scan succeeds");
    rows.iter().map(|(key, _)| name(key)).collect()
}

fn name(key: &[u8]) -> String {
    String::from_utf8(key.to_vec()).expect("plain keys are text here")
}

/// Scans of all kinds show these keys.
async fn shows(client: &Client, wanted: &BTreeSet<String>) {
    let all: Vec<String> = wanted.iter().cloned().collect();
    let back: Vec<String> = wanted.iter().rev().cloned().collect();
    let wide = || Range::new("e", "f");
    for page in [7, 100, 1_000] {
        assert_eq!(scanned(client, wide().page_rows(page)).await, all);
        assert_eq!(
            scanned(client, wide().page_rows(page).reverse()).await,
            back
        );
        assert_eq!(scanned_at_once(client, wide().page_rows(page)).await, all);
    }
    let reverse = scanned_at_once(client, wide().reverse()).await;
    assert_eq!(reverse, back);
    let inside = |key: &&String| **key >= key_of(5) && **key < key_of(250);
    let some: Vec<String> = wanted.iter().filter(inside).cloned().collect();
    let part = || Range::new(key_of(5), key_of(250));
    assert_eq!(scanned(client, part()).await, some);
    assert_eq!(
        scanned(client, part().limit(10)).await,
        some[..10.min(some.len())]
    );
    let last: Vec<String> = some.iter().rev().take(10).cloned().collect();
    assert_eq!(
        scanned_at_once(client, part().reverse().limit(10)).await,
        last
    );
}

fn key_of(n: u32) -> String {
    key(n)
}

/// Clients that read what is not there and lock it, and once they are told to also write it.
struct Load {
    writes: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<BTreeMap<u32, u64>>>,
}

impl Load {
    fn start(clients: &[Client]) -> Load {
        let mut load = Load {
            writes: Arc::default(),
            stopped: Arc::default(),
            rounds: Arc::default(),
            tasks: Vec::new(),
        };
        for (number, client) in (0..).zip(clients) {
            let task = work(
                number,
                client.clone(),
                load.writes.clone(),
                load.stopped.clone(),
                load.rounds.clone(),
            );
            load.tasks.push(tokio::spawn(task));
        }
        load
    }

    /// Waits until all went round some times more.
    async fn goes_on(&self) {
        let wanted = self.rounds.load(Ordering::Relaxed) + 40;
        synod_tests::eventually("clients go on", async || {
            self.rounds.load(Ordering::Relaxed) >= wanted
        })
        .await;
    }

    /// How often each counter was raised.
    async fn stop(self) -> BTreeMap<u32, u64> {
        self.stopped.store(true, Ordering::Relaxed);
        let mut sums = BTreeMap::new();
        for task in self.tasks {
            for (counter, raised) in task.await.expect("a client ends in order") {
                *sums.entry(counter).or_default() += raised;
            }
        }
        sums
    }
}

fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |value| name(value).parse().expect("a number"))
}

/// Raises a counter in the directory, and one elsewhere along with it.
async fn raise(client: &Client, counter: u32, writes: bool) -> u64 {
    let both = [key(counter), format!("other/{counter:08}")];
    let raised = client.transact(async |txn| {
        let inside = number(txn.get(&both[0]).await?.as_deref());
        let outside = number(txn.get_for_update(&both[1]).await?.as_deref());
        if writes {
            txn.put(&both[0], (inside + 1).to_string()).await?;
        }
        txn.put(&both[1], (outside + 1).to_string()).await?;
        Ok(inside + 1)
    });
    raised.await.expect("a transaction succeeds")
}

async fn work(
    number_of: u32,
    client: Client,
    writes: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
) -> BTreeMap<u32, u64> {
    let mut raised = BTreeMap::new();
    let mut round = number_of;
    while !stopped.load(Ordering::Relaxed) {
        round += 1;
        let counter = round % COUNTERS;
        let may_write = writes.load(Ordering::Relaxed);
        let seen = raise(&client, counter, may_write).await;
        if may_write {
            *raised.entry(counter).or_default() += 1;
            // Real time: what was acknowledged is there for everybody, without a transaction too.
            let value = client.get(key(counter)).await.expect("a read succeeds");
            assert!(number(value.as_deref()) >= seen, "a read went back");
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    raised
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_hashed_under_clients_that_do_not_know() {
    let cluster = spread(3, "");
    settled(&cluster).await;
    let old = connect(&cluster).await;
    // Neighbours, and keys that the directory's range could be mistaken for.
    let mut wanted: BTreeSet<String> = ["ev", "ev.", "ev0", "eu/1", "ex"].map(String::from).into();
    for key in &wanted {
        old.put(key, "x").await.expect("a write succeeds");
    }
    let load = Load::start(&[old.clone(), old.clone(), connect(&cluster).await]);
    load.goes_on().await;
    let told = policy(&cluster, "ev/", "sharding = hash(64)", 0).await;
    assert!(told.contains("spread over 64 slots"), "{told}");
    load.goes_on().await;
    load.writes.store(true, Ordering::Relaxed);
    let new = connect(&cluster).await;
    let more = Load::start(std::slice::from_ref(&new));
    more.writes.store(true, Ordering::Relaxed);
    load.goes_on().await;
    more.goes_on().await;
    // A cut inside of a slot.
    let stored = Hashing::new(Key::from_static(b"ev/"), SLOTS).expect("sound");
    let stored = stored.store(&Key::from(key(2)));
    let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
    run(
        &cluster,
        &["shard", "split", "--at", &format!("x'{hex}'")],
        0,
    )
    .await;
    load.goes_on().await;
    let mut sums = load.stop().await;
    for (counter, raised) in more.stop().await {
        *sums.entry(counter).or_default() += raised;
    }
    for client in [&old, &new] {
        for counter in 0..COUNTERS {
            let value = client.get(key(counter)).await.expect("a read succeeds");
            assert_eq!(
                number(value.as_deref()),
                sums[&counter],
                "counter {counter}"
            );
        }
    }
    let rows: Vec<u32> = (0..KEYS).collect();
    for some in rows.chunks(50) {
        let put = new.transact(async |txn| {
            for n in some {
                txn.put(key(*n), n.to_string()).await?;
            }
            Ok(())
        });
        put.await.expect("a commit of many shards succeeds");
    }
    wanted.extend(rows.iter().map(|n| key(*n)));
    shows(&old, &wanted).await;
    shows(&connect(&cluster).await, &wanted).await;
    let many = old.get_many(rows.iter().map(|n| key(*n))).await;
    let many = many.expect("reads succeed");
    assert!((0..).zip(&many).all(|(n, v)| number(v.as_deref()) == n));
    tools_show_plain_keys(&cluster).await;
    refuses(&cluster, &new).await;
}

/// The command line's own reads, and lists of shards.
async fn tools_show_plain_keys(cluster: &Cluster) {
    let told = run(cluster, &["scan", "ev/", "--limit", "3"], 0).await;
    let lines: Vec<String> = told.lines().map(str::to_owned).collect();
    let wanted: Vec<String> = (0..3).map(|n| format!("{} {n}", key(n))).collect();
    assert_eq!(lines, wanted);
    let told = run(cluster, &["shard", "list"], 0).await;
    let hashed = told.lines().filter(|line| line.contains("ev/…, hash(64)"));
    assert_eq!(hashed.count(), 9, "{told}");
    let told = run(cluster, &["placement", "show"], 0).await;
    assert!(told.contains("(of ev/…, hash(64))"), "{told}");
    let script = "begin\n  let a = get ev/00000001\n  put ev/00000001 ${a + 1}\n  \
                  delete ev/00000002\n  scan ev/ limit 3\ncommit\n";
    let out = tokio::task::block_in_place(|| synod(cluster, &["txn", "-", "--json"], script));
    let told = text(&out);
    assert_eq!(out.status.code(), Some(0), "{told}");
    assert!(
        !told.contains("00000002\",\"value"),
        "its own delete shows: {told}"
    );
    let value = run(cluster, &["get", "ev/00000001"], 0).await;
    assert_eq!(value, "2");
}

/// What may not be is refused, and changes nothing.
async fn refuses(cluster: &Cluster, client: &Client) {
    for (prefix, text, said) in [
        ("ev/", "sharding = plain", "only a directory without keys"),
        (
            "ev/",
            "sharding = hash(128)",
            "only a directory without keys",
        ),
        ("other/", "sharding = hash(4)", "there is other/00000000"),
        ("new/", "sharding = hash(48)", "power of two"),
        ("new/", "sharding = hash(8192)", "power of two"),
        ("ev/1/", "sharding = hash(4)", "no other directories within"),
    ] {
        let told = policy(cluster, prefix, text, 2).await;
        assert!(told.contains(said), "{prefix} {text}: {told}");
    }
    let told = run(cluster, &["placement", "policy", "sharding = hash(4)"], 2).await;
    assert!(told.contains("name it with --of"), "{told}");
    // Again is harmless.
    policy(cluster, "ev/", "sharding = hash(64)", 0).await;
    // An empty one that was cut.
    policy(cluster, "empty/", "sharding = hash(2)", 0).await;
    let told = policy(cluster, "empty/", "sharding = plain", 2).await;
    assert!(told.contains("while it is one shard"), "{told}");
    let longest = 8_190 - "ev/".len();
    let fits = format!("ev/{}", "k".repeat(longest));
    client.put(&fits, "v").await.expect("the longest key");
    let value = client.get(&fits).await.expect("a read succeeds");
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    let error = client.put(format!("{fits}k"), "v").await;
    let error = error.expect_err("it is too long").to_string();
    assert!(
        error.contains("at most 8190 bytes, this one has 8191"),
        "{error}"
    );
}
