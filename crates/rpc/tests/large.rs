//! Large requests: of no more memory than there is room for, and at some pace.

mod common;

use bytes::{Bytes, BytesMut};
use common::*;
use quinn::{ConnectionError, SendStream};
use synod_paxos::{GroupId, Term};
use synod_rpc::close::CloseCode;
use synod_rpc::frame::{self, FrameError, HEADER_BYTES, MAX_FRAME_BYTES, MAX_REQUEST_BYTES};
use synod_rpc::hello::StreamKind;
use synod_rpc::wire::LIVE_PER_FRAME;
use synod_rpc::{ClientFrame, RequestBody};
use synod_shard::ShardRequest;
use synod_txn::request::CommitRequest;
use synod_txn::settings::MAX_READ_KEYS;
use synod_txn::{AttemptId, ClientId, Key, Participant, Priority, Request, Span, Write};

const MIB: u64 = 1 << 20;

/// A frame that reads one key of so many bytes.
fn large(bytes: usize) -> Bytes {
    let mut out = BytesMut::new();
    let frame = ask(vec![b'x'; bytes]).numbered(1);
    frame::encode_request(&frame, &mut out).expect("it fits");
    out.freeze()
}

/// A stream for requests.
async fn stream(connection: &quinn::Connection, cluster: u128) -> (SendStream, quinn::RecvStream) {
    let (mut send, recv) = connection.open_bi().await.expect("opens");
    let hello = hello(cluster, StreamKind::Requests);
    send.write_all(&hello).await.expect("it is taken");
    (send, recv)
}

/// Two requests fill the room for large ones; a third is not read until one of them is whole.
#[tokio::test]
async fn a_large_request_waits_for_room_and_small_ones_do_not() {
    const HALF: usize = 40 << 20;
    let dir = certificates();
    let mut options = options(1, 1);
    options.large_request_bytes = 2 * HALF + (2 << 20);
    let (node, address) = bind(dir.path(), "a", options);
    let events = node.events();
    let pool = pool(dir.path());
    let cluster = pool.cluster();
    let frame = large(HALF);
    let mut begun = Vec::new();
    for _ in 0..2 {
        let connection = raw(dir.path(), "user-ann", address).await;
        let (mut send, recv) = stream(&connection, cluster).await;
        send.write_all(&frame[..HALF / 2])
            .await
            .expect("it is read");
        begun.push((connection, send, recv));
    }
    let read = || node.counters().bytes_in;
    until("both are read", || read() >= HALF as u64 - MIB).await;

    let third = raw(dir.path(), "user-ann", address).await;
    let (mut send, _recv) = stream(&third, cluster).await;
    let whole = frame.clone();
    let sending = tokio::spawn(async move {
        send.write_all(&whole).await.expect("it is read in the end");
        send
    });
    for number in 0..20 {
        let small = pool.call(address, ask(format!("{number}")), soon());
        let answered = async {
            let (connection, id) = next(&events, asked).await;
            node.reply(
                connection,
                &echo_of(&ask("x").numbered(id)).expect("an echo"),
            );
        };
        let (small, ()) = tokio::join!(small, answered);
        small.expect("small ones are served");
    }
    assert!(!sending.is_finished());
    assert!(read() < HALF as u64 + 4 * MIB, "{} bytes were read", read());

    let (_connection, mut send, _recv) = begun.remove(0);
    send.write_all(&frame[HALF / 2..])
        .await
        .expect("it is read");
    for _ in 0..2 {
        next(&events, asked).await;
    }
    sending.await.expect("no panic");
}

#[tokio::test]
async fn a_large_request_that_does_not_come_costs_its_sender_the_connection() {
    let dir = certificates();
    let (node, address) = bind(dir.path(), "a", options(1, 1));
    let pool = pool(dir.path());
    let connection = raw(dir.path(), "user-ann", address).await;
    let (mut send, _recv) = stream(&connection, pool.cluster()).await;
    let frame = large(MIB as usize + 1);
    send.write_all(&frame[..1000]).await.expect("it is read");
    let closed = tokio::time::timeout(PATIENCE, connection.closed()).await;
    match closed.expect("it is closed in time") {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code, CloseCode::SlowWriter.var());
        }
        other => panic!("{other}"),
    }
    assert_eq!(node.counters().refused, 1);
}

fn commit(change: impl FnOnce(&mut CommitRequest)) -> Request {
    let mut commit = CommitRequest {
        attempt: AttemptId(1),
        priority: Priority::default(),
        client: ClientId(1),
        session: None,
        writes: Vec::new(),
        reads: Vec::new(),
        participants: Vec::new(),
        here: 0,
        coordinator: 0,
        timeout_millis: 1,
        snapshot: None,
    };
    change(&mut commit);
    Request::Commit(Box::new(commit))
}

fn body(frame: &ClientFrame) -> Bytes {
    let mut out = BytesMut::new();
    frame::encode_request(frame, &mut out).expect("it fits");
    out.split_off(HEADER_BYTES).freeze()
}

fn asking(request: Request) -> Bytes {
    let request = ShardRequest {
        shard: GroupId(2),
        generation: 1,
        request,
        hashing: None,
    };
    body(&RequestBody::Shard(request).numbered(1))
}

/// Frames that are large for what they say, and would be many times larger in memory.
#[test]
fn frames_of_countless_small_things_are_not_decoded() {
    let span = Span {
        start: Key::new(),
        end: Key::new(),
    };
    let write = Write {
        key: Key::new(),
        value: None,
    };
    let participant = Participant {
        anchor: Key::new(),
        shard: GroupId(0),
        term: Term::default(),
    };
    let keys = |count| Request::Latest {
        keys: vec![Key::new(); count],
        scan: None,
    };
    // One too many is told so, in words, by the shard.
    ClientFrame::decode(&asking(keys(MAX_READ_KEYS + 1))).expect("it is decoded");
    let most = asking(commit(|c| c.writes = vec![write.clone(); 4 << 20]));
    ClientFrame::decode(&most).expect("as many writes as a transaction may have");
    for countless in [
        keys(1 << 20),
        commit(|c| c.writes = vec![write; (4 << 20) + 1]),
        commit(|c| c.reads = vec![span; 1 << 20]),
        commit(|c| c.participants = vec![participant; 1 << 20]),
    ] {
        let decoded = ClientFrame::decode(&asking(countless));
        let undecodable = matches!(decoded, Err(FrameError::Undecodable { .. }));
        assert!(undecodable, "it is decoded");
    }
    let live = |count| ClientFrame::KeepAlive {
        client: ClientId(1),
        live: vec![AttemptId(0); count],
    };
    ClientFrame::decode(&body(&live(LIVE_PER_FRAME))).expect("it is decoded");
    ClientFrame::decode(&body(&live(LIVE_PER_FRAME + 1))).expect_err("one too many");
}

#[test]
fn only_what_asks_a_shard_may_be_larger_than_other_frames() {
    let mut node = vec![0; MAX_FRAME_BYTES + 1];
    node[0] = 2;
    assert_eq!(ClientFrame::decode(&node), Err(FrameError::TooLarge));
    let largest = large(MAX_REQUEST_BYTES - 100);
    ClientFrame::decode(&largest[HEADER_BYTES..]).expect("it is decoded");
}
