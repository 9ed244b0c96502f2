//! Random executions over three shards: messages are lost, repeated and
//! overtaken, leaders change, time passes. Then everything heals, and the
//! history must be strictly serializable and nothing may be left behind.
//! `SEED` and `RUNS` in the environment choose other executions.

mod client;
mod history;
#[path = "../world/mod.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{GroupId, Mono, Term, Timestamp};
use synod_probe::{Mutation, mutate};
use synod_txn::request::{LockMode, Refusal, ScanRange};
use synod_txn::*;
use world::{EPOCH, Out, Shard};

const MS: u64 = 1_000_000;
const KEYS: u64 = 6;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

#[derive(Clone, Debug)]
enum Net {
    Request(usize, Caller, Request),
    Response(Caller, Response),
    Peer(PeerMessage),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Write,
    Blind,
    ReadOnly,
    Latest,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Committed(Option<Timestamp>),
    Aborted,
    Unknown,
}

#[derive(Clone, Debug)]
enum Step {
    Get(Key, LockMode),
    Scan(usize),
}

#[derive(Clone, Debug)]
struct Txn {
    attempt: AttemptId,
    priority: Priority,
    kind: Kind,
    plan: Vec<Step>,
    at: usize,
    writes: BTreeMap<Key, Option<Value>>,
    reads: Vec<(Key, Option<AttemptId>)>,
    sessions: BTreeMap<usize, (Term, SessionId)>,
    terms: BTreeMap<usize, Term>,
    coordinator: usize,
    committing: bool,
    valid: BTreeSet<usize>,
    outstanding: BTreeMap<u64, usize>,
    resend: Mono,
    sent_commit: bool,
    started: u64,
}

#[derive(Clone, Debug)]
struct Done {
    txn: Txn,
    end: End,
    ended: u64,
}

#[derive(Default)]
struct Client {
    txn: Option<Txn>,
    requests: u64,
    age: Option<Priority>,
    /// Releases not answered yet: repeated, else a lock may stay as long as the client lives.
    releases: BTreeSet<(AttemptId, usize)>,
    released: BTreeMap<u64, (AttemptId, usize)>,
}

struct Sim {
    rng: Rng,
    shards: Vec<Shard>,
    clients: Vec<Client>,
    net: Vec<Net>,
    now: Mono,
    clock: u64,
    attempts: u128,
    history: Vec<Done>,
    healing: bool,
    takeovers: u64,
    /// Deposed leaders that do not know it yet. They have no lease, and
    /// nothing they propose is decided.
    ghosts: Vec<Shard>,
    /// Per thousand steps: messages delivered, entries decided, disturbances.
    pace: [u64; 3],
    loss: u64,
    /// Keys of each shard that this run uses: few collide more.
    hot: u64,
}

fn shard_of(key: &[u8]) -> usize {
    usize::from(key[0] - b'a')
}

