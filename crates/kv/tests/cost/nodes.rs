//! Three nodes' machines in lock step: what a turn sends arrives in the next one,
//! and so does the end of the sync that a turn began. Nothing is lost, nobody
//! waits for a real clock; the same run always costs the same.

use crate::allocator::taken;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use synod_kv::Staging;
use synod_kv::engine::{Engine, MemoryEngine};
use synod_kv::lane::{EngineLane, EngineWork};
use synod_kv::log::{LogOptions, LogRecord, MemoryDisk, TicketedLog};
use synod_kv::machine::{
    Assembly, Channel, Lanes, Machine, MachineSettings, assemble, first_records, replay, seed_meta,
};
use synod_paxos::lease::LeaseSettings;
use synod_paxos::{
    ClusterVersion, Configuration, GroupId, Incarnation, Mono, NodeId, Timestamp, VersionRange,
};
use synod_rpc::{ClientFrame, ServerFrame, frame};
use synod_shard::{
    Bootstrap, Input, NodeDescriptor, NodeMessage, Now, ShardDescriptor, ShardMap, ShardReply,
    ShardRequest,
};
use synod_txn::{Caller, GroupSettings, Interval, Span};

const CLUSTER: u128 = 7;
/// Time between two turns.
const TURN_NANOS: u64 = 100_000;
/// The engine's lane works every so many turns.
const ENGINE_TURNS: u64 = 50;
const BIRTH: u64 = 1_700_000_000_000_000_000;

/// What nodes did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub frames: u64,
    pub messages: u64,
    pub bytes: u64,
    pub syncs: u64,
    pub log_bytes: u64,
    pub allocations: u64,
    pub allocated: u64,
}

impl std::ops::Sub for Spent {
    type Output = Spent;

    fn sub(self, before: Spent) -> Spent {
        Spent {
            frames: self.frames - before.frames,
            messages: self.messages - before.messages,
            bytes: self.bytes - before.bytes,
            syncs: self.syncs - before.syncs,
            log_bytes: self.log_bytes - before.log_bytes,
            allocations: self.allocations - before.allocations,
            allocated: self.allocated - before.allocated,
        }
    }
}

struct TestLanes {
    now: Now,
    log: TicketedLog<MemoryDisk>,
    synced: Option<u64>,
    engine: MemoryEngine,
    engine_lane: EngineLane,
    engine_queue: Vec<EngineWork>,
    /// Frames, encoded, per node they go to.
    sent: Vec<(NodeId, Bytes)>,
    replies: Vec<(Caller, Bytes)>,
    spent: Spent,
}

impl Lanes for TestLanes {
    fn now(&mut self) -> Now {
        self.now
    }

    fn submit_log(&mut self, records: Vec<LogRecord>, number: u64) {
        if !records.is_empty() {
            self.log.append(&records, number).expect("the log takes it");
        }
        self.synced = Some(number);
    }

    fn trim_log(&mut self, number: u64) {
        self.log.trim_before(number);
    }

    fn log_bytes(&self) -> u64 {
        self.log.log().bytes()
    }

    fn log_waits(&self) -> Option<Duration> {
        None
    }

    fn engine(&mut self) -> &dyn Engine {
        &self.engine
    }

    fn submit_engine(&mut self, work: EngineWork) {
        self.engine_queue.push(work);
    }

    fn send(&mut self, to: NodeId, _: Channel, messages: Vec<NodeMessage>) {
        let mut out = BytesMut::new();
        let (frames, left_out) = frame::encode_all(&messages, &mut out);
        assert_eq!(left_out, 0, "every message fits a frame");
        self.spent.frames += frames;
        self.spent.messages += messages.len() as u64;
        self.spent.bytes += out.len() as u64;
        self.sent.push((to, out.freeze()));
    }

    fn reply(&mut self, to: Caller, reply: ShardReply) {
        let mut out = BytesMut::new();
        let id = to.request;
        frame::encode(&ServerFrame::Response { id, reply }, &mut out).expect("it fits");
        self.replies.push((to, out.freeze()));
    }
}

struct Node {
    id: NodeId,
    machine: Machine,
    lanes: TestLanes,
    frames: Vec<(NodeId, Bytes)>,
    requests: Vec<(Caller, Bytes)>,
}

