//! Single calls and scans.

use super::*;
use crate::Range;

#[tokio::test]
async fn a_value_is_written_read_and_deleted() {
    let fake = Fake::new();
    let client = client(&fake).await;
    assert_eq!(client.get("apple").await.unwrap(), None);
    let receipt = client.put("apple", "red").await.unwrap();
    assert!(receipt.timestamp.is_some());
    assert_eq!((receipt.attempts, receipt.shards), (1, 1));
    assert_eq!(
        client.get("apple").await.unwrap().as_deref(),
        Some(&b"red"[..])
    );
    client.delete("apple").await.unwrap();
    assert_eq!(client.get("apple").await.unwrap(), None);
}

#[tokio::test]
async fn a_put_to_a_known_term_is_one_request() {
    let fake = Fake::new();
    let client = client(&fake).await;
    client.put("apple", "1").await.unwrap();
    client.put("apple", "2").await.unwrap();
    client.put("apple", "3").await.unwrap();
    assert_eq!(fake.asked("locate").len(), 1);
    assert_eq!(fake.asked("commit").len(), 3);
}

#[tokio::test]
async fn many_keys_come_from_their_shards_in_order() {
    let fake = Fake::new();
    let client = client(&fake).await;
    client.put("a", "1").await.unwrap();
    client.put("z", "2").await.unwrap();
    let values = client.get_many(["z", "none", "a"]).await.unwrap();
    let values: Vec<_> = values.iter().map(Option::as_deref).collect();
    assert_eq!(values, [Some(&b"2"[..]), None, Some(&b"1"[..])]);
}

#[tokio::test]
async fn scans_page_over_shards_both_ways_and_resume() {
    let fake = Fake::new();
    fake.fill("k", 25);
    fake.fill("n", 25);
    let client = client(&fake).await;
    for reverse in [false, true] {
        let mut range = Range::all().page_rows(10);
        if reverse {
            range = range.reverse();
        }
        let mut keys = Vec::new();
        let mut rest = Some(range.clone());
        while let Some(range) = rest.take() {
            let page = client.scan_page(range).await.unwrap();
            assert!(page.rows.len() <= 10);
            keys.extend(page.rows.into_iter().map(|(key, _)| key));
            rest = page.rest;
        }
        assert_eq!(keys.len(), 50);
        let ordered = |pair: &[bytes::Bytes]| (pair[0] < pair[1]) != reverse;
        assert!(keys.windows(2).all(ordered));
        let within = async |txn: &mut Transaction| txn.scan(range.clone()).await;
        let rows = client.read_only(within).await.unwrap();
        assert_eq!(
            rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
            keys
        );
    }
    let some = client.scan_page(Range::prefix("n").limit(3)).await.unwrap();
    assert_eq!((some.rows.len(), some.rest), (3, None));
    assert_eq!(some.rows[0].0, "n000");
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_before_anything_is_sent() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let long = vec![b'k'; synod_txn::MAX_KEY_BYTES + 1];
    for key in [&b""[..], b"\xff\xff/meta", &long] {
        let error = client.put(key, "v").await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
        assert!(!error.is_retry_safe());
    }
    // Connecting itself has asked for the time.
    assert_eq!(
        (fake.asked("commit").len(), fake.asked("locate").len()),
        (0, 1)
    );
}

#[tokio::test]
async fn a_cluster_that_is_not_there_or_not_initialized_is_named() {
    let fake = Fake::new();
    fake.uninitialize();
    let identity = crate::Identity::Pem {
        ca: vec![],
        cert: vec![],
        key: vec![],
    };
    let mut config = Config::new(["x:1"], identity);
    config.timeout = Duration::from_millis(1);
    let transport = crate::transport::Transport::Fake(fake.clone());
    let error = Client::start(config.clone(), transport.clone(), fake.addresses()).await;
    assert!(matches!(error, Err(Error::NotInitialized)));
    for node in 1..=3 {
        fake.down(node);
    }
    let error = Client::start(config.clone(), transport, fake.addresses()).await;
    assert!(matches!(error, Err(Error::NoCluster { .. })));
    config.endpoints.clear();
    let error = Client::connect(config).await;
    assert!(matches!(error, Err(Error::Config(_))));
}
