//! The run: one queue of events in simulated time.

mod caught;
mod checks;
mod clients;
mod copies;
mod faults;
mod hashed;
mod nodes;
mod rest;
mod splits;

use super::client::{ClientConfig, Herd, SimClient, Want, Workload};
use super::config::{MS, SimConfig, WITHDRAWALS};
use super::fault::Planned;
use super::net::{LinkFault, Net};
use super::node::SimNode;
use super::queue::{Next, Queue};
use super::random::Random;
use super::report::{Report, Violation, Wrong};
use super::topology;
use super::trace::Trace;
use crate::rules::Rules;
use bytes::Bytes;
use clients::Alive;
use copies::Copies;
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{ClusterVersion, GroupId, NodeId};
use synod_shard::{Bootstrap, NodeMessage, ShardDescriptor, ShardReply, ShardRequest};
use synod_txn::Hashing;

pub use caught::{RunOptions, run_caught};

/// How often the run looks whether everything has come to rest.
const REST_EVERY: u64 = 50 * MS;

/// Syncs that a follower may be behind when the faults stop, about.
const SYNCS_BEHIND: u64 = 300;
/// Final reads end in time to be followed by the reader's, before the run ends.
const LONGEST_FINAL_READS: u64 = 55_000 * MS;

/// What happens.
enum Event {
    /// Messages reach a node.
    Deliver {
        to: usize,
        from: usize,
        connection: u64,
        messages: Vec<NodeMessage>,
    },
    /// A request reaches a node.
    Ask {
        to: usize,
        client: usize,
        number: u64,
        request: Box<ShardRequest>,
    },
    /// A node hears that nobody waits for the answer to a request.
    Cancel {
        to: usize,
        client: usize,
        number: u64,
    },
    /// An answer reaches a client.
    Answer {
        client: usize,
        number: u64,
        reply: Box<ShardReply>,
        /// The node's map, for whom it does not answer because a shard is elsewhere.
        map: Vec<ShardDescriptor>,
    },
    /// Signs of life of a site's clients reach a node.
    Seen { to: usize, clients: Vec<Alive> },
    /// A node's sync ends.
    Synced { node: usize, life: u64 },
    /// A node's engine has done a piece of work.
    Engine { node: usize, life: u64 },
    /// A client's timer.
    Client { client: usize },
    /// Clients tell all nodes that they live.
    KeepAlive,
    /// Whoever wants a directory hashed asks again.
    Hash,
    /// A planned fault begins.
    Fault(usize),
    /// A planned fault ends.
    Mended(usize),
    /// A node is started again.
    Restart(usize),
    /// A client that vanished is back, as another process.
    Revive(usize),
    /// A stretch of another pace begins.
    Phase(usize),
    /// The faults stop.
    Heal,
    /// Is everything at rest?
    Rest,
}

/// One run.
pub(super) struct Sim {
    config: SimConfig,
    plan: Vec<Planned>,
    random: Random,
    /// For what was not always simulated, so that other runs stay as they are.
    withdrawals: Random,
    bootstrap: Bootstrap,
    nodes: Vec<SimNode>,
    clients: Vec<SimClient>,
    /// Kept for reuse.
    wants: Vec<Want>,
    net: Net,
    copies: Copies,
    queue: Queue<Event>,
    t: u64,
    faulty: bool,
    /// What the faults in force do to links.
    in_force: BTreeMap<usize, Vec<LinkFault>>,
    rules: Rules,
    trace: Trace,
    report: Report,
    /// What the report is to tell besides.
    options: RunOptions,
    /// Shards that were split off, and the id that the next one gets.
    born: Vec<GroupId>,
    /// Shards that became part of others.
    absorbed: BTreeSet<GroupId>,
    next_shard: u64,
    /// The directory that is about to be hashed, until when that is tried, and how many were to be so far.
    directory: Option<(Hashing, u64)>,
    directories: usize,
    /// What the meta shard's row says of the cluster version.
    raised: ClusterVersion,
    /// The client that reads everything at the end, once all others are through.
    reader: Option<usize>,
    ended: bool,
}