impl Node {
    /// One turn over everything that came. What it takes from the allocator counts.
    fn turn(&mut self, now: Now, engine_too: bool) {
        let before = taken();
        self.lanes.now = now;
        for (from, bytes) in self.frames.drain(..) {
            let mut reader = frame::FrameReader::default();
            reader.push(&bytes);
            while let Some(body) = reader.next_frame().expect("a frame") {
                let mut messages = Vec::new();
                frame::decode_all(&body, &mut messages).expect("messages");
                let inputs = messages.into_iter();
                let inputs = inputs.map(|message| Input::Peer { from, message });
                self.machine.inputs(&mut self.lanes, inputs);
            }
        }
        for (caller, bytes) in self.requests.drain(..) {
            let mut reader = frame::FrameReader::default();
            reader.push(&bytes);
            let body = reader.next_frame().expect("a frame").expect("whole");
            let frame = frame::decode(&body).expect("a request");
            let ClientFrame::Request { request, .. } = frame else {
                unreachable!("clients only ask shards here");
            };
            let input = Input::Client { caller, request };
            self.machine.input(&mut self.lanes, input);
        }
        if let Some(number) = self.lanes.synced.take() {
            self.lanes.spent.syncs += u64::from(self.lanes.log.sync().expect("a sync"));
            self.machine.log_synced(&mut self.lanes, number);
        }
        self.machine.turn(&mut self.lanes);
        let after = taken();
        self.lanes.spent.allocations += after.0 - before.0;
        self.lanes.spent.allocated += after.1 - before.1;
        if engine_too {
            self.engine_work();
        }
        assert_eq!(self.machine.take_fatal(), None);
    }

    /// Not counted: it is another thread's work, and another engine's.
    fn engine_work(&mut self) {
        for work in std::mem::take(&mut self.lanes.engine_queue) {
            let events = self.lanes.engine_lane.work(&self.lanes.engine, work);
            for event in events {
                self.machine.engine_event(&mut self.lanes, event);
            }
        }
    }
}

/// The cluster: three nodes, `shards` shards beside the meta shard.
pub struct Nodes {
    nodes: Vec<Node>,
    turns: u64,
    pub map: ShardMap,
}

fn now(turns: u64) -> Now {
    let nanos = turns * TURN_NANOS;
    let wall = Timestamp(BIRTH + nanos);
    Now {
        mono: Mono(1_000_000_000 + nanos),
        clock: Interval {
            earliest: wall,
            latest: wall,
        },
    }
}

/// Where shard `index` of `count` begins.
fn boundary(index: u64, count: u64) -> Bytes {
    if index == 0 {
        Bytes::new()
    } else if index == count {
        Bytes::from_static(&[0xff, 0xff])
    } else {
        Bytes::from(format!("{:02}", index * 100 / count))
    }
}

fn map(shards: u64) -> ShardMap {
    let ids = [NodeId(1), NodeId(2), NodeId(3)];
    let shard = |id: u64, start: Bytes, end: Bytes| ShardDescriptor {
        id: GroupId(id),
        span: Span { start, end },
        generation: 1,
        configuration: Configuration::of_voters(ids.to_vec()),
        preferred_leader: ids[(id % 3) as usize],
        born: None,
    };
    let mut all: Vec<_> = (0..shards)
        .map(|i| shard(i + 2, boundary(i, shards), boundary(i + 1, shards)))
        .collect();
    all.push(shard(1, boundary(shards, shards), Bytes::new()));
    ShardMap {
        nodes: ids
            .map(|id| NodeDescriptor {
                id,
                name: id.to_string(),
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
                locality: String::new(),
            })
            .to_vec(),
        shards: all,
    }
}

impl Nodes {
    /// Starts them and waits until every shard has a leader in office.
    pub fn start(shards: u64) -> Nodes {
        let map = map(shards);
        let bootstrap = Bootstrap {
            cluster: CLUSTER,
            version: ClusterVersion::NEWEST,
            map: map.clone(),
        };
        let nodes = map.nodes.iter().map(|n| start(n.id, &bootstrap)).collect();
        let mut cluster = Nodes {
            nodes,
            turns: 0,
            map,
        };
        while !(cluster.map.shards.iter()).all(|s| cluster.leader(s.id) == Some(s.preferred_leader))
        {
            cluster.turn();
            assert!(cluster.turns < 200_000, "no leaders after 20 s");
        }
        cluster
    }

