//! A snapshot that has a split behind it, and a replica that accepted the split and has not
//! applied it (decision 15).

use bytes::Bytes;
use synod_paxos::lease::LeaseSettings;
use synod_paxos::{
    Ballot, ClusterVersion, Configuration, Durable, Entry, Epoch, GroupId, Incarnation, Message,
    Mono, NodeId, Round, Slot, SnapshotId, Timestamp,
};
use synod_shard::wire::{Origin, SnapshotPiece, SnapshotState};
use synod_shard::{
    Input, NodeMessage, Now, Output, Recovered, Setup, ShardDescriptor, ShardMap, SnapshotTask,
    Versions, Worker,
};
use synod_txn::{Command, GroupSettings, Interval, Key, Passed, Span, Split};

const SHARD: GroupId = GroupId(2);
const CHILD: GroupId = GroupId(7);

fn at(mono: u64) -> Now {
    Now {
        mono: Mono(mono),
        clock: Interval {
            earliest: Timestamp(1_000 + mono),
            latest: Timestamp(1_000 + mono),
        },
    }
}

fn ballot(round: u64, node: u64) -> Ballot {
    Ballot {
        epoch: Epoch(1),
        round,
        priority: 0,
        node: NodeId(node),
    }
}

fn span() -> Span {
    Span {
        start: Key::from_static(b"a"),
        end: Key::from_static(b"z"),
    }
}

/// Node 2 of three, which has accepted a split from node 1 and was not told that it is decided.
fn behind() -> (Worker, Passed) {
    let mut configuration = Configuration::of_voters(vec![NodeId(1), NodeId(2), NodeId(3)]);
    configuration.epoch = Epoch(1);
    let descriptor = ShardDescriptor {
        id: SHARD,
        span: span(),
        generation: 1,
        configuration: configuration.clone(),
        preferred_leader: NodeId(1),
        born: None,
    };
    let setup = Setup {
        me: NodeId(2),
        incarnation: Incarnation(1),
        map: ShardMap {
            nodes: Vec::new(),
            shards: vec![descriptor.clone()],
        },
        nodes: Vec::new(),
        versions: Versions::of(ClusterVersion::NEWEST),
        leases: Vec::new(),
        shards: vec![Recovered {
            descriptor,
            durable: Durable::new(configuration.clone()),
            checkpoint: None,
            engine_applied: Slot(0),
            begins_empty: true,
            is_new: false,
        }],
        paxos: synod_paxos::Settings::default(),
        lease: LeaseSettings::default(),
        txn: GroupSettings::default(),
        seed: 1,
    };
    let mut worker = Worker::new(setup, at(0));
    let leader = ballot(1, 1);
    let split = Command::Split(Box::new(Split {
        span: span(),
        at: Key::from_static(b"m"),
        child: CHILD,
        configuration,
        leader: NodeId(1),
        last: Timestamp(0),
        under: leader,
    }));
    let split = synod_txn::command::encode(&split).expect("a split is small");
    let accept = Message::Accept {
        ballot: leader,
        first: Slot(1),
        entries: vec![Entry::Noop, Entry::Command(split)],
        decided: Slot(0),
        sync: Some((Slot(1), Slot(2))),
        round: Round(0),
    };
    group(&mut worker, 1, accept);
    let replica = worker.shard(SHARD).expect("it is here").replica();
    assert_eq!((replica.last(), replica.decided()), (Slot(2), Slot(0)));
    let passed = Passed {
        slot: Slot(2),
        under: leader,
    };
    (worker, passed)
}

fn group(worker: &mut Worker, from: u64, message: Message) -> Output {
    let message = NodeMessage::Group {
        group: SHARD,
        message,
    };
    let from = NodeId(from);
    worker.handle(at(1_000), Input::Peer { from, message });
    worker.finish(at(1_000))
}

/// Node 3 leads and sends the state after slot 9, which has this split behind it.
fn snapshot(worker: &mut Worker, passed: Passed) -> Output {
    let piece = SnapshotPiece::State(SnapshotState {
        span: Span {
            end: Key::from_static(b"m"),
            ..span()
        },
        passed: vec![passed],
        state: Bytes::from_static(b"the state's encoding"),
    });
    let data = Bytes::from(postcard::to_stdvec(&piece).expect("a piece can be encoded"));
    let chunk = Message::SnapshotChunk {
        ballot: ballot(2, 3),
        id: SnapshotId {
            slot: Slot(9),
            nonce: 1,
        },
        chunk: 0,
        checksum: crc32fast::hash(&data),
        data,
        done: false,
        began: None,
    };
    group(worker, 3, chunk)
}

/// The tasks for the engine's lane, in order.
fn tasks(output: &Output) -> Vec<&'static str> {
    let name = |task: &SnapshotTask| match task {
        SnapshotTask::Birth { state: Some(_), .. } => "birth",
        SnapshotTask::Stage { done: false, .. } => "stage",
        _ => "other",
    };
    output.snapshots.iter().map(name).collect()
}

#[test]
fn a_split_in_the_log_is_applied_before_a_snapshot_replaces_it() {
    let (mut worker, passed) = behind();
    let output = snapshot(&mut worker, passed);
    let shard = worker.shard(SHARD).expect("it is here");
    assert_eq!(shard.replica().decided(), Slot(2));
    assert_eq!(shard.descriptor().span.end, Key::from_static(b"m"));
    assert_eq!(tasks(&output), ["birth"]);
    // Not before what was split off is there, whose data the snapshot would replace.
    assert!(tasks(&snapshot(&mut worker, passed)).is_empty());
    worker.handle(at(2_000), Input::Born { group: CHILD });
    worker.finish(at(2_000));
    assert_eq!(tasks(&snapshot(&mut worker, passed)), ["stage"]);
}

#[test]
fn who_hears_of_the_new_shard_applies_the_split_that_it_has_accepted() {
    let (mut worker, passed) = behind();
    let mut child = worker
        .shard(SHARD)
        .expect("it is here")
        .descriptor()
        .clone();
    child.id = CHILD;
    child.span.start = Key::from_static(b"m");
    child.generation = 2;
    child.born = Some(Origin {
        parent: SHARD,
        split: passed,
    });
    let message = NodeMessage::Shards(vec![child]);
    let from = NodeId(3);
    worker.handle(at(1_000), Input::Peer { from, message });
    assert_eq!(tasks(&worker.finish(at(1_000))), ["birth"]);
}

#[test]
fn a_split_that_another_leader_proposed_there_is_another_split() {
    let (mut worker, passed) = behind();
    let other = Passed {
        under: ballot(1, 3),
        ..passed
    };
    let output = snapshot(&mut worker, other);
    let elsewhere = Passed {
        slot: Slot(1),
        ..passed
    };
    snapshot(&mut worker, elsewhere);
    let shard = worker.shard(SHARD).expect("it is here");
    assert_eq!(shard.replica().decided(), Slot(0));
    assert_eq!(shard.descriptor().span, span());
    assert_eq!(tasks(&output), ["stage"]);
}
