//! How a shard's keys are stored changes by its log, and only while it has none (decision 22).

mod common;

use common::{Node, SHARD, at, everything};
use synod_paxos::{ClusterVersion, Durable, GroupId};
use synod_shard::{HashError, Splitting};
use synod_txn::request::{LockMode, Refusal};
use synod_txn::{
    AttemptId, ClientId, CommitRequest, Hashing, Key, Outcome, Participant, Priority, Request,
    Response, Span, Write,
};

const MILLISECOND: u64 = 1_000_000;

fn hashing(slots: u64) -> Hashing {
    Hashing::new(Key::from_static(b"d/"), slots).expect("sound")
}

fn key() -> Key {
    Key::from_static(b"d/x")
}

/// A node that leads a shard of the directory's keys.
fn node() -> Node {
    let first = Node::first(3);
    let durable = Durable::new(first.log().configuration);
    let mut node = Node::of(hashing(2).span(), 3, 1, durable);
    node.learn(3);
    assert!(node.leads());
    node
}

/// Asks for it until there is an end.
fn hash(node: &mut Node, wanted: Option<&Hashing>) -> Result<Splitting, HashError> {
    for _ in 0..20 {
        let answer = node.worker.hash(at(node.now), SHARD, wanted);
        match answer {
            Ok(Splitting::Underway) | Err(HashError::NotLeader { .. }) => node.pass(),
            _ => return answer,
        }
    }
    panic!("it has no end");
}

fn ask(node: &mut Node, hashing: Option<Hashing>, request: Request) -> Option<Response> {
    node.ask(SHARD, hashing, request)
}

/// Time for ids, and the term.
fn located(node: &mut Node, hashing: Option<Hashing>) -> Response {
    ask(node, hashing, Request::Locate).expect("an answer")
}

fn commit(
    node: &mut Node,
    hashing: Option<Hashing>,
    key: &Key,
    value: Option<&'static [u8]>,
) -> Response {
    let Response::Located { term, now } = located(node, hashing.clone()) else {
        panic!("it does not lead");
    };
    let request = Request::Commit(Box::new(CommitRequest {
        attempt: AttemptId((u128::from(now.0 / MILLISECOND) << 80) + u128::from(node.now)),
        priority: Priority::default(),
        client: ClientId(1),
        session: None,
        writes: vec![Write {
            key: key.clone(),
            value: value.map(Key::from_static),
        }],
        reads: Vec::new(),
        participants: vec![Participant {
            anchor: key.clone(),
            shard: SHARD,
            term,
        }],
        here: 0,
        coordinator: 0,
        timeout_millis: 1_000,
        snapshot: None,
    }));
    ask(node, hashing, request).expect("an answer")
}

fn is_committed(response: &Response) -> bool {
    let committed = |outcome: &Outcome| matches!(outcome, Outcome::Committed(_));
    matches!(response, Response::Outcome { outcome, .. } if committed(outcome))
}

fn latest(key: &Key) -> Request {
    let span = Span::of_key(key);
    Request::Latest {
        keys: Vec::new(),
        scan: Some(synod_txn::request::ScanRange {
            span,
            limit: 1,
            reverse: false,
        }),
    }
}

fn other(hashing: Option<Hashing>) -> Option<Response> {
    Some(Response::Refused(Refusal::OtherSharding { hashing }))
}

