//! What a supporter grants, keeps and makes durable.

use super::*;

#[test]
fn no_limit_is_told_before_it_is_durable() {
    let mut b = fresh(B);
    deliver(&mut b, mono(1), A, renew(1, mono(0), WALL + 5));
    let effects = b.drain_effects();
    let [
        LeaseEffect::Persist {
            record,
            release,
            seq,
        },
    ] = effects.as_slice()
    else {
        panic!("one record and nothing else: {effects:?}");
    };
    assert_eq!((record.holder, record.limit), (A, Timestamp(WALL + 5)));
    assert_eq!(record.longest_lease_nanos, LEASE);
    assert_eq!(release, &[(A, told(&b, mono(0), WALL + 5))]);
    assert_eq!(b.granted_limit(A), Timestamp(WALL + 5), "not understated");

    // A younger Renew rides on the same record and is told no more than that one says.
    deliver(&mut b, mono(2), A, renew(1, mono(1), WALL + 9));
    deliver(&mut b, mono(3), A, renew(1, mono(2), WALL + 9));
    assert_eq!(outbound(&mut b), (vec![], vec![]));
    b.handle_persisted(mono(4), *seq + 1);
    assert_eq!(outbound(&mut b), (vec![], vec![]), "not its completion");
    b.handle_persisted(mono(4), *seq);
    let answered = told(&b, mono(2), WALL + 5);
    assert_eq!(
        outbound(&mut b),
        (vec![answered], vec![]),
        "only the youngest"
    );

    // Durable already: no record, no waiting; and never lowered.
    deliver(&mut b, mono(5), A, renew(1, mono(4), WALL));
    let answered = told(&b, mono(4), WALL + 5);
    assert_eq!(outbound(&mut b), (vec![answered], vec![]));
    deliver(&mut b, mono(6), A, renew(1, mono(5), WALL + 6));
    assert_eq!(
        outbound(&mut b).1.len(),
        1,
        "a higher one takes a new record"
    );
}

/// The Support that `b` must have answered at the wall clock of `sent` + 1 ms.
fn told(b: &NodeLease, sent: Mono, limit: u64) -> LeaseMessage {
    let received = sent.plus(MS);
    let (earliest, latest) = wall(received);
    LeaseMessage::Support {
        holder: Incarnation(1),
        sent,
        epoch: b.supports(A, received).expect("supports"),
        lease_nanos: LEASE,
        limit: Timestamp(limit),
        earliest,
        latest,
    }
}

#[test]
fn the_limit_stays_near_the_supporters_own_clock() {
    let mut b = fresh(B);
    deliver(&mut b, mono(0), A, renew(1, mono(0), u64::MAX));
    settle(&mut b, mono(0));
    assert_eq!(b.granted_limit(A), Timestamp(WALL + 1_000 * MS));

    // The wall clock steps back by an hour: nothing is taken back, nothing added.
    let back = Timestamp(WALL - 3_600_000 * MS);
    b.handle_message(
        mono(1),
        (back, back),
        A,
        renew(1, mono(1), WALL + 2_000 * MS),
    );
    let (sends, records) = outbound(&mut b);
    assert!(records.is_empty() && sends.len() == 1);
    assert_eq!(b.granted_limit(A), Timestamp(WALL + 1_000 * MS));

    // A group's replicated timestamp may always be exceeded a little.
    let last = Timestamp(WALL + 1_000_000 * MS);
    b.raise_replicated(last);
    b.raise_replicated(Timestamp(1));
    b.handle_message(mono(2), (back, back), A, renew(1, mono(2), u64::MAX));
    assert_eq!(b.granted_limit(A), last.plus(MS));
}

#[test]
fn support_that_lapsed_comes_back_under_another_epoch() {
    let mut b = fresh(B);
    deliver(&mut b, mono(0), A, renew(1, mono(0), 0));
    let last = LEASE + LEASE / 1_000 - 1;
    deliver(&mut b, Mono(last), A, renew(1, Mono(last), 0));
    assert_eq!(b.supports(A, Mono(last)), Some(epoch(1, 1, 1)), "in time");
    let late = Mono(last).plus(LEASE + LEASE / 1_000);
    deliver(&mut b, late, A, renew(1, late, 0));
    assert_eq!(
        b.supports(A, late),
        Some(epoch(1, 1, 2)),
        "one nanosecond late"
    );
}

#[test]
fn replicas_are_told_when_support_ends() {
    let mut b = fresh(B);
    deliver(&mut b, mono(0), A, renew(1, mono(0), 0));
    assert!(b.take_changed());
    let end = Mono(LEASE + LEASE / 1_000);
    assert!(b.next_timeout() <= Some(end));
    b.handle_timeout(Mono(end.0 - 1), wall(end));
    assert!(!b.take_changed());
    b.handle_timeout(end, wall(end));
    assert!(b.take_changed(), "they may promise others now");
    b.handle_timeout(end, wall(end));
    assert!(!b.take_changed());
}

