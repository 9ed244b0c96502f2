//! What a holder asks for and counts on.

use super::*;

#[test]
fn a_holder_asks_for_half_a_lease_of_timestamps_or_just_above_the_replicated_one() {
    let wants = |a: &mut NodeLease, now| {
        a.handle_timeout(now, wall(now));
        let effects = a.drain_effects();
        effects.iter().find_map(|effect| match effect {
            LeaseEffect::Send {
                message: LeaseMessage::Renew { want, .. },
                ..
            } => Some(want.0),
            _ => None,
        })
    };
    let mut a = fresh(A);
    assert_eq!(wants(&mut a, mono(0)), Some(WALL + LEASE / 2));
    assert_eq!(wants(&mut a, mono(149)), None, "not before a quarter of L");
    assert_eq!(wants(&mut a, mono(150)), Some(WALL + 150 * MS + LEASE / 2));
    a.raise_replicated(Timestamp(2 * WALL));
    assert_eq!(wants(&mut a, mono(300)), Some(2 * WALL + MS));
}

#[test]
fn overtaken_answers_of_one_epoch_neither_shorten_nor_lower() {
    let mut a = fresh(A);
    deliver(&mut a, mono(60), B, support(mono(50), epoch(1, 1, 1), 9));
    let held = a.held_from(B, mono(60));
    assert!(a.take_changed());
    deliver(&mut a, mono(61), B, support(mono(20), epoch(1, 1, 1), 8));
    assert_eq!(a.held_from(B, mono(61)), held);
    assert!(!a.take_changed());
    deliver(&mut a, mono(62), B, support(mono(61), epoch(1, 1, 1), 9));
    assert!(!a.take_changed(), "longer is no change");
    deliver(&mut a, mono(63), B, support(mono(62), epoch(1, 1, 1), 10));
    assert!(!a.take_changed(), "nor is a higher limit");
    assert!(a.take_raised() && !a.take_raised());
}

#[test]
fn epochs_are_never_mixed() {
    let mut a = fresh(A);
    deliver(&mut a, mono(100), B, support(mono(100), epoch(1, 1, 2), 9));
    deliver(&mut a, mono(101), B, support(mono(101), epoch(1, 1, 1), 99));
    let held = a.held_from(B, mono(101)).expect("held");
    assert_eq!((held.epoch, held.limit), (epoch(1, 1, 2), Timestamp(9)));

    // A newer epoch, sent for earlier, does not inherit the older one's end.
    deliver(&mut a, mono(102), B, support(mono(3), epoch(2, 1, 1), 9));
    let held = a.held_from(B, mono(102)).expect("held");
    assert_eq!(held.epoch, epoch(2, 1, 1));
    assert_eq!(held.until, mono(3).plus(LEASE - LEASE / 1_000));

    // One that is over on arrival ends the older one all the same.
    deliver(&mut a, mono(602), B, support(mono(1), epoch(2, 1, 2), 9));
    assert_eq!(a.held_from(B, mono(602)), None);
}

#[test]
fn support_for_another_incarnation_or_time_is_not_mine() {
    let mut a = machine(A, 3, Vec::new(), mono(1_000));
    deliver(
        &mut a,
        mono(1_010),
        B,
        support(mono(1_005), epoch(1, 2, 1), 9),
    );
    deliver(
        &mut a,
        mono(1_010),
        B,
        support(mono(999), epoch(1, 3, 1), 9),
    );
    deliver(
        &mut a,
        mono(1_010),
        B,
        support(mono(1_011), epoch(1, 3, 1), 9),
    );
    deliver(
        &mut a,
        mono(1_010),
        NodeId(9),
        support(mono(1_005), epoch(1, 3, 1), 9),
    );
    deliver(
        &mut a,
        mono(1_010),
        B,
        support(mono(1_005), epoch(1, 3, 0), 9),
    );
    let mut mixed = support(mono(1_005), epoch(1, 3, 1), 9);
    if let LeaseMessage::Support { holder, .. } = &mut mixed {
        *holder = Incarnation(2);
    }
    deliver(&mut a, mono(1_010), B, mixed);
    assert_eq!(a.held_from(B, mono(1_010)), None);
    let counts: Vec<u64> = a.ignored().values().copied().collect();
    assert_eq!(counts, [1, 2, 2, 1]);
    deliver(
        &mut a,
        mono(1_010),
        B,
        support(mono(1_010), epoch(1, 3, 1), 9),
    );
    assert!(a.held_from(B, mono(1_010)).is_some());
}

#[test]
fn no_more_is_counted_on_than_the_longest_lease() {
    let mut a = fresh(A);
    let mut endless = support(mono(0), epoch(1, 1, 1), 0);
    if let LeaseMessage::Support { lease_nanos, .. } = &mut endless {
        *lease_nanos = u64::MAX;
    }
    deliver(&mut a, mono(1), B, endless);
    let until = a.held_from(B, mono(1)).map(|held| held.until);
    assert_eq!(until, Some(Mono(LEASE - LEASE / 1_000)));
}

#[test]
fn a_slow_pair_asks_for_four_round_trips_as_far_as_allowed() {
    let settings = LeaseSettings {
        longest_lease_nanos: 2 * LEASE,
        ..LeaseSettings::default()
    };
    let mut a = NodeLease::new(settings, A, Incarnation(1), vec![B], vec![], mono(0));
    deliver(&mut a, mono(250), B, support(mono(0), epoch(1, 1, 1), 0));
    let asked = |a: &mut NodeLease, now| {
        a.handle_timeout(now, wall(now));
        let effects = a.drain_effects();
        effects.iter().find_map(|effect| match effect {
            LeaseEffect::Send { to: B, message } => Some(granted_lease(message)),
            _ => None,
        })
    };
    assert_eq!(asked(&mut a, mono(250)), Some(1_000 * MS));
    deliver(&mut a, mono(320), B, support(mono(250), epoch(1, 1, 1), 0));
    assert_eq!(
        asked(&mut a, mono(480)),
        Some(LEASE),
        "the shortest one seen counts"
    );
}

#[test]
fn clocks_of_peers_come_with_their_age_as_far_as_known() {
    let mut a = fresh(A);
    assert_eq!(a.wall_of(B), None);
    deliver(&mut a, mono(5), B, renew(1, mono(3), 0));
    assert_eq!(
        a.wall_of(B).map(|w| (w.received, w.round_trip)),
        Some((mono(5), None))
    );
    deliver(&mut a, mono(9), B, support(mono(7), epoch(1, 1, 1), 0));
    deliver(&mut a, mono(11), B, renew(1, mono(4), 0));
    let measured = Some((mono(9), Some(2 * MS)));
    assert_eq!(a.wall_of(B).map(|w| (w.received, w.round_trip)), measured);
    deliver(&mut a, mono(700), B, renew(1, mono(5), 0));
    assert_eq!(
        a.wall_of(B).map(|w| (w.received, w.round_trip)),
        Some((mono(700), None))
    );
}
