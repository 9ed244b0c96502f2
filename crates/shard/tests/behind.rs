//! A node that is started anew has replicas whose state is older than what their log knows of members.

use synod_paxos::lease::LeaseSettings;
use synod_paxos::{
    ClusterVersion, Configuration, Durable, Epoch, GroupId, Incarnation, Mono, NodeId, Slot,
    Timestamp,
};
use synod_shard::{Now, Recovered, Setup, ShardDescriptor, ShardMap, Versions, Worker};
use synod_txn::{GroupSettings, Interval, Key, Span};

const SHARD: GroupId = GroupId(2);
const CHILD: GroupId = GroupId(9);

fn descriptor(id: GroupId, start: &'static [u8], epoch: u32, generation: u64) -> ShardDescriptor {
    let mut configuration = Configuration::of_voters(vec![NodeId(1), NodeId(2), NodeId(3)]);
    configuration.epoch = Epoch(epoch);
    ShardDescriptor {
        id,
        span: Span {
            start: Key::from_static(start),
            end: Key::from_static(b"z"),
        },
        generation,
        configuration,
        preferred_leader: NodeId(1),
        born: None,
    }
}

fn recovered(descriptor: ShardDescriptor, began: Slot) -> Recovered {
    let mut durable = Durable::new(descriptor.configuration.clone());
    (durable.began, durable.trimmed, durable.decided) = (began, began, began);
    Recovered {
        descriptor,
        durable,
        checkpoint: None,
        engine_applied: Slot(0),
        begins_empty: true,
        is_new: false,
    }
}

/// The range is that of before a split, the members are of long after it. Both together had the
/// node's map forget what was split off, and what this node has of it sent everybody away.
#[test]
fn an_old_range_with_young_members_claims_nothing_that_was_split_off() {
    let whole = descriptor(SHARD, b"a", 1, 1);
    let setup = Setup {
        me: NodeId(2),
        incarnation: Incarnation(1),
        map: ShardMap {
            nodes: Vec::new(),
            shards: vec![whole],
        },
        nodes: Vec::new(),
        versions: Versions::of(ClusterVersion::NEWEST),
        leases: Vec::new(),
        shards: vec![
            recovered(descriptor(CHILD, b"m", 1, 3), Slot(0)),
            recovered(descriptor(SHARD, b"a", 7, 7), Slot(50)),
        ],
        paxos: synod_paxos::Settings::default(),
        lease: LeaseSettings::default(),
        txn: GroupSettings::default(),
        seed: 1,
    };
    let reading = Timestamp(1_000_000_000);
    let now = Now {
        mono: Mono(0),
        clock: Interval {
            earliest: reading,
            latest: reading,
        },
    };
    let worker = Worker::new(setup, now);
    let owner = worker.map().shard_of(b"n").expect("somebody has it");
    assert_eq!(owner.id, CHILD);
    assert!(!worker.shard(CHILD).expect("it is here").is_gone());
}
