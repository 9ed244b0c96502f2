//! Commits: who takes part, which answers are final, and what happens when none comes.

use super::*;
use crate::types::{AbortReason, Outcome};

fn committed(at: u64) -> Response {
    Response::Outcome {
        outcome: Outcome::Committed(Timestamp(at)),
        syncs: 2,
    }
}

fn is_aborted(error: &TransactionError, expected: AbortReason) -> bool {
    matches!(error, TransactionError::Aborted { reason, .. } if *reason == expected)
}

fn is_status(out: &[Outgoing], shard: GroupId) -> bool {
    out.len() == 1 && out[0].shard == shard && matches!(out[0].request, Request::Status { .. })
}

/// A commit of blind writes to A and B; A coordinates.
fn two_shards() -> (Fixture, Vec<Outgoing>) {
    let mut f = Fixture::new(located());
    f.put("a", "1");
    f.put("i", "2");
    let out = f.commit();
    assert_eq!(out.iter().map(|o| o.shard).collect::<Vec<_>>(), [A, B]);
    (f, out)
}

#[test]
fn a_blind_write_with_a_known_term_is_one_request() {
    let mut f = Fixture::new(located());
    f.put("b", "2");
    f.put("a", "1");
    let out = f.commit();
    assert_eq!(out.len(), 1);
    let commit = as_commit(&out[0]);
    let keys: Vec<_> = commit.writes.iter().map(|w| w.key.clone()).collect();
    assert_eq!(keys, [key("a"), key("b")]);
    assert_eq!((commit.session, commit.participants.len()), (None, 1));
    f.answer(&out[0], committed(9));
    let Ok(Done::Committed(done)) = f.done() else {
        panic!()
    };
    assert_eq!(done.timestamp, Some(Timestamp(9)));
    assert_eq!((done.shards, done.syncs), (1, 2));
}

#[test]
fn unknown_terms_are_asked_for_first() {
    let mut f = Fixture::new(routes());
    f.read("a", None);
    f.put("a", "1");
    f.put("i", "1");
    f.put("z", "1");
    let out = f.commit();
    // A's term is known from the read.
    assert_eq!(out.iter().map(|o| o.shard).collect::<Vec<_>>(), [B, C]);
    assert!(out.iter().all(|o| o.request == Request::Locate));
    let located = |shard| Response::Located {
        term: term(shard, 3),
        now: Timestamp(1),
    };
    assert!(f.answer(&out[0], located(B)).is_empty());
    let commits = f.answer(&out[1], located(C));
    let terms: Vec<_> = as_commit(&commits[0])
        .participants
        .iter()
        .map(|p| p.term)
        .collect();
    assert_eq!(terms, [term(A, 1), term(B, 3), term(C, 3)]);
    assert_eq!(as_commit(&commits[0]).session, Some(SessionId(A.0)));
}

#[test]
fn shards_only_read_from_take_part_with_their_spans() {
    let mut f = Fixture::new(located());
    f.read("z", Some("guard"));
    f.read("a", Some("0"));
    f.put("a", "1");
    let out = f.commit();
    assert_eq!(out.iter().map(|o| o.shard).collect::<Vec<_>>(), [A, C]);
    // What is written needs no read span of its own.
    assert!(as_commit(&out[0]).reads.is_empty());
    let reader = as_commit(&out[1]);
    assert!(reader.writes.is_empty());
    assert_eq!(reader.reads, [Span::of_key(&key("z"))]);
    assert_eq!(reader.participants[1].anchor, key("z"));
    assert_eq!((reader.here, reader.coordinator), (1, 0));
}

#[test]
fn what_was_read_in_a_shard_that_was_split_is_read_again() {
    let mut f = Fixture::new(located());
    f.read("z", Some("old"));
    f.put("z", "new");
    let whole = located();
    let [a, b, c] = whole.all() else { panic!() };
    let (mut left, mut right) = (c.clone(), c.clone());
    left.span.end = key("y");
    (right.shard, right.span.start) = (GroupId(5), key("y"));
    f.routes = Routes::new(vec![a.clone(), b.clone(), left, right]);
    let error = f.txn.commit(&f.routes, &[], 1000).unwrap_err();
    assert!(is_aborted(&error, AbortReason::Moved), "{error:?}");
    let freed: Vec<_> = f.txn.take_outgoing();
    assert_eq!(freed.iter().map(|o| o.shard).collect::<Vec<_>>(), [C]);
}

