//! A node as a whole, and pairs of them.

use super::*;

#[test]
fn support_is_believed_from_sending_and_kept_from_receiving() {
    let (mut a, mut b) = (fresh(A), fresh(B));
    deliver(&mut b, mono(40), A, renew(1, mono(10), WALL));
    let answer = settle(&mut b, mono(40));
    deliver(&mut a, mono(50), B, answer[0].1);
    let error = LEASE / 1_000;
    let held = a.held_from(B, mono(50)).expect("held");
    assert_eq!(held.until, mono(10).plus(LEASE - error));
    assert_eq!(Some(held.epoch), b.supports(A, mono(50)));
    let end = mono(40).plus(LEASE + error);
    assert_eq!(b.supports(A, Mono(end.0 - 1)), Some(epoch(1, 1, 1)));
    assert_eq!(b.supports(A, end), None);
    assert_eq!(a.held_from(B, Mono(held.until.0 - 1)), Some(held));
    assert_eq!(a.held_from(B, held.until), None);
}

#[test]
fn rate_errors_are_rounded_to_the_safe_side() {
    let settings = LeaseSettings::default();
    assert_eq!(settings.stretched(1_001), 1_003);
    assert_eq!(settings.shortened(1_001), 999);
    assert_eq!((settings.stretched(0), settings.shortened(0)), (0, 0));
    assert_eq!(settings.stretched(u64::MAX), u64::MAX);
}

#[test]
fn a_renewal_for_an_earlier_incarnation_is_answered_by_the_present_one() {
    let (mut a, mut b) = (fresh(A), fresh(B));
    exchange(&mut a, &mut b, mono(0));
    let mut b = machine(B, 2, b.records(), mono(10));
    exchange(&mut a, &mut b, mono(300));
    let held = a.held_from(B, mono(300)).expect("held");
    assert_eq!(held.epoch, epoch(2, 1, 1));
    assert_eq!(b.supports(A, mono(300)), Some(held.epoch));

    let mut old = fresh(B);
    a.handle_timeout(mono(600), wall(mono(600)));
    for (to, message) in settle(&mut a, mono(600)) {
        if to == B {
            deliver(&mut old, mono(601), A, message);
        }
    }
    assert_eq!(
        old.supports(A, mono(601)),
        None,
        "an incarnation yet to come"
    );
}

#[test]
fn only_a_restarted_node_abstains_and_for_the_longest_lease() {
    assert!(!fresh(A).abstains(mono(0)));
    let mut again = machine(A, 2, Vec::new(), mono(5));
    let end = mono(5).plus(LEASE + LEASE / 1_000);
    assert!(again.abstains(mono(5)) && again.abstains(Mono(end.0 - 1)));
    assert!(!again.abstains(end));
    again.take_changed();
    again.handle_timeout(end, wall(end));
    assert!(again.take_changed(), "its replicas may promise now");

    let longer = LeaseRecord {
        holder: B,
        limit: Timestamp(7),
        longest_lease_nanos: 3 * LEASE,
    };
    let again = machine(A, 2, vec![longer], mono(0));
    assert!(again.abstains(Mono(3 * LEASE)));
    assert_eq!(again.granted_limit(B), Timestamp(7));
    assert_eq!(again.records(), [longer]);

    let lower = LeaseRecord {
        limit: Timestamp(3),
        longest_lease_nanos: 0,
        ..longer
    };
    let again = machine(A, 2, vec![longer, lower], mono(0));
    assert_eq!(again.records(), [longer], "the highest of several counts");
}

#[test]
fn an_unhealthy_node_lets_its_leases_run_out_and_supports_on() {
    let (mut a, mut b) = (fresh(A), fresh(B));
    exchange(&mut a, &mut b, mono(0));
    a.set_healthy(mono(10), false);
    assert!(a.take_changed() && !a.healthy());
    exchange(&mut a, &mut b, mono(150));
    assert!(a.held_from(B, mono(599)).is_some());
    let end = a.held_from(B, mono(599)).expect("held").until;
    assert_eq!(end, Mono(LEASE - LEASE / 1_000), "not renewed since");
    assert_eq!(a.next_timeout(), Some(end));
    a.handle_timeout(end, wall(end));
    assert!(a.take_changed());
    assert_eq!(a.held_from(B, end), None);
    deliver(&mut a, end, B, renew(1, mono(700), 0));
    assert!(a.supports(B, end).is_some());
    a.set_healthy(end, true);
    exchange(&mut a, &mut b, end);
    assert!(a.held_from(B, end).is_some(), "renewed at once");
}