#[test]
fn who_maps_otherwise_is_told_how() {
    let mut node = node();
    let (few, many) = (hashing(4), hashing(64));
    assert!(matches!(
        ask(&mut node, None, latest(&key())),
        Some(Response::Read { .. })
    ));
    assert_eq!(
        ask(&mut node, Some(few.clone()), latest(&key())),
        other(None)
    );
    assert_eq!(hash(&mut node, Some(&few)), Ok(Splitting::Done));
    assert_eq!(hash(&mut node, Some(&few)), Ok(Splitting::Done));
    let stored = few.store(&key());
    for wrong in [None, Some(many.clone())] {
        assert_eq!(
            ask(&mut node, wrong.clone(), latest(&stored)),
            other(Some(few.clone()))
        );
        assert_eq!(
            located(&mut node, wrong),
            other(Some(few.clone())).expect("it")
        );
    }
    let read = ask(&mut node, Some(few.clone()), latest(&stored));
    assert!(matches!(read, Some(Response::Read { .. })), "{read:?}");
    // A plain key under the right name is no stored one.
    let refused = commit(
        &mut node,
        Some(few.clone()),
        &Key::from_static(b"d/\x00\x07x"),
        Some(b"1"),
    );
    assert!(
        matches!(refused, Response::Refused(Refusal::Invalid(_))),
        "{refused:?}"
    );
    assert!(is_committed(&commit(
        &mut node,
        Some(few.clone()),
        &stored,
        Some(b"1")
    )));
    // Neither another number of slots nor none while there is a key.
    for wanted in [Some(&many), None] {
        let refused = hash(&mut node, wanted);
        assert_eq!(refused, Err(HashError::NotEmpty { key: key() }));
    }
    assert!(is_committed(&commit(
        &mut node,
        Some(few.clone()),
        &stored,
        None
    )));
    assert_eq!(hash(&mut node, Some(&many)), Ok(Splitting::Done));
    assert_eq!(
        ask(&mut node, Some(few), latest(&stored)),
        other(Some(many.clone()))
    );
    assert_eq!(hash(&mut node, None), Ok(Splitting::Done));
    assert!(is_committed(&commit(&mut node, None, &key(), Some(b"1"))));
    let refused = hash(&mut node, Some(&many));
    assert_eq!(refused, Err(HashError::NotEmpty { key: key() }));
    // It serves on.
    assert!(is_committed(&commit(&mut node, None, &key(), Some(b"2"))));
}

#[test]
fn locks_of_before_are_gone() {
    let mut node = node();
    let Response::Located { now, term } = located(&mut node, None) else {
        panic!("it does not lead");
    };
    let attempt = AttemptId(u128::from(now.0 / MILLISECOND) << 80);
    let read = Request::LockedRead {
        attempt,
        priority: Priority::default(),
        client: ClientId(1),
        session: None,
        keys: Vec::new(),
        scan: Some(synod_txn::request::ScanRange {
            span: Span::of_key(&key()),
            limit: 1,
            reverse: false,
        }),
        mode: LockMode::Shared,
    };
    let Some(Response::Read {
        session: Some(session),
        ..
    }) = ask(&mut node, None, read)
    else {
        panic!("it was not read");
    };
    assert_eq!(hash(&mut node, Some(&hashing(2))), Ok(Splitting::Done));
    let validate = Request::Validate {
        attempt,
        session: (term, session),
        keep: false,
    };
    let answer = ask(&mut node, None, validate);
    assert!(!matches!(answer, Some(Response::Valid)), "{answer:?}");
    let Response::Located { term: next, .. } = located(&mut node, Some(hashing(2))) else {
        panic!("it does not lead");
    };
    assert!(next > term);
}

#[test]
fn a_shard_of_other_keys_or_an_older_version_is_refused() {
    let mut whole = Node::first(3);
    let (at, since) = (ClusterVersion(1), ClusterVersion(3));
    let refused = hash(&mut whole, Some(&hashing(2)));
    assert_eq!(refused, Err(HashError::Version { at, since }));
    whole.learn(3);
    let refused = hash(&mut whole, Some(&hashing(2)));
    assert_eq!(refused, Err(HashError::OtherRange { shard: SHARD.0 }));
    assert_eq!(whole.worker.map().shards[0].span, everything());
}

#[test]
fn a_cut_and_a_restart_keep_it() {
    let mut node = node();
    let few = hashing(4);
    assert_eq!(hash(&mut node, Some(&few)), Ok(Splitting::Done));
    let mut again = Node::of(few.span(), 3, 2, node.log());
    assert!(again.leads());
    assert_eq!(
        ask(&mut again, None, latest(&key())),
        other(Some(few.clone()))
    );
    let cut = few.border(2);
    let child = GroupId(7);
    for _ in 0..20 {
        if again.worker.split(at(again.now), SHARD, &cut, child) == Ok(Splitting::Done) {
            break;
        }
        again.pass();
    }
    let shard = again.worker.shard(SHARD).expect("it is here");
    assert_eq!(shard.descriptor().span.end, cut);
    assert_eq!(shard.hashing(), Some(&few));
    let births = &shard.group().state().lineage.children;
    assert_eq!(births.len(), 1);
    // What is left of a directory by a cut cannot change alone.
    for wanted in [None, Some(hashing(8))] {
        let refused = hash(&mut again, wanted.as_ref());
        assert_eq!(refused, Err(HashError::OtherRange { shard: SHARD.0 }));
    }
}