impl Sim {
    fn new(config: SimConfig, plan: Vec<Planned>, options: RunOptions) -> Result<Sim, String> {
        let mut random = Random::new(config.seed);
        let splits = splits(&config, &mut random);
        let bootstrap = topology::bootstrap(&config, &splits)?;
        let net = Net::new(&config, &mut random);
        let nodes = bootstrap
            .map
            .nodes
            .iter()
            .map(|n| SimNode::new(n.id, &bootstrap, &config, &mut random))
            .collect::<Result<Vec<_>, _>>()?;
        let queue = Queue::new(nodes.len());
        let mut clients =
            ClientConfig::from_seed(config.seed, config.far, config.clients, config.lease);
        // When the faults stop, whoever has been away waits for a lease before it votes, and a
        // follower that lacks a thousand entries may get a few of them with each sync.
        let catching_up = 2 * config.lease + SYNCS_BEHIND * config.sync;
        clients.last_deadline = (clients.last_deadline + catching_up).min(LONGEST_FINAL_READS);
        clients.readers = config.readers;
        clients.withdraws = config.withdraws;
        if config.hot {
            clients.crowd();
        }
        let workload = Workload::new(&bootstrap.map, clients);
        let herds: Vec<Herd> = (0..config.sites).map(|_| Herd::default()).collect();
        let clients = (0..config.clients as u32)
            .map(|id| {
                let herd = &herds[config.site_of_client(id as usize)];
                SimClient::new(id, &workload, herd, config.seed)
            })
            .collect();
        Ok(Sim {
            random,
            withdrawals: Random::new(config.seed ^ WITHDRAWALS),
            nodes,
            wants: Vec::new(),
            reader: None,
            born: Vec::new(),
            absorbed: BTreeSet::new(),
            directory: None,
            directories: 0,
            raised: bootstrap.version,
            next_shard: bootstrap
                .map
                .shards
                .iter()
                .map(|s| s.id.0)
                .max()
                .unwrap_or(0)
                + 1,
            clients,
            net,
            copies: Copies::default(),
            queue,
            t: 0,
            faulty: true,
            in_force: BTreeMap::new(),
            rules: checks::rules(&config, &bootstrap),
            trace: Trace::new(options.lines),
            report: Report::default(),
            options,
            ended: false,
            bootstrap,
            plan,
            config,
        })
    }

    fn at(&mut self, at: u64, event: Event) {
        self.queue.push(at.max(self.t), event);
    }

    fn violation(&mut self, wrong: Wrong, rule: &str, text: String) {
        self.trace.line(self.t, || format!("*** {rule}: {text}"));
        self.ended = true;
        if self.report.violations.len() < 20 {
            self.report.violations.push(Violation {
                wrong,
                rule: rule.to_owned(),
                at: Some(self.t),
                text,
            });
        }
    }

    fn go(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        for client in 0..self.clients.len() {
            self.arm(client);
        }
        self.at(self.config.session / 4, Event::KeepAlive);
        for index in 0..self.plan.len() {
            self.at(self.plan[index].at, Event::Fault(index));
        }
        self.at(self.config.active(), Event::Heal);
        for phase in 0..self.config.phases.len() {
            let begin = phase
                .checked_sub(1)
                .map_or(0, |p| self.config.phases[p].until);
            self.at(begin, Event::Phase(phase));
        }
        let end = self.config.active() + self.config.quiet;
        while let Some((at, number, event)) = self.queue.pop() {
            self.t = at;
            self.report.events += 1;
            self.trace.mix(at ^ number.rotate_left(40));
            match event {
                Next::Event(event) => self.event(event),
                Next::Turn(node) => self.turn(node),
            }
            if self.ended {
                break;
            }
            if at > end {
                let why = self.unrest_at_length();
                let text = format!("nothing came to rest after the faults stopped: {why}");
                self.violation(Wrong::Liveness, "rest", text);
                break;
            }
        }
        self.report.simulated = self.t;
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Deliver {
                to,
                from,
                connection,
                messages,
            } => self.deliver(to, from, connection, messages),
            Event::Ask {
                to,
                client,
                number,
                request,
            } => self.asked(to, client, number, *request),
            Event::Cancel { to, client, number } => self.cancelled(to, client, number),
            Event::Answer {
                client,
                number,
                reply,
                map,
            } => self.answer(client, number, *reply, &map),
            Event::Seen { to, clients } => self.seen(to, clients),
            Event::Synced { node, life } => self.synced(node, life),
            Event::Engine { node, life } => self.engine_done(node, life),
            Event::Client { client } => self.client(client),
            Event::KeepAlive => self.keep_alive(),
            Event::Hash => self.go_on_hashing(),
            Event::Fault(index) => self.fault(index),
            Event::Mended(index) => self.mended(index),
            Event::Restart(node) => self.start(node),
            Event::Revive(client) => self.revive(client),
            Event::Phase(phase) => self.pace(phase),
            Event::Heal => self.heal(),
            Event::Rest => self.look_for_rest(),
        }
    }

    fn index(&self, id: NodeId) -> Option<usize> {
        let index = usize::try_from(id.0).ok()?.checked_sub(1)?;
        (index < self.nodes.len()).then_some(index)
    }

    fn finish(mut self) -> Report {
        self.histories();
        let (hash, lines) = self.trace.finish();
        self.report.trace = hash;
        self.report.lines = lines;
        self.report
    }
}

/// Any cut will do: the clients lay their keys out over whatever shards there are.
fn splits(config: &SimConfig, random: &mut Random) -> Vec<Bytes> {
    let mut bytes: Vec<u8> = (1..config.shards)
        .map(|_| random.range(2, 250) as u8)
        .collect();
    bytes.sort_unstable();
    bytes.dedup();
    bytes.into_iter().map(|b| Bytes::from(vec![b])).collect()
}
