//! Attempts: ids, ages, pauses.

use crate::client::{IdWindow, Retry, RetrySettings, attempt_id};
use crate::types::AbortReason;
use synod_paxos::Timestamp;

#[test]
fn an_attempt_id_is_a_uuid_of_version_7() {
    let id = attempt_id(Timestamp(0x0123_4567_89ab * 1_000_000 + 999_999), u128::MAX);
    assert_eq!(id.to_string(), "01234567-89ab-7fff-bfff-ffffffffffff");
    assert_eq!(id.millis(), 0x0123_4567_89ab);
    let id = attempt_id(Timestamp(0), 0);
    assert_eq!(id.to_string(), "00000000-0000-7000-8000-000000000000");
}

#[test]
fn the_age_is_kept_and_the_id_is_not() {
    let mut retry = Retry::new(RetrySettings::default(), 1);
    let (first, age) = retry.next_attempt(Timestamp(5_000_000), 1);
    let (second, same) = retry.next_attempt(Timestamp(9_000_000), 2);
    assert_ne!(first, second);
    assert_eq!(age, same);
    assert_eq!((age.start, age.first), (Timestamp(5_000_000), first));
    assert_eq!(retry.attempts(), 2);
}

#[test]
fn ids_lie_within_what_all_shards_named() {
    let window = |least_millis, most_millis| IdWindow {
        least_millis,
        most_millis,
    };
    let mut retry = Retry::new(RetrySettings::default(), 1);
    let next = |retry: &mut Retry, millis: u64| {
        let now = Timestamp(millis * 1_000_000);
        retry.next_attempt(now, 1).0.millis()
    };
    assert_eq!(next(&mut retry, 5), 5);
    retry.within(window(10, 100));
    assert_eq!(next(&mut retry, 5), 10);
    assert_eq!(next(&mut retry, 50), 50);
    // Another shard is further behind: between the two.
    retry.within(window(0, 20));
    assert_eq!(next(&mut retry, 50), 20);
    assert_eq!(next(&mut retry, 5), 10);
    // Nothing does for both: the newer one, as windows move on.
    retry.within(window(30, 60));
    assert_eq!(next(&mut retry, 5), 30);
    assert_eq!(next(&mut retry, 70), 60);
    // The age is the first attempt's all the while.
    assert_eq!(
        retry.next_attempt(Timestamp(0), 1).1.start,
        Timestamp(5_000_000)
    );
}

#[test]
fn pauses_grow_to_a_bound_and_depend_on_the_seed() {
    let settings = RetrySettings::default();
    let pauses = |seed| {
        let mut retry = Retry::new(settings, seed);
        let mut pause = |n| {
            retry.next_attempt(Timestamp(n), 0);
            retry.pause(AbortReason::Wounded).unwrap()
        };
        (0..20).map(&mut pause).collect::<Vec<_>>()
    };
    let some = pauses(1);
    assert!(some[0] <= settings.first_nanos);
    assert!(some[19] >= settings.longest_nanos / 2);
    assert!(some.iter().all(|&p| p <= settings.longest_nanos));
    assert_ne!(some, pauses(2));
    assert_eq!(some, pauses(1));
}

#[test]
fn what_cannot_succeed_is_not_tried_again() {
    let mut retry = Retry::new(
        RetrySettings {
            attempts: 1,
            ..RetrySettings::default()
        },
        1,
    );
    assert_eq!(retry.pause(AbortReason::TooLarge), None);
    assert!(retry.pause(AbortReason::Wounded).is_some());
    retry.next_attempt(Timestamp(1), 1);
    assert_eq!(retry.pause(AbortReason::Wounded), None);
}