    /// Who leads the shard, and is in office.
    pub fn leader(&self, shard: GroupId) -> Option<NodeId> {
        let leads = |node: &&Node| {
            let worker = node.machine.worker()?;
            Some(worker.shard(shard)?.in_office())
        };
        let leader = self.nodes.iter().find(|n| leads(n) == Some(true))?;
        Some(leader.id)
    }

    /// The wall clock that all share.
    pub fn wall(&self) -> Timestamp {
        now(self.turns).clock.latest
    }

    /// Hands a request to the shard's leader; it is looked at in the next turn.
    pub fn ask(&mut self, caller: Caller, request: ShardRequest) {
        let leader = self.leader(request.shard).expect("a leader");
        let id = caller.request;
        let mut out = BytesMut::new();
        frame::encode(&ClientFrame::Request { id, request }, &mut out).expect("it fits");
        let mut nodes = self.nodes.iter_mut();
        let node = nodes.find(|n| n.id == leader).expect("a node");
        node.requests.push((caller, out.freeze()));
    }

    /// One turn of every node; returns the answers given.
    pub fn turn(&mut self) -> Vec<(Caller, ShardReply)> {
        self.turns += 1;
        let engine_too = self.turns.is_multiple_of(ENGINE_TURNS);
        let mut sent = Vec::new();
        let mut answers = Vec::new();
        for node in &mut self.nodes {
            node.turn(now(self.turns), engine_too);
            let from = node.id;
            sent.extend(node.lanes.sent.drain(..).map(|(to, b)| (from, to, b)));
            for (caller, bytes) in node.lanes.replies.drain(..) {
                let body = bytes.slice(frame::HEADER_BYTES..);
                match frame::decode(&body).expect("an answer") {
                    ServerFrame::Response { reply, .. } => answers.push((caller, reply)),
                    ServerFrame::Node { .. } => unreachable!("nodes were not asked"),
                }
            }
        }
        let mut by_id: BTreeMap<NodeId, &mut Node> =
            self.nodes.iter_mut().map(|n| (n.id, n)).collect();
        for (from, to, bytes) in sent {
            if let Some(node) = by_id.get_mut(&to) {
                node.frames.push((from, bytes));
            }
        }
        answers
    }

    /// What all nodes together have spent.
    pub fn spent(&self) -> Spent {
        let mut all = Spent::default();
        for node in &self.nodes {
            let spent = node.lanes.spent;
            all.frames += spent.frames;
            all.messages += spent.messages;
            all.bytes += spent.bytes;
            all.syncs += spent.syncs;
            all.log_bytes += node.lanes.log.log().appended();
            all.allocations += spent.allocations;
            all.allocated += spent.allocated;
        }
        all
    }
}

fn start(id: NodeId, bootstrap: &Bootstrap) -> Node {
    let engine = MemoryEngine::new();
    seed_meta(&engine, bootstrap).expect("an engine in memory");
    let disk = MemoryDisk::new();
    let options = || LogOptions::salted(id.0);
    let opened = replay(disk.clone(), options(), CLUSTER, None, id);
    let (mut log, _) = opened.expect("a new log");
    log.append(&first_records(bootstrap, id)).expect("room");
    log.sync().expect("a sync");
    drop(log);
    let opened = replay(disk, options(), CLUSTER, Some(bootstrap), id);
    let (log, replayed) = opened.expect("the log again");
    let assembly = Assembly {
        me: id,
        incarnation: Incarnation(1),
        bootstrap,
        nodes: Vec::new(),
        raised: ClusterVersion::NEWEST,
        supports: VersionRange::OWN,
        paxos: synod_paxos::Settings::default(),
        lease: LeaseSettings::of_lease(600_000_000),
        txn: GroupSettings::default(),
        seed: id.0,
    };
    let worker = assemble(assembly, replayed, &engine, now(0)).expect("a worker");
    let settings = MachineSettings {
        log_trim_bytes: 128 << 20,
        stall: Duration::from_secs(1),
        attempts_per_turn: MachineSettings::ATTEMPTS_PER_TURN,
        trims_per_turn: MachineSettings::TRIMS_PER_TURN,
    };
    Node {
        id,
        machine: Machine::new(Some(worker), settings),
        lanes: TestLanes {
            now: now(0),
            log: TicketedLog::new(log),
            synced: None,
            engine,
            engine_lane: EngineLane::new(Staging::Memory),
            engine_queue: Vec::new(),
            sent: Vec::new(),
            replies: Vec::new(),
            spent: Spent::default(),
        },
        frames: Vec::new(),
        requests: Vec::new(),
    }
}
