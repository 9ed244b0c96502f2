//! P8, on one node alone: a shard's version is raised by its log, and a program that does not
//! know it stands still before that entry.

use bytes::Bytes;
use synod_paxos::lease::LeaseSettings;
use synod_paxos::{
    ClusterVersion, Configuration, Durable, GroupId, Incarnation, Mono, NodeId, Slot, Timestamp,
    VersionRange,
};
use synod_shard::{
    Halt, Input, Now, Recovered, Setup, ShardDescriptor, ShardMap, SplitError, Splitting, Versions,
    Worker,
};
use synod_txn::{GroupSettings, Interval, Key, Span};

const SHARD: GroupId = GroupId(2);
const MILLISECOND: u64 = 1_000_000;

fn at(nanos: u64) -> Now {
    let wall = Timestamp(1_000_000_000_000 + nanos);
    Now {
        mono: Mono(1 + nanos),
        clock: Interval {
            earliest: wall,
            latest: wall,
        },
    }
}

fn descriptor() -> ShardDescriptor {
    ShardDescriptor {
        id: SHARD,
        span: Span {
            start: Bytes::new(),
            end: Bytes::new(),
        },
        generation: 1,
        configuration: Configuration::of_voters(vec![NodeId(1)]),
        preferred_leader: NodeId(1),
        born: None,
    }
}

fn up_to(newest: u32) -> VersionRange {
    VersionRange {
        oldest: ClusterVersion::OLDEST,
        newest: ClusterVersion(newest),
    }
}

/// A node whose log is synced at once.
struct Node {
    worker: Worker,
    now: u64,
}

impl Node {
    /// One whose program knows versions up to `newest`, over this log.
    fn new(newest: u32, incarnation: u64, durable: Durable) -> Node {
        let recovered = Recovered {
            descriptor: descriptor(),
            durable,
            checkpoint: None,
            engine_applied: Slot(0),
            is_new: false,
        };
        let setup = Setup {
            me: NodeId(1),
            incarnation: Incarnation(incarnation),
            map: ShardMap {
                nodes: Vec::new(),
                shards: vec![descriptor()],
            },
            nodes: Vec::new(),
            versions: Versions {
                supports: up_to(newest),
                ..Versions::of(ClusterVersion::OLDEST)
            },
            leases: Vec::new(),
            shards: vec![recovered],
            paxos: synod_paxos::Settings::default(),
            lease: LeaseSettings::of_lease(600 * MILLISECOND),
            txn: GroupSettings::default(),
            seed: 1,
        };
        let now = incarnation * 10_000 * MILLISECOND;
        let worker = Worker::new(setup, at(now)).expect("there is no checkpoint to refuse");
        let mut node = Node { worker, now };
        node.pass();
        node
    }

    /// A first start; it leads.
    fn first(newest: u32) -> Node {
        let durable = Durable::new(descriptor().configuration);
        let node = Node::new(newest, 1, durable);
        assert!(node.leads());
        node
    }

    /// Two seconds.
    fn pass(&mut self) {
        for _ in 0..100 {
            self.now += 20 * MILLISECOND;
            self.worker.handle(at(self.now), Input::Tick);
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            let output = self.worker.finish(at(self.now));
            assert_eq!(output.fatal, None);
            let Some(batch) = output.log else { return };
            let ticket = batch.ticket;
            self.worker.handle(at(self.now), Input::Logged { ticket });
        }
    }

    fn leads(&self) -> bool {
        self.worker.shard(SHARD).is_some_and(|s| s.in_office())
    }

    fn version(&self) -> u32 {
        let shard = self.worker.shard(SHARD).expect("it is here");
        shard.version().0
    }

    fn learn(&mut self, version: u32) {
        let version = ClusterVersion(version);
        self.worker.learn_version(at(self.now), version);
        self.pass();
    }

    fn split(&mut self) -> Result<Splitting, SplitError> {
        let key = Key::from_static(b"m");
        self.worker.split(at(self.now), SHARD, &key, GroupId(7))
    }

    fn log(&self) -> Durable {
        let (groups, _) = self.worker.bases();
        let (_, durable) = groups.into_iter().next().expect("it is here");
        durable
    }
}

#[test]
fn a_shard_is_split_only_once_its_log_says_so() {
    let mut node = Node::first(2);
    assert_eq!(node.version(), 1);
    let (old, since) = (ClusterVersion(1), ClusterVersion(2));
    let refused = SplitError::Version { at: old, since };
    assert_eq!(node.split(), Err(refused));
    // Again, and with an older word after it.
    for version in [2, 2, 1] {
        node.learn(version);
        assert_eq!(node.version(), 2);
    }
    assert_eq!(node.worker.version(), ClusterVersion(2));
    assert_eq!(node.split(), Ok(Splitting::Underway));
    node.pass();
    assert_eq!(node.split(), Ok(Splitting::Done));
    // By its log alone it comes there again.
    let mut again = Node::new(2, 2, node.log());
    assert_eq!((again.version(), again.leads()), (2, true));
    assert_eq!(again.worker.version(), ClusterVersion(2));
    again.learn(2);
    assert_eq!(again.version(), 2);
}

#[test]
fn a_program_stands_still_before_what_it_does_not_know() {
    let mut node = Node::first(3);
    node.learn(3);
    assert_eq!(node.version(), 3);
    let older = Node::new(2, 2, node.log());
    let shard = older.worker.shard(SHARD).expect("it is here");
    let Some(Halt::Version { slot, version, .. }) = shard.halted() else {
        panic!("{:?}", shard.halted());
    };
    assert_eq!(*version, ClusterVersion(3));
    assert_eq!(shard.applied(), slot.prev());
    assert!(shard.applied() < shard.replica().decided());
    assert_eq!(shard.version(), ClusterVersion(1));
    assert!(!older.leads() && older.worker.is_overtaken());
    // Nothing is lost by that.
    let newer = Node::new(3, 3, older.log());
    assert_eq!((newer.version(), newer.leads()), (3, true));
}

#[test]
fn an_overtaken_node_leads_nothing_and_raises_nothing() {
    let mut node = Node::first(2);
    node.learn(3);
    assert!(node.worker.is_overtaken() && !node.leads());
    assert_eq!(node.version(), 1);
    assert_eq!(
        node.split(),
        Err(SplitError::NotLeader { leader: None }),
        "nobody leads"
    );
}
