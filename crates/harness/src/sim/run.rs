//! The run: one queue of events in simulated time.

mod checks;
mod map;

use super::client::{SimClient, Want};
use super::config::SimConfig;
use super::node::{EngineWork, SimNode};
use super::random::Random;
use crate::check::{Findings, list_append};
use crate::history::{History, ListOp, Outcome};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use synod_paxos::{GroupId, NodeId, Slot};
use synod_shard::{Input, NodeMessage, ShardMap, ShardReply, ShardRequest};
use synod_txn::Caller;

const MS: u64 = 1_000_000;
/// States of replicas are compared at every so many slots.
const DIGEST_EVERY: u64 = 4;

enum Event {
    /// Messages reach a node.
    Deliver {
        to: usize,
        from: NodeId,
        messages: Vec<NodeMessage>,
    },
    /// A request reaches a node.
    Ask {
        to: usize,
        client: usize,
        number: u64,
        request: ShardRequest,
    },
    /// An answer reaches a client.
    Answer {
        client: usize,
        number: u64,
        reply: ShardReply,
    },
    /// A node's sync ended.
    Synced { node: usize, life: u64 },
    /// A node's engine has time for the next piece of work.
    Engine { node: usize, life: u64 },
    /// A node's timer.
    Wake { node: usize, life: u64 },
    /// A client's timer.
    Client { client: usize },
    /// Clients tell all nodes that they live.
    KeepAlive,
    /// Something breaks, or is mended.
    Fault(Fault),
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Crash,
    Restart(usize),
    Cut,
    Heal,
    Pause,
    Checkpoint(usize),
}

/// What a run found.
#[derive(Debug)]
pub struct Report {
    /// Transactions committed.
    pub commits: u64,
    /// Transactions whose client was told `unknown`.
    pub unknown: u64,
    /// Transactions aborted for good.
    pub aborted: u64,
    /// Faults injected.
    pub faults: u64,
    /// A hash of everything that happened, in order.
    pub trace: u64,
    /// What is wrong; empty if nothing is.
    pub violations: Vec<String>,
}

struct Sim {
    config: SimConfig,
    random: Random,
    map: ShardMap,
    nodes: Vec<SimNode>,
    clients: Vec<SimClient>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    t: u64,
    cuts: BTreeSet<(usize, usize)>,
    faulty: bool,
    report: Report,
    /// Digest of each shard's state by slot, as first seen.
    digests: BTreeMap<(GroupId, Slot), (NodeId, u64)>,
    /// The slot at which each replica, in each life, was last looked at.
    digested: BTreeMap<(NodeId, u64, GroupId), Slot>,
}

/// Runs one seed to its end.
#[must_use]
pub fn run(config: &SimConfig) -> Report {
    let mut sim = Sim::new(config.clone());
    sim.go();
    sim.finish()
}

/// The node whose process an event needs.
fn node_of(event: &Event) -> Option<usize> {
    match event {
        Event::Deliver { to, .. } | Event::Ask { to, .. } => Some(*to),
        Event::Synced { node, .. } | Event::Engine { node, .. } | Event::Wake { node, .. } => {
            Some(*node)
        }
        _ => None,
    }
}

