//! What a worker does with its node's clock (K2).

use synod_paxos::lease::{LeaseMessage, LeaseSettings};
use synod_paxos::{ClusterVersion, Incarnation, Mono, NodeId, Timestamp};
use synod_shard::{Input, NodeMessage, Now, Setup, ShardMap, Versions, Worker};
use synod_txn::{GroupSettings, Interval};

const SECOND: u64 = 1_000_000_000;

fn at(mono: u64, wall: u64) -> Now {
    Now {
        mono: Mono(mono),
        clock: Interval {
            earliest: Timestamp(wall),
            latest: Timestamp(wall),
        },
    }
}

fn worker(now: Now) -> Worker {
    let setup = Setup {
        me: NodeId(1),
        incarnation: Incarnation(1),
        map: ShardMap {
            nodes: Vec::new(),
            shards: Vec::new(),
        },
        nodes: Vec::new(),
        versions: Versions::of(ClusterVersion::NEWEST),
        leases: Vec::new(),
        shards: Vec::new(),
        paxos: synod_paxos::Settings::default(),
        lease: LeaseSettings::default(),
        txn: GroupSettings::default(),
        seed: 1,
    };
    Worker::new(setup, now)
}

/// On an idle node the next tick may be seconds off; a message comes before.
#[test]
fn a_clock_that_jumped_is_found_out_by_whatever_comes_first() {
    let renew = |wall: u64| Input::Peer {
        from: NodeId(2),
        message: NodeMessage::Lease(LeaseMessage::Renew {
            holder: Incarnation(1),
            supporter: Incarnation(1),
            sent: Mono(0),
            lease_nanos: SECOND,
            want: Timestamp(0),
            earliest: Timestamp(wall),
            latest: Timestamp(wall),
        }),
    };
    let mut worker = worker(at(SECOND, 100 * SECOND));
    worker.handle(at(2 * SECOND, 101 * SECOND), renew(101 * SECOND));
    assert_eq!(worker.clock().quarantine(), None);
    worker.handle(at(3 * SECOND, 105 * SECOND), renew(102 * SECOND));
    assert!(worker.clock().quarantine().is_some());
}