#[test]
fn the_coordinator_is_the_nearest_shard_written_to() {
    let mut f = Fixture::new(located());
    f.read("z", None);
    f.put("a", "1");
    f.put("i", "1");
    f.txn.commit(&f.routes, &[C, B, A], 10).unwrap();
    let out = f.txn.take_outgoing();
    // C was only read from; the coordinator's anchor must be a key it writes.
    assert_eq!(out[0].shard, B);
    assert_eq!(as_commit(&out[0]).coordinator, 1);
}

#[test]
fn the_coordinators_word_ends_it_whoever_else_answered() {
    let (mut f, out) = two_shards();
    assert!(f.answer(&out[1], Response::Voting).is_empty());
    assert!(f.txn.take_done().is_none());
    assert!(f.answer(&out[0], committed(4)).is_empty());
    assert!(f.done().is_ok());
    // Later answers are ignored.
    assert!(f.reply(&out[1], Reply::Lost).is_empty());
}

#[test]
fn a_final_refusal_of_any_participant_is_an_abort() {
    let last_word = Refusal::WrongTerm {
        current: term(B, 5),
        last_word: true,
    };
    let wounded = Refusal::Aborted(AbortReason::Wounded);
    let untimely = Refusal::AttemptTime {
        now: Timestamp(3_000_000),
        least_millis: 2,
        most_millis: 5,
    };
    let cases = [
        (last_word, AbortReason::TermEnded),
        (wounded, AbortReason::Wounded),
        (untimely, AbortReason::Untimely),
    ];
    for (refusal, reason) in cases {
        let (mut f, out) = two_shards();
        let freed = f.refuse(&out[1], refusal);
        assert_eq!(released(&freed), [A, B]);
        assert!(is_aborted(&f.done().unwrap_err(), reason));
        let window = f.txn.window();
        assert_eq!(window.is_some(), reason == AbortReason::Untimely);
    }
}

#[test]
fn a_bound_broken_at_commit_is_not_retryable() {
    let (mut f, out) = two_shards();
    f.refuse(&out[0], Refusal::Invalid("too many spans".into()));
    let error = f.done().unwrap_err();
    assert!(!error.is_retryable());
    assert_eq!(error.to_string(), "too many spans");
}

#[test]
fn a_lost_connection_to_the_coordinator_ends_in_its_status() {
    let (mut f, out) = two_shards();
    let status = f.reply(&out[0], Reply::Lost);
    assert!(is_status(&status, A));
    assert_eq!(status[0].after_nanos, 0);
    let again = f.answer(&status[0], Response::Pending);
    assert!(is_status(&again, A));
    assert!(again[0].after_nanos > 0);
    f.answer(&again[0], committed(7));
    assert!(f.done().is_ok());
}

#[test]
fn a_status_of_no_is_an_abort() {
    let (mut f, out) = two_shards();
    let status = f.reply(&out[0], Reply::Lost);
    let aborted = Response::Outcome {
        outcome: Outcome::Aborted(AbortReason::Deadline),
        syncs: 0,
    };
    assert_eq!(released(&f.answer(&status[0], aborted)), [A, B]);
    assert!(f.done().unwrap_err().is_retryable());
}

#[test]
fn a_commit_that_never_arrived_is_sent_again_while_the_status_is_pending() {
    let (mut f, out) = two_shards();
    let mut sent = f.reply(&out[0], Reply::Lost);
    let mut resent = 0;
    for _ in 0..20 {
        let status = sent
            .iter()
            .find(|o| matches!(o.request, Request::Status { .. }))
            .expect("always one question under way")
            .clone();
        sent = f.answer(&status, Response::Pending);
        resent += sent
            .iter()
            .filter(|o| matches!(o.request, Request::Commit(_)) && o.shard == A)
            .count();
    }
    assert!((2..=6).contains(&resent), "{resent}");
}

#[test]
fn a_lost_connection_to_a_participant_repeats_its_commit() {
    let (mut f, out) = two_shards();
    let again = f.reply(&out[1], Reply::Lost);
    assert_eq!((again.len(), again[0].shard), (1, B));
    assert_eq!(as_commit(&again[0]), as_commit(&out[1]));
    assert!(again[0].after_nanos > 0);
    // Now it is unknown whether the first copy arrived: "unsent" proves nothing.
    assert!(f.reply(&again[0], Reply::Unsent).is_empty());
    assert!(f.txn.take_done().is_none());
}

