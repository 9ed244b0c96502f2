//! Clients and one node: calls, their bounds, and what survives a fault.

mod common;

use bytes::Bytes;
use common::*;
use quinn::{ReadError, VarInt};
use std::time::{Duration, Instant};
use synod_paxos::GroupId;
use synod_rpc::close::CloseCode;
use synod_rpc::hello::StreamKind;
use synod_rpc::pool::Io;
use synod_rpc::{
    CallError, ClientFrame, Event, NodeRequest, NodeResponse, Pool, PoolOptions, RequestBody,
    ServerBody, ServerFrame,
};
use synod_shard::{ShardReply, ShardRequest};
use synod_txn::request::{CommitRequest, Refusal};
use synod_txn::{AttemptId, ClientId, Priority, Request, Response};

#[tokio::test]
async fn calls_are_answered_each_with_its_own() {
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let pool = pool(dir.path());
    assert!(!pool.is_connected(address));
    let work = async {
        let calls = (0..1000).map(|i| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let key = format!("key {i}");
                let answer = pool.call(address, ask(key.clone()), soon()).await;
                assert_eq!(answered(&answer.expect("answered")), key);
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("no panic");
        }
        let info = pool.call(address, RequestBody::Node(NodeRequest::Info), soon());
        assert_eq!(info.await, Ok(ServerBody::Node(NodeResponse::Done)));
        assert!(pool.is_connected(address));
    };
    tokio::select! {
        () = echo(&node) => unreachable!("the echo never ends"),
        () = work => {}
    }
    let counters = node.counters();
    assert_eq!((counters.frames_in, counters.frames_out), (1001, 1001));
    assert!(counters.packets_in > 0 && counters.bytes_out > 0);
    node.close().await;
}

#[tokio::test]
async fn big_frames_pass_and_bigger_ones_are_refused_before_they_are_sent() {
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let pool = pool(dir.path());
    let work = async {
        let big = Bytes::from(vec![7; 8 << 20]);
        let calls = [0, 1, 2].map(|_| pool.call(address, ask(big.clone()), soon()));
        for call in calls {
            assert_eq!(answered(&call.await.expect("answered")), big);
        }
        let bigger = Bytes::from(vec![7; 69 << 20]);
        let refused = pool.call(address, ask(bigger), soon()).await;
        assert_eq!(refused, Err(CallError::TooLarge));
        insist(&pool, address).await;
    };
    tokio::select! {
        () = echo(&node) => unreachable!("the echo never ends"),
        () = work => {}
    }
}

