//! A shard is split while a client uses it: nobody notices more than a repeated attempt.

use super::*;
use crate::{Attempt, Range, Status};
use std::time::Instant;
use synod_txn::{Key, Participant};

/// Nothing of this takes longer.
const SOON: Duration = Duration::from_secs(1);

async fn filled(fake: &Fake) -> Client {
    let client = client(fake).await;
    for key in ["a", "h", "z"] {
        client.put(key, key).await.unwrap();
    }
    client
}

#[tokio::test]
async fn reads_go_on_at_the_new_owner() {
    let fake = Fake::new();
    let client = filled(&fake).await;
    fake.cut("g");
    fake.tell(1);
    let begun = Instant::now();
    assert_eq!(client.get("h").await.unwrap().as_deref(), Some(&b"h"[..]));
    // The other nodes have not heard of it yet, which matters to nobody.
    let last = fake.asked("latest").pop();
    assert_eq!(last.map(|(node, _)| node), Some(3));
    let values = client.get_many(["a", "h", "z"]).await.unwrap();
    assert!(values.iter().all(Option::is_some));
    let page = client.scan_page(Range::new("a", "l")).await.unwrap();
    assert_eq!(page.rows.len(), 1, "one shard's part of it");
    assert!(page.rest.is_some());
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn reads_that_were_planned_before_are_planned_anew() {
    for scans in [false, true] {
        let fake = Fake::new();
        let client = filled(&fake).await;
        fake.cut("g");
        fake.tell(1);
        if scans {
            let mut rest = Some(Range::new("a", "l"));
            let mut rows = Vec::new();
            while let Some(range) = rest {
                let page = client.scan_page(range).await.unwrap();
                rows.extend(page.rows);
                rest = page.rest;
            }
            assert_eq!(rows.len(), 2);
        } else {
            let values = client.get_many(["a", "h"]).await.unwrap();
            assert!(values.iter().all(Option::is_some));
        }
    }
}

#[tokio::test]
async fn a_transaction_is_repeated_with_its_age() {
    let fake = Fake::new();
    let client = filled(&fake).await;
    let begun = Instant::now();
    let ages = std::sync::Mutex::new(Vec::new());
    let ((), receipt) = client
        .transact_with_receipt(async |txn| {
            ages.lock().unwrap().push(txn.age());
            let a = txn.get_for_update("a").await?;
            let h = txn.get_for_update("h").await?;
            if txn.attempts() == 1 {
                fake.cut("g");
                fake.tell(1);
            }
            txn.put("a", h.unwrap_or_default()).await?;
            txn.put("h", a.unwrap_or_default()).await
        })
        .await
        .unwrap();
    assert_eq!((receipt.attempts, receipt.shards), (2, 2));
    let ages = ages.into_inner().unwrap();
    assert_eq!(ages[0], ages[1]);
    assert_eq!(fake.value("a").as_deref(), Some("h"));
    assert_eq!(fake.value("h").as_deref(), Some("a"));
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn a_blind_write_finds_the_new_owner_at_once() {
    let fake = Fake::new();
    let client = filled(&fake).await;
    fake.cut("g");
    fake.tell(1);
    let begun = Instant::now();
    assert_eq!(client.put("h", "2").await.unwrap().attempts, 2);
    assert_eq!(client.put("a", "2").await.unwrap().attempts, 1);
    assert_eq!(fake.value("h").as_deref(), Some("2"));
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn a_read_only_transaction_goes_on() {
    let fake = Fake::new();
    let client = filled(&fake).await;
    let read = client.read_only(async |txn| {
        let a = txn.get("a").await?;
        if txn.attempts() == 1 {
            fake.cut("g");
            fake.tell(1);
        }
        Ok((a, txn.get("h").await?))
    });
    let (a, h) = read.await.unwrap();
    assert!(a.is_some() && h.is_some());
}

#[tokio::test]
async fn who_owns_the_anchor_tells_the_outcome() {
    let fake = Fake::new();
    let client = filled(&fake).await;
    let receipt = client.put("h", "2").await.unwrap();
    let attempt = |id| Attempt {
        id,
        coordinator: Participant {
            anchor: Key::from_static(b"h"),
            shard: A,
            term: fake.term(A),
        },
    };
    fake.cut("g");
    fake.tell(1);
    let status = client.status(&attempt(receipt.attempt)).await.unwrap();
    assert!(matches!(status, Status::Committed(_)), "{status:?}");
    // The connection breaks, and nobody knows whether the commit arrived.
    let fake = Fake::new();
    let client = filled(&fake).await;
    fake.fault("commit", Fault::LoseRequest);
    fake.cut("g");
    fake.tell(1);
    assert_eq!(client.put("h", "2").await.unwrap().attempts, 2);
    let asked = fake.asked("status");
    let at_last = asked.last().map(|(node, _)| *node);
    assert_eq!(at_last, Some(3), "the new shard's leader was asked");
    assert_eq!(fake.term(C).group, C);
    assert_eq!(fake.value("h").as_deref(), Some("2"));
}

#[tokio::test]
async fn half_of_a_split_is_waited_for() {
    let fake = Fake::new();
    let client = filled(&fake).await;
    fake.cut("g");
    let begun = Instant::now();
    let hasty = client.with_timeout(Duration::from_millis(100));
    let error = hasty.get("h").await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    let reader = client.clone();
    let read = tokio::spawn(async move { reader.get("h").await });
    let writer = client.clone();
    let write = tokio::spawn(async move { writer.put("k", "1").await });
    // What is not concerned goes on meanwhile.
    assert!(client.get("z").await.unwrap().is_some());
    tokio::time::sleep(Duration::from_millis(50)).await;
    fake.tell(2);
    assert!(read.await.unwrap().unwrap().is_some());
    assert!(write.await.unwrap().is_ok());
    assert!(begun.elapsed() < 2 * SOON);
}
