//! The bounds that a shard keeps by itself, whatever the client checked: who breaks one is told
//! which, and nothing comes of it; who keeps it just so is served.

#[path = "world/mod.rs"]
mod world;

use synod_paxos::{GroupId, Mono, Term, Timestamp};
use synod_txn::effect::EngineRows;
use synod_txn::request::{LockMode, Refusal, ScanRange};
use synod_txn::settings::{MAX_PARTICIPANTS_BYTES, MAX_READ_KEYS};
use synod_txn::*;
use world::{EPOCH, Out, Shard};

const NOW: Mono = Mono(0);
/// What a write counts for beside its key and value, and a participant beside its anchor.
const WRITE: usize = 16;
const PARTICIPANT: usize = 96;

fn attempt(number: u64) -> AttemptId {
    AttemptId((u128::from(EPOCH / 1_000_000) << 80) | u128::from(number))
}

fn priority(attempt: AttemptId) -> Priority {
    Priority {
        start: Timestamp(1),
        first: attempt,
    }
}

fn key(text: &str) -> Key {
    Key::copy_from_slice(text.as_bytes())
}

/// A key of so many bytes that begins with this.
fn long(start: &str, bytes: usize) -> Key {
    format!("{start:k<bytes$}").into()
}

fn write(key: Key, bytes: usize) -> Write {
    Write {
        key,
        value: Some(vec![7; bytes].into()),
    }
}

/// A participant in another shard.
fn other(shard: &Shard, number: u64, anchor: Key) -> Participant {
    let group = GroupId(number);
    Participant {
        anchor,
        shard: group,
        term: Term {
            group,
            ..shard.term()
        },
    }
}

/// A commit that breaks nothing: one write, and this shard alone takes part.
fn good(shard: &Shard) -> CommitRequest {
    let attempt = attempt(1);
    CommitRequest {
        attempt,
        priority: priority(attempt),
        client: ClientId(1),
        session: None,
        writes: vec![write(key("a1"), 1)],
        reads: Vec::new(),
        participants: vec![Participant {
            anchor: key("a1"),
            shard: shard.id,
            term: shard.term(),
        }],
        here: 0,
        coordinator: 0,
        timeout_millis: 1_000,
        snapshot: None,
    }
}

/// Lets so many other shards take part, whose anchors have so many bytes.
fn joined(shard: &Shard, request: &mut CommitRequest, others: usize, bytes: usize) {
    for number in 0..others {
        let anchor = long(&format!("b{number:04}"), bytes);
        let participant = other(shard, 2 + number as u64, anchor);
        request.participants.push(participant);
    }
}

/// Values that together with their keys count for so many bytes.
fn weighing(bytes: usize) -> Vec<Write> {
    let overhead = WRITE + "a0".len();
    let value = Value::from(vec![7; MAX_VALUE_BYTES]);
    let mut left = bytes;
    let mut writes = Vec::new();
    while left > 0 {
        let size = (left - overhead).min(MAX_VALUE_BYTES);
        writes.push(Write {
            key: key(&format!("a{}", writes.len())),
            value: Some(value.slice(..size)),
        });
        left -= size + overhead;
    }
    writes
}

/// What the engine says of a key that was never written.
fn nothing() -> EngineRows {
    EngineRows {
        versions: vec![None],
        rows: Vec::new(),
        more: false,
    }
}

fn started() -> Shard {
    let mut shard = Shard::new(1, GroupSettings::default());
    shard.retake(NOW, 0);
    shard
}

fn ask(shard: &mut Shard, request: Request) -> Out {
    let cx = shard.cx(NOW);
    let caller = Caller {
        connection: 1,
        request: 1,
    };
    shard.leader.handle_request(&cx, caller, request);
    shard.drain()
}