#[tokio::test]
async fn an_answer_too_large_for_a_frame_becomes_a_refusal() {
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let pool = pool(dir.path());
    let RequestBody::Shard(mut request) = ask("k") else {
        unreachable!("ask makes shard requests")
    };
    request.request = synod_txn::Request::Latest {
        keys: vec![Bytes::from_static(b"k")],
        scan: None,
    };
    let answer = async {
        let (connection, id) = next(&node.events(), asked).await;
        let giant = ClientFrame::Request {
            id,
            request: match ask(vec![1; 13 << 20]) {
                RequestBody::Shard(request) => request,
                RequestBody::Node(_) => unreachable!("ask makes shard requests"),
            },
        };
        node.reply(connection, &echo_of(&giant).expect("an echo"));
    };
    let call = pool.call(address, RequestBody::Shard(request), soon());
    let (answer, ()) = tokio::join!(call, answer);
    match answer {
        Ok(ServerBody::Shard(ShardReply::Response(Response::Refused(Refusal::Invalid(why))))) => {
            assert!(why.contains("larger than"), "{why}");
        }
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn word_of_a_vote_comes_by_itself_and_a_commit_given_up_is_not_cancelled() {
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let pool = pool(dir.path());
    let events = node.events();
    let commit = Request::Commit(Box::new(CommitRequest {
        attempt: AttemptId(1),
        priority: Priority::default(),
        client: ClientId(9),
        session: None,
        writes: Vec::new(),
        reads: Vec::new(),
        participants: Vec::new(),
        here: 0,
        coordinator: 0,
        timeout_millis: 1,
        snapshot: None,
    }));
    let request = ShardRequest {
        shard: GroupId(2),
        generation: 1,
        request: commit,
        hashing: None,
    };
    let voting = ShardReply::Response(Response::Voting);
    let answer = async {
        let (connection, id) = next(&events, asked).await;
        let reply = voting.clone();
        node.reply(connection, &ServerFrame::Response { id, reply });
    };
    let call = pool.call_shard(address, &request, soon());
    let (answer, ()) = tokio::join!(call, answer);
    assert_eq!(answer, Ok(ServerBody::Shard(voting)));

    let given_up = tokio::spawn({
        let pool = pool.clone();
        async move { pool.call_shard(address, &request, soon()).await }
    });
    next(&events, asked).await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    pool.keepalive(ClientId(9), &[AttemptId(1)]);
    next(&events, |event| match event {
        Event::Client { frame, .. } => {
            assert!(!matches!(frame, ClientFrame::Cancel { .. }));
            matches!(frame, ClientFrame::KeepAlive { .. }).then_some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn requests_over_the_bound_are_answered_overloaded() {
    let dir = certificates();
    let mut options = options(1, 1);
    options.max_outstanding = 3;
    let (node, address) = bind(dir.path(), "a", options);
    let pool = pool(dir.path());
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.call(address, ask("x"), soon()).await })
        })
        .collect();
    let mut seen = 0;
    next(&node.events(), |_| {
        seen += 1;
        (seen == 3).then_some(())
    })
    .await;
    let shard = pool.call(address, ask("x"), soon()).await;
    assert!(matches!(
        shard,
        Ok(ServerBody::Shard(ShardReply::Response(Response::Refused(
            Refusal::Overloaded { .. }
        ))))
    ));
    let info = pool
        .call(address, RequestBody::Node(NodeRequest::Info), soon())
        .await;
    assert!(matches!(
        info,
        Ok(ServerBody::Node(NodeResponse::Overloaded { .. }))
    ));
    assert_eq!(node.counters().overloaded, 2);
    for call in waiting {
        call.abort();
    }
}

#[tokio::test]
async fn the_pool_bounds_what_waits_for_one_node() {
    let dir = certificates();
    let (_node, address) = bind(dir.path(), "a", options(1, 1));
    let options = PoolOptions {
        max_outstanding: 1,
        ..PoolOptions::default()
    };
    let pool = Pool::new(&user_identity(dir.path()), options).expect("a pool");
    let mut first = Box::pin(pool.call(address, ask("x"), soon()));
    let second = async {
        loop {
            let near = Instant::now() + Duration::from_millis(20);
            if let Err(CallError::Overloaded { .. }) = pool.call(address, ask("y"), near).await {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        answer = &mut first => panic!("nobody answers: {answer:?}"),
        () = second => {}
    }
}

#[tokio::test]
async fn a_garbage_frame_ends_its_stream_and_nothing_else() {
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let cluster = user_identity(dir.path()).cluster();
    let connection = raw(dir.path(), "user-ann", address).await;
    let work = async {
        let (mut good, mut answers) = connection.open_bi().await.expect("a stream");
        good.write_all(&hello(cluster, StreamKind::Requests))
            .await
            .expect("written");
        let (mut bad, mut refused) = connection.open_bi().await.expect("a stream");
        bad.write_all(&hello(cluster, StreamKind::Requests))
            .await
            .expect("written");
        bad.write_all(&[5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff])
            .await
            .expect("written");
        let code = CloseCode::BadFrame.var();
        assert_eq!(
            refused.read_to_end(10).await.map_err(reset_code),
            Err(Some(code))
        );

        // A frame that claims to be larger than any may be.
        let (mut huge, mut refused) = connection.open_bi().await.expect("a stream");
        huge.write_all(&hello(cluster, StreamKind::Requests))
            .await
            .expect("written");
        huge.write_all(&u32::MAX.to_le_bytes())
            .await
            .expect("written");
        assert_eq!(
            refused.read_to_end(10).await.map_err(reset_code),
            Err(Some(code))
        );

        // A stream that does not begin as it should.
        let (mut rude, mut refused) = connection.open_bi().await.expect("a stream");
        rude.write_all(b"GET / HTTP/1.1\r\n")
            .await
            .expect("written");
        let code = CloseCode::BadHello.var();
        assert_eq!(
            refused.read_to_end(10).await.map_err(reset_code),
            Err(Some(code))
        );

        let mut out = bytes::BytesMut::new();
        let frame = ClientFrame::Node {
            id: 5,
            request: NodeRequest::Info,
        };
        synod_rpc::frame::encode(&frame, &mut out).expect("fits");
        good.write_all(&out).await.expect("the good stream lives");
        let mut header = [0; 4];
        answers.read_exact(&mut header).await.expect("answered");
    };
    tokio::select! {
        () = echo(&node) => unreachable!("the echo never ends"),
        () = work => {}
    }
    assert_eq!(node.counters().bad_frames, 3);
}

fn reset_code(error: quinn::ReadToEndError) -> Option<VarInt> {
    match error {
        quinn::ReadToEndError::Read(ReadError::Reset(code)) => Some(code),
        other => panic!("unexpected {other}"),
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_connection() {
    let dir = certificates();
    let mut options = options(1, 1);
    options.reply_bytes = 1 << 20;
    let (node, address) = bind(dir.path(), "a", options);
    let cluster = user_identity(dir.path()).cluster();
    let connection = raw(dir.path(), "user-ann", address).await;
    let work = async {
        let (mut send, _answers) = connection.open_bi().await.expect("a stream");
        send.write_all(&hello(cluster, StreamKind::Requests))
            .await
            .expect("written");
        for id in 0.. {
            let mut out = bytes::BytesMut::new();
            let frame = ask(vec![1; 300_000]).numbered(id);
            synod_rpc::frame::encode(&frame, &mut out).expect("fits");
            if send.write_all(&out).await.is_err() {
                break;
            }
        }
        connection.closed().await.to_string()
    };
    let reason = tokio::select! {
        () = echo(&node) => unreachable!("the echo never ends"),
        reason = work => reason,
    };
    // QUIC does not repeat a farewell that gets lost; then a reset ends it.
    assert!(
        reason.contains("answers were not read") || reason.contains("reset by peer"),
        "{reason}"
    );
    assert_eq!(node.counters().slow_readers, 1);
}

/// Each of them stays below its own bound; together they hold more than a node keeps.
#[tokio::test]
async fn clients_that_do_not_read_share_a_bound() {
    let dir = certificates();
    let mut options = options(1, 1);
    options.reply_bytes = 64 << 20;
    options.all_reply_bytes = 4 << 20;
    let (node, address) = bind(dir.path(), "a", options);
    let cluster = user_identity(dir.path()).cluster();
    let mut deaf = Vec::new();
    for _ in 0..4 {
        deaf.push(raw(dir.path(), "user-ann", address).await);
    }
    let reader = pool(dir.path());
    let work = async {
        insist(&reader, address).await;
        let mut streams = Vec::new();
        for connection in &deaf {
            let (mut send, answers) = connection.open_bi().await.expect("a stream");
            send.write_all(&hello(cluster, StreamKind::Requests))
                .await
                .expect("written");
            streams.push((send, answers));
        }
        // In turn, so that all have as much waiting.
        for id in 0..40 {
            for (send, _) in &mut streams {
                let mut out = bytes::BytesMut::new();
                let frame = ask(vec![1; 300_000]).numbered(id);
                synod_rpc::frame::encode(&frame, &mut out).expect("fits");
                // Whose connection is closed is not heard any more.
                let _ = send.write_all(&out).await;
            }
        }
        while node.counters().slow_readers == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Over the same connection: whoever reads is not closed for who does not.
        reader
            .call(address, ask("still here"), soon())
            .await
            .expect("its connection goes on");
    };
    tokio::select! {
        () = echo(&node) => unreachable!("the echo never ends"),
        done = tokio::time::timeout(Duration::from_secs(30), work) => done.expect("one is closed"),
    }
    assert!(node.counters().slow_readers <= 4, "and no reader");
}

#[tokio::test]
async fn connections_over_the_bound_are_refused() {
    let dir = certificates();
    let mut options = options(1, 1);
    options.max_connections = 1;
    let (node, address) = bind(dir.path(), "a", options);
    let (first, second) = (pool(dir.path()), pool(dir.path()));
    let work = async {
        insist(&first, address).await;
        let refused = second.call(address, ask("x"), soon()).await;
        match refused {
            // It may pass, so it is no refusal.
            Err(CallError::Connect { reason, .. }) => {
                assert!(reason.contains("too many connections"), "{reason}");
            }
            other => panic!("unexpected {other:?}"),
        }
        drop(first);
        insist(&second, address).await;
    };
    tokio::select! {
        () = echo(&node) => unreachable!("the echo never ends"),
        () = work => {}
    }
}

#[tokio::test]
async fn pools_over_one_socket_have_connections_of_their_own() {
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let work = async {
        let first = pool(dir.path());
        let second = first.beside();
        for pool in [&first, &second] {
            let answer = pool.call(address, ask("x"), soon()).await;
            assert_eq!(answered(&answer.expect("an answer")), "x");
        }
        drop(first);
        assert!(second.is_connected(address));
        let answer = second.call(address, ask("y"), soon()).await;
        assert_eq!(answered(&answer.expect("an answer")), "y");
        let third = second.beside();
        assert!(!third.is_connected(address));
    };
    tokio::select! {
        () = echo(&node) => unreachable!("the echo never ends"),
        () = work => {}
    }
}

#[test]
fn a_pool_with_its_own_thread_serves_any_executor() {
    let dir = certificates();
    let node = Victim::start(dir.path(), LOOPBACK, 1);
    let options = PoolOptions {
        io: Io::OwnThread,
        ..PoolOptions::default()
    };
    let pool = Pool::new(&user_identity(dir.path()), options).expect("a pool");
    // No tokio here at all, and callers on several threads.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| block_on(insist(&pool, node.address)));
        }
    });
    let silent = Pool::new(
        &user_identity(dir.path()),
        PoolOptions {
            io: Io::Caller,
            ..PoolOptions::default()
        },
    );
    assert!(silent.is_err(), "there is no runtime here");
}

/// The simplest executor there is.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future
            .as_mut()
            .poll(&mut std::task::Context::from_waker(&waker))
        {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