impl Sim {
    fn new(config: SimConfig) -> Sim {
        let mut random = Random::new(config.seed);
        let map = map::shard_map(&config);
        let nodes = map
            .nodes
            .iter()
            .map(|n| SimNode::new(n.id, &map, &config, &mut random))
            .collect();
        let clients = (0..config.clients as u32)
            .map(|id| SimClient::new(id, &map, config.seed))
            .collect();
        Sim {
            random,
            map,
            nodes,
            clients,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            t: 0,
            cuts: BTreeSet::new(),
            faulty: true,
            report: Report {
                commits: 0,
                unknown: 0,
                aborted: 0,
                faults: 0,
                trace: 0,
                violations: Vec::new(),
            },
            digests: BTreeMap::new(),
            digested: BTreeMap::new(),
            config,
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        // A paused process takes nothing; it comes when the process goes on.
        let at = match node_of(&event) {
            Some(node) => at.max(self.nodes[node].paused_until),
            None => at,
        };
        self.events.insert(self.sequence, event);
        self.queue.push(Reverse((at.max(self.t), self.sequence)));
    }

    fn violation(&mut self, text: String) {
        if self.report.violations.len() < 20 {
            self.report
                .violations
                .push(format!("at {} ms: {text}", self.t / MS));
        }
    }

    fn go(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        for client in 0..self.clients.len() {
            self.at(MS, Event::Client { client });
        }
        self.at(300 * MS, Event::KeepAlive);
        self.schedule(self.config.crash_every, Fault::Crash);
        self.schedule(self.config.cut_every, Fault::Cut);
        self.schedule(self.config.pause_every, Fault::Pause);
        for node in 0..self.nodes.len() {
            self.schedule(self.config.checkpoint_every, Fault::Checkpoint(node));
        }
        let end = self.config.active + self.config.quiet;
        while let Some(Reverse((at, number))) = self.queue.pop() {
            self.t = at;
            if self.faulty && at >= self.config.active {
                self.mend();
            }
            let Some(event) = self.events.remove(&number) else {
                continue;
            };
            self.trace(number);
            self.event(event);
            if !self.report.violations.is_empty() || (!self.faulty && self.at_rest()) {
                return;
            }
            if at > end {
                let why = self.unrest();
                self.violation(format!(
                    "nothing came to rest after the faults stopped: {why}"
                ));
                return;
            }
        }
    }

    fn trace(&mut self, number: u64) {
        let mixed = self.report.trace.rotate_left(7) ^ self.t ^ number.wrapping_mul(0x9e37_79b9);
        self.report.trace = mixed.wrapping_mul(0xff51_afd7_ed55_8ccd);
    }

    fn schedule(&mut self, every: u64, fault: Fault) {
        if every > 0 && self.faulty {
            let at = self.t + self.random.range(every / 4, every * 2);
            self.at(at, Event::Fault(fault));
        }
    }

    /// The faults stop: links heal, nodes come back.
    fn mend(&mut self) {
        self.faulty = false;
        self.cuts.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = 0;
            if self.nodes[node].worker.is_none() {
                self.start(node);
            } else {
                self.step(node);
            }
        }
    }

