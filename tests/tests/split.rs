//! Shards are split and merged by hand while they serve: no request fails, nothing is lost, and
//! what was split or merged stays so, whoever is killed afterwards.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_client::{Client, Range};
use synod_harness::check::bank as check;
use synod_harness::cluster::{Cluster, ask};
use synod_harness::history::History;
use synod_harness::workload::bank::Bank;
use synod_harness::workload::{Meter, Run};
use synod_paxos::GroupId;
use synod_rpc::cert::{self, Validity};
use synod_rpc::{Pool, RequestBody, ServerBody};
use synod_shard::{META_SHARD, ShardDescriptor, ShardMap, ShardReply, ShardRequest};
use synod_tests::{connect, eventually, program, settled, spread, survive, synod, text};
use synod_txn::{Request, Response};
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(1);
const ACCOUNTS: u32 = 24;
const CLIENTS: u32 = 4;
/// Where the shard with all accounts is cut, and the ids that the new shards get: the first
/// ones are 1 to 4.
const CUTS: [(&str, u64); 3] = [("bank/00012", 5), ("bank/00018", 6), ("bank/00006", 7)];

fn bank() -> Bank {
    Bank {
        accounts: ACCOUNTS,
        initial: 1_000,
        seed: 3,
    }
}

fn spawn(cluster: &Cluster, arguments: &[&str]) -> std::process::Child {
    spawn_to("split", cluster, arguments)
}

