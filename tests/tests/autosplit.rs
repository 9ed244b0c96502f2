//! Shards that hold too much, or are asked too much, are split without a word from anybody, and become
//! one again once they have been cold for long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use synod_client::{Client, Range};
use synod_harness::cluster::{Cluster, ask};
use synod_tests::{connect, eventually, settled, spread, synod, text};

const LIMIT: Duration = Duration::from_secs(1);
const ROWS: u32 = 3_000;

/// Runs `synod shard auto` with these settings.
fn auto(cluster: &Cluster, settings: &[&str]) -> String {
    let arguments = [&["shard", "auto"], settings].concat();
    let out = synod(cluster, &arguments, "");
    assert_eq!(out.status.code(), Some(0), "{settings:?}: {}", text(&out));
    text(&out)
}

fn listed(cluster: &Cluster) -> String {
    let out = synod(cluster, &["shard", "list"], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    text(&out)
}

/// How many shards there are, as the first node knows; none while it does not know all.
async fn shards(cluster: &Cluster) -> Option<usize> {
    let pool = cluster.pool().expect("a pool");
    let map = ask::map(&pool, cluster.nodes()[0].address, LIMIT).await;
    map.ok().filter(|m| m.is_whole()).map(|m| m.shards.len())
}

fn key(row: u32) -> String {
    format!("h/{row:06}")
}

async fn write(client: Client, from: u32, to: u32) {
    for row in from..to {
        let value = format!("{row:01000}");
        client.put(key(row), value).await.expect("a write succeeds");
    }
}

/// All rows are there once, and in order.
async fn whole(client: &Client) {
    let range = Range::prefix("h/");
    let (mut from, mut rows) = (range.clone(), Vec::new());
    loop {
        let page = client.scan_page(from).await.expect("a scan succeeds");
        rows.extend(page.rows);
        match page.rest {
            Some(rest) => from = rest,
            None => break,
        }
    }
    let keys: Vec<_> = rows.iter().map(|(key, _)| &key[..]).collect();
    let wanted: Vec<String> = (0..ROWS).map(key).collect();
    let wanted: Vec<&[u8]> = wanted.iter().map(String::as_bytes).collect();
    assert!(keys == wanted, "{} of {ROWS} rows", keys.len());
    for row in [0, 1, ROWS / 2, ROWS - 1] {
        let value = client.get(key(row)).await.expect("a read succeeds");
        assert!(value.is_some_and(|value| value.len() == 1_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_are_too_large_are_split_while_they_are_filled() {
    let cluster = spread(3, "[placement]\nlook_seconds = 1");
    let told = auto(&cluster, &["--size", "1MiB", "--load", "0"]);
    assert!(told.contains("shard.split_size = 1048576"), "{told}");
    assert!(told.contains("shard.split_load = 0 (never)"), "{told}");
    let client = connect(&cluster).await;
    let parts = (0..4).map(|part| {
        let (from, to) = (part * ROWS / 4, (part + 1) * ROWS / 4);
        tokio::spawn(write(client.clone(), from, to))
    });
    for part in parts.collect::<Vec<_>>() {
        part.await.expect("it writes to its end");
    }
    eventually("there are several shards", async || {
        shards(&cluster).await.is_some_and(|count| count >= 6)
    })
    .await;
    settled(&cluster).await;
    whole(&client).await;
    whole(&connect(&cluster).await).await;
    let list = listed(&cluster);
    eprintln!("{list}");
    assert!(list.contains("split for their size"), "{list}");

    // From now on it stays as it is, however much there is.
    auto(&cluster, &["--size", "0"]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = shards(&cluster).await;
    write(client.clone(), 0, ROWS).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(shards(&cluster).await, before);
    whole(&client).await;
}

/// Reads and writes a little until it is told to end; how often.
async fn ask_slowly(client: Client, end: Arc<AtomicBool>) -> u32 {
    for round in 0.. {
        if end.load(Ordering::Relaxed) {
            return round;
        }
        // All over what is merged.
        let row = round * 271 % ROWS;
        let value = client.get(key(row)).await.expect("a read succeeds");
        let written = value.is_some_and(|value| value.len() == 1_000);
        assert!(written, "row {row} is there");
        write(client.clone(), row, row + 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("there is no last round")
}

fn merges(cluster: &Cluster) -> serde_json::Value {
    let out = synod(cluster, &["shard", "list", "--json"], "");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    json["merges"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_have_gone_cold_become_one_again() {
    let cluster = spread(3, "[placement]\nlook_seconds = 1");
    let first = shards(&cluster).await.expect("a map");
    auto(
        &cluster,
        &["--size", "1MiB", "--load", "0", "--merge-size", "0"],
    );
    let client = connect(&cluster).await;
    let parts = (0..4).map(|part| {
        let (from, to) = (part * ROWS / 4, (part + 1) * ROWS / 4);
        tokio::spawn(write(client.clone(), from, to))
    });
    for part in parts.collect::<Vec<_>>() {
        part.await.expect("it writes to its end");
    }
    eventually("there are several shards", async || {
        shards(&cluster).await.is_some_and(|n| n >= first + 2)
    })
    .await;
    settled(&cluster).await;
    let end = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(ask_slowly(client.clone(), end.clone()));

    // Never is never, although they are cold by every other measure.
    auto(&cluster, &["--size", "0", "--merge-after", "1s"]);
    // A split under way goes on.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = shards(&cluster).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(shards(&cluster).await, before);
    assert_eq!(merges(&cluster)["merged"], 0);

    let told = auto(&cluster, &["--merge-size", "64MiB"]);
    assert!(told.contains("shard.merge_size = 67108864"), "{told}");
    assert!(told.contains("shard.merge_after = 1"), "{told}");
    eventually("only the first shards are left", async || {
        shards(&cluster).await == Some(first)
    })
    .await;
    end.store(true, Ordering::Relaxed);
    let rounds = asking.await.expect("no request failed");
    assert!(rounds > 100, "only {rounds} rounds");
    settled(&cluster).await;
    whole(&client).await;
    whole(&connect(&cluster).await).await;
    let list = listed(&cluster);
    eprintln!("{list}");
    let status = merges(&cluster);
    assert!(status["merged"].as_u64() >= Some(2), "{status}");

    // The first borders stay, however cold they are.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(shards(&cluster).await, Some(first));
    let map = ask::map(
        &cluster.pool().expect("a pool"),
        cluster.nodes()[0].address,
        LIMIT,
    )
    .await;
    let map = map.expect("a map");
    let starts: Vec<&[u8]> = map.shards.iter().map(|s| &s.span.start[..]).collect();
    assert_eq!(starts, [&b""[..], b"g", b"p", b"\xff\xff"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_are_asked_too_much_are_split_where_they_are_asked() {
    let cluster = spread(3, "[placement]\nlook_seconds = 1");
    auto(&cluster, &["--size", "0", "--load", "50"]);
    let client = connect(&cluster).await;
    let asks = |part: u32| {
        let client = client.clone();
        tokio::spawn(async move {
            for round in 0_u32.. {
                let row = (round * 7 + part * 13) % 100;
                client.get(key(row)).await.expect("a read succeeds");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let asking: Vec<_> = (0..4).map(asks).collect();
    let pool = cluster.pool().expect("a pool");
    eventually("the shard is cut between the rows", async || {
        let map = ask::map(&pool, cluster.nodes()[0].address, LIMIT).await;
        let starts: BTreeSet<Vec<u8>> = map
            .iter()
            .flat_map(|map| map.shards.iter().map(|s| s.span.start.to_vec()))
            .collect();
        starts.iter().any(|start| start.starts_with(b"h/0000"))
    })
    .await;
    asking.iter().for_each(|task| task.abort());
    assert!(listed(&cluster).contains("for their load"));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_out_of_bounds_are_refused_with_reasons() {
    let cluster = spread(3, "");
    for (arguments, said) in [
        (
            &["--size", "5"][..],
            "shard.split_size is 0 (never), or from 1MiB",
        ),
        (
            &["--load", "1"],
            "shard.split_load is 0 (never), or from 10",
        ),
        (&["--size", "1MB"], "whole number"),
        (
            &["--merge-size", "5"],
            "shard.merge_size is 0 (never), or from 1MiB",
        ),
        (&["--merge-after", "0"], "shard.merge_after is from 1"),
        (&["--merge-after", "300ms"], "whole number of seconds"),
    ] {
        let arguments = [&["shard", "auto"], arguments].concat();
        let out = synod(&cluster, &arguments, "");
        assert_eq!(out.status.code(), Some(2), "{}", text(&out));
        assert!(text(&out).contains(said), "{}", text(&out));
    }
    let told = auto(&cluster, &["--max-shards", "9"]);
    assert!(told.contains("shard.max_shards = 9"), "{told}");
    let told = auto(&cluster, &["--max-shards", "default"]);
    assert!(told.contains("shard.max_shards = 10000"), "{told}");
    let out = synod(&cluster, &["shard", "list", "--json"], "");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(json["shards"].as_array().map(Vec::len), Some(4));
    assert_eq!(json["splits"]["settings"]["shard.split_size"], 256 << 20);
    assert_eq!(json["merges"]["settings"]["shard.merge_size"], 64 << 20);
    assert_eq!(json["merges"]["settings"]["shard.merge_after"], 3_600);
}
