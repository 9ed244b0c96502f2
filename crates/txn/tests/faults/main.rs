//! What a wrong clock, a wrong client or an unlucky moment must not do to a
//! shard. Scenarios for which the golden scripts have no words.

mod forgetting;
#[path = "../world/mod.rs"]
mod world;

use synod_paxos::{GroupId, Mono, Term, Timestamp};
use synod_txn::peer::{PeerBody, Vote};
use synod_txn::request::{LockMode, Refusal};
use synod_txn::*;
use world::{EPOCH, Out, Shard};

const SECOND: u64 = 1_000_000_000;

fn key(text: &str) -> Key {
    Key::copy_from_slice(text.as_bytes())
}

fn attempt(millis: u64, number: u64) -> AttemptId {
    AttemptId((u128::from(millis) << 80) | u128::from(number))
}

/// An attempt that began with the test.
fn now_attempt(number: u64) -> AttemptId {
    attempt(EPOCH / 1_000_000, number)
}

fn caller(request: u64) -> Caller {
    Caller {
        connection: 1,
        request,
    }
}

fn start(settings: GroupSettings) -> Shard {
    let mut shard = Shard::new(1, settings);
    shard.retake(Mono(0), 0);
    shard
}

fn here(shard: &Shard, anchor: &str) -> Participant {
    Participant {
        anchor: key(anchor),
        shard: shard.id,
        term: shard.term(),
    }
}

/// A participant in shard 2.
fn other(shard: &Shard, anchor: Key) -> Participant {
    let group = GroupId(2);
    Participant {
        anchor,
        shard: group,
        term: Term {
            group,
            ..shard.term()
        },
    }
}

fn commit_of(
    attempt: AttemptId,
    participants: Vec<Participant>,
    coordinator: u32,
    writes: &[(&str, &str)],
) -> CommitRequest {
    CommitRequest {
        attempt,
        priority: Priority {
            start: Timestamp(attempt.0 as u64 & 0xffff),
            first: attempt,
        },
        client: ClientId(1),
        session: None,
        writes: writes
            .iter()
            .map(|(k, v)| Write {
                key: key(k),
                value: Some(key(v)),
            })
            .collect(),
        reads: Vec::new(),
        participants,
        here: 0,
        coordinator,
        timeout_millis: 1_000,
        snapshot: None,
    }
}

fn locked_read(attempt: AttemptId, client: u64, keys: &[&str], mode: LockMode) -> Request {
    Request::LockedRead {
        attempt,
        priority: Priority {
            start: Timestamp(attempt.0 as u64 & 0xffff),
            first: attempt,
        },
        client: ClientId(client),
        session: None,
        keys: keys.iter().map(|k| key(k)).collect(),
        scan: None,
        mode,
    }
}

fn ask(shard: &mut Shard, now: Mono, number: u64, request: Request) -> Out {
    let cx = shard.cx(now);
    shard.leader.handle_request(&cx, caller(number), request);
    shard.drain()
}

fn commit(shard: &mut Shard, now: Mono, number: u64, request: CommitRequest) -> Out {
    ask(shard, now, number, Request::Commit(Box::new(request)))
}

fn answer_reads(shard: &mut Shard, now: Mono) -> Out {
    let mut all = Out::default();
    while let Some((token, rows)) = shard.read_one() {
        let cx = shard.cx(now);
        shard.leader.handle_read(&cx, token, rows);
        all.responses.extend(shard.drain().responses);
    }
    all
}

fn committed(out: &Out) -> bool {
    let outcome = out.responses.iter().find_map(|(_, r)| match r {
        Response::Outcome { outcome, .. } => Some(*outcome),
        _ => None,
    });
    matches!(outcome, Some(Outcome::Committed(_)))
}

fn invalid(out: &Out, word: &str) -> bool {
    matches!(
        &out.responses[..],
        [(_, Response::Refused(Refusal::Invalid(why)))] if why.contains(word)
    )
}

/// The bounds that an id was refused for.
fn untimely(out: &Out) -> Option<(u64, u64)> {
    match &out.responses[..] {
        [
            (
                _,
                Response::Refused(Refusal::AttemptTime {
                    now,
                    least_millis,
                    most_millis,
                }),
            ),
        ] => {
            let now = now.0 / 1_000_000;
            assert!(*least_millis <= now && now <= *most_millis, "{out:?}");
            Some((*least_millis, *most_millis))
        }
        _ => None,
    }
}

