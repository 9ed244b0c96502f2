//! A simulated client: the real transaction machine, driven as the SDK drives
//! it, running list-append transactions and recording what it was told.

use super::random::Random;
use crate::history::{ListOp, Outcome, Transaction as Recorded};
use bytes::Bytes;
use std::collections::BTreeMap;
use synod_paxos::{GroupId, NodeId, Timestamp};
use synod_shard::{ShardMap, ShardReply, ShardRequest};
use synod_txn::client::{
    Begin, Done, Outgoing, Reply, Retry, RetrySettings, Route, Routes, Transaction,
};
use synod_txn::request::{LockMode, Refusal};
use synod_txn::{ClientId, Request, Response, Span};

const MS: u64 = 1_000_000;
/// After this long without an answer a request is sent again, or given up.
const ANSWER: u64 = 120 * MS;
/// A transaction's deadline.
const DEADLINE: u64 = 6_000 * MS;
/// Names a lock-free read, which no machine drives.
const LATEST: u64 = u64::MAX;

/// What the client wants of the simulator.
pub(super) enum Want {
    Send {
        to: NodeId,
        number: u64,
        request: ShardRequest,
        after: u64,
    },
}

struct Flight {
    outgoing: Outgoing,
    resend_at: u64,
}

struct Running {
    machine: Transaction,
    ops: Vec<ListOp>,
    next: usize,
    /// The whole scan instead of single reads.
    scan: bool,
    retry: Retry,
    invoked: u64,
    deadline: u64,
    flights: BTreeMap<u64, Flight>,
    restart_at: Option<u64>,
    committing: bool,
    /// Not a transaction: one lock-free read of several keys of one shard.
    latest: Option<Outgoing>,
}

/// A client.
pub(super) struct SimClient {
    id: u32,
    routes: Routes,
    leaders: BTreeMap<GroupId, NodeId>,
    running: Option<Running>,
    pub(super) history: Vec<Recorded<ListOp>>,
    pub(super) commits: u64,
    numbers: u64,
    values: u64,
    random: Random,
    pub(super) idle_until: u64,
}

pub(super) fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number:03}"))
}

