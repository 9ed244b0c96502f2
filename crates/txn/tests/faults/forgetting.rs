//! What is forgotten of transactions of several shards, and when.

use super::*;

const MILLIS: u64 = EPOCH / 1_000_000;

fn after(seconds: u64) -> Mono {
    Mono(0).plus(seconds * SECOND)
}

/// A transaction that began so many seconds after the start: prepared here, coordinated elsewhere.
fn take_part(shard: &mut Shard, second: u64) {
    take_part_with(shard, second, attempt(MILLIS + second * 1_000, second));
}

fn take_part_with(shard: &mut Shard, second: u64, attempt: AttemptId) {
    let now = after(second);
    let both = vec![here(shard, "a9"), other(shard, key("b9"))];
    commit(
        shard,
        now,
        second,
        commit_of(attempt, both, 1, &[("a9", "x")]),
    );
    shard.decide(now, 100);
    let outcome = Outcome::Committed(shard.leader.last().plus(1));
    let message = PeerMessage {
        attempt,
        anchor: key("a9"),
        from: key("b9"),
        body: PeerBody::Resolve {
            outcome,
            recorded: true,
        },
    };
    let cx = shard.cx(now);
    shard.leader.handle_peer(&cx, message);
    shard.drain();
    shard.decide(now, 100);
    while shard.write_one() {}
}

fn let_pass(shard: &mut Shard, second: u64) {
    let cx = shard.cx(after(second));
    shard.leader.handle_timeout(&cx);
    shard.drain();
    shard.decide(after(second), 100);
}

/// A shard after one transaction in each of 300 seconds.
fn after_five_minutes(enough: usize) -> Shard {
    let mut shard = start(GroupSettings {
        enough,
        ..GroupSettings::default()
    });
    for second in 0..300 {
        take_part(&mut shard, second);
        let_pass(&mut shard, second);
    }
    shard
}

#[test]
fn what_is_more_than_enough_is_forgotten_before_its_window_is_over() {
    let shard = after_five_minutes(100);
    let state = shard.leader.state();
    let (floor, kept) = (state.forget_floor, state.resolutions.len());
    // Looked at in each tenth of the shortest window; the newest are not counted.
    assert!((100..150).contains(&kept), "{kept} are kept");
    assert!((MILLIS + 150_000..MILLIS + 200_000).contains(&floor));
    assert_eq!(state.resolutions.keys().next().unwrap().millis(), floor);
}

#[test]
fn what_is_younger_than_a_minute_is_not_forgotten_however_much_there_is() {
    let shard = after_five_minutes(5);
    let state = shard.leader.state();
    let (floor, kept) = (state.forget_floor, state.resolutions.len());
    assert!((60..70).contains(&kept), "{kept} are kept");
    assert!((MILLIS + 230_000..=MILLIS + 240_000).contains(&floor));
}

#[test]
fn what_is_not_more_than_enough_stays_for_the_whole_window() {
    let shard = after_five_minutes(300);
    assert_eq!(shard.leader.state().resolutions.len(), 300);
    assert_eq!(shard.leader.state().forget_floor, 0);
}

#[test]
fn what_lies_ahead_of_the_time_does_not_shorten_the_window() {
    let mut shard = start(GroupSettings {
        enough: 100,
        ..GroupSettings::default()
    });
    // An hour ahead, as another shard's clock may be.
    for ahead in 0..300 {
        take_part_with(&mut shard, 0, attempt(MILLIS + 3_600_000 + ahead, ahead));
    }
    for second in 0..200 {
        take_part(&mut shard, second);
        let_pass(&mut shard, second);
    }
    let state = shard.leader.state();
    assert!((100..150).contains(&(state.resolutions.len() - 300)));
    assert!((MILLIS + 50_000..MILLIS + 100_000).contains(&state.forget_floor));
}

/// What settled last is not counted.
fn for_all_to_be_old(shard: &mut Shard) {
    for number in 1_000..1_020 {
        take_part_with(shard, 299, attempt(MILLIS + 299_000, number));
    }
}

#[test]
fn the_time_for_ids_goes_on_a_window_above_a_floor_that_did_not_rise_early() {
    let mut shard = start(GroupSettings::default());
    for second in 0..20 {
        take_part(&mut shard, second);
    }
    for second in 20..700 {
        let_pass(&mut shard, second);
    }
    let floor = shard.leader.state().forget_floor;
    assert!(floor > MILLIS);
    // All clocks fell far behind, the limit with them.
    shard.skew = -3_600 * SECOND as i64;
    shard.retake(after(700), 0);
    let out = put(
        &mut shard,
        after(700),
        attempt(MILLIS + 10_000_000, 1),
        &[("a1", "x")],
    );
    let (_, most) = untimely(&out).expect("it is hours ahead");
    assert!(most >= floor + 600_000, "{most} {floor}");
}

#[test]
fn a_floor_that_rose_early_does_not_put_the_time_for_ids_ahead() {
    let mut shard = after_five_minutes(20);
    let now = after(300);
    // A few that lie ahead say nothing.
    take_part_with(&mut shard, 299, attempt(MILLIS + 3_600_000, 1));
    take_part(&mut shard, 300);
    for_all_to_be_old(&mut shard);
    shard.retake(now, 0);
    let ahead = attempt(MILLIS + 300_000 + 60_000, 1);
    let out = put(&mut shard, now, ahead, &[("a1", "x")]);
    let (_, most) = untimely(&out).expect("it is a minute ahead");
    assert!(most <= MILLIS + 300_000 + 31_000, "{most}");
    let out = put(
        &mut shard,
        now,
        attempt(MILLIS + 300_000, 2),
        &[("a1", "x")],
    );
    assert!(committed(&out), "{out:?}");
}
