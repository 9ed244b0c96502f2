//! Messages for a shard whose leader is not known go to members that are heard, and to those of
//! its youngest configuration that anything here knows of.

use bytes::Bytes;
use std::collections::BTreeSet;
use synod_paxos::lease::{LeaseMessage, LeaseSettings};
use synod_paxos::{
    Ballot, Began, ClusterVersion, Configuration, Durable, Entry, GroupId, Incarnation, Message,
    Mono, NodeId, Round, Slot, SupportEpoch, Timestamp,
};
use synod_shard::{
    Input, NodeDescriptor, NodeMessage, Now, Recovered, Setup, ShardDescriptor, ShardMap,
    ShardReply, ShardRequest, Versions, Worker,
};
use synod_txn::peer::PeerBody;
use synod_txn::request::{Refusal, Request, Response};
use synod_txn::{AttemptId, Caller, GroupSettings, Interval, PeerMessage, Span};

const SHARD: GroupId = GroupId(2);
const ME: NodeId = NodeId(9);
const VOTERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const MILLISECOND: u64 = 1_000_000;

fn at(millis: u64) -> Now {
    let wall = Timestamp((1_000_000 + millis) * MILLISECOND);
    Now {
        mono: Mono(millis * MILLISECOND),
        clock: Interval {
            earliest: wall,
            latest: wall,
        },
    }
}

fn descriptor(configuration: Configuration) -> ShardDescriptor {
    ShardDescriptor {
        id: SHARD,
        span: Span {
            start: Bytes::new(),
            end: Bytes::new(),
        },
        generation: u64::from(configuration.epoch.0),
        configuration,
        preferred_leader: VOTERS[0],
        born: None,
    }
}

/// A node without a replica of the shard.
fn worker() -> Worker {
    worker_of(Configuration::of_voters(VOTERS.to_vec()))
}

/// A node with a replica of the shard if it is a member.
fn worker_of(configuration: Configuration) -> Worker {
    let descriptor = descriptor(configuration.clone());
    let replica = Recovered {
        descriptor: descriptor.clone(),
        durable: Durable::new(configuration.clone()),
        checkpoint: None,
        engine_applied: Slot(0),
        begins_empty: true,
        is_new: false,
    };
    let replicas = configuration.is_member(ME).then_some(replica);
    let node = |id: NodeId| NodeDescriptor {
        id,
        name: format!("n{}", id.0),
        address: ([127, 0, 0, 1], 7000 + id.0 as u16).into(),
        locality: String::new(),
    };
    let setup = Setup {
        me: ME,
        incarnation: Incarnation(1),
        map: ShardMap {
            nodes: VOTERS.into_iter().chain([ME]).map(node).collect(),
            shards: vec![descriptor],
        },
        nodes: Vec::new(),
        versions: Versions::of(ClusterVersion::OLDEST),
        leases: Vec::new(),
        shards: replicas.into_iter().collect(),
        paxos: synod_paxos::Settings::default(),
        lease: LeaseSettings::of_lease(600 * MILLISECOND),
        txn: GroupSettings::default(),
        seed: 1,
    };
    Worker::new(setup, at(1))
}

fn supports(worker: &mut Worker, from: NodeId, millis: u64) {
    let now = at(millis);
    let message = NodeMessage::Lease(LeaseMessage::Support {
        holder: Incarnation(1),
        sent: Mono(now.mono.0 - MILLISECOND),
        epoch: SupportEpoch {
            supporter: Incarnation(1),
            holder: Incarnation(1),
            counter: 1,
        },
        lease_nanos: 600 * MILLISECOND,
        limit: now.clock.latest,
        earliest: now.clock.earliest,
        latest: now.clock.latest,
    });
    worker.handle(now, Input::Peer { from, message });
    worker.finish(now);
}

/// To whom thirty messages go.
fn passed_on(worker: &mut Worker, millis: u64) -> BTreeSet<NodeId> {
    let now = at(millis);
    let mut to = BTreeSet::new();
    for number in 0..30 {
        let message = NodeMessage::Transaction {
            shard: SHARD,
            hops: 0,
            message: PeerMessage {
                attempt: AttemptId(number),
                anchor: Bytes::from_static(b"a"),
                from: Bytes::from_static(b"a"),
                body: PeerBody::Ask,
            },
        };
        let from = ME;
        worker.handle(now, Input::Peer { from, message });
        let sends = worker.finish(now).sends.into_iter();
        let passed = |messages: &[NodeMessage]| {
            let is = |m: &NodeMessage| matches!(m, NodeMessage::Transaction { .. });
            messages.iter().any(is)
        };
        to.extend(sends.filter(|(_, m)| passed(m)).map(|(node, _)| node));
    }
    to
}

