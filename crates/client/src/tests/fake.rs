//! A cluster in one mutex. It keeps no locks: conflicts are faults.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use synod_paxos::{Ballot, Configuration, Epoch, GroupId, NodeId, Term, Timestamp};
use synod_rpc::{CallError, NodeRequest, NodeResponse, RequestBody, ServerBody};
use synod_shard::{NodeDescriptor, ShardDescriptor, ShardMap, ShardReply, ShardRequest};
use synod_txn::request::{CommitRequest, Refusal, ScanRange};
use synod_txn::{
    AbortReason, AttemptId, Key, Outcome, Request, Response, Row, SessionId, Span, Value, Version,
};
use tokio::sync::Notify;

/// Leads where no node does.
const NOBODY: NodeId = NodeId(0);
/// Keys below `m`.
pub(crate) const A: GroupId = GroupId(2);
/// The others.
pub(crate) const B: GroupId = GroupId(3);
/// What is split off A.
pub(crate) const C: GroupId = GroupId(4);

/// What happens to the next request of a kind (its variant's name).
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is refused.
    Refuse(Refusal),
    /// It is carried out, and the connection breaks before the answer.
    LoseAnswer,
    /// The connection breaks before it arrives.
    LoseRequest,
    /// It is never answered.
    Swallow,
}

#[derive(Default)]
struct State {
    store: BTreeMap<Key, (Value, Timestamp)>,
    leaders: BTreeMap<GroupId, (NodeId, u64)>,
    split: Key,
    generation: u64,
    /// Where C begins, once A is split, and the nodes that have heard of it.
    cut: Option<(Key, BTreeSet<NodeId>)>,
    initialized: bool,
    down: BTreeSet<NodeId>,
    silent: BTreeSet<NodeId>,
    faults: Vec<(&'static str, VecDeque<Fault>)>,
    log: Vec<(NodeId, &'static str, Request)>,
    parts: BTreeMap<AttemptId, BTreeMap<u32, CommitRequest>>,
    outcomes: BTreeMap<AttemptId, Outcome>,
    applied: u32,
    clock: u64,
}

#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::Latest { .. } => "latest",
        Request::LockedRead { .. } => "read",
        Request::Commit(_) => "commit",
        Request::Validate { .. } => "validate",
        Request::Release { .. } => "release",
        Request::Status { .. } => "status",
        Request::Locate => "locate",
    }
}

fn address(node: NodeId) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], node.0 as u16))
}

