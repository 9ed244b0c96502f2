//! Finding leaders.

use super::*;
use std::time::Instant;
use synod_txn::request::Refusal;

#[tokio::test]
async fn a_hint_is_followed_and_remembered() {
    let fake = Fake::new();
    let client = client(&fake).await;
    client.get("z").await.unwrap();
    client.get("z").await.unwrap();
    let nodes: Vec<_> = fake.asked("latest").iter().map(|(node, _)| *node).collect();
    assert_eq!(nodes, [1, 2, 2]);
}

#[tokio::test]
async fn a_dead_leader_is_left_for_the_new_one() {
    let fake = Fake::new();
    let client = client(&fake).await;
    client.put("a", "1").await.unwrap();
    fake.down(1);
    fake.lead(A, 3);
    let receipt = client.put("a", "2").await.unwrap();
    // The term it had in mind was over: that attempt was refused for good.
    assert_eq!(receipt.attempts, 2);
    assert_eq!(fake.value("a").as_deref(), Some("2"));
    assert_eq!(client.put("a", "3").await.unwrap().attempts, 1);
}

#[tokio::test]
async fn a_silent_leader_is_left_as_soon_as_there_is_another() {
    let fake = Fake::new();
    let client = client(&fake).await;
    client.put("a", "1").await.unwrap();
    fake.silence(1);
    let begun = Instant::now();
    let reader = client.clone();
    let read = tokio::spawn(async move { reader.get("a").await });
    eventually(|| fake.asked("locate").len() > 1).await;
    fake.lead(A, 2);
    assert_eq!(read.await.unwrap().unwrap().as_deref(), Some(&b"1"[..]));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_leader_that_only_waits_is_left_alone() {
    let fake = Fake::new();
    let client = client(&fake).await.with_timeout(Duration::from_millis(200));
    fake.fault("latest", Fault::Swallow);
    let error = client.get("a").await.unwrap_err();
    assert!(matches!(error, Error::Timeout { shard: A, .. }), "{error}");
    assert!(error.is_retry_safe());
    assert_eq!(fake.asked("latest").len(), 1);
    assert!(fake.asked("locate").len() > 2);
}

#[tokio::test]
async fn one_caller_asks_for_all_that_wait() {
    let fake = Fake::new();
    let client = client(&fake).await;
    client.put("a", "1").await.unwrap();
    fake.silence(1);
    let read = |_| {
        let client = client.clone();
        tokio::spawn(async move { client.get("a").await })
    };
    let reads: Vec<_> = (0..50).map(read).collect();
    eventually(|| fake.asked("locate").len() > 4).await;
    fake.lead(A, 3);
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap().as_deref(), Some(&b"1"[..]));
    }
    assert!(fake.asked("locate").len() < 50);
}

#[tokio::test]
async fn one_caller_searches_for_all_while_nobody_leads() {
    let fake = Fake::new();
    let client = client(&fake).await;
    client.put("a", "1").await.unwrap();
    fake.depose(A);
    let before = fake.asked("latest").len();
    let read = |_| {
        let client = client.clone();
        tokio::spawn(async move { client.get("a").await })
    };
    let callers = 50;
    let reads: Vec<_> = (0..callers).map(read).collect();
    // Each goes round all three once, then one of them at a time.
    let rounds = 10;
    eventually(|| fake.asked("latest").len() > before + 3 * (callers + rounds)).await;
    let begun = Instant::now();
    let asked = fake.asked("latest").len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let meanwhile = fake.asked("latest").len() - asked;
    // Rounds are at least a quarter of the longest pause apart: it was 50 callers'
    // three questions in each 25 to 50 milliseconds.
    let most = 3 * (begun.elapsed().as_millis() / 12 + 2);
    assert!((meanwhile as u128) <= most, "{meanwhile} questions");
    fake.lead(A, 3);
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap().as_deref(), Some(&b"1"[..]));
    }
}

#[tokio::test]
async fn load_is_waited_out() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let overloaded = Refusal::Overloaded {
        retry_after_millis: 5,
    };
    for refusal in [overloaded.clone(), overloaded, Refusal::Clock] {
        fake.fault("latest", Fault::Refuse(refusal));
    }
    client.get("a").await.unwrap();
    assert_eq!(fake.asked("latest").len(), 4);
}

#[tokio::test]
async fn changed_ranges_are_learned() {
    let fake = Fake::new();
    let client = client(&fake).await;
    client.put("h", "1").await.unwrap();
    fake.split_at("c");
    // The key is B's now.
    assert_eq!(client.get("h").await.unwrap().as_deref(), Some(&b"1"[..]));
    fake.split_at("x");
    let values = client.get_many(["a", "h", "z"]).await.unwrap();
    assert_eq!(values[1].as_deref(), Some(&b"1"[..]));
    fake.split_at("c");
    client.put("h", "2").await.unwrap();
    assert_eq!(fake.value("h").as_deref(), Some("2"));
}

#[tokio::test]
async fn without_any_node_a_call_ends_at_its_deadline() {
    let fake = Fake::new();
    let client = client(&fake).await.with_timeout(Duration::from_millis(100));
    client.put("a", "1").await.unwrap();
    for node in 1..=3 {
        fake.down(node);
    }
    assert!(matches!(client.get("a").await, Err(Error::Timeout { .. })));
    // Nothing can have arrived anywhere: aborted, not unknown.
    let error = client.put("a", "2").await.unwrap_err();
    assert!(matches!(error, Error::Aborted { .. }), "{error}");
}