/// That it is refused in these words, and that nothing else becomes of it.
fn is_refused(shard: &mut Shard, request: Request, words: &str) {
    let before = shard.leader.checkpoint();
    let out = ask(shard, request);
    assert!(
        matches!(
            &out.responses[..],
            [(_, Response::Refused(Refusal::Invalid(why)))] if why.contains(words)
        ),
        "not refused with `{words}`: {:?}",
        out.responses
    );
    assert!(out.proposed.is_empty(), "`{words}`: something was proposed");
    assert!(out.peers.is_empty() && out.asked.is_empty(), "`{words}`");
    assert_eq!(shard.leader.locks(), 0, "`{words}`");
    assert_eq!(shard.leader.sessions(), 0, "`{words}`");
    assert_eq!(shard.leader.checkpoint(), before, "`{words}`");
}

/// What becomes of a good commit.
type Change = fn(&Shard, &mut CommitRequest);

/// A name, a change, and the words that the commit is refused with.
type Breach = (&'static str, Change, &'static str);

const BREACHES: &[Breach] = &[
    (
        "a key that is too long",
        |_, r| r.writes[0].key = long("a", MAX_KEY_BYTES + 1),
        "a key of 8193 bytes is longer than 8192",
    ),
    (
        "an anchor that is too long",
        |_, r| r.participants[0].anchor = long("a", MAX_KEY_BYTES + 1),
        "a key of 8193 bytes is longer than 8192",
    ),
    (
        "a value that is too long",
        |_, r| r.writes[0] = write(key("a1"), MAX_VALUE_BYTES + 1),
        "a value of 8388609 bytes is longer than 8388608",
    ),
    (
        "writes that are too many bytes",
        |_, r| r.writes = weighing(MAX_TRANSACTION_BYTES + WRITE + 3),
        "the writes take 67108883 bytes, more than 67108864",
    ),
    (
        "writes out of order",
        |_, r| r.writes = vec![write(key("a2"), 1), write(key("a1"), 1)],
        "the writes must ascend by key, each key once",
    ),
    (
        "a key written twice",
        |_, r| r.writes = vec![write(key("a1"), 1), write(key("a1"), 2)],
        "the writes must ascend by key, each key once",
    ),
    (
        "a span that begins too far out",
        |_, r| {
            let start = long("a", MAX_KEY_BYTES + 1);
            r.reads = vec![Span {
                start,
                end: Key::new(),
            }];
        },
        "a key of 8193 bytes is longer than 8192",
    ),
    (
        "a span that ends too far out",
        |_, r| {
            let end = long("b", MAX_KEY_BYTES + 2);
            r.reads = vec![Span {
                start: key("a"),
                end,
            }];
        },
        "the end of a span is longer than 8192 bytes",
    ),
    (
        "nobody takes part",
        |_, r| r.participants.clear(),
        "a commit names 0 shards; it must name 1 to 1024",
    ),
    (
        "too many take part",
        |shard, r| joined(shard, r, MAX_PARTICIPANTS, 5),
        "a commit names 1025 shards; it must name 1 to 1024",
    ),
    (
        "participants out of order",
        |shard, r| r.participants.insert(0, other(shard, 2, key("b1"))),
        "the participants must ascend by anchor, each once",
    ),
    (
        "an anchor of two",
        |shard, r| r.participants.push(other(shard, 2, key("a1"))),
        "the participants must ascend by anchor, each once",
    ),
    (
        "it is none of them here",
        |_, r| r.here = 1,
        "`here` or `coordinator` names no participant",
    ),
    (
        "it is far from any of them here",
        |_, r| r.here = u32::MAX,
        "`here` or `coordinator` names no participant",
    ),
    (
        "the coordinator is none of them",
        |_, r| r.coordinator = 1,
        "`here` or `coordinator` names no participant",
    ),
    (
        "this shard is another participant's, too",
        |shard, r| {
            r.participants.push(other(shard, 2, key("b1")));
            r.participants[1].shard = shard.id;
        },
        "the participants name a shard twice",
    ),
    (
        "another shard is named twice",
        |shard, r| {
            joined(shard, r, 2, 5);
            r.participants[2].term = r.participants[1].term;
        },
        "the participants name a shard twice",
    ),
    (
        "participants that are too many bytes",
        |shard, r| {
            let each = PARTICIPANT + MAX_KEY_BYTES;
            joined(shard, r, MAX_PARTICIPANTS_BYTES / each + 1, MAX_KEY_BYTES);
        },
        "more than 1048576; use shorter keys or fewer shards",
    ),
    (
        "an optimistic commit",
        |_, r| r.snapshot = Some(Timestamp(EPOCH)),
        "optimistic commits are not in this version",
    ),
];

