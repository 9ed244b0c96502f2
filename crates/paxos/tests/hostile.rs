//! Outside input never panics: fields no correct replica would send, senders
//! that are nobody, ballots of others, parts that fit nowhere. Each is dropped
//! for a named reason, and nothing durable changes for it.

use bytes::Bytes;
use synod_paxos::lease::{LeaseSettings, NodeLease};
use synod_paxos::{
    Ballot, Configuration, Cx, Durable, Effect, Entry, Epoch, GroupId, Ignored, Incarnation,
    Message, Mono, NackReason, NodeId, PersistSeq, Record, Replica, Round, Settings, Slot,
    SnapshotId, SupportEpoch, Timestamp,
};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const NUMBERS: [u64; 8] = [0, 1, 2, 3, 1 << 40, 1 << 62, u64::MAX - 1, u64::MAX];

fn ballot(round: u64, node: NodeId) -> Ballot {
    Ballot {
        epoch: Epoch(1),
        round,
        priority: 0,
        node,
    }
}

fn leases() -> NodeLease {
    let peers = vec![NodeId(2), NodeId(3)];
    let settings = LeaseSettings::default();
    NodeLease::new(settings, ME, Incarnation(1), peers, Vec::new(), Mono(0))
}

/// A replica with three entries under a ballot of n2.
fn replica() -> Replica {
    let configuration = Configuration::of_voters((1..=3).map(NodeId).collect());
    let mut durable = Durable::new(configuration);
    durable.replay(Record::Accept {
        ballot: ballot(4, PEER),
        first: Slot(1),
        entries: vec![Entry::Noop; 3],
        decided: Slot(2),
        sync: Some((Slot(1), Slot(3))),
    });
    Replica::new(
        GroupId(7),
        ME,
        Settings::default(),
        durable,
        Slot(2),
        None,
        true,
        1,
        Mono(0),
    )
}

/// Lets a replica campaign until it has asked for promises under the ballot returned.
fn asks(r: &mut Replica, cx: &Cx<'_>) -> Ballot {
    r.handle_timeout(cx);
    r.flush(cx);
    let asked = r.drain_effects().into_iter().find_map(|e| match e {
        Effect::Send {
            message: Message::PreVote { ballot, .. },
            ..
        } => Some(ballot),
        _ => None,
    });
    let own = asked.expect("it campaigns");
    r.handle_message(cx, PEER, Message::PreVoteReply { ballot: own });
    persist_all(r, cx);
    own
}

/// The same replica, leading under the ballot it returns.
fn leader(leases: &NodeLease) -> (Replica, Ballot) {
    let mut r = replica();
    let now = Mono(1_000_000_000);
    let cx = Cx { now, leases };
    let own = asks(&mut r, &cx);
    let promise = Message::Promise {
        ballot: own,
        accepted: ballot(4, PEER),
        last: Slot(3),
        decided: Slot(2),
        limit: Timestamp(5),
        first: Slot(4),
        entries: Vec::new(),
        more: false,
    };
    r.handle_message(&cx, PEER, promise);
    persist_all(&mut r, &cx);
    assert_eq!(r.term_ballot(), Some(own));
    (r, own)
}

fn persist_all(r: &mut Replica, cx: &Cx<'_>) {
    r.flush(cx);
    let seqs: Vec<PersistSeq> = r
        .drain_effects()
        .into_iter()
        .filter_map(|e| match e {
            Effect::Persist { seq, .. } => Some(seq),
            _ => None,
        })
        .collect();
    for seq in seqs {
        r.handle_persisted(cx, seq);
    }
    r.flush(cx);
}