fn key(shard: usize, number: u64) -> Key {
    Key::from(format!("{}{number}", char::from(b'a' + shard as u8)))
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut rng = Rng(seed);
        let mut settings = GroupSettings {
            idle_nanos: 30_000 * MS,
            ..GroupSettings::default()
        };
        if rng.percent(30) {
            settings.window_millis = 3_000;
        }
        if rng.percent(20) {
            settings.entry_bytes = 24;
        }
        let pace = [150 + rng.below(300), 50 + rng.below(200), 1 + rng.below(12)];
        let loss = rng.below(10);
        let hot = 1 + rng.below(KEYS);
        let mut shards: Vec<Shard> = (1..=3).map(|id| Shard::new(id, settings.clone())).collect();
        for shard in &mut shards {
            shard.take_over(Mono(0), 0, usize::MAX);
        }
        Sim {
            rng,
            shards,
            clients: (0..5).map(|_| Client::default()).collect(),
            net: Vec::new(),
            now: Mono(0),
            clock: 0,
            attempts: 0,
            history: Vec::new(),
            healing: false,
            takeovers: 0,
            ghosts: Vec::new(),
            pace,
            loss,
            hot,
        }
    }

    fn take(&mut self, out: Out) {
        for (to, response) in out.responses {
            self.net.push(Net::Response(to, response));
        }
        for (hint, message) in out.peers {
            let owner = GroupId(shard_of(&message.anchor) as u64 + 1);
            assert!(hint == owner || hint == GroupId(0), "a wrong hint");
            self.net.push(Net::Peer(message));
        }
    }

    fn step_group(&mut self, at: usize, step: impl FnOnce(&mut Group, &Cx)) {
        let cx = self.shards[at].cx(self.now);
        step(&mut self.shards[at].leader, &cx);
        let out = self.shards[at].drain();
        self.take(out);
    }

    fn deliver(&mut self) {
        if self.net.is_empty() {
            return;
        }
        let at = self.rng.below(self.net.len() as u64) as usize;
        let message = if self.rng.percent(8) && !self.healing {
            self.net[at].clone()
        } else {
            self.net.swap_remove(at)
        };
        if !self.healing && self.rng.percent(self.loss) {
            return;
        }
        if !self.healing && !self.ghosts.is_empty() && self.rng.percent(20) {
            return self.haunt(message);
        }
        match message {
            Net::Request(shard, from, request) => {
                self.step_group(shard, |g, cx| g.handle_request(cx, from, request));
            }
            Net::Peer(message) => {
                let shard = shard_of(&message.anchor);
                self.step_group(shard, |g, cx| g.handle_peer(cx, message));
            }
            Net::Response(to, response) => self.answered(to, response),
        }
    }

    /// Delivers to a deposed leader instead, if one led the shard meant.
    fn haunt(&mut self, message: Net) {
        let shard = match &message {
            Net::Request(shard, ..) => *shard,
            Net::Peer(message) => shard_of(&message.anchor),
            Net::Response(..) => return self.net.push(message),
        };
        let meant = |g: &Shard| g.id.0 == shard as u64 + 1;
        let Some(mut at) = self.ghosts.iter().position(meant) else {
            return self.net.push(message);
        };
        at = at.min(self.ghosts.len() - 1);
        let ghost = &mut self.ghosts[at];
        let cx = ghost.cx(self.now);
        match message {
            Net::Request(_, from, request) => ghost.leader.handle_request(&cx, from, request),
            Net::Peer(message) => ghost.leader.handle_peer(&cx, message),
            Net::Response(..) => {}
        }
        ghost.leader.handle_timeout(&cx);
        let mut out = ghost.drain();
        while let Some((token, rows)) = ghost.read_one() {
            ghost.leader.handle_read(&cx, token, rows);
            out.responses.extend(ghost.drain().responses);
        }
        self.take(out);
    }

    fn send(&mut self, client: usize, shard: usize, request: Request) {
        let number = self.clients[client].requests;
        self.clients[client].requests += 1;
        let counts = !matches!(request, Request::Release { .. });
        if let Some(txn) = self.clients[client].txn.as_mut().filter(|_| counts) {
            txn.outstanding.insert(number, shard);
            txn.resend = self.now.plus(400 * MS);
        }
        let from = Caller {
            connection: client as u64,
            request: number,
        };
        self.net.push(Net::Request(shard, from, request));
    }

    fn pass_time(&mut self) {
        self.clock += 1;
        let most = if self.rng.percent(3) { 3_000 } else { 30 };
        self.now = self.now.plus((1 + self.rng.below(most)) * MS);
        for shard in 0..3 {
            for client in 0..self.clients.len() {
                if self.rng.percent(95) {
                    let now = self.now;
                    self.shards[shard]
                        .leader
                        .handle_client_seen(now, ClientId(client as u64), &[]);
                }
            }
            self.step_group(shard, |g, cx| g.handle_timeout(cx));
        }
    }

    fn shake(&mut self) {
        let at = self.rng.below(3) as usize;
        if self.healing {
            return;
        }
        if self.rng.percent(40) {
            self.takeovers += 1;
            if self.rng.percent(50) {
                let mut ghost = self.shards[at].clone();
                ghost.lease = false;
                ghost.confirms.clear();
                self.ghosts.insert(0, ghost);
                self.ghosts.truncate(3);
            }
            let keep = self.rng.below(6) as usize;
            let restart = self.rng.below(self.shards[at].log.len() as u64 * 2) as usize;
            let (orphans, out) = if self.rng.percent(30) {
                self.shards[at].retake(self.now, keep)
            } else {
                self.shards[at].take_over(self.now, keep, restart)
            };
            for orphan in orphans {
                let refusal = Refusal::NotLeader { hint: None };
                self.net
                    .push(Net::Response(orphan, Response::Refused(refusal)));
            }
            self.take(out);
        } else if self.rng.percent(50) {
            self.shards[at].lease = !self.shards[at].lease;
        } else if self.rng.percent(70) {
            self.shards[at].skew = (self.rng.below(400) as i64 - 200) * MS as i64;
        } else {
            // A limit that stays behind the clock, until it is lifted or the run heals.
            let behind = self.rng.below(2_000) * MS;
            let limit = Timestamp((EPOCH + self.now.0).saturating_sub(behind));
            self.shards[at].limit = self.rng.percent(60).then_some(limit);
        }
    }

    fn step(&mut self) {
        self.clock += 1;
        let at = self.rng.below(3) as usize;
        if self.rng.below(1000) < self.pace[2] {
            return self.shake();
        }
        if self.rng.below(1000) < self.pace[0] {
            return self.deliver();
        }
        if self.rng.below(1000) < self.pace[1] {
            let count = 1 + self.rng.below(3) as usize;
            let out = self.shards[at].decide(self.now, count);
            return self.take(out);
        }
        match 550 + self.rng.below(445) {
            550..=599 => {
                self.shards[at].write_one();
            }
            600..=749 => {
                if let Some((token, rows)) = self.shards[at].read_one() {
                    self.step_group(at, |g, cx| g.handle_read(cx, token, rows));
                }
            }
            750..=799 => {
                if let Some(token) = self.shards[at].confirms.pop_front() {
                    self.step_group(at, |g, cx| g.handle_confirmed(cx, token));
                }
            }
            800..=939 => self.client_step(),
            _ => self.pass_time(),
        }
    }

    fn heal(&mut self) {
        self.healing = true;
        for shard in &mut self.shards {
            shard.lease = true;
            shard.skew = 0;
            shard.limit = None;
        }
        for _ in 0..60_000 {
            self.step();
            let idle = self
                .clients
                .iter()
                .all(|c| c.txn.is_none() && c.releases.is_empty());
            let settled = self.shards.iter().all(|s| {
                s.leader.is_quiet()
                    && s.decided == s.log.len()
                    && s.unwritten.is_empty()
                    && s.leader.state().records.unsettled().next().is_none()
            });
            if idle && settled && self.net.is_empty() {
                return;
            }
        }
        for (client, state) in self.clients.iter().enumerate() {
            eprintln!("client {client}: {:?}", state.txn);
        }
        for shard in &self.shards {
            let open: Vec<_> = shard.leader.state().records.unsettled().collect();
            eprintln!(
                "{:?}: quiet {} decided {}/{} unwritten {} locks {} intents {:?} not done {open:?}",
                shard.id,
                shard.leader.is_quiet(),
                shard.decided,
                shard.log.len(),
                shard.unwritten.len(),
                shard.leader.locks(),
                shard.leader.open_intents().collect::<Vec<_>>(),
            );
            eprintln!("{:?}", shard.leader.counters());
        }
        panic!("does not settle after healing");
    }
}