#[test]
fn a_commit_that_breaks_a_bound_is_refused_in_words_and_nothing_is_proposed() {
    let mut shard = started();
    for (name, breach, words) in BREACHES {
        eprintln!("{name}");
        let mut request = good(&shard);
        breach(&shard, &mut request);
        is_refused(&mut shard, Request::Commit(Box::new(request)), words);
    }
    // Not even its id is spent: the very same attempt, made well, goes on.
    let request = good(&shard);
    let out = ask(&mut shard, Request::Commit(Box::new(request)));
    assert_eq!(out.proposed.len(), 1, "{out:?}");
}

/// Commits that only just break nothing, so that no bound is lower than it says.
#[test]
fn a_commit_at_its_bounds_is_proposed() {
    let limits: &[(&str, Change)] = &[
        ("a key", |_, r| {
            r.writes[0].key = long("a", MAX_KEY_BYTES);
            r.participants[0].anchor = r.writes[0].key.clone();
        }),
        ("a value", |_, r| {
            r.writes[0] = write(key("a1"), MAX_VALUE_BYTES);
        }),
        ("writes", |_, r| r.writes = weighing(MAX_TRANSACTION_BYTES)),
        ("a span", |_, r| {
            r.reads = vec![Span::of_key(&long("a", MAX_KEY_BYTES))];
        }),
        ("participants", |shard, r| {
            joined(shard, r, MAX_PARTICIPANTS - 1, 5);
        }),
        ("their bytes", |shard, r| {
            let each = PARTICIPANT + MAX_KEY_BYTES;
            let others = (MAX_PARTICIPANTS_BYTES - 2 * PARTICIPANT) / each;
            joined(shard, r, others, MAX_KEY_BYTES);
        }),
    ];
    for (name, stretch) in limits {
        let mut shard = started();
        let mut request = good(&shard);
        stretch(&shard, &mut request);
        let out = ask(&mut shard, Request::Commit(Box::new(request)));
        assert!(!out.proposed.is_empty(), "{name}: {:?}", out.responses);
    }
}

/// Locks a key for an attempt; its session.
fn locked(shard: &mut Shard, name: &str, number: u64) -> Option<SessionId> {
    let read = Request::LockedRead {
        attempt: attempt(number),
        priority: priority(attempt(number)),
        client: ClientId(1),
        keys: vec![key(name)],
        scan: None,
        mode: LockMode::Exclusive,
        session: None,
    };
    let asked = ask(shard, read).asked;
    let cx = shard.cx(NOW);
    shard.leader.handle_read(&cx, asked[0].0, nothing());
    let out = shard.drain();
    let session = out
        .responses
        .iter()
        .find_map(|(_, response)| match response {
            Response::Read { session, .. } => *session,
            _ => None,
        });
    assert!(session.is_some(), "{out:?}");
    session
}

/// Of an attempt: writes so many bytes to one key.
fn commit(shard: &Shard, number: u64, bytes: usize) -> CommitRequest {
    let mut request = good(shard);
    request.attempt = attempt(number);
    request.priority = priority(request.attempt);
    request.writes = vec![write(key("a1"), bytes)];
    request
}

/// What the Commit is told at once.
fn told(shard: &mut Shard, request: CommitRequest) -> Option<Response> {
    let out = ask(shard, Request::Commit(Box::new(request)));
    assert!(out.proposed.is_empty());
    assert!(out.responses.len() <= 1, "{:?}", out.responses);
    out.responses
        .into_iter()
        .next()
        .map(|(_, response)| response)
}

