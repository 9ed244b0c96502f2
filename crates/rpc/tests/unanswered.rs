//! Calls that end without an answer: their deadline passes, nobody waits any more, or the node is
//! silent.

mod common;

use common::*;
use std::time::{Duration, Instant};
use synod_rpc::{CallError, ClientFrame, Event, Pool, PoolOptions};
use synod_txn::{ClientId, Request};

/// The number of a request that ann's client takes back.
fn cancelled(event: Event) -> Option<u64> {
    match event {
        Event::Client {
            frame: ClientFrame::Cancel { id },
            user,
            ..
        } => {
            assert_eq!(&*user, "ann");
            Some(id)
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_deadline_or_a_dropped_call_cancels_at_the_node() {
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let pool = pool(dir.path());
    let events = node.events();
    let late = pool
        .call(
            address,
            ask("x"),
            Instant::now() + Duration::from_millis(300),
        )
        .await;
    let sent = true;
    assert_eq!(late, Err(CallError::Deadline { address, sent }));
    assert_eq!(next(&events, cancelled).await, 0);

    let dropped = tokio::spawn({
        let pool = pool.clone();
        async move { pool.call(address, ask("y"), soon()).await }
    });
    next(&events, asked).await;
    dropped.abort();
    assert_eq!(next(&events, cancelled).await, 1);

    pool.keepalive(ClientId(9), &[synod_txn::AttemptId(3)]);
    let client = next(&events, |event| match event {
        Event::Client {
            frame: ClientFrame::KeepAlive { client, .. },
            ..
        } => Some(client),
        _ => None,
    });
    assert_eq!(client.await, ClientId(9));
    drop(pool);
    next(&events, |event| {
        matches!(event, Event::ClientGone { .. }).then_some(())
    })
    .await;
}

/// Who hears that a call was not sent may make it again: it must not be sent later.
#[tokio::test]
async fn a_call_that_was_not_sent_by_its_deadline_is_never_sent() {
    let dir = certificates();
    // Nobody answers there yet.
    let silent = std::net::UdpSocket::bind(LOOPBACK).expect("binds");
    let address = silent.local_addr().expect("it is bound");
    let pool = pool(dir.path());
    let short = Instant::now() + Duration::from_millis(300);
    let call = |key: &str, deadline| {
        let (pool, body) = (pool.clone(), ask(key.to_owned()));
        tokio::spawn(async move { pool.call(address, body, deadline).await })
    };
    let first = call("first", short);
    let second = call(&"x".repeat(1000), short);
    let kept = call("kept", soon());
    let last = call("last", short);
    for late in [first, second, last] {
        let sent = false;
        let ended = late.await.expect("no panic");
        assert_eq!(ended, Err(CallError::Deadline { address, sent }));
    }
    drop(silent);
    let (node, _) = bind_at(dir.path(), "a", options(1, 1), address);
    let later = call("later", soon());
    let mut heard = Vec::new();
    let until_later = |event: Event| {
        if let Event::Client { frame, .. } = event
            && let ClientFrame::Request { request, .. } = frame
            && let Request::Latest { keys, .. } = request.request
        {
            heard.push(keys[0].clone());
        }
        heard.iter().any(|key| key == "later").then_some(())
    };
    next(&node.events(), until_later).await;
    assert!(
        heard.iter().all(|key| key == "kept" || key == "later"),
        "{heard:?}"
    );
    kept.abort();
    later.abort();
}

#[tokio::test]
async fn a_killed_node_that_comes_back_is_noticed_by_its_reset() {
    let dir = certificates();
    let mut node = Victim::start(dir.path(), LOOPBACK, 1);
    let address = node.address;
    let pool = pool(dir.path());
    insist(&pool, address).await;
    node.kill();
    let _node = Victim::start(dir.path(), address, 2);
    let errors = insist(&pool, address).await;
    assert!(
        errors.iter().any(|e| e.to_string().contains("restarted")),
        "{errors:?}"
    );
}

#[tokio::test]
async fn a_node_that_falls_silent_is_given_up() {
    let dir = certificates();
    let mut node = Victim::start(dir.path(), LOOPBACK, 1);
    let address = node.address;
    let pool = pool(dir.path());
    insist(&pool, address).await;
    node.kill();
    let lost = pool.call(address, ask("x"), soon()).await;
    assert!(
        matches!(lost, Err(CallError::Lost { sent: true, .. })),
        "{lost:?}"
    );
    let unreachable = pool.call(address, ask("x"), soon()).await;
    assert!(
        matches!(unreachable, Err(CallError::Connect { .. })),
        "{unreachable:?}"
    );
    assert!(!pool.is_connected(address));
}

/// One that lives is asked for a sign of life, long before its connection is pinged; it hears of
/// nothing but calls.
#[tokio::test]
async fn a_node_that_takes_long_is_not_taken_for_a_silent_one() {
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let options = PoolOptions {
        silence: Duration::from_millis(200),
        ..PoolOptions::default()
    };
    assert!(options.silence * 4 < options.transport.keep_alive);
    let pool = Pool::new(&user_identity(dir.path()), options.clone()).expect("a pool");
    let deadline = Instant::now() + options.silence * 8;
    let late = pool.call(address, ask("x"), deadline).await;
    let sent = true;
    assert_eq!(late, Err(CallError::Deadline { address, sent }));
    assert_eq!(next(&node.events(), cancelled).await, 0);
}
