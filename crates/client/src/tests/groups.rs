//! The SDK against the real transaction machines: two shards, each a [`Group`]
//! with a log that decides at once, and a leader that can be deposed.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use synod_paxos::{
    Ballot, Configuration, Epoch, GroupId, Mono, NodeId, Slot, Term, TermStart, Timestamp,
};
use synod_rpc::{CallError, NodeRequest, NodeResponse, RequestBody, ServerBody};
use synod_shard::{NodeDescriptor, ShardDescriptor, ShardMap, ShardReply};
use synod_txn::effect::EngineRows;
use synod_txn::request::{Refusal, ScanRange};
use synod_txn::{
    AttemptId, Caller, Command, Cx, Effect, Group, GroupSettings, Interval, Key, Request, Response,
    Row, Span, Value, Version,
};
use tokio::sync::oneshot;

pub(crate) const LEFT: GroupId = GroupId(2);
pub(crate) const RIGHT: GroupId = GroupId(3);

type Versions = BTreeMap<Key, BTreeMap<Timestamp, (AttemptId, Option<Value>)>>;

/// One shard: its machine, its log's end, its engine.
struct Shard {
    group: Group,
    slot: Slot,
    log: VecDeque<Command>,
    engine: Versions,
    term: Term,
}

struct World {
    shards: BTreeMap<GroupId, Shard>,
    callers: BTreeMap<u64, oneshot::Sender<Response>>,
    next: u64,
    begun: Instant,
    /// Every so many answers to a Commit is lost; 0 = none.
    lose_every: u64,
    commits: u64,
    /// State of the generator that decides who dawdles.
    turns: u64,
}

#[derive(Clone)]
pub(crate) struct Groups(Arc<Mutex<World>>);

fn cx(begun: Instant) -> Cx {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp(wall.as_nanos() as u64);
    Cx {
        now: Mono(begun.elapsed().as_nanos() as u64 + 1),
        clock: Interval {
            earliest: now,
            latest: now,
        },
        limit: now.plus(300_000_000),
        lease: true,
    }
}

fn address(node: NodeId) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], node.0 as u16))
}

fn span(shard: GroupId) -> Span {
    let middle = Key::from_static(b"m");
    let (start, end) = match shard {
        LEFT => (Key::new(), middle),
        _ => (middle, Key::new()),
    };
    Span { start, end }
}

impl Groups {
    pub(crate) fn new(lose_every: u64) -> Groups {
        let begun = Instant::now();
        let shard = |id: GroupId| {
            let shard = Shard {
                group: Group::new(id, GroupSettings::default()),
                slot: Slot(0),
                log: VecDeque::new(),
                engine: Versions::new(),
                term: Term::default(),
            };
            (id, shard)
        };
        let world = World {
            shards: [shard(LEFT), shard(RIGHT)].into(),
            callers: BTreeMap::new(),
            next: 0,
            begun,
            lose_every,
            commits: 0,
            turns: 1,
        };
        let groups = Groups(Arc::new(Mutex::new(world)));
        groups.lead(LEFT, 1);
        groups.lead(RIGHT, 2);
        groups
    }

    fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(
            &mut self
                .0
                .lock()
                .expect("no test panics while it holds the world"),
        )
    }

    /// Depose the leader; another node takes office in a new term, from the replicated state.
    pub(crate) fn lead(&self, shard: GroupId, node: u64) {
        self.with(|world| world.lead(shard, NodeId(node)));
    }

    /// Let timers fire.
    pub(crate) fn tick(&self) {
        self.with(|world| {
            for shard in world.shards.values_mut() {
                shard.group.handle_timeout(&cx(world.begun));
            }
            world.pump();
        });
    }

    /// How many sessions were ended by an older transaction.
    pub(crate) fn wounds(&self) -> u64 {
        let wounds = |shard: &Shard| shard.group.counters().wounds;
        self.with(|world| world.shards.values().map(wounds).sum())
    }

    /// Nothing is locked, waiting or in doubt anywhere.
    pub(crate) fn is_quiet(&self) -> bool {
        self.with(|world| world.shards.values().all(|shard| shard.group.is_quiet()))
    }

    /// On its way: lets other tasks overtake, some more than others.
    async fn dawdle(&self) {
        let turns = self.with(|world| {
            world.turns = world
                .turns
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (world.turns >> 60) % 8
        });
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if turns == 7 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn call(
        &self,
        to: SocketAddr,
        body: RequestBody,
        deadline: Instant,
    ) -> Result<ServerBody, CallError> {
        let request = match body {
            RequestBody::Shard(request) => request,
            RequestBody::Node(NodeRequest::Map) => {
                return Ok(ServerBody::Node(NodeResponse::Map(Box::new(map()))));
            }
            RequestBody::Node(other) => panic!("not faked: {other:?}"),
        };
        let node = NodeId(to.port().into());
        self.dawdle().await;
        let commits = matches!(request.request, Request::Commit(_));
        let (lose, answer) = self.with(|world| {
            world.commits += u64::from(commits);
            let lose =
                commits && world.lose_every > 0 && world.commits.is_multiple_of(world.lose_every);
            (lose, world.ask(request.shard, node, request.request))
        });
        let lost = CallError::Lost {
            address: to,
            reason: "broken".to_owned(),
            sent: true,
        };
        if lose {
            return Err(lost);
        }
        let answer = async {
            let answer = answer.await;
            self.dawdle().await;
            answer
        };
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(response)) => Ok(ServerBody::Shard(ShardReply::Response(response))),
            Ok(Err(_)) => Err(lost),
            Err(_) => Err(CallError::Deadline {
                address: to,
                sent: true,
            }),
        }
    }
}

fn map() -> ShardMap {
    let node = |n: u64| NodeDescriptor {
        id: NodeId(n),
        name: format!("n{n}"),
        address: address(NodeId(n)),
        locality: String::new(),
    };
    let shard = |id: GroupId| ShardDescriptor {
        id,
        span: span(id),
        generation: 1,
        configuration: Configuration::of_voters((1..=3).map(NodeId).collect()),
        preferred_leader: NodeId(1),
        born: None,
    };
    ShardMap {
        nodes: (1..=3).map(node).collect(),
        shards: vec![shard(LEFT), shard(RIGHT)],
    }
}

impl World {
    fn ask(&mut self, id: GroupId, node: NodeId, request: Request) -> oneshot::Receiver<Response> {
        let (sender, receiver) = oneshot::channel();
        let leader = self.shards[&id].term.ballot.node;
        if leader != node {
            let hint = Some(leader);
            // The receiver is held by the caller right here.
            let _ = sender.send(Response::Refused(Refusal::NotLeader { hint }));
            return receiver;
        }
        self.next += 1;
        let from = Caller {
            connection: 1,
            request: self.next,
        };
        self.callers.insert(self.next, sender);
        let cx = cx(self.begun);
        if let Some(shard) = self.shards.get_mut(&id) {
            shard.group.handle_request(&cx, from, request);
        }
        self.pump();
        receiver
    }

    fn lead(&mut self, id: GroupId, node: NodeId) {
        let cx = cx(self.begun);
        let Some(shard) = self.shards.get_mut(&id) else {
            return;
        };
        shard.group.leave_office();
        let orphans = shard.group.take_orphans();
        let checkpoint = shard.group.checkpoint();
        shard.log.clear();
        if shard.slot > Slot(0) {
            let settings = GroupSettings::default();
            shard.group = Group::restore(id, settings, &checkpoint).expect("its own checkpoint");
        }
        let ballot = Ballot {
            epoch: Epoch(1),
            round: shard.term.ballot.round + 1,
            node,
            ..Ballot::default()
        };
        shard.term = Term { group: id, ballot };
        shard.slot = shard.slot.next();
        let floor = cx.limit;
        let start = TermStart {
            ballot,
            term: ballot,
            floor,
        };
        shard.group.apply_term_start(&cx, shard.slot, start);
        shard.group.take_office(&cx, shard.term);
        for orphan in orphans {
            self.respond(
                orphan,
                Response::Refused(Refusal::NotLeader { hint: Some(node) }),
            );
        }
        self.pump();
    }