#[test]
fn a_node_supports_itself_like_any_other() {
    let mut a = fresh(A);
    a.handle_timeout(mono(0), wall(mono(0)));
    for _ in 0..2 {
        for (to, message) in settle(&mut a, mono(0)) {
            if to == A {
                deliver(&mut a, mono(0), A, message);
            }
        }
    }
    let held = a.held_from(A, mono(0)).expect("held");
    assert_eq!(a.supports(A, mono(0)), Some(held.epoch));
    assert_eq!(held.limit, Timestamp(WALL + LEASE / 2));
    assert_eq!(a.granted_limit(A), held.limit);
}

#[test]
fn a_new_peer_is_asked_at_once_and_a_removed_one_counts_no_more() {
    let (mut a, mut b) = (fresh(A), fresh(B));
    exchange(&mut a, &mut b, mono(0));
    a.take_changed();
    a.set_peers(vec![A, B]);
    assert_eq!(a.next_timeout(), Some(mono(150)), "no change");
    a.set_peers(vec![A, B, NodeId(3)]);
    assert_eq!(a.next_timeout(), Some(Mono(0)));
    a.handle_timeout(mono(1), wall(mono(1)));
    let asked = a.drain_effects();
    assert!(matches!(
        asked[..],
        [LeaseEffect::Send { to: NodeId(3), .. }]
    ));
    assert!(!a.take_changed());
    a.set_peers(vec![NodeId(3)]);
    assert!(a.take_changed());
    assert_eq!(a.held_from(B, mono(2)), None);
}

#[test]
fn hostile_values_neither_panic_nor_spin() {
    let settings = LeaseSettings {
        lease_nanos: 0,
        rate_error_per_million: u32::MAX,
        max_offset_nanos: u64::MAX,
        longest_lease_nanos: 0,
        limit_ahead_nanos: u64::MAX,
        logical_increment_nanos: u64::MAX,
    };
    let end = Mono(u64::MAX - 1);
    let mut a = NodeLease::new(settings, A, Incarnation(u64::MAX), vec![B], vec![], end);
    let extremes = [0, 1, u64::MAX];
    for (x, y) in extremes.iter().flat_map(|x| extremes.map(|y| (*x, y))) {
        let most = (Timestamp(u64::MAX), Timestamp(u64::MAX));
        a.handle_message(end, most, B, renew(x, Mono(y), u64::MAX));
        a.handle_message(end, most, B, support(Mono(x), epoch(x, y, x), u64::MAX));
        a.handle_persisted(end, x);
        a.handle_timeout(end, most);
    }
    let mut a = NodeLease::new(settings, A, Incarnation(1), vec![B], vec![], mono(0));
    a.handle_timeout(mono(0), wall(mono(0)));
    assert!(
        a.next_timeout() > Some(mono(0)),
        "time must pass between renewals"
    );
}

#[test]
fn states_are_equal_exactly_when_their_bytes_are() {
    let (mut a, mut b) = (fresh(A), fresh(B));
    exchange(&mut a, &mut b, mono(0));
    let bytes = postcard::to_stdvec(&a).expect("encodes");
    let copy: NodeLease = postcard::from_bytes(&bytes).expect("decodes");
    assert_eq!(copy, a);
    deliver(&mut a, mono(1), B, renew(1, mono(1), 0));
    assert_ne!(postcard::to_stdvec(&a).expect("encodes"), bytes);
}

#[test]
fn a_clock_that_goes_back_brings_nothing_back() {
    let (mut a, mut b) = (fresh(A), fresh(B));
    exchange(&mut a, &mut b, mono(0));
    a.handle_timeout(mono(650), wall(mono(650)));
    b.handle_timeout(mono(650), wall(mono(650)));
    assert_eq!(a.held_from(B, mono(10)), None);
    assert_eq!(b.supports(A, mono(10)), None);
    a.drain_effects();
    a.handle_timeout(mono(640), wall(mono(640)));
    assert!(a.drain_effects().is_empty());
}
