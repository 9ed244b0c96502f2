//! What a shard that has absorbed another says of transactions that took the two for two.

mod world;

use synod_paxos::{Ballot, GroupId, Mono, Slot, Term, Timestamp};
use synod_txn::peer::{PeerBody, Vote};
use synod_txn::request::Refusal;
use synod_txn::state::State;
use synod_txn::{
    AbortReason, Absorb, AttemptId, Caller, ClientId, Command, CommitRequest, GroupSettings, Key,
    Participant, PeerMessage, Priority, Request, Response, Span, Write,
};
use world::{EPOCH, Entry, Out, Shard};

const NOW: Mono = Mono(1_000_000_000);
/// The shard that was absorbed, of the keys from `m` to `t`.
const RIGHT: GroupId = GroupId(4);
/// Where the transaction is coordinated.
const COORDINATOR: GroupId = GroupId(2);
const ATTEMPT: AttemptId = AttemptId((EPOCH as u128 / 1_000_000) << 80 | 1);

fn key(text: &str) -> Key {
    Key::copy_from_slice(text.as_bytes())
}

/// Shard 1 in office, after it has absorbed its right neighbour.
fn merged() -> Shard {
    let mut shard = Shard::new(1, GroupSettings::default());
    shard.retake(Mono(0), 0);
    let absorb = Absorb {
        span: Span {
            start: Key::new(),
            end: key("m"),
        },
        right: RIGHT,
        gained: Span {
            start: key("m"),
            end: key("t"),
        },
        slot: Slot(7),
        under: Ballot::default(),
        last: Timestamp(0),
        hashing: None,
        splits: 1,
    };
    shard
        .log
        .push(Entry::Command(Command::Absorb(Box::new(absorb.clone()))));
    shard.decided += 1;
    let (cx, slot) = (shard.cx(NOW), Slot(shard.decided as u64));
    for group in [&mut shard.leader, &mut shard.follower] {
        group.absorb(&cx, slot, absorb.clone(), &State::default());
    }
    shard.retake(NOW, 0);
    shard
}

/// The participant in the shard itself, by its term now.
fn kept(shard: &Shard) -> Participant {
    Participant {
        anchor: key("c"),
        shard: shard.id,
        term: shard.term(),
    }
}

/// The participant in what was the shard to the right, by a term that it had.
fn gained() -> Participant {
    elsewhere(RIGHT, "p")
}

fn elsewhere(group: GroupId, anchor: &str) -> Participant {
    Participant {
        anchor: key(anchor),
        shard: group,
        term: Term {
            group,
            ballot: Ballot::default(),
        },
    }
}

/// The Commit to a participant: of others it names only the coordinator.
fn commit(shard: &mut Shard, here: Participant) -> Out {
    let write = Write {
        key: here.anchor.clone(),
        value: Some(key("x")),
    };
    let request = CommitRequest {
        attempt: ATTEMPT,
        priority: Priority {
            start: Timestamp(1),
            first: ATTEMPT,
        },
        client: ClientId(1),
        session: None,
        writes: vec![write],
        reads: Vec::new(),
        participants: vec![here, elsewhere(COORDINATOR, "z")],
        here: 0,
        coordinator: 1,
        timeout_millis: 1_000,
        snapshot: None,
    };
    let cx = shard.cx(NOW);
    let from = Caller {
        connection: 1,
        request: 1,
    };
    let request = Request::Commit(Box::new(request));
    shard.leader.handle_request(&cx, from, request);
    shard.drain()
}

/// The votes that were said, by anchor.
fn votes(out: Out) -> Vec<(Key, Vote)> {
    let votes = out.peers.into_iter().map(|(_, message)| message);
    let votes = votes.filter_map(|message| match message.body {
        PeerBody::Vote { vote, .. } => Some((message.from, vote)),
        _ => None,
    });
    votes.collect()
}

/// The coordinator asks for a participant's vote.
fn poll(shard: &mut Shard, of: &Participant) -> Vec<(Key, Vote)> {
    let message = PeerMessage {
        attempt: ATTEMPT,
        anchor: of.anchor.clone(),
        from: key("z"),
        body: PeerBody::Poll { term: of.term },
    };
    let cx = shard.cx(NOW);
    shard.leader.handle_peer(&cx, message);
    votes(shard.drain())
}

fn refused(out: &Out) -> Option<&Refusal> {
    out.responses
        .iter()
        .find_map(|(_, response)| match response {
            Response::Refused(refusal) => Some(refusal),
            _ => None,
        })
}

/// A client that has read in the left shard after the merge, and still knows a term of the right
/// one, names two participants. The intent of one is no yes of the other, whose Commit never
/// came or is refused: it would be committed without its writes.
#[test]
fn an_intent_votes_only_in_the_name_of_its_own_anchor() {
    let mut shard = merged();
    let (kept, gained) = (kept(&shard), gained());
    assert_eq!(commit(&mut shard, kept.clone()).proposed.len(), 1);
    // Before it is decided neither has a vote.
    assert_eq!(poll(&mut shard, &kept), []);
    let voted = votes(shard.decide(NOW, 1));
    let yes = vec![(kept.anchor.clone(), voted[0].1)];
    assert!(matches!(yes[0].1, Vote::Yes(_)), "{yes:?}");
    assert_eq!(voted, yes);
    let no = vec![(gained.anchor.clone(), Vote::No(AbortReason::Moved))];
    assert_eq!(poll(&mut shard, &gained), no);
    assert_eq!(poll(&mut shard, &kept), yes);
    // The next leader says the same.
    shard.retake(NOW, 0);
    assert_eq!(poll(&mut shard, &gained), no);
    assert_eq!(poll(&mut shard, &kept), yes);
}

/// The same if the other Commit comes, whether the intent is decided by then or only proposed.
#[test]
fn a_commit_is_not_taken_for_that_of_another_participant() {
    for decided in [0, 1] {
        let mut shard = merged();
        let (kept, gained) = (kept(&shard), gained());
        commit(&mut shard, kept.clone());
        shard.decide(NOW, decided);
        let out = commit(&mut shard, gained.clone());
        let reason = AbortReason::Moved;
        assert_eq!(refused(&out), Some(&Refusal::Aborted(reason)), "{out:?}");
        assert_eq!(votes(out), [(gained.anchor, Vote::No(reason))]);
        // A copy of its own is known.
        let out = commit(&mut shard, kept);
        assert_eq!(refused(&out), None, "{out:?}");
    }
}