fn parse(value: Option<&Bytes>) -> Vec<u64> {
    value.map_or_else(Vec::new, |v| {
        v.chunks_exact(8)
            .map(|c| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
            .collect()
    })
}

impl SimClient {
    pub(super) fn new(id: u32, map: &ShardMap, seed: u64) -> SimClient {
        let routes = map.shards.iter().map(|s| Route {
            shard: s.id,
            span: s.span.clone(),
            term: None,
        });
        SimClient {
            id,
            routes: Routes::new(routes.collect()),
            leaders: map
                .shards
                .iter()
                .map(|s| (s.id, s.preferred_leader))
                .collect(),
            running: None,
            history: Vec::new(),
            commits: 0,
            numbers: 0,
            values: 0,
            random: Random::new(seed ^ u64::from(id) << 40),
            idle_until: 0,
        }
    }

    pub(super) fn client_id(&self) -> ClientId {
        ClientId(u64::from(self.id) + 1)
    }

    /// The attempt under way.
    pub(super) fn live(&self) -> Vec<synod_txn::AttemptId> {
        let running = self.running.iter();
        running.map(|r| r.machine.attempt()).collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// When the client next wants [`SimClient::tick`].
    pub(super) fn next_wake(&self) -> Option<u64> {
        let Some(running) = &self.running else {
            return Some(self.idle_until);
        };
        let flights = running.flights.values().map(|f| f.resend_at);
        flights
            .chain(running.restart_at)
            .chain([running.deadline])
            .min()
    }

    /// Begins a transaction of random reads and appends.
    pub(super) fn begin(&mut self, t: u64, keys: u64, wall: Timestamp) {
        // Clients come and go: some have heard of a new leader, others not.
        if self.random.chance(250) {
            let shards: Vec<GroupId> = self.leaders.keys().copied().collect();
            for shard in shards {
                let next = self.other(shard);
                self.leaders.insert(shard, next);
            }
        }
        let count = self.random.range(1, 5);
        let read_only = self.random.chance(450);
        let scan = read_only && self.random.chance(400);
        let ops: Vec<ListOp> = if scan {
            (0..keys)
                .map(|key| ListOp::Read { key, list: None })
                .collect()
        } else {
            (0..count)
                .map(|_| {
                    let key = self.random.range(0, keys);
                    if read_only || self.random.chance(400) {
                        ListOp::Read { key, list: None }
                    } else {
                        self.values += 1;
                        ListOp::Append {
                            key,
                            value: u64::from(self.id) * 1_000_000 + self.values,
                        }
                    }
                })
                .collect()
        };
        if read_only && !scan && self.random.chance(700) {
            return self.begin_latest(t, keys, wall);
        }
        let read_only = ops.iter().all(|op| matches!(op, ListOp::Read { .. }));
        let mut retry = Retry::new(RetrySettings::default(), self.random.next());
        let (attempt, priority) = retry.next_attempt(wall, self.random.wide());
        let begin = Begin {
            attempt,
            priority,
            client: self.client_id(),
            read_only,
        };
        self.running = Some(Running {
            machine: Transaction::new(begin),
            ops,
            next: 0,
            scan,
            retry,
            invoked: t,
            deadline: t + DEADLINE,
            flights: BTreeMap::new(),
            restart_at: None,
            committing: false,
            latest: None,
        });
    }

    /// Begins a lock-free read of all keys that share a shard with a random one.
    fn begin_latest(&mut self, t: u64, keys: u64, wall: Timestamp) {
        let one = key(self.random.range(0, keys));
        let Some(route) = self.routes.of_key(&one) else {
            return;
        };
        let numbers: Vec<u64> = (0..keys)
            .filter(|k| route.span.contains(&key(*k)))
            .collect();
        let outgoing = Outgoing {
            token: LATEST,
            shard: route.shard,
            after_nanos: 0,
            answered: true,
            request: Request::Latest {
                keys: numbers.iter().map(|k| key(*k)).collect(),
                scan: None,
            },
        };
        let mut retry = Retry::new(RetrySettings::default(), 0);
        let (attempt, priority) = retry.next_attempt(wall, self.random.wide());
        self.running = Some(Running {
            machine: Transaction::new(Begin {
                attempt,
                priority,
                client: self.client_id(),
                read_only: true,
            }),
            ops: numbers
                .into_iter()
                .map(|key| ListOp::Read { key, list: None })
                .collect(),
            next: 0,
            scan: false,
            retry,
            invoked: t,
            deadline: t + DEADLINE,
            flights: BTreeMap::new(),
            restart_at: None,
            committing: true,
            latest: Some(outgoing),
        });
    }

    /// The answer to a lock-free read.
    fn read_latest(&mut self, t: u64, versions: &[Option<synod_txn::Version>]) {
        if let Some(running) = &mut self.running {
            for (op, version) in running.ops.iter_mut().zip(versions) {
                if let ListOp::Read { list, .. } = op {
                    *list = Some(parse(version.as_ref().and_then(|v| v.value.as_ref())));
                }
            }
        }
        self.commits += 1;
        self.end(t, Outcome::Committed(None));
    }

    /// Time passed.
    pub(super) fn tick(&mut self, t: u64, wall: Timestamp) -> Vec<Want> {
        let Some(running) = &mut self.running else {
            return Vec::new();
        };
        if t >= running.deadline {
            if running.restart_at.is_some() {
                self.end(t, Outcome::Aborted);
                return Vec::new();
            }
            running.machine.give_up();
        } else if running.restart_at.is_some_and(|at| at <= t) {
            self.restart(wall);
        }
        let mut wants = Vec::new();
        self.resend(t, &mut wants);
        self.step(t, &mut wants);
        wants
    }

    /// A new attempt of the same transaction, with its age kept.
    fn restart(&mut self, wall: Timestamp) {
        let client = self.client_id();
        let random = self.random.wide();
        let Some(running) = &mut self.running else {
            return;
        };
        let (attempt, priority) = running.retry.next_attempt(wall, random);
        running.machine = Transaction::new(Begin {
            attempt,
            priority,
            client,
            read_only: running.ops.iter().all(|o| matches!(o, ListOp::Read { .. })),
        });
        running.restart_at = None;
        running.flights.clear();
        running.next = 0;
        running.committing = false;
    }

    /// Sends the oldest unanswered request again, elsewhere. A Commit is not
    /// repeated here: the machine asks how it ended.
    fn resend(&mut self, t: u64, wants: &mut Vec<Want>) {
        let Some(running) = &mut self.running else {
            return;
        };
        let late = running.flights.iter().find(|(_, f)| f.resend_at <= t);
        let Some(number) = late.map(|(number, _)| *number) else {
            return;
        };
        let Some(flight) = running.flights.remove(&number) else {
            return;
        };
        if matches!(flight.outgoing.request, Request::Commit(_)) {
            let token = flight.outgoing.token;
            running
                .machine
                .handle_reply(&self.routes, token, Reply::Lost);
        } else {
            let shard = flight.outgoing.shard;
            let next = self.other(shard);
            self.leaders.insert(shard, next);
            self.launch(t, flight.outgoing, 0, wants);
        }
    }

    fn other(&mut self, shard: GroupId) -> NodeId {
        let nodes: Vec<NodeId> = self.leaders.values().copied().collect();
        let known = self.leaders.get(&shard).copied();
        let mut all: Vec<NodeId> = (1..=nodes.len().max(5) as u64).map(NodeId).collect();
        all.retain(|n| Some(*n) != known);
        *self.random.pick(&all)
    }

    fn launch(&mut self, t: u64, outgoing: Outgoing, after: u64, wants: &mut Vec<Want>) {
        self.numbers += 1;
        let number = self.numbers;
        let to = self
            .leaders
            .get(&outgoing.shard)
            .copied()
            .unwrap_or_default();
        let after = after + outgoing.after_nanos;
        wants.push(Want::Send {
            to,
            number,
            request: ShardRequest {
                shard: outgoing.shard,
                generation: 1,
                request: outgoing.request.clone(),
            },
            after,
        });
        if outgoing.answered
            && let Some(running) = &mut self.running
        {
            running.flights.insert(
                number,
                Flight {
                    outgoing: Outgoing {
                        after_nanos: 0,
                        ..outgoing
                    },
                    resend_at: t + after + ANSWER,
                },
            );
        }
    }

    /// An answer came.
    pub(super) fn answered(&mut self, t: u64, number: u64, reply: ShardReply) -> Vec<Want> {
        let mut wants = Vec::new();
        let Some(running) = &mut self.running else {
            return wants;
        };
        let Some(flight) = running.flights.remove(&number) else {
            return wants;
        };
        let shard = flight.outgoing.shard;
        let commit = matches!(flight.outgoing.request, Request::Commit(_));
        match reply {
            ShardReply::WrongNode(_) => {
                let next = self.other(shard);
                self.leaders.insert(shard, next);
                self.launch(t, flight.outgoing, 2 * MS, &mut wants);
            }
            ShardReply::Response(Response::Refused(Refusal::NotLeader { hint })) => {
                let next = hint.unwrap_or_else(|| self.other(shard));
                self.leaders.insert(shard, next);
                if commit {
                    // An earlier copy may have been handled there.
                    if let Some(running) = &mut self.running {
                        running.machine.handle_reply(
                            &self.routes,
                            flight.outgoing.token,
                            Reply::Lost,
                        );
                    }
                } else {
                    self.launch(t, flight.outgoing, 10 * MS, &mut wants);
                }
            }
            ShardReply::Response(Response::Refused(
                Refusal::Overloaded { .. } | Refusal::Clock,
            )) => {
                self.launch(t, flight.outgoing, 20 * MS, &mut wants);
            }
            ShardReply::Response(Response::Read { versions, .. })
                if flight.outgoing.token == LATEST =>
            {
                self.read_latest(t, &versions);
                return wants;
            }
            ShardReply::Response(response) => {
                if let Response::Read { term, .. } | Response::Located { term, .. } = &response {
                    self.routes.learn_term(shard, *term);
                }
                if let Response::Refused(Refusal::WrongTerm { current, .. }) = &response {
                    self.routes.learn_term(shard, *current);
                }
                running.machine.handle_reply(
                    &self.routes,
                    flight.outgoing.token,
                    Reply::Answer(response),
                );
            }
        }
        self.step(t, &mut wants);
        wants
    }

    /// Goes on with the transaction as far as it can.
    pub(super) fn step(&mut self, t: u64, wants: &mut Vec<Want>) {
        loop {
            let Some(running) = &mut self.running else {
                return;
            };
            if let Some(latest) = running.latest.take() {
                return self.launch(t, latest, 0, wants);
            }
            let outgoing = running.machine.take_outgoing();
            let moved = !outgoing.is_empty();
            for one in outgoing {
                self.launch(t, one, 0, wants);
            }
            let Some(running) = &mut self.running else {
                return;
            };
            match running.machine.take_done() {
                Some(Ok(done)) => self.done(t, done),
                Some(Err(error)) => self.failed(t, &error),
                None if running.flights.is_empty() && running.restart_at.is_none() => {
                    if !self.advance(t) && !moved {
                        return;
                    }
                }
                None => return,
            }
        }
    }

    /// Makes the next call of the transaction. False when there was none to make.
    fn advance(&mut self, t: u64) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        if running.committing || running.machine.is_ended() {
            return false;
        }
        let called = if running.scan && running.next == 0 {
            let span = Span::of_prefix(b"k");
            running.machine.scan(
                &self.routes,
                span,
                1_000,
                self.id.is_multiple_of(2),
                LockMode::Shared,
            )
        } else if let Some(op) = running.ops.get(running.next) {
            let (key_number, mode) = match op {
                ListOp::Read { key, .. } => (*key, LockMode::Shared),
                ListOp::Append { key, value } if value % 2 == 0 => (*key, LockMode::Exclusive),
                ListOp::Append { key, .. } => (*key, LockMode::Shared),
            };
            running
                .machine
                .get(&self.routes, vec![key(key_number)], mode)
        } else {
            running.committing = true;
            running.machine.commit(&self.routes, &[], 2_000)
        };
        if let Err(error) = called {
            self.failed(t, &error);
        }
        true
    }

    fn done(&mut self, t: u64, done: Done) {
        let Some(running) = &mut self.running else {
            return;
        };
        match done {
            Done::Values(values) => {
                let list = parse(values.first().and_then(Option::as_ref));
                match &mut running.ops[running.next] {
                    ListOp::Read { list: seen, .. } => *seen = Some(list),
                    ListOp::Append { key: k, value } => {
                        let mut bytes: Vec<u8> =
                            list.iter().flat_map(|v| v.to_le_bytes()).collect();
                        bytes.extend(value.to_le_bytes());
                        let put = running.machine.put(key(*k), bytes.into());
                        assert!(put.is_ok(), "a small put was refused: {put:?}");
                    }
                }
                running.next += 1;
            }
            Done::Page(page) => {
                let found: BTreeMap<&Bytes, &Bytes> =
                    page.rows.iter().map(|(k, v)| (k, v)).collect();
                assert!(page.rest.is_none(), "a small scan was cut");
                for op in &mut running.ops {
                    if let ListOp::Read { key: k, list } = op {
                        *list = Some(parse(found.get(&key(*k)).copied()));
                    }
                }
                running.next = running.ops.len();
            }
            Done::Committed(committed) => {
                self.commits += 1;
                self.end(t, Outcome::Committed(committed.timestamp.map(|t| t.0)));
            }
        }
    }

    fn failed(&mut self, t: u64, error: &synod_txn::client::TransactionError) {
        use synod_txn::client::TransactionError as E;
        let Some(running) = &mut self.running else {
            return;
        };
        match error {
            E::Aborted { reason, .. } if t < running.deadline => {
                if let Some(pause) = running.retry.pause(*reason) {
                    running.restart_at = Some(t + pause);
                    running.flights.clear();
                } else {
                    self.end(t, Outcome::Aborted);
                }
            }
            E::Aborted { .. } | E::Unreachable { .. } => self.end(t, Outcome::Aborted),
            E::Unknown { .. } => self.end(t, Outcome::Unknown),
            other => panic!("client {}: {other}", self.id),
        }
    }

    fn end(&mut self, t: u64, outcome: Outcome) {
        if let Some(running) = self.running.take() {
            self.history.push(Recorded {
                process: self.id,
                invoked: running.invoked,
                completed: t,
                outcome,
                ops: running.ops,
            });
        }
        self.idle_until = t + self.random.range(0, 30) * MS;
    }
}
