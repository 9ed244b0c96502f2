//! Reads, the buffer in front of them, and what ends a transaction early.

use super::*;
use crate::types::AbortReason;

fn values(done: Result<Done, TransactionError>) -> Vec<Option<Value>> {
    match done {
        Ok(Done::Values(values)) => values,
        other => panic!("not values: {other:?}"),
    }
}

#[test]
fn own_writes_are_read_without_asking() {
    let mut f = Fixture::new(routes());
    f.put("a", "1");
    f.txn.delete(key("z")).unwrap();
    assert!(f.get(&["a", "z"]).is_empty());
    assert_eq!(values(f.done()), vec![Some(key("1")), None]);
}

#[test]
fn keys_are_asked_from_their_shards_and_come_back_in_order() {
    let mut f = Fixture::new(routes());
    f.put("b", "own");
    let out = f.get(&["z", "a", "b", "i", "c"]);
    assert_eq!(out.iter().map(|o| o.shard).collect::<Vec<_>>(), [A, B, C]);
    assert!(f.answer(&out[2], read(C, 1, &[Some("vz")])).is_empty());
    assert!(f.txn.take_done().is_none());
    f.answer(&out[1], read(B, 1, &[None]));
    f.answer(&out[0], read(A, 1, &[Some("va"), Some("vc")]));
    let expected = ["vz", "va", "own", "", "vc"].map(|v| (!v.is_empty()).then(|| key(v)));
    assert_eq!(values(f.done()), expected);
}

#[test]
fn the_session_is_named_by_the_second_read() {
    let mut f = Fixture::new(routes());
    f.read("a", None);
    let out = f.get(&["b"]);
    let Request::LockedRead { session, .. } = &out[0].request else {
        panic!()
    };
    assert_eq!(*session, Some((term(A, 1), SessionId(A.0))));
}

#[test]
fn another_term_ends_the_transaction_and_frees_the_other_shards() {
    let mut f = Fixture::new(routes());
    f.read("a", None);
    f.read("i", None);
    let out = f.get(&["b"]);
    let freed = f.answer(&out[0], read(A, 2, &[None]));
    assert_eq!(released(&freed), [A, B]);
    let error = f.done().unwrap_err();
    assert!(error.is_retryable());
    assert!(matches!(
        error,
        TransactionError::Aborted {
            reason: AbortReason::TermEnded,
            ..
        }
    ));
    // Every later call says the same.
    assert_eq!(f.txn.put(key("a"), key("b")).unwrap_err(), error);
    assert_eq!(f.txn.commit(&f.routes, &[], 1).unwrap_err(), error);
}

#[test]
fn a_wound_while_reading_aborts() {
    let mut f = Fixture::new(routes());
    let out = f.get(&["a", "i"]);
    let freed = f.refuse(&out[1], Refusal::Aborted(AbortReason::Wounded));
    // The other shard may have granted locks by now: it is told, too.
    assert_eq!(released(&freed), [A, B]);
    assert!(f.done().unwrap_err().is_retryable());
}

#[test]
fn a_read_nobody_waited_for_is_given_up_and_released_at_the_end() {
    let mut f = Fixture::new(located());
    let stale = f.get(&["i"]);
    f.put("a", "1");
    let out = f.commit();
    assert!(f.answer(&stale[0], read(B, 1, &[None])).is_empty());
    // B never told of a session, so it takes no part.
    assert_eq!(as_commit(&out[0]).participants.len(), 1);
    let freed = f.answer(
        &out[0],
        Response::Outcome {
            outcome: crate::Outcome::Committed(Timestamp(9)),
            syncs: 1,
        },
    );
    assert_eq!(released(&freed), [B]);
}

#[test]
fn savepoints_undo_writes_and_nothing_else() {
    let mut f = Fixture::new(routes());
    f.put("a", "1");
    f.txn.savepoint("s").unwrap();
    f.put("a", "2");
    f.put("b", "2");
    f.txn.savepoint("t").unwrap();
    f.txn.delete(key("a")).unwrap();
    f.txn.rollback_to("t").unwrap();
    assert!(f.get(&["a", "b"]).is_empty());
    assert_eq!(values(f.done()), [Some(key("2")), Some(key("2"))]);
    f.txn.rollback_to("s").unwrap();
    // "t" was set after "s": it is gone, "s" stays.
    assert_eq!(
        f.txn.rollback_to("t"),
        Err(TransactionError::NoSavepoint("t".into()))
    );
    f.txn.rollback_to("s").unwrap();
    assert!(f.get(&["a"]).is_empty());
    assert_eq!(values(f.done()), [Some(key("1"))]);
    assert_eq!(f.get(&["b"]).len(), 1);
}