/// Every kind of message, with `a` and `b` wherever a number goes.
#[allow(clippy::too_many_lines, reason = "one of each kind")]
fn messages(ballot: Ballot, a: u64, b: u64) -> Vec<Message> {
    let higher = Ballot { round: b, ..ballot };
    let id = SnapshotId {
        slot: Slot(a),
        nonce: b,
    };
    let mut all = vec![
        Message::PreVote {
            ballot,
            accepted: higher,
            last: Slot(a),
            decided: Slot(b),
            relinquished: Some(higher),
        },
        Message::Prepare {
            ballot,
            accepted: higher,
            last: Slot(a),
            decided: Slot(b),
            relinquished: None,
        },
        Message::PreVoteReply { ballot },
        Message::Promise {
            ballot,
            accepted: higher,
            last: Slot(a),
            decided: Slot(b),
            limit: Timestamp(a),
            first: Slot(b),
            entries: vec![Entry::Noop; 2],
            more: true,
        },
        Message::Accepted {
            ballot,
            last: Slot(a),
            support: SupportEpoch::NONE,
            round: Round(b),
            data: a < b,
        },
        Message::Settled {
            epoch: Epoch(u32::try_from(b).unwrap_or(u32::MAX)),
            first: Slot(a),
            entries: vec![Entry::Noop; 2],
            end: Slot(b),
        },
        Message::Gone { epoch: Epoch(1) },
        Message::Began {
            epoch: Epoch(u32::try_from(a).unwrap_or(u32::MAX)),
            after: Slot(b),
        },
        Message::Held {
            began: Box::new(synod_paxos::Began {
                configuration: Configuration {
                    epoch: Epoch(u32::try_from(a).unwrap_or(u32::MAX)),
                    ..Configuration::of_voters(vec![ballot.node, NodeId(b)])
                },
                after: Slot(b),
                left: vec![NodeId(a)],
            }),
            holds: true,
        },
        Message::Contested { ballot },
        Message::Relinquish {
            ballot,
            used: Some(Timestamp(a)),
        },
        Message::TransferLeader {
            ballot,
            used: Timestamp(a),
        },
        Message::SnapshotChunk {
            ballot,
            id,
            chunk: b,
            checksum: 7,
            data: Bytes::from_static(b"chunk"),
            done: true,
            began: None,
        },
        Message::SnapshotAck {
            ballot,
            id,
            next: b,
            installed: a == b,
        },
    ];
    for reason in [
        NackReason::Promised(higher),
        NackReason::Supports(higher),
        NackReason::Abstains,
        NackReason::Trimmed(Slot(a)),
        NackReason::Gap(Slot(a)),
        NackReason::NeedsSnapshot,
        NackReason::Configuration {
            epoch: Epoch(2),
            holds: Slot(a),
        },
    ] {
        all.push(Message::Nack { ballot, reason });
    }
    all
}

/// Accepts whose slots fit nowhere; none of them carries a lie about values.
fn absurd_accepts(ballot: Ballot, a: u64, b: u64) -> Vec<Message> {
    let accept = |first, decided, sync| Message::Accept {
        ballot,
        first: Slot(first),
        entries: vec![Entry::Noop; 2],
        decided: Slot(decided),
        sync,
        round: Round(b),
    };
    vec![
        accept(a.max(1 << 40), b, None),
        accept(0, 0, None),
        accept(a.max(4), b, Some((Slot(a.saturating_add(2)), Slot(b)))),
        accept(1, 0, Some((Slot(1), Slot(1)))),
    ]
}

#[test]
fn no_message_makes_a_follower_panic() {
    let leases = leases();
    for from in [ME, PEER, NodeId(3), NodeId(99)] {
        for round in NUMBERS {
            for (a, b) in NUMBERS.iter().flat_map(|a| NUMBERS.map(|b| (*a, b))) {
                let ballot = ballot(round, from);
                let all = messages(ballot, a, b).into_iter();
                for message in all.chain(absurd_accepts(ballot, a, b)) {
                    let mut r = replica();
                    let cx = Cx {
                        now: Mono(5),
                        leases: &leases,
                    };
                    r.handle_message(&cx, from, message);
                    r.flush(&cx);
                    assert!(r.last() == Slot(3) && r.decided() <= Slot(3));
                }
            }
        }
    }
}

#[test]
fn no_message_makes_a_leader_panic_or_decide() {
    let leases = leases();
    let (r, own) = leader(&leases);
    let decided = r.decided();
    for (a, b) in NUMBERS.iter().flat_map(|a| NUMBERS.map(|b| (*a, b))) {
        for message in messages(own, a, b) {
            let plausible = matches!(message, Message::Accepted { last: Slot(4), .. });
            let mut r = r.clone();
            let cx = Cx {
                now: Mono(1_000_000_001),
                leases: &leases,
            };
            r.handle_message(&cx, PEER, message);
            r.flush(&cx);
            assert!(plausible || r.decided() == decided);
        }
    }
}