fn run(seed: u64) -> (usize, usize, u64) {
    let mut sim = Sim::new(seed);
    for _ in 0..4_000 {
        sim.step();
    }
    sim.heal();
    sim.check();
    let count = |end: fn(&End) -> bool| sim.history.iter().filter(|d| end(&d.end)).count();
    let committed = count(|e| matches!(e, End::Committed(_)));
    let aborted = count(|e| matches!(e, End::Aborted));
    (committed, aborted, sim.takeovers)
}

/// A developer may ask for other seeds and more of them.
#[allow(clippy::disallowed_methods)]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |s| s.parse().expect("a number"))
}

/// `MUTATION` names a rule to break, in a build with `synod-probe/mutations`.
#[allow(clippy::disallowed_methods)]
fn break_a_rule() {
    let name = std::env::var("MUTATION").ok();
    mutate(name.map(|name| Mutation::named(&name).expect("no such mutation")));
}

#[test]
fn random_executions_are_strictly_serializable() {
    break_a_rule();
    let first = number("SEED", 0);
    let runs = number("RUNS", 300);
    let (mut committed, mut aborted, mut takeovers) = (0, 0, 0);
    for seed in first..first + runs {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let Ok((c, a, t)) = outcome else {
            panic!("seed {seed} failed; repeat with SEED={seed} RUNS=1");
        };
        committed += c;
        aborted += a;
        takeovers += t;
    }
    eprintln!("{runs} runs: {committed} committed, {aborted} aborted, {takeovers} take-overs");
    assert!(committed > 20 * runs as usize, "the test hardly commits");
    assert!(takeovers > runs, "the test hardly changes leaders");
}