/// Of what has to wait for locks only so much is kept; who is in the way of the rest is let through,
/// and who was turned away is let in once there is room.
#[test]
fn commits_that_wait_are_bounded_in_bytes() {
    let mut shard = started();
    let session = locked(&mut shard, "a1", 1);
    // Each of them is younger than the holder, and waits.
    let room = GroupSettings::default().queued_bytes;
    let mut number = 2;
    let mut waiting = 0;
    while waiting < room {
        let request = commit(&shard, number, MAX_VALUE_BYTES);
        let out = ask(&mut shard, Request::Commit(Box::new(request)));
        assert!(out.responses.is_empty(), "{:?}", out.responses);
        number += 1;
        waiting += MAX_VALUE_BYTES;
    }
    let sessions = shard.leader.sessions();
    let turned_away = commit(&shard, number, 1);
    let out = ask(&mut shard, Request::Commit(Box::new(turned_away.clone())));
    assert!(
        matches!(
            out.responses[..],
            [(_, Response::Refused(Refusal::Overloaded { .. }))]
        ),
        "{:?}",
        out.responses
    );
    assert!(out.proposed.is_empty());
    assert_eq!(shard.leader.sessions(), sessions, "nothing of it is left");
    let mut first = commit(&shard, 1, 1);
    first.session = session;
    let out = ask(&mut shard, Request::Commit(Box::new(first)));
    assert_eq!(
        out.proposed.len(),
        1,
        "all others wait for it: {:?}",
        out.responses
    );
    // Those that waited end one by one; then there is room.
    for ended in 2..number {
        ask(
            &mut shard,
            Request::Release {
                session: None,
                attempt: attempt(ended),
            },
        );
    }
    let out = ask(&mut shard, Request::Commit(Box::new(turned_away)));
    assert!(out.responses.is_empty(), "it waits: {:?}", out.responses);
}

/// Reads that wait for locks are bounded in the bytes of their keys, and who holds locks is let in all
/// the same if it need not wait.
#[test]
fn reads_that_wait_are_bounded_in_bytes() {
    let mut shard = started();
    locked(&mut shard, "a1", 1);
    let many: Vec<Key> = (0..300)
        .map(|n| long(&format!("a9{n:03}"), MAX_KEY_BYTES))
        .collect();
    let read = |number: u64, keys: &[Key]| Request::LockedRead {
        attempt: attempt(number),
        priority: priority(attempt(number)),
        client: ClientId(1),
        session: None,
        keys: [keys, &[key("a1")]].concat(),
        scan: None,
        mode: LockMode::Shared,
    };
    let overloaded = |out: &Out| {
        let refused = Response::Refused(Refusal::Overloaded {
            retry_after_millis: GroupSettings::default().overload_millis,
        });
        out.responses
            .iter()
            .any(|(_, response)| *response == refused)
    };
    let mut last = 1;
    loop {
        last += 1;
        let out = ask(&mut shard, read(last, &many));
        assert!(out.asked.is_empty(), "it waits for a1");
        if overloaded(&out) {
            break;
        }
        assert!(out.responses.is_empty(), "{:?}", out.responses);
    }
    let bytes = (last - 2) as usize * many.len() * MAX_KEY_BYTES;
    let bound = GroupSettings::default().waiting_bytes;
    assert!((bound..bound + (4 << 20)).contains(&bytes), "{bytes} bytes");
    assert!(
        overloaded(&ask(&mut shard, read(last, &[]))),
        "nor a small one"
    );
    let mut held = read(1, &[key("a2")]);
    if let Request::LockedRead { keys, .. } = &mut held {
        keys.truncate(1);
    }
    assert_eq!(ask(&mut shard, held).asked.len(), 1, "the holder goes on");
    // There is room again once some have gone.
    let session = None;
    for gone in [2, 3] {
        let attempt = attempt(gone);
        ask(&mut shard, Request::Release { attempt, session });
    }
    let out = ask(&mut shard, read(last, &many));
    assert!(out.responses.is_empty(), "it waits: {:?}", out.responses);
}