/// Puts one value and has it decided and in the engine.
fn put(shard: &mut Shard, now: Mono, attempt: AttemptId, writes: &[(&str, &str)]) -> Out {
    let me = here(shard, writes[0].0);
    let request = commit_of(attempt, vec![me], 0, writes);
    let mut out = commit(shard, now, 1, request);
    out.responses.extend(shard.decide(now, 100).responses);
    out
}

#[test]
fn a_read_of_two_keys_sees_all_of_a_commit_or_nothing() {
    let now = Mono(0);
    let mut shard = start(GroupSettings::default());
    put(
        &mut shard,
        now,
        now_attempt(1),
        &[("a1", "old"), ("a2", "old")],
    );
    while shard.write_one() {}
    // In the overlay, not in the engine.
    put(&mut shard, now, now_attempt(2), &[("a1", "mid")]);
    let me = here(&shard, "a1");
    let both = commit_of(now_attempt(3), vec![me], 0, &[("a1", "new"), ("a2", "new")]);
    commit(&mut shard, now, 3, both);
    let keys = vec![key("a1"), key("a2")];
    ask(&mut shard, now, 4, Request::Latest { keys, scan: None });
    // The commit is applied, by the engine too, before the engine reads.
    shard.decide(now, 100);
    while shard.write_one() {}
    let out = answer_reads(&mut shard, now);
    let Some((_, Response::Read { versions, .. })) = out.responses.first() else {
        panic!("no answer: {out:?}");
    };
    let values: Vec<_> = versions
        .iter()
        .map(|v| v.as_ref().and_then(|v| v.value.clone()))
        .collect();
    assert_eq!(values, [Some(key("mid")), Some(key("old"))]);
}

#[test]
fn one_wild_clock_does_not_raise_the_floor() {
    let mut now = Mono(0);
    let mut shard = start(GroupSettings::default());
    put(&mut shard, now, now_attempt(1), &[("a1", "x")]);
    shard.limit = Some(Timestamp(EPOCH + 100 * SECOND));
    shard.skew = 365 * 86_400 * SECOND as i64;
    now = now.plus(61 * SECOND);
    let cx = shard.cx(now);
    shard.leader.handle_timeout(&cx);
    assert!(shard.drain().proposed.is_empty());
    // Commits go on, below the limit.
    let out = put(
        &mut shard,
        now,
        attempt(EPOCH / 1_000_000 + 61_000, 2),
        &[("a1", "y")],
    );
    assert!(committed(&out), "{out:?}");
    assert!(shard.leader.last() <= Timestamp(EPOCH + 100 * SECOND));
    now = now.plus(61 * SECOND);
    let cx = shard.cx(now);
    shard.leader.handle_timeout(&cx);
    shard.drain();
    shard.decide(now, 100);
    assert!(shard.leader.state().forget_floor < EPOCH / 1_000_000 + 100_000);
    shard.skew = 0;
    shard.limit = None;
    shard.retake(now, 0);
    let out = put(
        &mut shard,
        now,
        attempt(EPOCH / 1_000_000 + 122_000, 3),
        &[("a1", "z")],
    );
    assert!(committed(&out), "{out:?}");
}

#[test]
fn a_clock_above_the_limit_leaves_room_for_many_commits() {
    let now = Mono(2 * SECOND);
    let mut shard = start(GroupSettings::default());
    let limit = Timestamp(EPOCH + 3 * SECOND / 2);
    shard.limit = Some(limit);
    for number in 1..=1_000 {
        let me = here(&shard, "a1");
        let name = format!("k{number}");
        let request = commit_of(now_attempt(number), vec![me], 0, &[(&name, "x")]);
        let out = commit(&mut shard, now, number, request);
        assert_eq!(out.proposed.len(), 1, "commit {number} waits");
    }
    assert!(shard.leader.last() <= limit);
}