impl Fake {
    pub(crate) fn new() -> Fake {
        let state = State {
            leaders: [(A, (NodeId(1), 1)), (B, (NodeId(2), 1))].into(),
            split: Key::from_static(b"m"),
            generation: 1,
            initialized: true,
            clock: 1_700_000_000_000_000_000,
            ..State::default()
        };
        Fake {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(
            &mut self
                .state
                .lock()
                .expect("no test panics while it holds the state"),
        )
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        (1..=3).map(|n| address(NodeId(n))).collect()
    }

    pub(crate) fn fault(&self, kind: &'static str, fault: Fault) {
        self.with(|s| match s.faults.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, faults)) => faults.push_back(fault),
            None => s.faults.push((kind, [fault].into())),
        });
    }

    pub(crate) fn refuse(&self, kind: &'static str, refusal: Refusal) {
        self.fault(kind, Fault::Refuse(refusal));
    }

    /// No node leads.
    pub(crate) fn depose(&self, shard: GroupId) {
        self.lead(shard, NOBODY.0);
    }

    /// A new leader, in a new term.
    pub(crate) fn lead(&self, shard: GroupId, node: u64) {
        self.with(|s| {
            let term = s.leaders[&shard].1 + 1;
            s.leaders.insert(shard, (NodeId(node), term));
        });
    }

    pub(crate) fn down(&self, node: u64) {
        self.with(|s| s.down.insert(NodeId(node)));
    }

    pub(crate) fn silence(&self, node: u64) {
        self.with(|s| s.silent.insert(NodeId(node)));
    }

    pub(crate) fn uninitialize(&self) {
        self.with(|s| s.initialized = false);
    }

    pub(crate) fn split_at(&self, key: &'static str) {
        self.with(|s| {
            s.split = Key::from_static(key.as_bytes());
            s.generation += 1;
        });
    }

    /// A is split at a key; C is led by node 3. Only A's leader answers by it, until others
    /// are told.
    pub(crate) fn cut(&self, key: &'static str) {
        self.with(|s| {
            s.cut = Some((Key::from_static(key.as_bytes()), BTreeSet::new()));
            s.leaders.insert(C, (NodeId(3), 1));
        });
    }

    /// A node hears of the split, and tells both halves from now on.
    pub(crate) fn tell(&self, node: u64) {
        self.with(|s| {
            if let Some((_, knowing)) = &mut s.cut {
                knowing.insert(NodeId(node));
            }
        });
    }

    /// The term that a shard is in.
    pub(crate) fn term(&self, shard: GroupId) -> Term {
        self.with(|s| s.term(shard))
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        let value = self.with(|s| s.store.get(key.as_bytes()).map(|(value, _)| value.clone()));
        value.map(|v| String::from_utf8_lossy(&v).into_owned())
    }

    pub(crate) fn fill(&self, prefix: &str, count: usize) {
        self.with(|s| {
            for n in 0..count {
                let version = (Value::from_static(b"v"), Timestamp(1));
                s.store.insert(format!("{prefix}{n:03}").into(), version);
            }
        });
    }

    /// How many commits took effect.
    pub(crate) fn applied(&self) -> u32 {
        self.with(|s| s.applied)
    }

    /// Requests of a kind so far, with the node they came to.
    pub(crate) fn asked(&self, wanted: &str) -> Vec<(u64, Request)> {
        self.with(|s| {
            let of_kind = s.log.iter().filter(|(_, kind, _)| *kind == wanted);
            of_kind
                .map(|(node, _, request)| (node.0, request.clone()))
                .collect()
        })
    }

    pub(crate) async fn call(
        &self,
        to: SocketAddr,
        body: RequestBody,
        deadline: Instant,
    ) -> Result<ServerBody, CallError> {
        let node = NodeId(to.port().into());
        if self.with(|s| s.down.contains(&node)) {
            let reason = "down".to_owned();
            return Err(CallError::Connect {
                address: to,
                reason,
            });
        }
        if self.with(|s| s.silent.contains(&node)) {
            return silence(to, deadline).await;
        }
        match body {
            RequestBody::Node(NodeRequest::Map) => Ok(ServerBody::Node(self.map(node))),
            RequestBody::Node(other) => panic!("not faked: {other:?}"),
            RequestBody::Shard(request) => self.shard(to, node, request, deadline).await,
        }
    }

    fn map(&self, asked: NodeId) -> NodeResponse {
        self.with(|s| {
            if !s.initialized {
                let reason = "not initialized".to_owned();
                return NodeResponse::Refused { reason };
            }
            let node = |n: u64| NodeDescriptor {
                id: NodeId(n),
                name: format!("n{n}"),
                address: address(NodeId(n)),
                locality: format!("dc=dc{n}"),
            };
            NodeResponse::Map(Box::new(ShardMap {
                nodes: (1..=3).map(node).collect(),
                shards: s.shards(asked),
            }))
        })
    }

    async fn shard(
        &self,
        to: SocketAddr,
        node: NodeId,
        request: ShardRequest,
        deadline: Instant,
    ) -> Result<ServerBody, CallError> {
        let lost = || {
            let reason = "broken".to_owned();
            let sent = true;
            Err(CallError::Lost {
                address: to,
                reason,
                sent,
            })
        };
        let kind = kind(&request.request);
        let fault = self.with(|s| {
            s.log.push((node, kind, request.request.clone()));
            let faults = s.faults.iter_mut().find(|(k, _)| *k == kind);
            faults.and_then(|(_, faults)| faults.pop_front())
        });
        match fault {
            Some(Fault::LoseRequest) => return lost(),
            Some(Fault::Swallow) => return silence(to, deadline).await,
            Some(Fault::Refuse(refusal)) => {
                return Ok(ServerBody::Shard(ShardReply::Response(Response::Refused(
                    refusal,
                ))));
            }
            Some(Fault::LoseAnswer) | None => {}
        }
        let reply = loop {
            let changed = self.changed.notified();
            if let Some(reply) = self.with(|s| s.answer(node, &request)) {
                break reply;
            }
            changed.await;
        };
        self.changed.notify_waiters();
        if matches!(fault, Some(Fault::LoseAnswer)) {
            return lost();
        }
        Ok(ServerBody::Shard(reply))
    }
}

async fn silence(to: SocketAddr, deadline: Instant) -> Result<ServerBody, CallError> {
    tokio::time::sleep_until(deadline.into()).await;
    Err(CallError::Deadline {
        address: to,
        sent: true,
    })
}

impl State {
    /// The shards as a node knows them.
    fn shards(&self, node: NodeId) -> Vec<ShardDescriptor> {
        let knows = self.cut.as_ref().is_some_and(|(_, n)| n.contains(&node));
        if knows {
            return [A, C, B].map(|id| self.descriptor(id)).into();
        }
        let mut before = [A, B].map(|id| self.descriptor(id));
        before[0].span.end = self.split.clone();
        before[0].generation = self.generation;
        before.into()
    }

    fn span(&self, shard: GroupId) -> Span {
        let cut = self.cut.as_ref().map(|(at, _)| at.clone());
        match shard {
            A => Span {
                start: Key::new(),
                end: cut.unwrap_or_else(|| self.split.clone()),
            },
            C => Span {
                start: cut.unwrap_or_default(),
                end: self.split.clone(),
            },
            _ => Span {
                start: self.split.clone(),
                end: Key::new(),
            },
        }
    }

