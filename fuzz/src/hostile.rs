//! Clients and nodes that send whatever decodes. A request of a client may be
//! refused, and never stops a node; a message of a node may do anything but
//! make this one panic.

use crate::codec::values;
use bytes::Bytes;
use std::collections::BTreeMap;
use synod_paxos::lease::LeaseSettings;
use synod_paxos::{
    ClusterVersion, Configuration, Durable, GroupId, Incarnation, Mono, NodeId, Settings, Slot,
    Timestamp,
};
use synod_shard::{
    Input, META_SHARD, NodeDescriptor, NodeMessage, Now, Output, RESERVED_PREFIX, Recovered, Setup,
    ShardDescriptor, ShardMap, ShardRequest, SnapshotTask, Versions, Worker,
};
use synod_txn::effect::EngineRows;
use synod_txn::request::ScanRange;
use synod_txn::{
    Caller, ClientId, GroupSettings, Interval, Key, Request, Row, SessionId, Span, Version,
};

const ME: NodeId = NodeId(1);
/// Inputs of one run, at most.
const MAX_INPUTS: usize = 60;
const MILLISECOND: u64 = 1_000_000;

fn descriptor(id: u64, start: &[u8], end: &[u8], voters: &[u64]) -> ShardDescriptor {
    ShardDescriptor {
        id: GroupId(id),
        span: Span {
            start: Bytes::copy_from_slice(start),
            end: Bytes::copy_from_slice(end),
        },
        generation: 1,
        configuration: Configuration::of_voters(voters.iter().copied().map(NodeId).collect()),
        preferred_leader: ME,
        born: None,
    }
}

/// The meta shard and one of the user's are this node's alone, so that it leads
/// them; one is shared with two nodes, whose messages are made up.
fn map() -> ShardMap {
    let node = |id: u64| NodeDescriptor {
        id: NodeId(id),
        name: format!("n{id}"),
        address: ([127, 0, 0, 1], 7000 + id as u16).into(),
        locality: String::new(),
    };
    ShardMap {
        nodes: (1..=3).map(node).collect(),
        shards: vec![
            descriptor(2, b"", b"b", &[1]),
            descriptor(3, b"b", RESERVED_PREFIX, &[1, 2, 3]),
            descriptor(META_SHARD.0, RESERVED_PREFIX, b"", &[1]),
        ],
    }
}

/// A node without a disk or a network: what it asks for happens at once.
struct Node {
    worker: Worker,
    now: u64,
    versions: BTreeMap<Key, Vec<Version>>,
    /// A client's doing never stops a node.
    trusting: bool,
}

impl Node {
    fn new(trusting: bool) -> Node {
        let recovered = |descriptor: &ShardDescriptor| Recovered {
            descriptor: descriptor.clone(),
            durable: Durable::new(descriptor.configuration.clone()),
            checkpoint: None,
            engine_applied: Slot(0),
            begins_empty: true,
            is_new: false,
        };
        let map = map();
        let setup = Setup {
            me: ME,
            incarnation: Incarnation(1),
            shards: map.shards.iter().map(recovered).collect(),
            map,
            nodes: Vec::new(),
            versions: Versions::of(ClusterVersion::NEWEST),
            leases: Vec::new(),
            paxos: Settings::default(),
            lease: LeaseSettings::of_lease(600 * MILLISECOND),
            txn: GroupSettings::default(),
            seed: 1,
        };
        let mut node = Node {
            worker: Worker::new(setup, now(0)),
            now: 0,
            versions: BTreeMap::new(),
            trusting,
        };
        for _ in 0..100 {
            node.pass(20 * MILLISECOND);
        }
        node
    }

    fn pass(&mut self, nanos: u64) {
        self.now += nanos;
        self.step(Input::Tick);
    }

    fn step(&mut self, input: Input) {
        let now = now(self.now);
        self.worker.handle(now, input);
        // An answer may lead to another question, but not for ever.
        for _ in 0..1_000 {
            let output = self.worker.finish(now);
            assert!(
                !self.trusting || output.fatal.is_none(),
                "a client stops the node: {:?}",
                output.fatal
            );
            let reports = self.carry_out(output);
            if reports.is_empty() {
                return;
            }
            for report in reports {
                self.worker.handle(now, report);
            }
        }
        panic!("one input keeps the node busy for ever");
    }

    fn carry_out(&mut self, output: Output) -> Vec<Input> {
        let mut reports = Vec::new();
        for read in &output.reads {
            reports.push(Input::ReadDone {
                group: read.group,
                token: read.token,
                rows: self.read(&read.keys, read.scan.as_ref(), read.at),
            });
        }
        reports.extend(output.log.map(|batch| Input::Logged {
            ticket: batch.ticket,
        }));
        for (_, batch) in output.writes {
            for (key, timestamp, attempt, value) in batch.versions {
                self.versions.entry(key).or_default().push(Version {
                    value,
                    timestamp,
                    attempt,
                });
            }
        }
        let marks = output.marks.into_iter();
        reports.extend(marks.map(|(group, slot)| Input::EngineApplied { group, slot }));
        for task in output.snapshots {
            if let SnapshotTask::Open {
                group,
                to,
                id,
                state,
                ..
            } = task
            {
                reports.push(Input::SnapshotRead {
                    group,
                    to,
                    id,
                    chunk: 0,
                    data: state.state,
                    done: true,
                });
            }
        }
        reports
    }