#[test]
fn an_attempt_from_the_future_is_refused_and_leaves_no_floor() {
    let now = Mono(0);
    let mut shard = start(GroupSettings {
        ended: 1,
        ..GroupSettings::default()
    });
    let millis = EPOCH / 1_000_000;
    let far = attempt((1 << 48) - 2, 1);
    let me = here(&shard, "a1");
    let request = commit_of(far, vec![me.clone()], 0, &[("a1", "x")]);
    let out = commit(&mut shard, now, 1, request.clone());
    assert_eq!(untimely(&out), Some((0, millis + 31_000)), "{out:?}");
    let out = ask(
        &mut shard,
        now,
        2,
        locked_read(attempt((1 << 48) - 2, 4), 1, &["a1"], LockMode::Shared),
    );
    assert!(untimely(&out).is_some(), "{out:?}");
    let old_term = shard.term();
    shard.retake(now, 0);
    let out = commit(&mut shard, now, 3, request);
    assert!(untimely(&out).is_some(), "{out:?}");
    let status = Request::Status {
        attempt: far,
        anchor: key("a1"),
        term: old_term,
    };
    let out = ask(&mut shard, now, 4, status);
    let [(_, Response::Outcome { outcome, .. })] = &out.responses[..] else {
        panic!("no outcome: {out:?}");
    };
    assert!(matches!(outcome, Outcome::Aborted(_)), "{outcome:?}");
    for number in [far, attempt((1 << 48) - 2, 2), attempt((1 << 48) - 2, 3)] {
        let release = Request::Release {
            attempt: number,
            session: None,
        };
        ask(&mut shard, now, 5, release);
    }
    // Neither by its memory's floor nor by the replicated one is anybody else refused.
    let out = put(&mut shard, now, attempt(millis, 9), &[("a1", "x")]);
    assert!(committed(&out), "{out:?}");
    let out = put(
        &mut shard,
        now,
        attempt(millis + 20_000, 10),
        &[("a1", "x")],
    );
    assert!(committed(&out), "a little ahead is fine: {out:?}");
    // A slow clock refuses nobody as long as a majority's limit is right.
    shard.limit = Some(Timestamp(EPOCH + 100 * SECOND));
    let out = put(
        &mut shard,
        now,
        attempt(millis + 100_000, 11),
        &[("a1", "x")],
    );
    assert!(committed(&out), "{out:?}");
}

#[test]
fn a_commit_refused_as_from_the_future_stays_refused_when_its_time_has_come() {
    let mut now = Mono(0);
    let mut shard = start(GroupSettings::default());
    let early = attempt(EPOCH / 1_000_000 + 40_000, 1);
    let me = here(&shard, "a1");
    let request = commit_of(early, vec![me], 0, &[("a1", "x")]);
    let out = commit(&mut shard, now, 1, request.clone());
    assert!(untimely(&out).is_some(), "{out:?}");
    // The client has tried again under another id; a copy comes late.
    now = now.plus(60 * SECOND);
    let out = commit(&mut shard, now, 2, request);
    let no = Refusal::Aborted(AbortReason::Deadline);
    assert_eq!(out.responses[0].1, Response::Refused(no));
    assert!(out.proposed.is_empty());
}

/// Asks whether shard 1 may be told no about an attempt for good.
fn status(shard: &mut Shard, now: Mono, number: u64, attempt: AttemptId) -> Out {
    let status = Request::Status {
        attempt,
        anchor: key("a1"),
        term: shard.term(),
    };
    ask(shard, now, number, status)
}

fn release(shard: &mut Shard, now: Mono, number: u64, attempt: AttemptId) {
    let session = None;
    ask(shard, now, number, Request::Release { attempt, session });
}

fn aborted(out: &Out) -> bool {
    matches!(
        &out.responses[..],
        [(
            _,
            Response::Outcome {
                outcome: Outcome::Aborted(_),
                ..
            } | Response::Refused(Refusal::Aborted(_))
        )]
    )
}

#[test]
fn who_takes_back_what_never_was_refuses_nobody() {
    let mut shard = start(GroupSettings {
        ended: 2,
        ..GroupSettings::default()
    });
    let millis = EPOCH / 1_000_000;
    let now = Mono(0);
    // One that was told no about its commit.
    let told = attempt(millis, 1);
    assert!(aborted(&status(&mut shard, now, 1, told)));
    for number in 2..40 {
        let when = millis + (number % 3) * 3_600_000;
        release(&mut shard, now, number, attempt(when, number));
    }
    let me = here(&shard, "a1");
    let copy = commit_of(told, vec![me.clone()], 0, &[("a1", "x")]);
    assert!(aborted(&commit(&mut shard, now, 50, copy)));
    let two = vec![me, other(&shard, key("b1"))];
    // Neither those with right clocks, nor those that are ahead for the sake of
    // another shard, are refused.
    for (number, millis) in [(60, millis), (61, millis + 3_600_000)] {
        let read = locked_read(attempt(millis, number), 1, &["a2"], LockMode::Shared);
        let out = ask(&mut shard, now, number, read);
        assert!(out.responses.is_empty(), "it reads: {out:?}");
        let number = number + 10;
        let request = commit_of(attempt(millis, number), two.clone(), 0, &[("a1", "x")]);
        let out = commit(&mut shard, now, number, request);
        assert!(
            !out.proposed.is_empty() || out.responses.is_empty(),
            "{out:?}"
        );
    }
    let out = put(&mut shard, now, attempt(millis, 80), &[("a3", "x")]);
    assert!(committed(&out), "{out:?}");
}