/// A part of a sync under a ballot that the replica has not accepted.
fn sync_part(first: u64, entries: Vec<Entry>, sync: (u64, u64)) -> Message {
    Message::Accept {
        ballot: ballot(9, PEER),
        first: Slot(first),
        entries,
        decided: Slot(2),
        sync: Some((Slot(sync.0), Slot(sync.1))),
        round: Round(1),
    }
}

/// P2, P4: what is decided in slots 1 and 2 stays, whatever a leader says it is.
#[test]
fn a_sync_that_contradicts_what_is_decided_is_refused() {
    let other = || Entry::Command(b"other"[..].into());
    let syncs = [
        (1, vec![other(), Entry::Noop, Entry::Noop]),
        (2, vec![other()]),
        (1, vec![Entry::Noop]),
    ];
    for (first, entries) in syncs {
        let leases = leases();
        let cx = Cx {
            now: Mono(5),
            leases: &leases,
        };
        let mut r = replica();
        let end = first + entries.len() as u64 - 1;
        let part = sync_part(first, entries, (first, end));
        r.handle_message(&cx, PEER, part);
        r.flush(&cx);
        let holds: Vec<&Entry> = r.entries_from(Slot(1)).map(|(_, e)| e).collect();
        assert_eq!(holds, [&Entry::Noop; 3]);
        assert_eq!((r.decided(), r.accepted()), (Slot(2), ballot(4, PEER)));
        assert_eq!(r.ignored()[&Ignored::Contradicts], 1);
    }
}

/// What is refused changes nothing in memory, as nothing of it is on disk: a replica
/// restarts with the log it had, whatever parts of syncs came before and after.
#[test]
fn a_refused_sync_leaves_memory_as_the_disk_is() {
    let leases = leases();
    let cx = Cx {
        now: Mono(5),
        leases: &leases,
    };
    let other = || Entry::Command(b"other"[..].into());
    let mut r = replica();
    let mut disk = r.durable();
    let parts = [
        (1, vec![Entry::Noop]),
        (2, vec![other()]),
        (3, vec![other(), Entry::Noop]),
        (1, vec![Entry::Noop, other(), Entry::Noop, Entry::Noop]),
        (1, vec![other(), Entry::Noop]),
        (2, vec![Entry::Noop]),
        (3, vec![other(), Entry::Noop]),
    ];
    for (first, entries) in parts {
        let part = sync_part(first, entries, (1, 4));
        r.handle_message(&cx, PEER, part);
        r.flush(&cx);
        for effect in r.drain_effects() {
            if let Effect::Persist { records, .. } = effect {
                records.into_iter().for_each(|record| disk.replay(record));
            }
        }
        assert_eq!(disk, r.durable());
    }
    assert_eq!(r.accepted(), ballot(9, PEER), "the rest of it was fine");
    assert_eq!(r.entry(Slot(2)), Some(&Entry::Noop));
    assert_eq!(r.ignored()[&Ignored::Contradicts], 2);
}

/// P2, P3: nor does a candidate adopt what contradicts what it has heard to be
/// decided since it asked.
#[test]
fn a_promise_that_contradicts_what_is_decided_is_not_adopted() {
    let leases = leases();
    let cx = Cx {
        now: Mono(1_000_000_000),
        leases: &leases,
    };
    let mut r = replica();
    let own = asks(&mut r, &cx);
    let decided = Message::Decided {
        ballot: ballot(4, PEER),
        slot: Slot(3),
    };
    r.handle_message(&cx, PEER, decided);
    let promise = Message::Promise {
        ballot: own,
        accepted: ballot(4, NodeId(3)),
        last: Slot(3),
        decided: Slot(0),
        limit: Timestamp(5),
        first: Slot(1),
        entries: vec![Entry::Command(b"other"[..].into()); 3],
        more: false,
    };
    r.handle_message(&cx, NodeId(3), promise);
    persist_all(&mut r, &cx);
    let holds: Vec<&Entry> = r.entries_from(Slot(1)).map(|(_, e)| e).collect();
    assert_eq!(holds, [&Entry::Noop; 3]);
    assert_eq!((r.decided(), r.term_ballot()), (Slot(3), None));
    assert_eq!(r.ignored()[&Ignored::Contradicts], 1);
}

