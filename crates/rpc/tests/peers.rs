//! Two nodes: order, loss, restarts, delay, and who may speak as whom.

mod common;

use bytes::Bytes;
use common::*;
use quinn::ConnectionError;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use synod_paxos::effect::SnapshotId;
use synod_paxos::{Ballot, GroupId, Incarnation, Message, NodeId, Slot};
use synod_rpc::close::CloseCode;
use synod_rpc::hello::StreamKind;
use synod_rpc::{Endpoint, Event, EventQueue, Lane};
use synod_shard::NodeMessage;

/// Collects numbered messages until there are `count`.
async fn collect(queue: &EventQueue, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    next(queue, |event| {
        if let Event::PeerFrame { messages, .. } = event {
            found.extend(numbers(&messages));
        }
        (found.len() >= count).then_some(())
    })
    .await;
    found
}

fn chunk(bytes: usize) -> NodeMessage {
    NodeMessage::Group {
        group: GroupId(7),
        message: Message::SnapshotChunk {
            ballot: Ballot::default(),
            id: SnapshotId {
                slot: Slot(1),
                nonce: 1,
            },
            chunk: 0,
            checksum: 0,
            data: Bytes::from(vec![1; bytes]),
            done: false,
            began: None,
        },
    }
}

#[tokio::test]
async fn large_messages_take_large_packets_where_the_path_carries_them() {
    let dir = certificates();
    let (a, _) = bind(dir.path(), "a", options(1, 1));
    let (b, to) = bind(dir.path(), "b", options(2, 1));
    a.know_peer(NodeId(2), "b");
    b.know_peer(NodeId(1), "a");
    let queue = b.events();
    // What the path carries is found out while it is used.
    for _ in 0..100 {
        let before = a.counters().packets_out;
        a.send_peer(NodeId(2), to, Lane::Bulk, &[chunk(1 << 20)]);
        next(&queue, |event| {
            matches!(event, Event::PeerFrame { .. }).then_some(())
        })
        .await;
        // At 1,452 bytes each it takes 723.
        if a.counters().packets_out - before < 200 {
            return;
        }
    }
    panic!("its packets stay small");
}

#[tokio::test]
async fn messages_arrive_in_order_with_their_sender() {
    let dir = certificates();
    let (a, _) = bind(dir.path(), "a", options(1, 5));
    let (b, to) = bind(dir.path(), "b", options(2, 1));
    a.know_peer(NodeId(2), "b");
    b.know_peer(NodeId(1), "a");
    for i in 0..300 {
        a.send_peer(
            NodeId(2),
            to,
            Lane::Consensus,
            &[message(3 * i), message(3 * i + 1), message(3 * i + 2)],
        );
    }
    let (mut found, mut up) = (Vec::new(), 0);
    next(&b.events(), |event| {
        match event {
            Event::PeerUp {
                node,
                incarnation,
                name,
            } => {
                assert_eq!(
                    (node, incarnation, &*name),
                    (NodeId(1), Incarnation(5), "a")
                );
                up += 1;
            }
            Event::PeerFrame {
                from,
                incarnation,
                messages,
            } => {
                assert_eq!((from, incarnation), (NodeId(1), Incarnation(5)));
                found.extend(numbers(&messages));
            }
            other => panic!("unexpected {other:?}"),
        }
        (found.len() >= 900).then_some(())
    })
    .await;
    assert_eq!(found, (0..900).collect::<Vec<_>>());
    assert_eq!(up, 1);
    a.close().await;
    let events = b.events();
    let down = next(&events, |event| match event {
        Event::PeerDown { node, incarnation } => Some((node, incarnation)),
        _ => None,
    });
    assert_eq!(down.await, (NodeId(1), Incarnation(5)));
}

#[tokio::test]
async fn a_bulk_transfer_does_not_hold_consensus_up() {
    let dir = certificates();
    let (a, _) = bind(dir.path(), "a", options(1, 1));
    let (b, to) = bind(dir.path(), "b", options(2, 1));
    for _ in 0..8 {
        a.send_peer(NodeId(2), to, Lane::Bulk, &[chunk(4 << 20)]);
    }
    a.send_peer(NodeId(2), to, Lane::Consensus, &[message(1)]);
    let (mut chunks, mut before) = (0, None);
    next(&b.events(), |event| {
        if let Event::PeerFrame { messages, .. } = event {
            match &messages[0] {
                NodeMessage::Group {
                    message: Message::SnapshotChunk { .. },
                    ..
                } => chunks += 1,
                _ => before = Some(chunks),
            }
        }
        (chunks == 8 && before.is_some()).then_some(())
    })
    .await;
    assert!(
        before.is_some_and(|n| n < 8),
        "consensus came after {before:?} of 8 chunks"
    );
}