#[test]
fn noes_that_were_told_leave_floors_where_their_time_is() {
    let mut shard = start(GroupSettings {
        ended: 2,
        ..GroupSettings::default()
    });
    let millis = EPOCH / 1_000_000;
    let now = Mono(0);
    for number in 1..=4 {
        let out = status(&mut shard, now, number, attempt(millis + number, number));
        assert!(aborted(&out), "{out:?}");
    }
    // A copy of the first one's commit: it may have been told no.
    let me = here(&shard, "a1");
    let copy = commit_of(attempt(millis + 1, 1), vec![me], 0, &[("a1", "x")]);
    let out = commit(&mut shard, now, 5, copy);
    let forgotten = Refusal::NotLeader { hint: None };
    assert_eq!(out.responses[0].1, Response::Refused(forgotten));
    // Another time is nobody's matter.
    let out = put(&mut shard, now, attempt(millis + 100, 6), &[("a1", "x")]);
    assert!(committed(&out), "{out:?}");
}

#[test]
fn what_lies_ahead_is_not_denied_before_its_time() {
    let mut now = Mono(0);
    let mut shard = start(GroupSettings {
        ended: 1,
        ..GroupSettings::default()
    });
    let early = attempt(EPOCH / 1_000_000 + 20_000, 1);
    let out = status(&mut shard, now, 1, early);
    assert_eq!(out.responses[0].1, Response::Pending);
    let me = here(&shard, "a1");
    let request = commit_of(early, vec![me], 0, &[("a1", "x")]);
    // Nothing was said, so it may come.
    let mut out = commit(&mut shard, now, 2, request);
    out.responses.extend(shard.decide(now, 100).responses);
    assert!(committed(&out), "{out:?}");
    // Once its time has come a no is final.
    let other = attempt(EPOCH / 1_000_000 + 20_000, 2);
    now = now.plus(30 * SECOND);
    assert!(aborted(&status(&mut shard, now, 3, other)));
    let me = here(&shard, "a1");
    let copy = commit_of(other, vec![me], 0, &[("a1", "x")]);
    assert!(aborted(&commit(&mut shard, now, 4, copy)));
}