#[test]
fn a_read_only_transaction_refuses_writes_and_goes_on() {
    let mut f = Fixture::begin(routes(), true);
    assert_eq!(
        f.txn.put(key("a"), key("")),
        Err(TransactionError::ReadOnly)
    );
    let for_update = f.txn.get(&f.routes, vec![key("a")], LockMode::Exclusive);
    assert_eq!(for_update, Err(TransactionError::ReadOnly));
    f.read("a", None);
}

#[test]
fn one_shard_is_validated_and_freed_in_one_request() {
    let mut f = Fixture::begin(routes(), true);
    f.read("a", Some("1"));
    let out = f.commit();
    assert_eq!(out.len(), 1);
    assert!(matches!(
        out[0].request,
        Request::Validate { keep: false, .. }
    ));
    assert!(f.answer(&out[0], Response::Valid).is_empty());
    let Ok(Done::Committed(committed)) = f.done() else {
        panic!()
    };
    assert_eq!((committed.timestamp, committed.shards), (None, 1));
}

#[test]
fn many_shards_keep_their_locks_until_all_have_confirmed() {
    let mut f = Fixture::begin(routes(), true);
    f.read("a", None);
    f.read("i", None);
    let out = f.commit();
    let keeps = |o: &Outgoing| matches!(o.request, Request::Validate { keep: true, .. });
    assert!(out.len() == 2 && out.iter().all(keeps));
    assert!(f.answer(&out[0], Response::Valid).is_empty());
    assert!(f.txn.take_done().is_none());
    assert_eq!(released(&f.answer(&out[1], Response::Valid)), [A, B]);
    assert!(f.done().is_ok());
}

#[test]
fn a_lost_session_at_validation_aborts() {
    let mut f = Fixture::begin(routes(), true);
    f.read("a", None);
    f.read("i", None);
    let out = f.commit();
    f.answer(&out[0], Response::Valid);
    let freed = f.refuse(&out[1], Refusal::Aborted(AbortReason::SessionEnded));
    assert_eq!(released(&freed), [A, B]);
    assert!(f.done().unwrap_err().is_retryable());
}

#[test]
fn bounds_are_refused_and_change_nothing() {
    let mut f = Fixture::new(routes());
    let long = Key::from(vec![b'k'; crate::MAX_KEY_BYTES + 1]);
    let big = Value::from(vec![0; crate::MAX_VALUE_BYTES + 1]);
    for refused in [
        f.txn.put(Key::new(), key("v")),
        f.txn.put(long, key("v")),
        f.txn.put(key("k"), big),
    ] {
        assert!(matches!(refused, Err(TransactionError::Invalid(_))));
    }
    let value = Value::from(vec![0; crate::MAX_VALUE_BYTES]);
    for n in 0..7 {
        f.txn.put(key(&format!("k{n}")), value.clone()).unwrap();
    }
    let eighth = f.txn.put(key("k7"), value.clone());
    assert!(matches!(eighth, Err(TransactionError::Invalid(_))));
    // Writing a key again counts once.
    f.txn.put(key("k0"), value).unwrap();
}

#[test]
fn the_machine_survives_encoding() {
    let mut f = Fixture::new(routes());
    f.read("a", Some("1"));
    f.put("b", "2");
    let encoded = postcard::to_allocvec(&f.txn).unwrap();
    let decoded: Transaction = postcard::from_bytes(&encoded).unwrap();
    assert_eq!(decoded, f.txn);
}

#[test]
fn giving_up_a_read_frees_its_locks() {
    let mut f = Fixture::new(routes());
    f.get(&["a"]);
    f.txn.give_up();
    assert_eq!(released(&f.txn.take_outgoing()), [A]);
    assert_eq!(f.done(), Err(TransactionError::Unreachable { shard: A }));
}