/// Whoever is oldest wounds those in its way, however much waits, and the youngest makes room (T9).
#[test]
fn the_youngest_that_waits_makes_room_for_older_ones() {
    let mut shard = started();
    // Two hold a key each; the younger one's Commit waits for the other.
    let sessions = [("a1", 1), ("a2", 2)].map(|(key, number)| locked(&mut shard, key, number));
    let mut second = commit(&shard, 2, 1);
    second.session = sessions[1];
    assert_eq!(told(&mut shard, second), None);
    // Younger ones fill the room.
    let mut last = 2;
    let turned_away = loop {
        last += 1;
        let request = commit(&shard, last, MAX_VALUE_BYTES);
        if let Some(response) = told(&mut shard, request) {
            break response;
        }
    };
    let overloaded =
        |response: &Response| matches!(response, Response::Refused(Refusal::Overloaded { .. }));
    // It is large, and is not asked for again at once.
    let Response::Refused(Refusal::Overloaded { retry_after_millis }) = turned_away else {
        panic!("{turned_away:?}");
    };
    assert!(retry_after_millis > 500, "{retry_after_millis} ms");
    // The oldest wants what the second holds.
    let mut first = commit(&shard, 1, 1);
    first.session = sessions[0];
    first.writes.push(write(key("a2"), 1));
    let out = ask(&mut shard, Request::Commit(Box::new(first)));
    assert_eq!(out.proposed.len(), 1, "{:?}", out.responses);
    let wounded = Response::Refused(Refusal::Aborted(AbortReason::Wounded));
    assert!(out.responses.iter().any(|(_, r)| *r == wounded));
    // One that is older than all that wait takes the youngest one's place.
    let mut older = commit(&shard, last, MAX_VALUE_BYTES);
    older.priority = priority(attempt(2));
    let evicted = told(&mut shard, older.clone());
    assert!(evicted.as_ref().is_some_and(overloaded), "{evicted:?}");
    assert_eq!(told(&mut shard, older), None, "it waits");
    let youngest = commit(&shard, last - 1, MAX_VALUE_BYTES);
    let response = told(&mut shard, youngest);
    assert!(response.as_ref().is_some_and(overloaded), "{response:?}");
    let next = commit(&shard, last - 2, MAX_VALUE_BYTES);
    assert_eq!(told(&mut shard, next), None, "it waits still");
}

#[test]
fn a_read_that_breaks_a_bound_is_refused_in_words_and_locks_nothing() {
    let mut shard = started();
    let scan = |start: Key, end: Key, limit| {
        let span = Span { start, end };
        Some(ScanRange {
            span,
            limit,
            reverse: false,
        })
    };
    let many = (0..=MAX_READ_KEYS).map(|n| key(&format!("a{n:04}")));
    let breaches: [(Vec<Key>, Option<ScanRange>, &str); 5] = [
        (many.collect(), None, "4097 keys in one read are more"),
        (
            vec![key("a1"), long("a", MAX_KEY_BYTES + 1)],
            None,
            "a key of 8193 bytes is longer than 8192",
        ),
        (
            Vec::new(),
            scan(key("a"), key("b"), 0),
            "a scan with limit 0 reads nothing",
        ),
        (
            Vec::new(),
            scan(long("a", MAX_KEY_BYTES + 1), Key::new(), 1),
            "a key of 8193 bytes is longer than 8192",
        ),
        (
            Vec::new(),
            scan(key("a"), long("b", MAX_KEY_BYTES + 2), 1),
            "the end of a span is longer than 8192 bytes",
        ),
    ];
    for (keys, scan, words) in breaches {
        let latest = Request::Latest {
            keys: keys.clone(),
            scan: scan.clone(),
        };
        is_refused(&mut shard, latest, words);
        let attempt = attempt(1);
        let locked = Request::LockedRead {
            attempt,
            priority: priority(attempt),
            client: ClientId(1),
            session: None,
            keys,
            scan,
            mode: LockMode::Shared,
        };
        is_refused(&mut shard, locked, words);
    }
}