#[tokio::test]
async fn over_the_bound_the_oldest_frames_are_dropped_and_counted() {
    let dir = certificates();
    let mut options_a = options(1, 1);
    options_a.peer_bytes = 10_000;
    let (a, _) = bind(dir.path(), "a", options_a);
    let (b, to) = bind(dir.path(), "b", options(2, 1));
    // No await between: nothing is sent yet.
    for i in 0..2000 {
        a.send_peer(NodeId(2), to, Lane::Consensus, &[message(i)]);
    }
    let dropped = a.counters().dropped;
    assert!(dropped > 0);
    let found = collect(&b.events(), 2000 - dropped as usize).await;
    assert_eq!(found, (dropped..2000).collect::<Vec<_>>());
    a.send_peer(NodeId(2), to, Lane::Bulk, &[chunk(13 << 20)]);
    assert_eq!(a.counters().too_large, 1);
}

#[tokio::test]
async fn delayed_frames_come_late_and_in_order() {
    const DELAY: Duration = Duration::from_millis(150);
    let dir = certificates();
    let (a, _) = bind(dir.path(), "a", options(1, 1));
    let (b, to) = bind(dir.path(), "b", options(2, 1));
    a.send_peer(NodeId(2), to, Lane::Consensus, &[message(0)]);
    assert_eq!(collect(&b.events(), 1).await, [0]);
    a.set_delay(NodeId(2), DELAY);
    let began = Instant::now();
    a.send_peer(NodeId(2), to, Lane::Consensus, &[message(1)]);
    // A shorter delay for what comes later overtakes nothing.
    a.set_delay(NodeId(2), Duration::ZERO);
    a.send_peer(NodeId(2), to, Lane::Consensus, &[message(2)]);
    assert_eq!(collect(&b.events(), 2).await, [1, 2]);
    assert!(began.elapsed() >= DELAY);
}

#[tokio::test]
async fn a_restarted_peer_is_linked_again() {
    let dir = certificates();
    let (a, from) = bind(dir.path(), "a", options(1, 1));
    let (b, to) = bind(dir.path(), "b", options(2, 1));
    a.send_peer(NodeId(2), to, Lane::Consensus, &[message(0)]);
    b.send_peer(NodeId(1), from, Lane::Consensus, &[message(0)]);
    collect(&b.events(), 1).await;
    collect(&a.events(), 1).await;
    b.close().await;
    let b = rebind(dir.path(), to, 2).await;
    // Messages may be lost meanwhile; repeating them is the sender's business.
    let events = b.events();
    let mut found = Vec::new();
    until("the link is made again", || {
        a.send_peer(NodeId(2), to, Lane::Consensus, &[message(1)]);
        let mut drained = Vec::new();
        events.drain(&mut drained);
        found.extend(drained);
        found.iter().any(|e| matches!(e, Event::PeerFrame { .. }))
    })
    .await;
    b.send_peer(NodeId(1), from, Lane::Consensus, &[message(1)]);
    let events = a.events();
    let seen = next(&events, |event| match event {
        Event::PeerFrame { incarnation, .. } => Some(incarnation),
        _ => None,
    });
    assert_eq!(seen.await, Incarnation(2));
}

/// Starts b again; its old port is free once the last task has let go of it.
async fn rebind(dir: &Path, address: SocketAddr, incarnation: u64) -> Endpoint {
    let identity = node_identity(dir, "b");
    let mut bound = None;
    until("the port is free again", || {
        bound = Endpoint::bind(address, &identity, options(2, incarnation)).ok();
        bound.is_some()
    })
    .await;
    bound.expect("just bound").0
}

#[tokio::test]
async fn a_killed_peer_is_linked_again_before_its_connection_times_out() {
    let dir = certificates();
    let mut options = options(1, 1);
    // Longer than the test's patience: only the reset can end the old connection.
    options.transport.idle = Duration::from_secs(600);
    let (a, _) = bind(dir.path(), "a", options);
    let mut victim = Victim::start(dir.path(), LOOPBACK, 1);
    let to = victim.address;
    a.send_peer(NodeId(2), to, Lane::Consensus, &[message(0)]);
    until("the first link", || a.counters().bytes_out > 0).await;
    let mut began = 0;
    until("frames leave", || {
        began = a.counters().frames_out;
        began > 0
    })
    .await;
    victim.kill();
    let b = rebind(dir.path(), to, 2).await;
    let events = b.events();
    until("the second link", || {
        a.send_peer(NodeId(2), to, Lane::Consensus, &[message(1)]);
        let mut drained = Vec::new();
        events.drain(&mut drained);
        drained.iter().any(|e| matches!(e, Event::PeerFrame { .. }))
    })
    .await;
}

