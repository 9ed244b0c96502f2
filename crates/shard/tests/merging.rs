//! What clients are told while two shards become one (decision 19).

mod common;

use bytes::Bytes;
use common::{Node, SHARD, at};
use synod_paxos::GroupId;
use synod_shard::{Merging, Splitting};
use synod_txn::request::{LockMode, Refusal};
use synod_txn::{AbortReason, AttemptId, ClientId, Key, Priority, Request, Response};

const RIGHT: GroupId = GroupId(9);
const MILLISECOND: u64 = 1_000_000;

/// A node that leads two neighbours.
fn node() -> Node {
    let mut node = Node::first(3);
    node.learn(3);
    let border = Key::from_static(b"m");
    for _ in 0..20 {
        match node.worker.split(at(node.now), SHARD, &border, RIGHT) {
            Ok(Splitting::Done) => return node,
            _ => node.pass(),
        }
    }
    panic!("it was not split");
}

fn ask(node: &mut Node, shard: GroupId, request: Request) -> Option<Response> {
    node.ask(shard, None, request)
}

fn locked_read(node: &mut Node, shard: GroupId, key: &'static [u8]) -> Option<Response> {
    let Some(Response::Located { now, .. }) = ask(node, shard, Request::Locate) else {
        panic!("{shard} does not lead");
    };
    let attempt = u128::from(now.0 / MILLISECOND) << 80;
    read(node, shard, key, AttemptId(attempt + u128::from(node.now)))
}

fn read(
    node: &mut Node,
    shard: GroupId,
    key: &'static [u8],
    attempt: AttemptId,
) -> Option<Response> {
    let request = Request::LockedRead {
        attempt,
        priority: Priority::default(),
        client: ClientId(1),
        session: None,
        keys: Vec::new(),
        scan: Some(synod_txn::request::ScanRange {
            span: synod_txn::Span::of_key(&Bytes::from_static(key)),
            limit: 1,
            reverse: false,
        }),
        mode: LockMode::Shared,
    };
    ask(node, shard, request)
}

fn turned_down() -> Option<Response> {
    Some(Response::Refused(Refusal::Aborted(AbortReason::Moved)))
}

#[test]
fn a_read_under_locks_does_not_wait_for_a_merge() {
    let mut node = node();
    assert!(matches!(
        locked_read(&mut node, RIGHT, b"x"),
        Some(Response::Read { .. })
    ));
    let Some(Response::Located { now, .. }) = ask(&mut node, RIGHT, Request::Locate) else {
        panic!("the right one does not lead");
    };
    let attempt = AttemptId((u128::from(now.0 / MILLISECOND) << 80) + 7);

    // The right one's end has its slot, and is not decided.
    node.stalls = true;
    let begun = node.worker.merge(at(node.now), SHARD, RIGHT);
    assert_eq!(begun, Ok(Merging::Underway));
    node.settle();
    assert_eq!(read(&mut node, RIGHT, b"x", attempt), turned_down());
    // Without locks there is time.
    assert_eq!(ask(&mut node, RIGHT, Request::Locate), None);

    node.stalls = false;
    for _ in 0..20 {
        if node.worker.merge(at(node.now), SHARD, RIGHT) == Ok(Merging::Done) {
            break;
        }
        node.pass();
    }
    assert!(matches!(
        locked_read(&mut node, SHARD, b"x"),
        Some(Response::Read { .. })
    ));
}
