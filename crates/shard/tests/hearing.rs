//! Messages for a shard whose leader is not known go to members that are heard.

use bytes::Bytes;
use std::collections::BTreeSet;
use synod_paxos::lease::{LeaseMessage, LeaseSettings};
use synod_paxos::{
    ClusterVersion, Configuration, GroupId, Incarnation, Mono, NodeId, SupportEpoch, Timestamp,
};
use synod_shard::{
    Input, NodeDescriptor, NodeMessage, Now, Setup, ShardDescriptor, ShardMap, Versions, Worker,
};
use synod_txn::peer::PeerBody;
use synod_txn::{AttemptId, GroupSettings, Interval, PeerMessage, Span};

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

/// A node without a replica of the shard.
fn worker() -> Worker {
    let descriptor = ShardDescriptor {
        id: SHARD,
        span: Span {
            start: Bytes::new(),
            end: Bytes::new(),
        },
        generation: 1,
        configuration: Configuration::of_voters(VOTERS.to_vec()),
        preferred_leader: VOTERS[0],
        born: None,
    };
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
        shards: Vec::new(),
        paxos: synod_paxos::Settings::default(),
        lease: LeaseSettings::of_lease(600 * MILLISECOND),
        txn: GroupSettings::default(),
        seed: 1,
    };
    Worker::new(setup, at(1)).expect("there is no checkpoint to refuse")
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