    fn newest(&self, key: &Key, at: Timestamp) -> Option<Version> {
        let versions = self.versions.get(key)?.iter();
        let old = versions.filter(|version| version.timestamp <= at);
        old.max_by_key(|version| version.timestamp).cloned()
    }

    fn read(&self, keys: &[Key], scan: Option<&ScanRange>, at: Timestamp) -> EngineRows {
        let mut rows = Vec::new();
        if let Some(scan) = scan {
            let inside = self.versions.keys().filter(|key| scan.span.contains(key));
            for key in inside {
                let version = self.newest(key, at);
                rows.extend(version.and_then(|version| {
                    Some(Row {
                        key: key.clone(),
                        value: version.value?,
                        timestamp: version.timestamp,
                    })
                }));
            }
            if scan.reverse {
                rows.reverse();
            }
        }
        let limit = scan.map_or(0, |scan| scan.limit as usize);
        let more = rows.len() > limit;
        rows.truncate(limit);
        EngineRows {
            versions: keys.iter().map(|key| self.newest(key, at)).collect(),
            rows,
            more,
        }
    }

    /// Puts terms and sessions that exist where a correct client would have
    /// them, or every request would end at the first check.
    fn plausible(&self, request: &mut ShardRequest, choice: u8) {
        let term = |group: GroupId| self.worker.shard(group).and_then(|s| s.group().term());
        request.shard = GroupId(1 + request.shard.0 % 4);
        let Some(here) = term(request.shard) else {
            return;
        };
        match &mut request.request {
            Request::LockedRead { session, .. } if choice.is_multiple_of(2) => {
                *session = session.map(|(_, id)| (here, SessionId(id.0 % 8)));
            }
            Request::Validate { session, .. } => *session = (here, SessionId(session.1.0 % 8)),
            Request::Release { session, .. } => {
                *session = session.map(|(_, id)| (here, SessionId(id.0 % 8)));
            }
            Request::Status { term, .. } => *term = here,
            Request::Commit(commit) => {
                commit.participants.sort_by(|a, b| a.anchor.cmp(&b.anchor));
                commit.participants.dedup_by(|a, b| a.anchor == b.anchor);
                commit.writes.sort_by(|a, b| a.key.cmp(&b.key));
                commit.writes.dedup_by(|a, b| a.key == b.key);
                commit.snapshot = commit.snapshot.filter(|_| choice.is_multiple_of(8));
                let shards = self.worker.map();
                for participant in &mut commit.participants {
                    let shard = shards.shard_of(&participant.anchor).map(|s| s.id);
                    participant.shard = shard.unwrap_or(participant.shard);
                    participant.term = term(participant.shard).unwrap_or(here);
                }
                let own = |p: &synod_txn::Participant| p.shard == request.shard;
                if let Some(own) = commit.participants.iter().position(own) {
                    commit.here = own as u32;
                    commit.coordinator %= commit.participants.len() as u32;
                }
            }
            _ => {}
        }
    }
}

fn now(nanos: u64) -> Now {
    let wall = Timestamp(1_700_000_000_000_000_000 + nanos);
    Now {
        mono: Mono(1_000_000_000 + nanos),
        clock: Interval {
            earliest: wall,
            latest: wall,
        },
    }
}

/// Requests, keep-alives and partings of clients, and time that passes.
pub fn clients(choices: &[u8]) {
    let mut node = Node::new(true);
    let steps: Vec<(u8, u8, ShardRequest)> = values::all(choices, MAX_INPUTS);
    for (number, (kind, choice, mut request)) in steps.into_iter().enumerate() {
        let caller = Caller {
            connection: u64::from(choice % 3),
            request: number as u64,
        };
        let client = ClientId(u64::from(choice % 8));
        match kind {
            0 => node.pass(u64::from(choice) * 50 * MILLISECOND),
            1 => node.step(Input::ClientGone { client }),
            2 => node.step(Input::ClientSeen {
                client,
                live: Vec::new(),
            }),
            3 => node.step(Input::Cancel {
                callers: [caller].into(),
            }),
            _ => {
                node.plausible(&mut request, choice);
                node.step(Input::Client { caller, request });
            }
        }
    }
    for _ in 0..20 {
        node.pass(1_000 * MILLISECOND);
    }
}

/// Messages of nodes, which no correct node would send, among requests.
pub fn peers(choices: &[u8]) {
    let mut node = Node::new(false);
    let steps: Vec<(u8, u8, NodeMessage)> = values::all(choices, MAX_INPUTS);
    for (kind, choice, mut message) in steps {
        if let NodeMessage::Group { group, .. } = &mut message {
            *group = GroupId(1 + group.0 % 3);
        }
        match kind {
            0 => node.pass(u64::from(choice) * 50 * MILLISECOND),
            _ => node.step(Input::Peer {
                from: NodeId(u64::from(choice % 4)),
                message,
            }),
        }
    }
    for _ in 0..20 {
        node.pass(1_000 * MILLISECOND);
    }
}