    fn descriptor(&self, id: GroupId) -> ShardDescriptor {
        ShardDescriptor {
            id,
            span: self.span(id),
            generation: self.generation + u64::from(self.cut.is_some() && id != B),
            configuration: Configuration {
                epoch: Epoch(1),
                voters: vec![NodeId(1), NodeId(2), NodeId(3)],
                witnesses: Vec::new(),
                learners: Vec::new(),
            },
            preferred_leader: NodeId(1),
            born: None,
        }
    }

    fn term(&self, group: GroupId) -> Term {
        let (node, round) = self.leaders[&group];
        let ballot = Ballot {
            round,
            node,
            ..Ballot::default()
        };
        Term { group, ballot }
    }

    /// None: not yet.
    fn answer(&mut self, node: NodeId, request: &ShardRequest) -> Option<ShardReply> {
        let shard = request.shard;
        if !self.leaders.contains_key(&shard) {
            return Some(ShardReply::WrongNode(None));
        }
        // As a node does, which looks at the keys; or, for ranges that no split explains, at
        // the generation.
        let strange = match &self.cut {
            Some(_) => !request.request.is_within(&self.span(shard)),
            None => request.generation != self.generation,
        };
        if strange {
            return Some(ShardReply::WrongNode(Some(Box::new(
                self.descriptor(shard),
            ))));
        }
        let leader = self.leaders[&shard].0;
        self.clock += 1_000_000;
        let response = if leader == node {
            self.lead(shard, &request.request)?
        } else {
            let hint = (leader != NOBODY).then_some(leader);
            Response::Refused(Refusal::NotLeader { hint })
        };
        Some(ShardReply::Response(response))
    }

    fn lead(&mut self, shard: GroupId, request: &Request) -> Option<Response> {
        let term = self.term(shard);
        let now = Timestamp(self.clock);
        let aborted = Response::Refused(Refusal::Aborted(AbortReason::TermEnded));
        Some(match request {
            Request::Latest { keys, scan } => self.read(shard, None, keys, scan.as_ref()),
            Request::LockedRead { session, .. } if session.is_some_and(|(t, _)| t != term) => {
                aborted
            }
            Request::LockedRead { keys, scan, .. } => {
                self.read(shard, Some(SessionId(1)), keys, scan.as_ref())
            }
            Request::Commit(commit) => return self.commit(term, commit),
            Request::Validate { session, .. } if session.0 != term => aborted,
            Request::Validate { .. } => Response::Valid,
            Request::Release { .. } => Response::Released,
            Request::Status { attempt, term, .. } => match self.outcomes.get(attempt) {
                Some(&outcome) => Response::Outcome { outcome, syncs: 0 },
                // Of a shard that it descends from: that one lets nobody in here any more.
                None if term.group != shard => Response::Outcome {
                    outcome: Outcome::Aborted(AbortReason::TermEnded),
                    syncs: 0,
                },
                None => Response::Pending,
            },
            Request::Locate => Response::Located { term, now },
        })
    }

    fn read(
        &self,
        shard: GroupId,
        session: Option<SessionId>,
        keys: &[Key],
        scan: Option<&ScanRange>,
    ) -> Response {
        let version = |key: &Key| {
            self.store.get(key).map(|(value, timestamp)| Version {
                value: Some(value.clone()),
                timestamp: *timestamp,
                attempt: AttemptId(0),
            })
        };
        let mut rows = Vec::new();
        let mut more = false;
        if let Some(scan) = scan {
            assert!(scan.span.start >= self.span(shard).start);
            let inside = self.store.iter().filter(|(key, _)| scan.span.contains(key));
            rows = inside
                .map(|(key, (value, timestamp))| Row {
                    key: key.clone(),
                    value: value.clone(),
                    timestamp: *timestamp,
                })
                .collect();
            if scan.reverse {
                rows.reverse();
            }
            more = rows.len() > scan.limit as usize;
            rows.truncate(scan.limit as usize);
        }
        Response::Read {
            term: self.term(shard),
            session,
            versions: keys.iter().map(version).collect(),
            rows,
            more,
            now: Timestamp(self.clock),
        }
    }

    fn commit(&mut self, term: Term, commit: &CommitRequest) -> Option<Response> {
        if let Some(&outcome) = self.outcomes.get(&commit.attempt) {
            return Some(Response::Outcome { outcome, syncs: 1 });
        }
        if commit.participants[commit.here as usize].term != term {
            let last_word = true;
            let refusal = Refusal::WrongTerm {
                current: term,
                last_word,
            };
            return Some(Response::Refused(refusal));
        }
        let parts = self.parts.entry(commit.attempt).or_default();
        parts.insert(commit.here, commit.clone());
        if commit.here != commit.coordinator {
            return Some(Response::Voting);
        }
        if parts.len() < commit.participants.len() {
            return None;
        }
        let timestamp = Timestamp(self.clock);
        for write in parts.values().flat_map(|part| part.writes.clone()) {
            match write.value {
                Some(value) => self.store.insert(write.key, (value, timestamp)),
                None => self.store.remove(&write.key),
            };
        }
        let outcome = Outcome::Committed(timestamp);
        self.outcomes.insert(commit.attempt, outcome);
        self.applied += 1;
        Some(Response::Outcome { outcome, syncs: 1 })
    }
}