#[test]
fn repeated_and_overtaken_renewals_keep_nothing_up() {
    let mut b = fresh(B);
    deliver(&mut b, mono(10), A, renew(1, mono(5), 0));
    settle(&mut b, mono(10));
    for sent in [5, 4] {
        deliver(&mut b, mono(400), A, renew(1, mono(sent), 0));
    }
    assert_eq!(outbound(&mut b), (vec![], vec![]));
    assert_eq!(b.supports(A, mono(620)), None);
    deliver(&mut b, mono(700), A, renew(1, mono(5), 0));
    assert_eq!(b.supports(A, mono(700)), None, "nor bring it back");
    assert_eq!(b.ignored()[&LeaseIgnored::OlderRenew], 3);
    for sent in [800, 900, 850] {
        deliver(&mut b, mono(1_000), A, renew(1, mono(sent), 0));
    }
    assert_eq!(
        b.ignored()[&LeaseIgnored::OlderRenew],
        4,
        "one was overtaken"
    );
}

#[test]
fn a_restarted_holder_frees_its_supporters_at_once() {
    let mut b = fresh(B);
    deliver(&mut b, mono(10), A, renew(1, mono(500), 0));
    b.take_changed();
    // The new incarnation's clock may start anew.
    deliver(&mut b, mono(20), A, renew(2, mono(1), 0));
    assert!(b.take_changed());
    assert_eq!(b.supports(A, mono(20)), Some(epoch(1, 2, 2)));
    deliver(&mut b, mono(30), A, renew(1, mono(600), 0));
    assert!(!b.take_changed());
    assert_eq!(b.supports(A, mono(30)), Some(epoch(1, 2, 2)));
    assert_eq!(b.ignored()[&LeaseIgnored::OldHolder], 1);
}

#[test]
fn a_longer_lease_is_granted_only_once_its_length_is_durable() {
    let settings = LeaseSettings {
        longest_lease_nanos: 4 * LEASE,
        ..LeaseSettings::default()
    };
    let mut b = NodeLease::new(settings, B, Incarnation(1), vec![A], vec![], mono(0));
    deliver(&mut b, mono(0), A, renew(1, mono(0), 0));
    settle(&mut b, mono(0));
    let long = |sent| match renew(1, sent, 0) {
        LeaseMessage::Renew {
            holder,
            supporter,
            want,
            earliest,
            latest,
            ..
        } => {
            let lease_nanos = u64::MAX;
            LeaseMessage::Renew {
                holder,
                supporter,
                sent,
                lease_nanos,
                want,
                earliest,
                latest,
            }
        }
        other => other,
    };
    deliver(&mut b, mono(1), A, long(mono(1)));
    let (sends, records) = outbound(&mut b);
    assert!(sends.is_empty());
    assert_eq!(records[0].1.longest_lease_nanos, 4 * LEASE);
    b.handle_persisted(mono(2), records[0].0);
    deliver(&mut b, mono(3), A, long(mono(3)));
    assert_eq!(outbound(&mut b).0.len(), 1);
    assert!(b.supports(A, Mono(4 * LEASE)).is_some());
    assert!(
        b.supports(A, Mono(5 * LEASE)).is_none(),
        "clamped to the longest"
    );
}

#[test]
fn while_a_record_is_pending_no_lease_is_longer_than_it_says() {
    let settings = LeaseSettings {
        longest_lease_nanos: 4 * LEASE,
        ..LeaseSettings::default()
    };
    let mut b = NodeLease::new(settings, B, Incarnation(1), vec![A], vec![], mono(0));
    deliver(&mut b, mono(0), A, renew(1, mono(0), 0));
    let LeaseMessage::Renew {
        holder,
        supporter,
        want,
        earliest,
        latest,
        ..
    } = renew(1, mono(1), 0)
    else {
        panic!("a renewal");
    };
    let (sent, lease_nanos) = (mono(1), 4 * LEASE);
    let long = LeaseMessage::Renew {
        holder,
        supporter,
        sent,
        lease_nanos,
        want,
        earliest,
        latest,
    };
    deliver(&mut b, mono(1), A, long);
    let told = settle(&mut b, mono(2));
    let lengths: Vec<u64> = told.iter().map(|(_, m)| granted_lease(m)).collect();
    assert_eq!(lengths, [LEASE, LEASE]);
}

#[test]
fn a_peer_that_left_and_came_back_gets_no_epoch_twice() {
    let mut b = fresh(B);
    deliver(&mut b, mono(0), A, renew(1, mono(0), 0));
    let first = b.supports(A, mono(0));
    b.set_peers(vec![]);
    assert_eq!(b.supports(A, mono(1)), first, "a promise stands");
    deliver(&mut b, mono(1), A, renew(1, mono(1), 0));
    assert_eq!(b.ignored()[&LeaseIgnored::UnknownPeer], 1);
    assert_eq!(b.supports(A, mono(2)), first, "whatever happens meanwhile");
    b.handle_timeout(mono(700), wall(mono(700)));
    b.set_peers(vec![A]);
    deliver(&mut b, mono(701), A, renew(1, mono(2), 0));
    assert_ne!(b.supports(A, mono(701)), first);
    assert!(b.supports(A, mono(701)).is_some());
}