#[test]
fn a_commit_nobody_can_have_handled_is_certainly_aborted() {
    for lost in 0..2 {
        let (mut f, out) = two_shards();
        f.reply(&out[lost], Reply::Unsent);
        assert!(is_aborted(&f.done().unwrap_err(), AbortReason::Deadline));
    }
}

#[test]
fn refusals_that_are_not_final_lead_to_questions() {
    for refusal in [
        Refusal::NotLeader { hint: None },
        Refusal::WrongShard,
        Refusal::Clock,
        Refusal::WrongTerm {
            current: term(A, 0),
            last_word: false,
        },
    ] {
        let (mut f, out) = two_shards();
        assert!(is_status(&f.refuse(&out[0], refusal.clone()), A));
        let (mut f, out) = two_shards();
        let repeated = f.refuse(&out[1], refusal);
        assert_eq!(as_commit(&repeated[0]), as_commit(&out[1]));
    }
}

#[test]
fn unknown_only_when_the_coordinator_cannot_be_asked() {
    let attempt = AttemptId(7);
    let unknown = Err(TransactionError::Unknown { attempt });
    for reply in [Reply::Unsent, Reply::Lost, Reply::Answer(Response::Expired)] {
        let (mut f, out) = two_shards();
        let status = f.reply(&out[0], Reply::Lost);
        assert!(f.reply(&status[0], reply).is_empty());
        assert_eq!(f.done(), unknown);
    }
    let (mut f, _) = two_shards();
    f.txn.give_up();
    assert_eq!(f.done(), unknown);
}

#[test]
fn a_participant_that_heard_the_outcome_may_tell_it() {
    let (mut f, out) = two_shards();
    f.answer(&out[1], committed(3));
    assert!(f.done().is_ok());
}

#[test]
fn rollback_frees_what_was_locked() {
    let mut f = Fixture::new(routes());
    f.read("a", None);
    f.put("z", "1");
    f.txn.rollback();
    assert_eq!(released(&f.txn.take_outgoing()), [A]);
    assert!(f.txn.is_ended() && f.txn.take_done().is_none());
    f.txn.rollback();
    assert!(f.txn.take_outgoing().is_empty());
}

#[test]
fn a_key_without_a_shard_is_named() {
    let only_a = vec![Route {
        shard: A,
        span: span("", "h"),
        term: None,
    }];
    let mut f = Fixture::new(Routes::new(only_a));
    f.put("z", "1");
    let error = f.txn.commit(&f.routes, &[], 10).unwrap_err();
    assert_eq!(error, TransactionError::NoRoute { key: key("z") });
}

/// The map once a range has become part of its neighbour.
fn merged(left: usize, into: GroupId) -> Routes {
    let whole = located();
    let mut all = whole.all().to_vec();
    let right = all.remove(left + 1);
    all[left].span.end = right.span.end;
    all[left].shard = into;
    Routes::new(all)
}

#[test]
fn a_commit_is_brought_to_the_shard_that_has_the_range_by_now() {
    let (mut f, out) = two_shards();
    let coordinator = &out[0];
    assert_eq!(coordinator.shard, A);
    // A's range is B's by now.
    f.routes = merged(0, B);
    let brought = f.reply(coordinator, Reply::Moved);
    assert_eq!(brought.len(), 1);
    assert_eq!(brought[0].shard, B);
    assert_eq!(brought[0].request, coordinator.request);
    // Only once: from then on it asks.
    let asked = f.reply(&brought[0], Reply::Moved);
    assert!(matches!(asked[0].request, Request::Status { .. }));
    assert_eq!(asked[0].shard, B);
}

#[test]
fn turned_down_where_it_was_brought_it_is_over() {
    let (mut f, out) = two_shards();
    f.routes = merged(0, B);
    let brought = f.reply(&out[0], Reply::Moved);
    let over = Response::Refused(Refusal::WrongTerm {
        current: term(B, 5),
        last_word: true,
    });
    f.answer(&brought[0], over);
    let error = f.done().unwrap_err();
    assert!(is_aborted(&error, AbortReason::TermEnded), "{error:?}");
}

#[test]
fn so_is_another_participants_once() {
    let (mut f, out) = two_shards();
    f.routes = merged(0, A);
    let brought = f.reply(&out[1], Reply::Moved);
    assert_eq!(brought.iter().map(|o| o.shard).collect::<Vec<_>>(), [A]);
    assert_eq!(brought[0].request, out[1].request);
    let repeated = f.reply(&brought[0], Reply::Moved);
    assert_eq!(repeated.iter().map(|o| o.shard).collect::<Vec<_>>(), [B]);
}
