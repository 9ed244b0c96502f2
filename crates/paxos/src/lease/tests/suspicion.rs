//! How suspect peers are; properties over many links.

use super::*;
use proptest::prelude::*;

/// Signs at these distances, milliseconds. Returns the highest suspicion before each sign but the first few,
/// and when the last one came.
fn listen(hearing: &mut Hearing, distances: &[u64]) -> (Suspicion, Mono) {
    let (mut now, mut most) = (mono(1), Suspicion::default());
    hearing.heard(B, now);
    for (at, distance) in distances.iter().enumerate() {
        now = now.plus(distance * MS);
        if at > 3 {
            most = most.max(hearing.suspicion(B, now).expect("heard"));
        }
        hearing.heard(B, now);
    }
    (most, now)
}

/// Milliseconds of silence after which it counts as gone.
fn patience(hearing: &Hearing, since: Mono) -> u64 {
    (0..100_000)
        .find(|ms| !hearing.is_there(B, since.plus(ms * MS)))
        .expect("it is given up some time")
}

fn heard(distances: &[u64]) -> (Hearing, Suspicion, Mono) {
    let mut hearing = Hearing::new(LEASE);
    let (most, last) = listen(&mut hearing, distances);
    (hearing, most, last)
}

proptest! {
    #[test]
    fn a_regular_peer_is_never_suspected(
        period in 150_u64..=300,
        jitter in prop::collection::vec(0_u64..=37, 40..80),
    ) {
        let distances: Vec<u64> = jitter.iter().map(|jitter| period + jitter).collect();
        let (_, most, _) = heard(&distances);
        prop_assert!(most < Suspicion(1_000), "{most:?}");
    }

    #[test]
    fn nor_is_one_that_becomes_idle_or_busy(
        before in 10_usize..60,
        after in 10_usize..60,
        busy_first: bool,
    ) {
        let (first, second) = if busy_first { (150, 337) } else { (337, 150) };
        let distances = [vec![first; before], vec![second; after]].concat();
        let (_, most, _) = heard(&distances);
        prop_assert!(!most.is_gone(), "{most:?}");
    }

    #[test]
    fn suspicion_grows_more_slowly_on_a_link_that_jitters(
        off in prop::collection::vec(0_u64..=250, 16..17),
    ) {
        let pair = |off: &u64| [300 - off, 300 + off];
        let wild: Vec<u64> = off.iter().chain(&off).flat_map(pair).collect();
        let (quiet, _, since) = heard(&[300; 64]);
        let (wild, most, wild_since) = heard(&wild);
        prop_assert_eq!(since, wild_since);
        prop_assert!(!most.is_gone(), "{most:?}");
        for ms in (0..5_000).step_by(50) {
            let at = |hearing: &Hearing| hearing.suspicion(B, since.plus(ms * MS));
            prop_assert!(at(&wild) <= at(&quiet), "after {ms} ms");
        }
        if off.iter().sum::<u64>() > 16 * 180 {
            prop_assert!(patience(&wild, since) > patience(&quiet, since));
        }
    }

    #[test]
    fn a_peer_that_dies_is_found_gone_in_bounded_time_and_suspicion_only_grows(
        distances in prop::collection::vec(0_u64..=60_000, 0..80),
    ) {
        let (hearing, _, last) = heard(&distances);
        let patience = patience(&hearing, last);
        prop_assert!((200..=11 * 600).contains(&patience), "{patience} ms");
        let levels = (0..20_000).step_by(100).map(|ms| hearing.suspicion(B, last.plus(ms * MS)));
        prop_assert!(levels.is_sorted());
    }
}

#[test]
fn a_quiet_link_is_given_up_after_some_intervals_and_is_there_again_at_once() {
    let (mut hearing, _, last) = heard(&[300; 40]);
    let idle = patience(&hearing, last);
    assert!((900..=1_200).contains(&idle), "{idle} ms");
    let (busy, _, since) = heard(&[150; 40]);
    let busy = patience(&busy, since);
    assert!((450..=600).contains(&busy), "{busy} ms");
    let back = last.plus(60_000 * MS);
    assert!(!hearing.is_there(B, back));
    hearing.heard(B, back);
    assert!(hearing.is_there(B, back.plus(300 * MS)));
    assert_eq!(hearing.last(B), Some(back));
}

#[test]
fn what_was_never_heard_or_is_forgotten_is_not_there() {
    let (mut hearing, _, last) = heard(&[300]);
    assert_eq!(hearing.suspicion(A, last), None);
    assert!(!hearing.is_there(A, last) && hearing.is_there(B, last));
    hearing.retain(|peer| peer != B);
    assert_eq!(hearing.last(B), None);
}

#[test]
fn extreme_times_do_not_panic() {
    for lease in [0, 1, u64::MAX] {
        let mut hearing = Hearing::new(lease);
        for at in [0, u64::MAX, 1, 7, u64::MAX - 1] {
            hearing.heard(B, Mono(at));
            let _ = hearing.suspicion(B, Mono(u64::MAX));
            let _ = hearing.suspicion(B, Mono(0));
        }
    }
}