    fn start(&mut self, node: usize) {
        let (t, map, config) = (self.t, self.map.clone(), self.config.clone());
        self.nodes[node].start(t, &map, &config);
        self.step(node);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, messages } => {
                for message in messages {
                    self.input(to, Input::Peer { from, message });
                }
                self.step(to);
            }
            Event::Ask {
                to,
                client,
                number,
                request,
            } => {
                let caller = Caller {
                    connection: client as u64,
                    request: number,
                };
                self.input(to, Input::Client { caller, request });
                self.step(to);
            }
            Event::Answer {
                client,
                number,
                reply,
            } => {
                let wants = self.clients[client].answered(self.t, number, reply);
                self.wanted(client, wants);
            }
            Event::Synced { node, life } if life == self.nodes[node].life => {
                if let Some(ticket) = self.nodes[node].disk.synced() {
                    self.input(node, Input::Logged { ticket });
                }
                self.step(node);
            }
            Event::Engine { node, life } if life == self.nodes[node].life => {
                self.engine_work(node);
                if !self.nodes[node].engine_queue.is_empty() {
                    self.engine_soon(node);
                }
                self.step(node);
            }
            Event::Wake { node, life } if life == self.nodes[node].life => {
                self.nodes[node].wake_at = u64::MAX;
                self.input(node, Input::Tick);
                self.step(node);
            }
            Event::Synced { .. } | Event::Engine { .. } | Event::Wake { .. } => {}
            Event::Client { client } => self.client(client),
            Event::KeepAlive => {
                for node in 0..self.nodes.len() {
                    for client in 0..self.clients.len() {
                        let live = self.clients[client].live();
                        let client = self.clients[client].client_id();
                        self.input(node, Input::ClientSeen { client, live });
                    }
                    self.step(node);
                }
                self.at(self.t + 300 * MS, Event::KeepAlive);
            }
            Event::Fault(fault) if self.faulty => self.fault(fault),
            Event::Fault(Fault::Restart(node)) => {
                if self.nodes[node].worker.is_none() {
                    self.start(node);
                }
            }
            Event::Fault(_) => {}
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        let node = &mut self.nodes[node];
        let now = node.now(self.t);
        if let Some(worker) = &mut node.worker {
            worker.handle(now, input);
        }
    }

    /// The oldest piece of engine work, and what it reports.
    fn engine_work(&mut self, node: usize) {
        match self.nodes[node].engine_step() {
            Ok(reports) => {
                for report in reports {
                    self.input(node, report);
                }
            }
            Err(error) => self.violation(format!("{}: {error}", self.nodes[node].id)),
        }
    }

    fn engine_soon(&mut self, node: usize) {
        let at = self.t + self.random.range(1, 10) * MS;
        let life = self.nodes[node].life;
        self.at(at, Event::Engine { node, life });
    }

    /// One turn of a node's loop: finish the step, carry out what it wants.
    fn step(&mut self, index: usize) {
        loop {
            let node = &mut self.nodes[index];
            let now = node.now(self.t);
            let Some(worker) = &mut node.worker else {
                return;
            };
            let mut output = worker.finish(now);
            if let Some(reason) = output.fatal.take() {
                self.violation(reason);
                return;
            }
            if let Some(batch) = output.log.take() {
                node.disk.append(batch);
            }
            let life = node.life;
            if node.disk.start_sync() {
                let at = self.t + self.random.range(MS / 4, self.config.sync);
                self.at(at, Event::Synced { node: index, life });
            }
            let from = self.nodes[index].id;
            let sends = std::mem::take(&mut output.sends);
            let bulk = std::mem::take(&mut output.bulk);
            for (to, messages) in sends.into_iter().chain(bulk) {
                self.send(from, to, messages);
            }
            for (caller, reply) in std::mem::take(&mut output.replies) {
                self.reply(caller, reply);
            }
            let reads = std::mem::take(&mut output.reads);
            if !(output.writes.is_empty() && output.marks.is_empty() && output.snapshots.is_empty())
            {
                let node = &mut self.nodes[index];
                let was_idle = node.engine_queue.is_empty();
                node.engine_queue.push_back(EngineWork::Apply {
                    output: Box::new(output),
                });
                if was_idle {
                    self.engine_soon(index);
                }
            }
            if reads.is_empty() {
                break;
            }
            for read in reads {
                // The engine applies on a thread of its own: it may get anywhere
                // before, between and after these reads.
                while self.random.chance(300) && !self.nodes[index].engine_queue.is_empty() {
                    self.engine_work(index);
                }
                let rows = self.nodes[index].engine.read(&read);
                let (group, token) = (read.group, read.token);
                self.input(index, Input::ReadDone { group, token, rows });
            }
        }
        self.wake_later(index);
        self.check_node(index);
    }

    fn wake_later(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let next = node
            .worker
            .as_ref()
            .and_then(synod_shard::Worker::next_timeout);
        let Some(next) = next else {
            return;
        };
        let at = node.true_time(next).max(self.t + MS / 10);
        if at < node.wake_at {
            node.wake_at = at;
            let life = node.life;
            self.at(at, Event::Wake { node: index, life });
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, messages: Vec<NodeMessage>) {
        let (a, b) = (from.0 as usize - 1, to.0 as usize - 1);
        if self.cuts.contains(&(a, b)) || (self.faulty && self.random.chance(self.config.loss)) {
            return;
        }
        let copies = 1 + u32::from(self.faulty && self.random.chance(self.config.duplication));
        for _ in 0..copies {
            let at = self.t + self.random.range(MS / 10, self.config.latency);
            self.at(
                at,
                Event::Deliver {
                    to: b,
                    from,
                    messages: messages.clone(),
                },
            );
        }
    }

    fn reply(&mut self, caller: Caller, reply: ShardReply) {
        if self.faulty && self.random.chance(self.config.loss) {
            return;
        }
        let at = self.t + self.random.range(MS / 10, self.config.latency);
        self.at(
            at,
            Event::Answer {
                client: caller.connection as usize,
                number: caller.request,
                reply,
            },
        );
    }

    fn client(&mut self, client: usize) {
        let wall = self.nodes[client % self.nodes.len()]
            .now(self.t)
            .clock
            .latest;
        let mut wants = Vec::new();
        if self.clients[client].is_idle() {
            if !self.faulty || self.clients[client].idle_until > self.t {
                if self.faulty {
                    let at = self.clients[client].idle_until;
                    self.at(at, Event::Client { client });
                }
                return;
            }
            self.clients[client].begin(self.t, self.config.keys, wall);
            self.clients[client].step(self.t, &mut wants);
        } else {
            wants = self.clients[client].tick(self.t, wall);
        }
        self.wanted(client, wants);
    }

    fn wanted(&mut self, client: usize, wants: Vec<Want>) {
        for Want::Send {
            to,
            number,
            request,
            after,
        } in wants
        {
            let to = to.0 as usize;
            if to == 0 || to > self.nodes.len() {
                continue;
            }
            let copies = if self.faulty && self.random.chance(self.config.loss) {
                0
            } else {
                1 + u32::from(self.faulty && self.random.chance(self.config.duplication))
            };
            for copy in 0..copies {
                // A late duplicate may come long after.
                let late = u64::from(copy) * self.random.range(0, 2_000) * MS;
                let at = self.t + after + late + self.random.range(MS / 10, self.config.latency);
                self.at(
                    at,
                    Event::Ask {
                        to: to - 1,
                        client,
                        number,
                        request: request.clone(),
                    },
                );
            }
        }
        if let Some(at) = self.clients[client].next_wake() {
            self.at(at.max(self.t + MS / 10), Event::Client { client });
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.report.faults += 1;
        let node = self.random.range(0, self.nodes.len() as u64) as usize;
        match fault {
            Fault::Crash => {
                if self.nodes[node].worker.is_some() {
                    self.nodes[node].crash(&mut self.random);
                    let at = self.t + self.random.range(10, 1_500) * MS;
                    self.at(at, Event::Fault(Fault::Restart(node)));
                }
                self.schedule(self.config.crash_every, fault);
            }
            Fault::Restart(node) => {
                if self.nodes[node].worker.is_none() {
                    self.start(node);
                }
            }
            Fault::Cut => {
                for other in 0..self.nodes.len() {
                    if other != node && self.random.chance(700) {
                        self.cuts.insert((node, other));
                        // One-way cuts are the nastier ones.
                        if self.random.chance(600) {
                            self.cuts.insert((other, node));
                        }
                    }
                }
                let at = self.t + self.random.range(50, 2_000) * MS;
                self.at(at, Event::Fault(Fault::Heal));
                self.schedule(self.config.cut_every, fault);
            }
            Fault::Heal => self.cuts.clear(),
            Fault::Pause => {
                // The process stops; what was on its way to it arrives late.
                self.nodes[node].paused_until = self.t + self.random.range(50, 1_500) * MS;
                self.delay_events_of(node);
                self.schedule(self.config.pause_every, fault);
            }
            Fault::Checkpoint(node) => {
                if self.nodes[node].worker.is_some() {
                    let was_idle = self.nodes[node].engine_queue.is_empty();
                    self.nodes[node].checkpoint();
                    if was_idle {
                        self.engine_soon(node);
                    }
                }
                self.schedule(self.config.checkpoint_every, fault);
            }
        }
    }

    /// Everything already on its way to a paused node comes when it wakes.
    fn delay_events_of(&mut self, paused: usize) {
        let until = self.nodes[paused].paused_until;
        let mut kept = BinaryHeap::new();
        for Reverse((at, number)) in std::mem::take(&mut self.queue).into_sorted_vec() {
            let concerns = self.events.get(&number).and_then(node_of) == Some(paused);
            let at = if concerns { at.max(until) } else { at };
            kept.push(Reverse((at, number)));
        }
        self.queue = kept;
    }

    fn finish(mut self) -> Report {
        let mut history: History<ListOp> = History::default();
        for client in &mut self.clients {
            self.report.commits += client.commits;
            history.transactions.append(&mut client.history);
        }
        for transaction in &history.transactions {
            match transaction.outcome {
                Outcome::Unknown => self.report.unknown += 1,
                Outcome::Aborted => self.report.aborted += 1,
                Outcome::Committed(_) => {}
            }
        }
        let findings: Findings = list_append::check(&history);
        for violation in findings.violations {
            self.report.violations.push(violation.to_string());
        }
        self.report
    }
}
