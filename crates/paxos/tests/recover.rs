//! A survivor goes on alone (decision 16): what it refuses, what it answers those who did not
//! hear of it, and what its log says meanwhile. The golden scripts 72 to 77 tell the stories.

mod common;

use bytes::Bytes;
use common::{Body, EPOCH, Packet, Sim};
use synod_paxos::{
    Ballot, Configuration, Entry, Epoch, Holds, Message, NodeId, RecoverError, Role, Round, Seal,
    Settings, Slot, SnapshotId, Timestamp,
};

const MS: u64 = 1_000_000;
const SURVIVOR: NodeId = NodeId(3);

const SEAL: Seal = Seal {
    limit: Timestamp(EPOCH + 5_000 * MS),
    last: Timestamp(EPOCH),
    horizon: Timestamp(0),
};

/// Lets time pass, and everything be delivered.
fn run(sim: &mut Sim, nanos: u64) {
    let end = sim.now + nanos;
    while sim.now < end {
        while let Some(packet) = sim.net.pop_front() {
            sim.deliver(packet);
        }
        let next = sim.next_timeout().filter(|at| *at <= end);
        sim.now = next.unwrap_or(end).max(sim.now);
        for id in sim.ids() {
            sim.fire(id);
        }
    }
}

/// Three nodes that have decided something under the first, which is gone then, and so is
/// the second.
fn wreck() -> Sim {
    let settings = Settings::default();
    let configuration = Configuration::of_voters([1, 2, 3].map(NodeId).into());
    let mut sim = Sim::new(configuration, &[], &settings, 42);
    let first = sim.nodes.get_mut(&NodeId(1)).expect("it exists");
    first.settings.priority = 1;
    for id in sim.ids() {
        sim.start(id);
    }
    run(&mut sim, 400 * MS);
    sim.propose(NodeId(1), "x", synod_paxos::Urgency::Now)
        .expect("it leads");
    run(&mut sim, 20 * MS);
    sim.crash(NodeId(1), false);
    sim.crash(NodeId(2), false);
    run(&mut sim, 1_000 * MS);
    sim
}

fn recover(sim: &mut Sim, holds: Holds, epoch: Epoch) -> Result<Slot, RecoverError> {
    let done = sim.with(SURVIVOR, |r, cx| r.recover(cx, holds, epoch, SEAL));
    done.expect("it runs")
}

#[test]
fn the_order_must_fit_what_is_there() {
    let mut sim = wreck();
    let holds = sim.replica(SURVIVOR).holds();
    let era = holds.epoch.next_era();
    for other in [
        Holds {
            epoch: Epoch(2),
            ..holds
        },
        Holds {
            last: holds.last.next(),
            ..holds
        },
        Holds {
            accepted: Ballot::founding(Epoch(1)),
            ..holds
        },
    ] {
        assert_eq!(
            recover(&mut sim, other, era),
            Err(RecoverError::Changed { holds })
        );
    }
    for epoch in [
        holds.epoch,
        holds.epoch.next(),
        Epoch(era.0 + 1),
        Epoch(0),
        Epoch(1 << 30),
        Epoch(u32::MAX),
    ] {
        let known = holds.epoch;
        assert_eq!(
            recover(&mut sim, holds, epoch),
            Err(RecoverError::BadEpoch { epoch, known })
        );
    }
    assert_eq!(sim.replica(SURVIVOR).holds(), holds, "nothing has changed");
    assert_eq!(sim.recover(SURVIVOR, SEAL, false), Ok(holds.last.next()));
}

#[test]
fn until_it_is_durable_it_is_only_in_what_the_log_repeats() {
    let mut sim = wreck();
    sim.nodes.get_mut(&SURVIVOR).expect("it exists").auto = false;
    let holds = sim.replica(SURVIVOR).holds();
    sim.recover(SURVIVOR, SEAL, false).expect("it may");
    let era = holds.epoch.next_era();
    // Again it is under way, and nothing that comes or is due disturbs it.
    assert_eq!(recover(&mut sim, holds, era), Err(RecoverError::UnderWay));
    let message = Message::Decided {
        ballot: holds.accepted,
        slot: holds.last.next(),
    };
    let packet = Packet {
        from: NodeId(1),
        to: SURVIVOR,
        body: Body::Paxos(message),
    };
    sim.deliver(packet);
    run(&mut sim, 2_000 * MS);
    let replica = sim.replica(SURVIVOR);
    assert_eq!(replica.role(), Role::Follower);
    assert_eq!(replica.configuration().epoch, holds.epoch);
    assert!(replica.decided() <= holds.last);
    // A log that is written anew meanwhile must not lose the act.
    let repeated = replica.durable();
    assert_eq!(repeated.configuration.epoch, era);
    assert_eq!(repeated.decided, holds.last.next());

    sim.nodes.get_mut(&SURVIVOR).expect("it exists").auto = true;
    sim.persist(SURVIVOR, usize::MAX);
    run(&mut sim, 300 * MS);
    let replica = sim.replica(SURVIVOR);
    assert!(replica.in_office());
    assert_eq!(replica.configuration().voters, [SURVIVOR]);
    let Some(Entry::TermStart(start)) = replica.entry(replica.last()) else {
        panic!("its term begins");
    };
    assert_eq!(start.ballot.epoch, era);
}