#[tokio::test]
async fn an_address_change_moves_the_link() {
    let dir = certificates();
    let (a, _) = bind(dir.path(), "a", options(1, 1));
    let (old, first) = bind(dir.path(), "b", options(2, 1));
    a.send_peer(NodeId(2), first, Lane::Consensus, &[message(0)]);
    collect(&old.events(), 1).await;
    let (new, second) = bind(dir.path(), "b", options(2, 2));
    let events = new.events();
    until("the link moves", || {
        a.send_peer(NodeId(2), second, Lane::Consensus, &[message(1)]);
        let mut drained = Vec::new();
        events.drain(&mut drained);
        drained.iter().any(|e| matches!(e, Event::PeerFrame { .. }))
    })
    .await;
    a.forget_peer(NodeId(2));
    next(&events, |event| {
        matches!(event, Event::PeerDown { .. }).then_some(())
    })
    .await;
}

/// Opens a one-way stream as `files`, says this hello, and returns why the
/// connection was closed.
async fn refusal(dir: &Path, files: &str, to: SocketAddr, hello: Bytes) -> (u64, String) {
    let connection = raw(dir, files, to).await;
    let mut stream = connection.open_uni().await.expect("a stream");
    stream.write_all(&hello).await.expect("written");
    match connection.closed().await {
        ConnectionError::ApplicationClosed(frame) => (
            frame.error_code.into_inner(),
            String::from_utf8_lossy(&frame.reason).into_owned(),
        ),
        other => panic!("unexpected {other}"),
    }
}

#[tokio::test]
async fn only_the_right_node_of_the_right_cluster_may_speak() {
    let dir = certificates();
    let path = dir.path();
    let (b, to) = bind(path, "b", options(2, 1));
    b.know_peer(NodeId(1), "a");
    let cluster = node_identity(path, "b").cluster();
    let consensus = |from, incarnation, to| StreamKind::Consensus(speaker(from, incarnation, to));

    let (code, reason) = refusal(path, "user-ann", to, hello(cluster, consensus(1, 1, 2))).await;
    assert_eq!(code, CloseCode::WrongRole as u64);
    assert!(reason.contains("user:ann is no node"), "{reason}");

    let (code, reason) = refusal(path, "node-a", to, hello(cluster + 1, consensus(1, 1, 2))).await;
    assert_eq!(code, CloseCode::WrongCluster as u64);
    assert!(reason.contains("belongs to cluster"), "{reason}");

    let (code, reason) = refusal(path, "node-a", to, hello(cluster, consensus(1, 1, 9))).await;
    assert_eq!(code, CloseCode::WrongNode as u64);
    assert!(reason.contains("not n9"), "{reason}");

    let (code, reason) = refusal(path, "node-c", to, hello(cluster, consensus(1, 1, 2))).await;
    assert_eq!(code, CloseCode::WrongName as u64);
    assert!(
        reason.contains("node:c may not speak as node n1"),
        "{reason}"
    );

    // A later incarnation ends the earlier one's say.
    let later = raw(path, "node-a", to).await;
    let mut stream = later.open_uni().await.expect("a stream");
    stream
        .write_all(&hello(cluster, consensus(1, 8, 2)))
        .await
        .expect("written");
    next(&b.events(), |event| {
        matches!(event, Event::PeerUp { .. }).then_some(())
    })
    .await;
    let (code, _) = refusal(path, "node-a", to, hello(cluster, consensus(1, 7, 2))).await;
    assert_eq!(code, CloseCode::Stale as u64);
    assert_eq!(b.counters().refused, 5);
}

#[tokio::test]
async fn garbage_on_one_lane_leaves_the_other_alone() {
    let dir = certificates();
    let (b, to) = bind(dir.path(), "b", options(2, 1));
    let cluster = node_identity(dir.path(), "b").cluster();
    let connection = raw(dir.path(), "node-a", to).await;
    let mut bulk = connection.open_uni().await.expect("a stream");
    bulk.write_all(&hello(cluster, StreamKind::Bulk(speaker(1, 1, 2))))
        .await
        .expect("written");
    let mut bad = connection.open_uni().await.expect("a stream");
    bad.write_all(&hello(cluster, StreamKind::Consensus(speaker(1, 1, 2))))
        .await
        .expect("written");
    let mut good_then_bad = bytes::BytesMut::new();
    synod_rpc::frame::encode_all(&[message(4)], &mut good_then_bad);
    good_then_bad.extend_from_slice(&[3, 0, 0, 0, 9, 9, 9]);
    bad.write_all(&good_then_bad).await.expect("written");
    assert_eq!(
        bad.stopped().await.expect("the connection lives"),
        Some(CloseCode::BadFrame.var())
    );
    let mut good = bytes::BytesMut::new();
    synod_rpc::frame::encode_all(&[message(5)], &mut good);
    bulk.write_all(&good).await.expect("written");
    assert_eq!(collect(&b.events(), 2).await, [4, 5]);
    assert!(connection.close_reason().is_none());
}