    fn respond(&mut self, to: Caller, response: Response) {
        if let Some(sender) = self.callers.remove(&to.request) {
            // The caller may have given up.
            let _ = sender.send(response);
        }
    }

    /// Carry out effects until there are none.
    fn pump(&mut self) {
        let ids = [LEFT, RIGHT];
        loop {
            let mut idle = true;
            for id in ids {
                let effects = self.shards.get_mut(&id).map(|s| s.group.drain_effects());
                for effect in effects.unwrap_or_default() {
                    idle = false;
                    self.carry_out(id, effect);
                }
                let Some(shard) = self.shards.get_mut(&id) else {
                    continue;
                };
                while let Some(command) = shard.log.pop_front() {
                    idle = false;
                    shard.slot = shard.slot.next();
                    shard.group.apply(&cx(self.begun), shard.slot, command);
                }
            }
            if idle {
                return;
            }
        }
    }

    fn carry_out(&mut self, id: GroupId, effect: Effect) {
        let cx = cx(self.begun);
        let Some(shard) = self.shards.get_mut(&id) else {
            return;
        };
        match effect {
            Effect::Propose { command, .. } => shard.log.push_back(command),
            Effect::Respond { to, response } => self.respond(to, response),
            Effect::Peer { message, .. } => {
                let owner = if span(LEFT).contains(&message.anchor) {
                    LEFT
                } else {
                    RIGHT
                };
                if let Some(shard) = self.shards.get_mut(&owner) {
                    shard.group.handle_peer(&cx, message);
                }
            }
            Effect::Read {
                token,
                keys,
                scan,
                at,
            } => {
                let rows = read(&shard.engine, &keys, scan.as_ref(), at);
                shard.group.handle_read(&cx, token, rows);
            }
            Effect::Write(batch) => {
                for (key, timestamp, attempt, value) in batch.versions {
                    let versions = shard.engine.entry(key).or_default();
                    versions.insert(timestamp, (attempt, value));
                }
                shard.group.handle_engine_applied(batch.slot);
            }
            Effect::Confirm { token } => shard.group.handle_confirmed(&cx, token),
        }
    }
}

fn newest(engine: &Versions, key: &Key, at: Timestamp) -> Option<Version> {
    let (timestamp, (attempt, value)) = engine.get(key)?.range(..=at).next_back()?;
    Some(Version {
        value: value.clone(),
        timestamp: *timestamp,
        attempt: *attempt,
    })
}

fn read(engine: &Versions, keys: &[Key], scan: Option<&ScanRange>, at: Timestamp) -> EngineRows {
    let versions = keys.iter().map(|key| newest(engine, key, at)).collect();
    let mut rows = Vec::new();
    let mut more = false;
    if let Some(scan) = scan {
        let inside = engine.keys().filter(|key| scan.span.contains(key));
        rows = inside
            .filter_map(|key| {
                let version = newest(engine, key, at)?;
                Some(Row {
                    key: key.clone(),
                    value: version.value?,
                    timestamp: version.timestamp,
                })
            })
            .collect();
        if scan.reverse {
            rows.reverse();
        }
        more = rows.len() > scan.limit as usize;
        rows.truncate(scan.limit as usize);
    }
    EngineRows {
        versions,
        rows,
        more,
    }
}

/// Ticks until dropped.
pub(crate) struct Ticker(tokio::task::JoinHandle<()>);

impl Ticker {
    pub(crate) fn start(groups: &Groups, pause: Duration) -> Ticker {
        let groups = groups.clone();
        Ticker(tokio::spawn(async move {
            loop {
                groups.tick();
                tokio::time::sleep(pause).await;
            }
        }))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.abort();
    }
}