fn spawn_to(what: &str, cluster: &Cluster, arguments: &[&str]) -> std::process::Child {
    let mut command = Command::new(program());
    command.args(["shard", what]).args(arguments);
    command.arg("--certs").arg(cluster.certs());
    for endpoint in cluster.endpoints() {
        command.arg("--endpoint").arg(endpoint.to_string());
    }
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

async fn ends(child: std::process::Child) -> Output {
    let out = tokio::task::spawn_blocking(move || child.wait_with_output());
    out.await.expect("it ends").expect("its output is read")
}

/// Runs `synod shard split …` aside from the runtime, and wants it to succeed.
async fn split(cluster: &Cluster, arguments: &[&str]) -> String {
    let out = ends(spawn(cluster, arguments)).await;
    assert_eq!(out.status.code(), Some(0), "{arguments:?}: {}", text(&out));
    text(&out)
}

/// Runs `synod shard merge …` likewise.
async fn merge(cluster: &Cluster, arguments: &[&str]) -> String {
    let out = ends(spawn_to("merge", cluster, arguments)).await;
    assert_eq!(out.status.code(), Some(0), "{arguments:?}: {}", text(&out));
    text(&out)
}

/// Transfers and reads that must all succeed, until stopped.
struct Load {
    client: Client,
    run: Run,
    meter: Arc<Meter>,
    transfers: Vec<JoinHandle<History<synod_harness::history::BankOp>>>,
    readers: Vec<JoinHandle<u64>>,
}

impl Load {
    async fn start(cluster: &Cluster) -> Load {
        let client = connect(cluster).await;
        let bank = bank();
        bank.open(&client)
            .await
            .expect("the accounts can be opened");
        let (run, meter) = (Run::default(), Arc::new(Meter::default()));
        let transfer = |number| {
            let (bank, meter) = (bank.clone(), meter.clone());
            let (client, run) = (client.clone(), run.clone());
            tokio::spawn(async move { bank.transfer(client, run, &meter, number).await })
        };
        let transfers = (0..CLIENTS).map(transfer).collect();
        let reader = |kind| tokio::spawn(read(client.clone(), run.clone(), kind));
        let readers = [Kind::Get, Kind::Scan, Kind::Audit].map(reader).into();
        Load {
            client,
            run,
            meter,
            transfers,
            readers,
        }
    }

    /// Stops it. Nobody was told of a failure, and money was neither made nor lost.
    async fn stop(self) {
        survive::progress(&self.meter, 50).await;
        self.run.stop();
        let mut history = History::default();
        for transfer in self.transfers {
            let part = transfer.await.expect("a client ends in order");
            history.transactions.extend(part.transactions);
        }
        for reader in self.readers {
            let reads = reader.await.expect("no read fails");
            assert!(reads > 10, "hardly anything was read");
        }
        let told = self.meter.snapshot();
        eprintln!("{told:?}");
        assert_eq!((told.aborted, told.unknown), (0, 0), "{told:?}");
        let last = bank().final_state(&self.client).await;
        let last = last.expect("the cluster serves");
        let findings = check::check(&history, &bank().initial_balances(), &last);
        assert!(findings.is_clean(), "{findings}");
    }
}

/// What a reader reads.
#[derive(Clone, Copy)]
enum Kind {
    Get,
    Scan,
    Audit,
}

/// Reads all accounts again and again; every read succeeds. Returns how many there were.
async fn read(client: Client, run: Run, kind: Kind) -> u64 {
    let mut reads = 0;
    while !run.is_stopped() {
        match kind {
            Kind::Get => {
                let key = format!("bank/{:05}/balance", reads % u64::from(ACCOUNTS));
                let value = client.get(key).await.expect("a read succeeds");
                assert!(value.is_some());
            }
            Kind::Scan => {
                let count = balances(&client).await.len();
                assert_eq!(count, ACCOUNTS as usize);
            }
            Kind::Audit => {
                let all = bank().balances(&client).await.expect("an audit succeeds");
                assert_eq!(all.iter().sum::<i64>(), 1_000 * i64::from(ACCOUNTS));
            }
        }
        reads += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    reads
}

/// All balances, by a scan of their accounts' first keys.
async fn balances(client: &Client) -> Vec<i64> {
    let mut balances = Vec::new();
    for account in 0..ACCOUNTS {
        // A page each: what lies between are the markers of all transfers so far.
        let range = Range::prefix(format!("bank/{account:05}/b"));
        let page = client.scan_page(range).await.expect("a scan succeeds");
        for (_, value) in page.rows {
            let value = std::str::from_utf8(&value).expect("a number");
            balances.push(value.parse().expect("a number"));
        }
    }
    balances
}

/// The map of every node.
async fn maps(pool: &Pool, cluster: &Cluster) -> Vec<ShardMap> {
    let mut maps = Vec::new();
    for node in cluster.nodes() {
        maps.push(
            ask::map(pool, node.address, LIMIT)
                .await
                .unwrap_or_default(),
        );
    }
    maps
}

/// Whether a map has a shard with this id that begins there, and no holes.
fn knows(map: &ShardMap, id: u64, start: &str) -> bool {
    let shard = map.shard(GroupId(id));
    map.is_whole() && shard.is_some_and(|shard| shard.span.start == start.as_bytes())
}

/// The shards in the meta shard's rows that begin at these keys.
async fn rows(pool: &Pool, cluster: &Cluster, starts: &[&str]) -> Vec<ShardDescriptor> {
    let key = |start: &&str| [b"\xff\xff/shards/", start.as_bytes()].concat().into();
    let request = ShardRequest {
        hashing: None,
        shard: META_SHARD,
        generation: 0,
        request: Request::Latest {
            keys: starts.iter().map(key).collect(),
            scan: None,
        },
    };
    for node in cluster.nodes() {
        let body = RequestBody::Shard(request.clone());
        let answer = pool.call(node.address, body, Instant::now() + LIMIT).await;
        if let Ok(ServerBody::Shard(ShardReply::Response(Response::Read { versions, .. }))) = answer
        {
            let values = versions.into_iter().filter_map(|version| version?.value);
            let shard = |value: bytes::Bytes| postcard::from_bytes(&value);
            return values.map(|v| shard(v).expect("a descriptor")).collect();
        }
    }
    Vec::new()
}

/// Every node and the meta shard's rows know all new shards.
async fn everybody_knows(cluster: &Cluster, pool: &Pool) {
    eventually("every node knows the new shards", async || {
        let maps = maps(pool, cluster).await;
        maps.iter()
            .all(|map| CUTS.iter().all(|(at, id)| knows(map, *id, at)))
    })
    .await;
    let starts = CUTS.map(|(at, _)| at);
    eventually("the meta shard knows the new shards", async || {
        let rows = rows(pool, cluster, &starts).await;
        let ids: BTreeSet<u64> = rows.iter().map(|shard| shard.id.0).collect();
        ids == CUTS.iter().map(|(_, id)| *id).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_split_while_money_moves() {
    let mut cluster = spread(3, "");
    let pool = cluster.pool().expect("a pool");
    let load = Load::start(&cluster).await;
    for (at, id) in CUTS {
        survive::progress(&load.meter, 30).await;
        let told = split(&cluster, &["--at", at]).await;
        eprint!("{told}");
        assert!(told.contains(&format!("shard {id}: {at} to ")), "{told}");
        assert!(told.contains("is led by"), "{told}");
        // Once more changes nothing.
        let told = split(&cluster, &["--at", at]).await;
        assert!(told.contains("begins there already"), "{told}");
    }
    load.stop().await;
    everybody_knows(&cluster, &pool).await;
    settled(&cluster).await;
    let status = synod(&cluster, &["status"], "");
    assert_eq!(status.status.code(), Some(0), "{}", text(&status));
    for (at, _) in CUTS {
        assert!(text(&status).contains(at), "{}", text(&status));
    }

    // A node is killed, and everything is; both halves of each split come back.
    let reader = connect(&cluster).await;
    let before = balances(&reader).await;
    assert_eq!(before.iter().sum::<i64>(), 1_000 * i64::from(ACCOUNTS));
    cluster.node_mut(0).kill();
    assert_eq!(balances(&reader).await, before);
    cluster.start_node(0).expect("the node starts again");
    settled(&cluster).await;
    for node in 0..3 {
        cluster.node_mut(node).kill();
    }
    for node in 0..3 {
        cluster.start_node(node).expect("the node starts again");
    }
    settled(&cluster).await;
    everybody_knows(&cluster, &pool).await;
    assert_eq!(balances(&reader).await, before);
    let fresh = connect(&cluster).await;
    assert_eq!(balances(&fresh).await, before);
    for (at, _) in CUTS {
        let key = format!("{at}/after");
        fresh.put(&key, "1").await.expect("the new shard serves");
        let value = reader.get(&key).await.expect("the new shard serves");
        assert_eq!(value.as_deref(), Some(&b"1"[..]));
    }
    // Ids go on where they were.
    let told = split(&cluster, &["--at", "bank/00021"]).await;
    assert!(told.contains("shard 8: bank/00021 to "), "{told}");
}

/// Which shards there are, in the order of their keys, as every node says.
async fn everybody_has(cluster: &Cluster, pool: &Pool, ids: &[u64]) {
    eventually("every node knows the same shards", async || {
        let maps = maps(pool, cluster).await;
        let same = |map: &ShardMap| {
            map.is_whole() && map.shards.iter().map(|s| s.id.0).eq(ids.iter().copied())
        };
        maps.iter().all(same)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_are_merged_while_money_moves() {
    let mut cluster = spread(3, "");
    let pool = cluster.pool().expect("a pool");
    for (at, _) in CUTS {
        split(&cluster, &["--at", at]).await;
    }
    everybody_has(&cluster, &pool, &[2, 7, 5, 6, 3, 4, 1]).await;
    let load = Load::start(&cluster).await;
    let pairs = [("5", "6"), ("7", "5"), ("2", "7"), ("2", "3")];
    for (left, right) in pairs {
        survive::progress(&load.meter, 30).await;
        let told = merge(&cluster, &[left]).await;
        eprint!("{told}");
        assert!(
            told.contains(&format!("shard {right} is part of it")),
            "{told}"
        );
    }
    load.stop().await;
    everybody_has(&cluster, &pool, &[2, 4, 1]).await;
    settled(&cluster).await;

    // What made the cluster may be said again; the shards are no longer those that it named.
    let again = synod(&cluster, &["init", "--split", "g", "--split", "p"], "");
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    assert!(
        text(&again).contains("3 nodes, 3 shards"),
        "{}",
        text(&again)
    );

    // Everything is killed, and comes back as it was; what is one can be split again.
    let reader = connect(&cluster).await;
    let before = balances(&reader).await;
    assert_eq!(before.iter().sum::<i64>(), 1_000 * i64::from(ACCOUNTS));
    for node in 0..3 {
        cluster.node_mut(node).kill();
    }
    for node in 0..3 {
        cluster.start_node(node).expect("the node starts again");
    }
    settled(&cluster).await;
    everybody_has(&cluster, &pool, &[2, 4, 1]).await;
    assert_eq!(balances(&reader).await, before);
    let told = split(&cluster, &["--at", "bank/00012"]).await;
    assert!(told.contains("shard 8: bank/00012 to p"), "{told}");
    assert_eq!(balances(&connect(&cluster).await).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_a_split_ends_in_time_and_a_node_that_is_down_does_not_stop_one() {
    let mut cluster = spread(3, "");
    cluster.node_mut(2).kill();
    let told = split(&cluster, &["--at", "b"]).await;
    assert!(told.contains("shard 5: b to g"), "{told}");
    cluster.node_mut(1).kill();
    let begun = std::time::Instant::now();
    let out = ends(spawn(&cluster, &["--at", "d", "--timeout", "3s"])).await;
    let took = begun.elapsed();
    assert_ne!(out.status.code(), Some(0), "{}", text(&out));
    assert!(took < Duration::from_secs(8), "{took:?}: {}", text(&out));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_merged_is_refused_with_reasons() {
    let cluster = spread(3, "");
    for (args, said) in [
        (&["77"][..], "there is no shard 77"),
        (&["1"], "is not merged with others"),
        (&["4"], "only the meta shard"),
        (&["2", "4"], "ends where shard 3 begins, not shard 4"),
    ] {
        let out = ends(spawn_to("merge", &cluster, args)).await;
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", text(&out));
        assert!(text(&out).contains(said), "{args:?}: {}", text(&out));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_operators_at_once_each_gets_a_shard_of_his_own() {
    let cluster = spread(3, "");
    let four = ["b", "d", "t", "v"].map(|key| spawn(&cluster, &["--at", key]));
    for out in four.map(ends) {
        let out = out.await;
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    }
    let pool = cluster.pool().expect("a pool");
    eventually("all four shards are there", async || {
        let maps = maps(&pool, &cluster).await;
        maps.iter().all(|map| {
            let starts = { map.shards.iter() }.map(|s| &s.span.start[..]);
            let wanted = [&b""[..], b"b", b"d", b"g", b"p", b"t", b"v", b"\xff\xff"];
            let ids: BTreeSet<u64> = map.shards.iter().map(|s| s.id.0).collect();
            starts.eq(wanted) && ids.len() == 8
        })
    })
    .await;
    // The same wish twice at once is one shard.
    let both = [(), ()].map(|()| spawn(&cluster, &["2", "--at", "c"]));
    let both = both.map(ends);
    for out in both {
        let out = out.await;
        // To one of them the key is, a moment later, in a shard that it did not name.
        assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    }
    let both = [(), ()].map(|()| spawn(&cluster, &["--at", "c"]));
    for out in both.map(ends) {
        let out = out.await;
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    }
    let map = maps(&pool, &cluster).await.remove(0);
    assert_eq!(map.shards.len(), 9);
    let client = connect(&cluster).await;
    for key in ["a", "b", "c", "d", "h", "q", "t", "z"] {
        client.put(key, "1").await.expect("the cluster serves");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_split_is_refused_with_reasons() {
    let cluster = spread(3, "");
    cert::issue_user(&cluster.certs(), "guest", &Validity::default()).expect("a certificate");
    for (args, said) in [
        (&["77", "--at", "c"][..], "there is no shard 77"),
        (&["3", "--at", "c"], "lies in shard 2, not in shard 3"),
        (&["1", "--at", "c"], "stays whole"),
        (&["--at", "x'ffff01'"], "stays whole"),
        (&["--at", ""], "1 to 8192 bytes"),
        (&["--at", "x'0'"], "pairs of 0-9 and a-f"),
        (&["--at", "c", "--user", "guest"], "may not do this"),
    ] {
        let out = ends(spawn(&cluster, args)).await;
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", text(&out));
        assert!(text(&out).contains(said), "{args:?}: {}", text(&out));
    }
    let pool = cluster.pool().expect("a pool");
    let map = ask::map(&pool, cluster.nodes()[0].address, LIMIT).await;
    assert_eq!(map.map(|map| map.shards.len()), Ok(4));
    let out = ends(spawn(&cluster, &["--at", "g"])).await;
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert!(
        text(&out).contains("begins there already"),
        "{}",
        text(&out)
    );
}