#[test]
fn an_earlier_era_gets_no_vote_and_no_entry_in_but_hears_that_it_is_over() {
    let mut sim = wreck();
    let old = sim.replica(SURVIVOR).holds();
    sim.recover(SURVIVOR, SEAL, false).expect("it may");
    run(&mut sim, 300 * MS);
    sim.net.clear();
    let before = sim.replica(SURVIVOR).durable();
    let ballot = Ballot {
        epoch: Epoch(1),
        round: 9,
        priority: 0,
        node: NodeId(1),
    };
    let (accepted, last, decided) = (old.accepted, Slot(50), Slot(2));
    let relinquished = None;
    let id = SnapshotId {
        slot: Slot(40),
        nonce: 1,
    };
    let asks = [
        Message::PreVote {
            ballot,
            accepted,
            last,
            decided,
            relinquished,
        },
        Message::Prepare {
            ballot,
            accepted,
            last,
            decided,
            relinquished,
        },
        Message::Accept {
            ballot,
            first: Slot(3),
            entries: vec![Entry::Command(b"y"[..].into())],
            decided: Slot(3),
            sync: Some((Slot(3), Slot(3))),
            round: Round(0),
        },
        Message::Began {
            epoch: Epoch(1),
            after: Slot(0),
        },
    ];
    let silent = [
        Message::Decided {
            ballot,
            slot: Slot(9),
        },
        Message::SnapshotChunk {
            ballot,
            id,
            chunk: 0,
            checksum: 0,
            data: Bytes::new(),
            done: true,
            began: None,
        },
        Message::Settled {
            epoch: Epoch(2),
            first: Slot(3),
            entries: vec![Entry::Noop],
            end: Slot(3),
        },
    ];
    for (message, told) in
        { asks.into_iter().map(|m| (m, true)) }.chain(silent.into_iter().map(|m| (m, false)))
    {
        let shown = message.to_string();
        sim.deliver(Packet {
            from: NodeId(1),
            to: SURVIVOR,
            body: Body::Paxos(message),
        });
        let answers: Vec<Packet> = { sim.net.drain(..) }
            .filter(|packet| matches!(packet.body, Body::Paxos(_)))
            .collect();
        let held = |packet: &Packet| match &packet.body {
            Body::Paxos(Message::Held { began, holds }) => {
                packet.to == NodeId(1) && *holds && began.configuration.voters == [SURVIVOR]
            }
            _ => false,
        };
        assert!(answers.iter().all(held), "{shown}: {answers:?}");
        assert_eq!(answers.len(), usize::from(told), "{shown}: {answers:?}");
        assert_eq!(sim.replica(SURVIVOR).durable(), before, "{shown}");
    }
    assert!(sim.replica(SURVIVOR).in_office());
}

#[test]
fn a_map_overrules_only_who_has_a_log_of_an_earlier_era() {
    let mut sim = wreck();
    let alone = Configuration {
        epoch: Epoch(1).next_era(),
        ..Configuration::of_voters(vec![NodeId(2)])
    };
    let mut overrule = |configuration: &Configuration| {
        sim.with(SURVIVOR, |r, cx| r.overrule(cx, configuration));
        sim.replica(SURVIVOR).is_overruled()
    };
    // Of its own era, absurd, or one that says that it has been there: nothing to stop for.
    let same = Configuration {
        epoch: Epoch(7),
        ..alone.clone()
    };
    let absurd = Configuration {
        epoch: Epoch(1 << 30),
        ..alone.clone()
    };
    let with_it = Configuration {
        epoch: alone.epoch,
        ..Configuration::of_voters(vec![SURVIVOR])
    };
    assert!(![same, absurd, with_it].iter().any(&mut overrule));
    assert!(overrule(&alone));
    // It votes for nobody, goes on with nothing, and keeps what it has: the voter that would
    // say that it holds the state does not answer.
    let holds = sim.replica(SURVIVOR).holds();
    run(&mut sim, 3_000 * MS);
    assert_eq!(
        recover(&mut sim, holds, Epoch(1).next_era().next_era()),
        Err(RecoverError::LeftOut)
    );
    let replica = sim.replica(SURVIVOR);
    assert_eq!(replica.role(), Role::Follower);
    assert_eq!(replica.holds(), holds);
    assert!(replica.is_overruled() && replica.holds_data());
}
