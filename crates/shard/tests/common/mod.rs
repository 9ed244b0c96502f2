//! One node alone, whose log is synced at once and whose engine is a map.

#![allow(dead_code, reason = "each test uses a part of it")]

use bytes::Bytes;
use std::collections::BTreeMap;
use synod_paxos::lease::LeaseSettings;
use synod_paxos::{
    ClusterVersion, Configuration, Durable, GroupId, Incarnation, Mono, NodeId, Slot, Timestamp,
    VersionRange,
};
use synod_shard::{
    EngineRead, Input, Now, Recovered, Setup, ShardDescriptor, ShardMap, SnapshotTask, Versions,
    Worker,
};
use synod_shard::{ShardReply, ShardRequest};
use synod_txn::effect::EngineRows;
use synod_txn::{
    Caller, GroupSettings, Hashing, Interval, Key, Request, Response, Row, Span, Value,
};

pub const SHARD: GroupId = GroupId(2);
const MILLISECOND: u64 = 1_000_000;

pub fn at(nanos: u64) -> Now {
    let wall = Timestamp(1_000_000_000_000 + nanos);
    Now {
        mono: Mono(1 + nanos),
        clock: Interval {
            earliest: wall,
            latest: wall,
        },
    }
}

pub fn descriptor(span: Span) -> ShardDescriptor {
    ShardDescriptor {
        id: SHARD,
        span,
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
pub struct Node {
    pub worker: Worker,
    pub now: u64,
    /// What the shard has; none for a deleted key.
    pub rows: BTreeMap<Key, Option<Value>>,
    /// Answers that nobody has taken.
    pub replies: Vec<(Caller, ShardReply)>,
    /// Whether its log is not synced for now.
    pub stalls: bool,
    /// What the sync of its log was asked for, and is not done.
    unsynced: Option<u64>,
}

/// All keys.
pub fn everything() -> Span {
    Span {
        start: Bytes::new(),
        end: Bytes::new(),
    }
}

impl Node {
    /// One whose program knows versions up to `newest`, over this log.
    pub fn new(newest: u32, incarnation: u64, durable: Durable) -> Node {
        Node::of(everything(), newest, incarnation, durable)
    }

    /// The same, of a shard with these keys.
    pub fn of(span: Span, newest: u32, incarnation: u64, durable: Durable) -> Node {
        let mut node = Node::stalled(span, newest, incarnation, durable);
        node.stalls = false;
        node.pass();
        node
    }

    /// The same, whose log is not synced for now.
    fn stalled(span: Span, newest: u32, incarnation: u64, durable: Durable) -> Node {
        let descriptor = descriptor(span);
        let recovered = Recovered {
            descriptor: descriptor.clone(),
            durable,
            checkpoint: None,
            engine_applied: Slot(0),
            begins_empty: true,
            is_new: false,
        };
        let setup = Setup {
            me: NodeId(1),
            incarnation: Incarnation(incarnation),
            map: ShardMap {
                nodes: Vec::new(),
                shards: vec![descriptor],
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
        let worker = Worker::new(setup, at(now));
        Node {
            worker,
            now,
            rows: BTreeMap::new(),
            replies: Vec::new(),
            stalls: true,
            unsynced: None,
        }
    }

    /// A first start; it leads.
    pub fn first(newest: u32) -> Node {
        let durable = Durable::new(descriptor(everything()).configuration);
        let node = Node::new(newest, 1, durable);
        assert!(node.leads());
        node
    }

    /// A first start; it was elected, and its log does not hold yet what its term begins with.
    pub fn elected() -> Node {
        let durable = Durable::new(descriptor(everything()).configuration);
        let mut node = Node::stalled(everything(), ClusterVersion::NEWEST.0, 1, durable);
        while !node.worker.shard(SHARD).is_some_and(|s| s.leads()) {
            node.now += 20 * MILLISECOND;
            node.worker.handle(at(node.now), Input::Tick);
            node.settle();
            if let Some(ticket) = node.unsynced.take() {
                node.worker.handle(at(node.now), Input::Logged { ticket });
                node.settle();
            }
        }
        assert!(!node.leads());
        node
    }

    /// Two seconds.
    pub fn pass(&mut self) {
        for _ in 0..100 {
            self.now += 20 * MILLISECOND;
            self.worker.handle(at(self.now), Input::Tick);
            self.settle();
        }
    }

    pub fn settle(&mut self) {
        loop {
            let output = self.worker.finish(at(self.now));
            assert_eq!(output.fatal, None);
            self.replies.extend(output.replies);
            for (_, batch) in output.writes {
                let written = { batch.versions.into_iter() }.map(|(key, _, _, value)| (key, value));
                self.rows.extend(written);
            }
            let reads = output.reads.len();
            for read in output.reads {
                let (group, token) = (read.group, read.token);
                let rows = self.read(&read);
                let done = Input::ReadDone { group, token, rows };
                self.worker.handle(at(self.now), done);
            }
            for (group, slot) in &output.marks {
                let (group, slot) = (*group, *slot);
                let applied = Input::EngineApplied { group, slot };
                self.worker.handle(at(self.now), applied);
            }
            for task in &output.snapshots {
                if let SnapshotTask::Birth { group, .. } = task {
                    self.worker
                        .handle(at(self.now), Input::Born { group: *group });
                }
            }
            let went_on = reads + output.marks.len() + output.snapshots.len() > 0;
            if let Some(batch) = output.log {
                self.unsynced = Some(batch.ticket);
            }
            match self.unsynced.filter(|_| !self.stalls) {
                Some(ticket) => {
                    self.unsynced = None;
                    self.worker.handle(at(self.now), Input::Logged { ticket });
                }
                None if went_on => {}
                None => return,
            }
        }
    }

    /// The engine's answer. It has one version of each key.
    fn read(&self, read: &EngineRead) -> EngineRows {
        assert!(read.keys.is_empty(), "only scans are asked for here");
        let within = |key: &Key| read.scan.as_ref().is_some_and(|s| s.span.contains(key));
        let live = self.rows.iter().filter(|(key, _)| within(key));
        let mut rows: Vec<Row> = live
            .filter_map(|(key, value)| {
                Some(Row {
                    key: key.clone(),
                    value: value.clone()?,
                    timestamp: Timestamp(1),
                })
            })
            .collect();
        let limit = read.scan.as_ref().map_or(0, |scan| scan.limit as usize);
        let more = rows.len() > limit;
        rows.truncate(limit);
        EngineRows {
            versions: Vec::new(),
            rows,
            more,
        }
    }

    /// Asks a shard, and gives back what is answered at once.
    pub fn ask(
        &mut self,
        shard: GroupId,
        hashing: Option<Hashing>,
        request: Request,
    ) -> Option<Response> {
        let caller = Caller {
            connection: 1,
            request: 1,
        };
        let found = self.worker.shard(shard).expect("it is here");
        let request = ShardRequest {
            shard,
            generation: found.descriptor().generation,
            request,
            hashing: hashing.map(Box::new),
        };
        self.replies.clear();
        let input = Input::Client { caller, request };
        self.worker.handle(at(self.now), input);
        self.settle();
        match self.replies.pop() {
            Some((to, ShardReply::Response(response))) if to == caller => Some(response),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    pub fn leads(&self) -> bool {
        self.worker.shard(SHARD).is_some_and(|s| s.in_office())
    }

    pub fn learn(&mut self, version: u32) {
        let version = ClusterVersion(version);
        self.worker.learn_version(at(self.now), version);
        self.pass();
    }

    pub fn log(&self) -> Durable {
        let (_, durable) = self.worker.base(SHARD).expect("it is here");
        durable
    }
}