#[test]
fn what_looks_for_a_leader_goes_to_members_that_are_heard() {
    let mut worker = worker();
    let all = BTreeSet::from(VOTERS);
    assert_eq!(passed_on(&mut worker, 2), all, "nobody was heard yet");
    for beat in 1..20 {
        for node in VOTERS {
            supports(&mut worker, node, beat * 300);
        }
    }
    assert_eq!(passed_on(&mut worker, 5_800), all);
    for beat in 20..30 {
        supports(&mut worker, VOTERS[0], beat * 300);
        supports(&mut worker, VOTERS[2], beat * 300);
    }
    let heard = BTreeSet::from([VOTERS[0], VOTERS[2]]);
    assert_eq!(passed_on(&mut worker, 8_800), heard, "one fell silent");
    assert_eq!(passed_on(&mut worker, 60_000), all, "all did: any will do");
}

fn group(worker: &mut Worker, from: NodeId, message: Message) {
    let message = NodeMessage::Group {
        group: SHARD,
        message,
    };
    worker.handle(at(2), Input::Peer { from, message });
    worker.finish(at(2));
}

/// What a client is told that asks for the shard's leader.
fn told(worker: &mut Worker) -> ShardReply {
    let caller = Caller {
        connection: 1,
        request: 1,
    };
    let request = ShardRequest {
        shard: SHARD,
        generation: 1,
        request: Request::Locate,
        hashing: None,
    };
    worker.handle(at(3), Input::Client { caller, request });
    let reply = worker.finish(at(3)).replies.pop();
    reply.expect("it is answered at once").1
}

/// A voter, or a learner, which campaigns never, follows a leader that is gone for good. Its log knows
/// of nobody else, and it keeps its copy, as a voter of the next configuration is gone as well
/// (G3): only what it was told helps it and those who ask it.
#[test]
fn who_was_left_behind_asks_the_members_that_it_was_told_of() {
    let with_me = VOTERS.into_iter().chain([ME]).collect();
    let learns = Configuration {
        learners: vec![ME],
        ..Configuration::of_voters(VOTERS.to_vec())
    };
    for first in [Configuration::of_voters(with_me), learns] {
        let mut worker = worker_of(first.clone());
        let leader = Ballot {
            epoch: first.epoch,
            round: 1,
            priority: 0,
            node: VOTERS[0],
        };
        let accept = Message::Accept {
            ballot: leader,
            first: Slot(1),
            entries: vec![Entry::Noop],
            decided: Slot(0),
            sync: Some((Slot(1), Slot(1))),
            round: Round(0),
        };
        group(&mut worker, VOTERS[0], accept);
        let leads = BTreeSet::from([VOTERS[0]]);
        assert_eq!(passed_on(&mut worker, 2), leads, "the leader is known");
        let members = [NodeId(3), NodeId(4), NodeId(5)];
        let next = first.successor(members.to_vec(), Vec::new(), Vec::new());
        let held = Message::Held {
            began: Box::new(Began {
                configuration: next.clone(),
                after: Slot(2),
                left: vec![ME],
            }),
            holds: true,
        };
        group(&mut worker, members[0], held);
        assert_eq!(passed_on(&mut worker, 3), BTreeSet::from(members));
        match told(&mut worker) {
            ShardReply::Response(Response::Refused(Refusal::NotLeader { hint })) => {
                assert!(hint.is_some_and(|hint| members.contains(&hint)), "{hint:?}");
            }
            other => panic!("{other:?}"),
        }
        // The map may know better still.
        let members = [NodeId(5), NodeId(6), NodeId(7)];
        let last = next.successor(members.to_vec(), Vec::new(), Vec::new());
        let last = descriptor(last);
        let message = NodeMessage::Shards(vec![last.clone()]);
        let from = VOTERS[2];
        worker.handle(at(3), Input::Peer { from, message });
        worker.finish(at(3));
        assert_eq!(passed_on(&mut worker, 4), BTreeSet::from(members));
        let reply = told(&mut worker);
        assert_eq!(reply, ShardReply::WrongNode(Some(Box::new(last))));
    }
}