#[test]
fn a_memory_full_of_what_is_far_ahead_says_nothing_more_about_it() {
    let now = Mono(0);
    let mut shard = start(GroupSettings::default());
    let far = EPOCH / 1_000_000 + 3_600_000;
    let mut refused = 0;
    for number in 0..5_000 {
        let me = here(&shard, "a1");
        let request = commit_of(attempt(far, number), vec![me], 0, &[("a1", "x")]);
        let out = commit(&mut shard, now, number, request);
        match &out.responses[..] {
            [(_, Response::Refused(Refusal::AttemptTime { .. }))] => refused += 1,
            [(_, Response::Refused(Refusal::Overloaded { .. }))] => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 4096);
    let out = put(&mut shard, now, now_attempt(9), &[("a1", "x")]);
    assert!(committed(&out), "{out:?}");
}

/// A demand for an end makes a record, which stays until its id's time is over.
#[test]
fn a_demand_for_an_end_far_ahead_makes_no_record() {
    let mut now = Mono(0);
    let mut shard = start(GroupSettings::default());
    let far = attempt(EPOCH / 1_000_000 + 2 * 86_400_000, 1);
    let participants = vec![here(&shard, "a1"), other(&shard, key("b1"))];
    let demand = PeerMessage {
        attempt: far,
        anchor: key("a1"),
        from: key("b1"),
        body: PeerBody::AskOrAbort {
            participants: participants.clone(),
        },
    };
    let cx = shard.cx(now);
    shard.leader.handle_peer(&cx, demand);
    let out = shard.drain();
    assert!(out.proposed.is_empty(), "{out:?}");
    let told: Vec<_> = out.peers.iter().map(|(_, m)| &m.body).collect();
    assert_eq!(told, [&PeerBody::Forgotten], "the intent ends");
    // Nor is its commit ever let in, though its time comes.
    now = now.plus(2 * 86_400 * SECOND);
    let request = commit_of(far, participants, 0, &[("a1", "x")]);
    let out = commit(&mut shard, now, 1, request);
    let no = Refusal::Aborted(AbortReason::Deadline);
    assert_eq!(out.responses[0].1, Response::Refused(no), "{out:?}");
}

/// Applies so many one-shard commits of others, whose ids lie at `millis`.
fn fill(shard: &mut Shard, now: Mono, millis: u64, count: u64) {
    let cx = shard.cx(now);
    let term = shard.term();
    for _ in 0..count {
        let slot = shard.leader.applied().next();
        let command = Command::OneShard {
            attempt: attempt(millis, slot.0),
            timestamp: shard.leader.last().plus(1),
            term,
            writes: Vec::new(),
        };
        shard.leader.apply(&cx, slot, command);
    }
    shard.drain();
}

#[test]
fn a_client_whose_clock_is_ahead_leaves_no_floor_ahead_however_much_it_commits() {
    const HALF: u64 = 1 << 16;
    let now = Mono(0);
    let mut shard = start(GroupSettings::default());
    let millis = EPOCH / 1_000_000;
    let may = |shard: &mut Shard, ahead: u64, number: u64| {
        let me = here(shard, "a1");
        let name = format!("k{number}");
        let request = commit_of(
            attempt(millis + ahead, number),
            vec![me],
            0,
            &[(&name, "x")],
        );
        let out = commit(shard, now, number, request);
        assert_eq!(out.proposed.is_empty(), untimely(&out).is_some(), "{out:?}");
        !out.proposed.is_empty()
    };
    // As far ahead as clocks may be, while half of the memory is free: and so many
    // may be proposed as have room there.
    fill(&mut shard, now, millis + 29_000, HALF - 1);
    assert!(may(&mut shard, 29_000, 1 << 40));
    assert!(!may(&mut shard, 29_000, 2 << 40));
    assert!(may(&mut shard, 900, 3 << 40));
    // Others go on for long: what is dropped is of their time.
    fill(&mut shard, now, millis, 3 * HALF);
    assert_eq!(shard.leader.state().unknown_below(), millis + 1);
}

#[test]
fn a_shard_named_twice_is_refused() {
    let now = Mono(0);
    let mut shard = start(GroupSettings::default());
    let twice = vec![here(&shard, "a1"), here(&shard, "a2")];
    let out = commit(
        &mut shard,
        now,
        1,
        commit_of(now_attempt(1), twice, 1, &[("a1", "x")]),
    );
    assert!(invalid(&out, "twice"), "{out:?}");
    let mut hinted = vec![here(&shard, "a1"), other(&shard, key("b1"))];
    hinted[1].shard = shard.id;
    let out = commit(
        &mut shard,
        now,
        2,
        commit_of(now_attempt(2), hinted, 1, &[("a1", "x")]),
    );
    assert!(invalid(&out, "twice"), "{out:?}");
    assert_eq!(shard.leader.sessions(), 0);
}

#[test]
fn reads_that_no_entry_could_hold_are_refused() {
    let now = Mono(0);
    let mut shard = start(GroupSettings {
        read_bytes: 100,
        ..GroupSettings::default()
    });
    let reader = now_attempt(5);
    let long = "a".repeat(40);
    let out = ask(
        &mut shard,
        now,
        1,
        locked_read(reader, 1, &[&long], LockMode::Shared),
    );
    assert_eq!(out.asked.len(), 1);
    let out = ask(
        &mut shard,
        now,
        2,
        locked_read(reader, 1, &["a1"], LockMode::Shared),
    );
    assert!(invalid(&out, "100 bytes"), "{out:?}");
}

/// Two reads of one transaction wait for an older one and are granted together.
/// A younger one waits for it then.
fn too_large(parked: bool) {
    let now = Mono(0);
    let mut shard = start(GroupSettings {
        read_bytes: 100,
        ..GroupSettings::default()
    });
    let (first, second) = ("a".repeat(40), "b".repeat(40));
    let (older, reader) = (now_attempt(1), now_attempt(2));
    ask(
        &mut shard,
        now,
        1,
        locked_read(older, 1, &[&first, &second], LockMode::Exclusive),
    );
    assert_eq!(
        shard.leader.locks(),
        0,
        "the older one reads too much at once"
    );
    ask(
        &mut shard,
        now,
        2,
        locked_read(older, 1, &[&first], LockMode::Exclusive),
    );
    ask(
        &mut shard,
        now,
        3,
        locked_read(reader, 2, &[&first], LockMode::Shared),
    );
    let out = ask(
        &mut shard,
        now,
        4,
        locked_read(reader, 2, &[&first], LockMode::Shared),
    );
    assert!(out.responses.is_empty(), "{out:?}");
    // A third, younger one waits for the reader.
    let blocked = here(&shard, &second);
    ask(
        &mut shard,
        now,
        5,
        locked_read(reader, 2, &[&second], LockMode::Shared),
    );
    let release = Request::Release {
        attempt: older,
        session: None,
    };
    ask(&mut shard, now, 6, release);
    let out = answer_reads(&mut shard, now);
    let session = out.responses.iter().find_map(|(_, r)| match r {
        Response::Read { session, .. } => *session,
        _ => None,
    });
    let waits = commit_of(now_attempt(3), vec![blocked], 0, &[(&second, "x")]);
    let out = commit(&mut shard, now, 7, waits);
    assert!(out.proposed.is_empty(), "{out:?}");
    if parked {
        park(&mut shard, now);
    }
    let both = vec![here(&shard, "a1"), other(&shard, key("b1"))];
    let mut request = commit_of(reader, both, 1, &[("a1", "x")]);
    request.session = session;
    let mut out = commit(&mut shard, now, 8, request);
    if parked {
        assert!(out.responses.is_empty(), "{out:?}");
        out = shard.decide(now, 1);
    }
    let reason = Refusal::Aborted(AbortReason::TooLarge);
    assert!(
        out.responses
            .iter()
            .any(|(_, r)| *r == Response::Refused(reason.clone())),
        "{out:?}"
    );
    // Its locks passed on in the same step.
    assert_eq!(out.proposed.len(), 1, "{out:?}");
}

/// A foreign commit above the limit: until its resolution is decided, commits park.
fn park(shard: &mut Shard, now: Mono) {
    let both = vec![here(shard, "a9"), other(shard, key("b9"))];
    let request = commit_of(now_attempt(9), both, 1, &[("a9", "x")]);
    commit(shard, now, 20, request);
    shard.decide(now, 100);
    shard.limit = Some(Timestamp(EPOCH));
    let body = PeerBody::Resolve {
        outcome: Outcome::Committed(shard.leader.last().plus(SECOND)),
        recorded: false,
    };
    let message = PeerMessage {
        attempt: now_attempt(9),
        anchor: key("a9"),
        from: key("b9"),
        body,
    };
    let cx = shard.cx(now);
    shard.leader.handle_peer(&cx, message);
    shard.drain();
}

#[test]
fn reads_that_waited_together_and_are_too_large_abort_the_commit() {
    too_large(false);
}

#[test]
fn a_parked_commit_that_is_too_large_wakes_who_waits_for_it() {
    too_large(true);
}

#[test]
fn many_participants_leave_less_room_for_writes() {
    let now = Mono(0);
    let settings = GroupSettings {
        entry_bytes: 200_000,
        ..GroupSettings::default()
    };
    let mut shard = start(settings);
    let mut participants = vec![here(&shard, "a1")];
    for number in 2..20 {
        let anchor = format!("b{number:02}{}", "x".repeat(8_000));
        let mut participant = other(&shard, key(&anchor));
        participant.shard = GroupId(number);
        participant.term.group = GroupId(number);
        participants.push(participant);
    }
    let value = "v".repeat(90_000);
    let request = commit_of(now_attempt(1), participants, 1, &[("a1", &value)]);
    let out = commit(&mut shard, now, 1, request);
    let kinds: Vec<bool> = out
        .proposed
        .iter()
        .map(|(_, command, _)| matches!(command, Command::IntentPart { .. }))
        .collect();
    assert_eq!(kinds, [true, false]);
    for (_, command, _) in &out.proposed {
        let bytes = synod_txn::command::encode(command)
            .expect("an encoding")
            .len();
        assert!(bytes <= 200_000 + (64 << 10), "an entry of {bytes} bytes");
    }
    shard.decide(now, 100);
    let intents: Vec<_> = shard.leader.state().intents.values().collect();
    assert_eq!(intents[0].writes.len(), 1);
}

#[test]
fn a_cancelled_waiter_wakes_who_waited_behind_it() {
    let now = Mono(0);
    let mut shard = start(GroupSettings::default());
    let read = |n: u64, mode| locked_read(now_attempt(n), n, &["a1"], mode);
    ask(&mut shard, now, 1, read(1, LockMode::Shared));
    answer_reads(&mut shard, now);
    ask(&mut shard, now, 2, read(2, LockMode::Exclusive));
    let out = ask(&mut shard, now, 3, read(3, LockMode::Shared));
    assert!(out.asked.is_empty());
    let cx = shard.cx(now);
    shard.leader.cancel(&cx, &[caller(2)].into());
    assert_eq!(shard.drain().asked.len(), 1);
}

/// Its lock goes with the idle rule, though the Release was lost and the client lives on.
#[test]
fn a_read_cancelled_at_the_engine_leaves_no_session_behind() {
    let mut now = Mono(0);
    let mut shard = start(GroupSettings::default());
    let read = locked_read(now_attempt(1), 1, &["a1"], LockMode::Exclusive);
    let out = ask(&mut shard, now, 1, read);
    assert_eq!(out.asked.len(), 1, "it is at the engine");
    let cx = shard.cx(now);
    shard.leader.cancel(&cx, &[caller(1)].into());
    answer_reads(&mut shard, now);
    for second in 1..=30 {
        now = Mono(second * SECOND);
        let cx = shard.cx(now);
        shard.leader.handle_client_seen(now, ClientId(1), &[]);
        shard.leader.handle_timeout(&cx);
        shard.drain();
    }
    assert_eq!(shard.leader.sessions(), 0);
}

#[test]
fn a_client_that_came_back_beside_a_queued_commit_has_a_timer() {
    let mut now = Mono(0);
    let mut shard = start(GroupSettings::default());
    ask(
        &mut shard,
        now,
        1,
        locked_read(now_attempt(1), 1, &["a1"], LockMode::Exclusive),
    );
    ask(
        &mut shard,
        now,
        2,
        locked_read(now_attempt(2), 2, &["a2"], LockMode::Shared),
    );
    let out = answer_reads(&mut shard, now);
    let session = out.responses.iter().find_map(|(c, r)| match r {
        Response::Read { session, .. } if *c == caller(2) => *session,
        _ => None,
    });
    let me = here(&shard, "a1");
    let mut queued = commit_of(now_attempt(2), vec![me], 0, &[("a1", "x")]);
    queued.session = session;
    queued.timeout_millis = u32::MAX;
    commit(&mut shard, now, 3, queued);
    let cx = shard.cx(now);
    shard.leader.handle_client_gone(&cx, ClientId(2));
    ask(
        &mut shard,
        now,
        4,
        locked_read(now_attempt(4), 2, &["a3"], LockMode::Exclusive),
    );
    answer_reads(&mut shard, now);
    for second in 1..=130 {
        now = Mono(second * SECOND);
        let cx = shard.cx(now);
        // Client 1 lives on and holds a1.
        let live = [now_attempt(1)];
        shard.leader.handle_client_seen(now, ClientId(1), &live);
        shard.leader.handle_timeout(&cx);
        shard.drain();
        let left = match second {
            0..10 => 3,
            10..120 => 2,
            _ => 1,
        };
        assert_eq!(shard.leader.sessions(), left, "after {second} s");
    }
}

#[test]
fn a_read_that_waited_is_not_answered_without_lease_or_round() {
    let now = Mono(0);
    let mut shard = start(GroupSettings::default());
    let both = vec![here(&shard, "a1"), other(&shard, key("b1"))];
    commit(
        &mut shard,
        now,
        1,
        commit_of(now_attempt(1), both, 1, &[("a1", "x")]),
    );
    shard.decide(now, 100);
    let keys = vec![key("a1"), key("a2")];
    let out = ask(&mut shard, now, 2, Request::Latest { keys, scan: None });
    assert!(out.asked.is_empty() && out.rounds.is_empty());
    shard.lease = false;
    let outcome = Outcome::Committed(shard.leader.last().plus(5));
    let cx = shard.cx(now);
    let body = PeerBody::Resolve {
        outcome,
        recorded: false,
    };
    shard.leader.handle_peer(
        &cx,
        PeerMessage {
            attempt: now_attempt(1),
            anchor: key("a1"),
            from: key("b1"),
            body,
        },
    );
    let out = shard.drain();
    assert_eq!(out.rounds.len(), 1);
    assert!(out.asked.is_empty() && out.responses.is_empty());
    shard.leader.handle_confirmed(&cx, out.rounds[0]);
    shard.drain();
    assert_eq!(answer_reads(&mut shard, now).responses.len(), 1);
}

#[test]
fn a_replica_that_takes_anothers_place_does_not_take_its_reads() {
    let now = Mono(0);
    let mut shard = start(GroupSettings::default());
    let keys = vec![key("a1")];
    let old = ask(
        &mut shard,
        now,
        1,
        Request::Latest {
            keys: keys.clone(),
            scan: None,
        },
    );
    let checkpoint = shard.leader.checkpoint();
    let mut next = Group::restore(shard.id, GroupSettings::default(), &checkpoint)
        .expect("a checkpoint just taken");
    next.number_after(&shard.leader);
    shard.leader = next;
    let term = shard.term();
    let cx = shard.cx(now);
    shard.leader.take_office(&cx, term);
    let new = ask(&mut shard, now, 2, Request::Latest { keys, scan: None });
    assert_ne!(old.asked[0].0, new.asked[0].0);
}

/// A poll of shard 1 about attempt 1, on behalf of a coordinator in shard 2.
fn poll(shard: &mut Shard, now: Mono, term: Term) -> Option<Vote> {
    let cx = shard.cx(now);
    let message = PeerMessage {
        attempt: now_attempt(1),
        anchor: key("a1"),
        from: key("b1"),
        body: PeerBody::Poll { term },
    };
    shard.leader.handle_peer(&cx, message);
    let out = shard.drain();
    let votes = out.peers.into_iter().map(|(_, message)| message.body);
    let mut votes = votes.filter_map(|body| match body {
        PeerBody::Vote { vote, .. } => Some(vote),
        _ => None,
    });
    votes.next()
}

/// A client may name any term to the coordinator. Whoever inherits its Staged
/// asks until it is answered, and holds locks meanwhile.
#[test]
fn a_poll_for_a_term_that_nobody_issued_has_an_end() {
    let now = Mono(SECOND);
    let mut shard = start(GroupSettings::default());
    let foreign = Term {
        group: GroupId(99),
        ..shard.term()
    };
    let denied = Some(Vote::No(AbortReason::Malformed));
    // The anchor may be another shard's by now: a final no needs the lease.
    shard.lease = false;
    assert_eq!(poll(&mut shard, now, foreign), None);
    shard.lease = true;
    assert_eq!(poll(&mut shard, now, foreign), denied);
    // One that may still come: only an entry makes the no final.
    let future = shard.term_of(shard.round + 9);
    assert_eq!(poll(&mut shard, now, future), None);
    assert_eq!(poll(&mut shard, now, future), None);
    let entries = shard.log.len();
    shard.decide(now, entries);
    assert_eq!(poll(&mut shard, now, future), denied);
    assert_eq!(shard.log.len(), entries, "asked twice, decided once");
    // When it has come, a Commit that names it finds the end there.
    while shard.term() < future {
        shard.retake(now, 0);
    }
    let list = vec![here(&shard, "a1"), other(&shard, key("b1"))];
    let late = commit_of(now_attempt(1), list, 1, &[("a1", "x")]);
    let out = commit(&mut shard, now, 3, late);
    assert!(out.proposed.is_empty(), "{out:?}");
}

/// What is refused for the load was not proposed: a copy of what was let in is no such thing.
#[test]
fn a_commit_that_was_let_in_is_known_again() {
    let now = Mono(SECOND);
    let mut shard = start(GroupSettings::default());
    let (met, other) = (now_attempt(1), now_attempt(2));
    assert!(!shard.leader.has_met(met));
    let list = vec![here(&shard, "a1")];
    let request = commit_of(met, list, 0, &[("a1", "x")]);
    let out = commit(&mut shard, now, 3, request);
    assert_eq!(out.proposed.len(), 1, "{out:?}");
    assert!(shard.leader.has_met(met) && !shard.leader.has_met(other));
    let entries = shard.log.len();
    shard.decide(now, entries);
    assert!(shard.leader.has_met(met), "its outcome is remembered");
}
