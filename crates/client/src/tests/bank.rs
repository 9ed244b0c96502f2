//! Many tasks on real transaction machines: nothing is lost, nothing happens
//! twice, and nothing stays locked.

use super::eventually;
use super::groups::{Groups, LEFT, RIGHT, Ticker};
use crate::transport::Transport;
use crate::{Client, Config, Error, Identity, Range, Transaction};
use std::time::Duration;

const ACCOUNTS: [&str; 6] = ["a/1", "a/2", "a/3", "z/1", "z/2", "z/3"];

async fn client(groups: &Groups) -> Client {
    let identity = Identity::Pem {
        ca: Vec::new(),
        cert: Vec::new(),
        key: Vec::new(),
    };
    let mut config = Config::new(Vec::<String>::new(), identity);
    config.probe_after = Duration::from_millis(20);
    config.timeout = Duration::from_secs(20);
    let nodes = (1..=3).map(|n| ([127, 0, 0, 1], n).into()).collect();
    let transport = Transport::Groups(groups.clone());
    Client::start(config, transport, nodes).await.unwrap()
}

fn number(value: Option<bytes::Bytes>) -> i64 {
    value.map_or(0, |v| std::str::from_utf8(&v).unwrap().parse().unwrap())
}

async fn transfer(txn: &mut Transaction, from: &str, to: &str, done: &str) -> Result<(), Error> {
    let left = number(txn.get(from).await?) - 1;
    let right = number(txn.get_for_update(to).await?) + 1;
    txn.put(from, left.to_string()).await?;
    txn.put(to, right.to_string()).await?;
    let count = number(txn.get(done).await?) + 1;
    txn.put(done, count.to_string()).await
}

async fn total(client: &Client) -> i64 {
    let sum = async |txn: &mut Transaction| {
        let mut sum = 0;
        for prefix in ["a/", "z/"] {
            for (_, value) in txn.scan(Range::prefix(prefix).page_rows(2)).await? {
                sum += number(Some(value));
            }
        }
        Ok(sum)
    };
    client.read_only(sum).await.unwrap()
}

/// Tasks transfer, each marking what it did; meanwhile the sum is looked at,
/// and with `unrest` leaders are deposed.
async fn bank(groups: &Groups, tasks: usize, transfers: usize, unrest: bool) {
    let _ticker = Ticker::start(groups, Duration::from_millis(10));
    let client = client(groups).await;
    let worker = |task: usize| {
        let client = client.clone();
        tokio::spawn(async move {
            let done = format!(
                "{}done/{task}",
                if task.is_multiple_of(2) { "b" } else { "y" }
            );
            for n in 0..transfers {
                let from = ACCOUNTS[(task + n) % 6];
                let to = ACCOUNTS[(task * 5 + n * 3 + 1) % 6];
                if from != to {
                    client
                        .transact(async |txn| transfer(txn, from, to, &done).await)
                        .await
                        .unwrap_or_else(|e| panic!("{task}.{n}: {e}"));
                }
            }
            let expected = (0..transfers).filter(|n| (task + n) % 6 != (task * 5 + n * 3 + 1) % 6);
            let marked = number(client.get(&done).await.unwrap());
            assert_eq!(marked, expected.count() as i64, "exactly once");
        })
    };
    let workers: Vec<_> = (0..tasks).map(worker).collect();
    let mut node = 0u64;
    while workers.iter().any(|worker| !worker.is_finished()) {
        assert_eq!(total(&client).await, 0);
        if unrest {
            node += 1;
            groups.lead(
                if node.is_multiple_of(2) { LEFT } else { RIGHT },
                node % 3 + 1,
            );
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(total(&client).await, 0);
    eventually(|| groups.is_quiet()).await;
}

#[tokio::test]
async fn contended_transfers_keep_the_sum() {
    let groups = Groups::new(0);
    bank(&groups, 8, 30, false).await;
    assert!(groups.wounds() > 0, "there was no contention");
}

#[tokio::test]
async fn lost_answers_neither_lose_nor_repeat_anything() {
    bank(&Groups::new(7), 6, 30, false).await;
}

#[tokio::test]
async fn deposed_leaders_neither_lose_nor_repeat_anything() {
    bank(&Groups::new(11), 6, 30, true).await;
}

#[tokio::test]
async fn blind_writes_and_scans_meet_the_real_machine() {
    let groups = Groups::new(0);
    let _ticker = Ticker::start(&groups, Duration::from_millis(10));
    let client = client(&groups).await;
    for n in 0..25 {
        client.put(format!("a{n:02}"), "v").await.unwrap();
        client.put(format!("z{n:02}"), "v").await.unwrap();
    }
    client.delete("a03").await.unwrap();
    let mut txn = client.begin();
    txn.delete("a04").await.unwrap();
    txn.put("a04x", "own").await.unwrap();
    let rows = txn.scan(Range::all().page_rows(7).reverse()).await.unwrap();
    assert_eq!(rows.len(), 49);
    txn.savepoint("s").unwrap();
    txn.delete("z00").await.unwrap();
    txn.rollback_to("s").unwrap();
    let receipt = txn.commit().await.unwrap();
    // The right shard was only read from, and took part all the same.
    assert_eq!(receipt.shards, 2);
    assert_eq!(
        client.get("a04x").await.unwrap().as_deref(),
        Some(&b"own"[..])
    );
    assert_eq!(client.get_many(["a04", "z00"]).await.unwrap()[0], None);
    // A phantom cannot appear in what was scanned.
    let mut reader = client.begin();
    assert!(reader.scan(Range::prefix("q")).await.unwrap().is_empty());
    let writer = client.clone();
    let write = tokio::spawn(async move { writer.put("q1", "v").await });
    tokio::task::yield_now().await;
    assert!(reader.scan(Range::prefix("q")).await.unwrap().is_empty());
    reader.commit().await.unwrap();
    write.await.unwrap().unwrap();
    eventually(|| groups.is_quiet()).await;
}
