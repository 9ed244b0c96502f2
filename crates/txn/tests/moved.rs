//! A participant whose coordinator's anchor has become another shard's need not wait before it
//! asks for an end (T5, decision 15).

mod world;

use synod_paxos::{GroupId, Mono, Term, Timestamp};
use synod_txn::peer::PeerBody;
use synod_txn::*;
use world::{EPOCH, Out, Shard};

const SECOND: u64 = 1_000_000_000;
const NOW: Mono = Mono(SECOND);

fn attempt() -> AttemptId {
    AttemptId((u128::from(EPOCH / 1_000_000) << 80) | 1)
}

/// A shard with a decided intent, whose coordinator is at `b1` in shard 2.
fn participant() -> Shard {
    let mut shard = Shard::new(1, GroupSettings::default());
    shard.retake(Mono(0), 0);
    let member = |anchor: &'static str, group: GroupId| Participant {
        anchor: Key::from_static(anchor.as_bytes()),
        shard: group,
        term: Term {
            group,
            ..shard.term()
        },
    };
    let request = CommitRequest {
        attempt: attempt(),
        priority: Priority {
            start: Timestamp(1),
            first: attempt(),
        },
        client: ClientId(1),
        session: None,
        writes: vec![Write {
            key: Key::from_static(b"a1"),
            value: None,
        }],
        reads: Vec::new(),
        participants: vec![member("a1", shard.id), member("b1", GroupId(2))],
        here: 0,
        coordinator: 1,
        timeout_millis: 1_000,
        snapshot: None,
    };
    let caller = Caller {
        connection: 1,
        request: 1,
    };
    let cx = shard.cx(NOW);
    shard
        .leader
        .handle_request(&cx, caller, Request::Commit(Box::new(request)));
    shard.drain();
    let entries = shard.log.len();
    let out = shard.decide(NOW, entries);
    assert_eq!(asks(&out), 0, "it votes and waits: {out:?}");
    assert_eq!(out.peers.len(), 1, "{out:?}");
    shard
}

/// Demands for an end.
fn asks(out: &Out) -> usize {
    let asks = |(group, message): &&(GroupId, PeerMessage)| {
        *group == GroupId(2) && matches!(message.body, PeerBody::AskOrAbort { .. })
    };
    out.peers.iter().filter(asks).count()
}

fn hears_moved(shard: &mut Shard, now: Mono, from: &'static str) -> Out {
    let cx = shard.cx(now);
    let message = PeerMessage {
        attempt: attempt(),
        anchor: Key::from_static(b"a1"),
        from: Key::from_static(from.as_bytes()),
        body: PeerBody::Moved,
    };
    shard.leader.handle_peer(&cx, message);
    shard.drain()
}

#[test]
fn who_hears_that_the_coordinator_moved_asks_at_once_and_again_soon() {
    let mut shard = participant();
    let out = hears_moved(&mut shard, NOW, "b9");
    assert_eq!(asks(&out), 0, "not its coordinator: {out:?}");
    let out = hears_moved(&mut shard, NOW, "b1");
    assert_eq!(asks(&out), 1, "{out:?}");
    // Told twice, it asks once; and it repeats, as the new owner may have no leader yet.
    let out = hears_moved(&mut shard, NOW, "b1");
    assert_eq!(asks(&out), 0, "{out:?}");
    let soon = NOW.plus(shard.settings.retry_nanos);
    assert_eq!(shard.leader.next_timeout(), Some(soon));
    let cx = shard.cx(soon);
    shard.leader.handle_timeout(&cx);
    let out = shard.drain();
    assert_eq!(asks(&out), 1, "{out:?}");
}

#[test]
fn who_learns_of_it_from_the_map_asks_at_once_until_the_outcome_is_there() {
    let mut shard = participant();
    let anchor = Key::from_static(b"b1");
    let cx = shard.cx(NOW);
    shard
        .leader
        .handle_coordinator_moved(&cx, attempt(), &anchor);
    let out = shard.drain();
    assert_eq!(asks(&out), 1, "{out:?}");
    let resolve = PeerMessage {
        attempt: attempt(),
        anchor: Key::from_static(b"a1"),
        from: anchor.clone(),
        body: PeerBody::Resolve {
            outcome: Outcome::Aborted(AbortReason::NeverStaged),
            recorded: true,
        },
    };
    shard.leader.handle_peer(&cx, resolve);
    shard.drain();
    shard
        .leader
        .handle_coordinator_moved(&cx, attempt(), &anchor);
    let out = shard.drain();
    assert_eq!(asks(&out), 0, "{out:?}");
}