#[test]
fn dropped_messages_are_counted_by_reason() {
    let leases = leases();
    let cx = Cx {
        now: Mono(5),
        leases: &leases,
    };
    let mut r = replica();
    let prepare = |ballot| Message::Prepare {
        ballot,
        accepted: Ballot::default(),
        last: Slot(0),
        decided: Slot(0),
        relinquished: None,
    };
    r.handle_message(&cx, NodeId(99), prepare(ballot(9, NodeId(99))));
    r.handle_message(&cx, NodeId(3), prepare(ballot(9, PEER)));
    r.handle_message(&cx, PEER, prepare(ballot(u64::MAX, PEER)));
    let elsewhere = Ballot {
        epoch: Epoch(2),
        ..ballot(9, PEER)
    };
    r.handle_message(&cx, PEER, prepare(elsewhere));
    for reason in [
        Ignored::Stranger,
        Ignored::WrongNode,
        Ignored::Absurd,
        Ignored::WrongEpoch,
    ] {
        assert_eq!(r.ignored().get(&reason), Some(&1), "{reason:?}");
    }
    assert_eq!(r.ballot(), ballot(4, PEER));
}

/// While its node is full, one that can trim nothing takes no entries; others do.
#[test]
fn a_halted_replica_of_a_full_node_takes_no_entries() {
    let leases = leases();
    let cx = Cx {
        now: Mono(5),
        leases: &leases,
    };
    let mut r = replica();
    let accept = |r: &mut Replica, slot| {
        let message = Message::Accept {
            ballot: ballot(4, PEER),
            first: Slot(slot),
            entries: vec![Entry::Noop],
            decided: Slot(3),
            sync: None,
            round: Round(1),
        };
        r.handle_message(&cx, PEER, message);
        r.flush(&cx);
        r.entries_from(Slot(slot)).count()
    };
    r.halt(true);
    assert_eq!(accept(&mut r, 4), 1, "there is room");
    r.set_full(true);
    assert_eq!(accept(&mut r, 5), 0);
    assert_eq!(r.ignored()[&Ignored::Full], 1);
    assert_eq!(r.entries_from(Slot(1)).count(), 4, "it keeps what it has");
    r.halt(false);
    assert_eq!(accept(&mut r, 5), 1);
}

#[test]
fn an_absurd_configuration_leaves_nobody_behind() {
    let leases = leases();
    let cx = Cx {
        now: Mono(5),
        leases: &leases,
    };
    let held = |epoch| Message::Held {
        began: Box::new(synod_paxos::Began {
            configuration: Configuration {
                epoch: Epoch(epoch),
                ..Configuration::of_voters(vec![PEER, NodeId(9)])
            },
            after: Slot(9),
            left: vec![ME],
        }),
        holds: false,
    };
    let mut r = replica();
    r.handle_message(&cx, PEER, held(u32::MAX));
    assert_eq!(r.ignored().get(&Ignored::Absurd), Some(&1));
    assert_eq!(r.left_behind_by(), None);
    r.handle_message(&cx, PEER, held(5));
    assert_eq!(r.left_behind_by().map(|c| c.epoch), Some(Epoch(5)));
}

#[test]
fn a_late_completion_of_an_older_ballot_counts_for_nothing() {
    let leases = leases();
    let cx = Cx {
        now: Mono(5),
        leases: &leases,
    };
    let mut r = replica();
    let unknown = PersistSeq {
        ballot: ballot(9, ME),
        number: 77,
    };
    r.handle_persisted(&cx, unknown);
    assert_eq!(r.ignored().get(&Ignored::Absurd), Some(&1));
}

#[test]
fn equal_states_have_equal_bytes() {
    let leases = leases();
    let (one, _) = leader(&leases);
    let (two, _) = leader(&leases);
    let bytes = |r: &Replica| postcard::to_allocvec(r).expect("a replica encodes");
    assert_eq!(bytes(&one), bytes(&two));
    assert_ne!(bytes(&one), bytes(&replica()));
}
