//! Delivering requests to the leaders of shards, as the SDK's router does: who
//! leads is learned from answers and hints; what is not answered goes elsewhere;
//! a Commit that may have arrived is the machine's business. While a leader is
//! silent the other replicas are asked who leads; while none leads, one client
//! goes round the replicas for all of its place.

use super::Want;
use super::herd::Herd;
use super::table::{Table, Tour};
use crate::sim::random::Random;
use synod_paxos::{NodeId, Term, Timestamp};
use synod_shard::{ShardReply, ShardRequest};
use synod_txn::client::{Outgoing, Reply};
use synod_txn::request::Refusal;
use synod_txn::{Hashing, Outcome, Request, Response, Span};

const MS: u64 = 1_000_000;
/// The pause where a node's clock is not to be used.
const CLOCK_PAUSE: u64 = 50 * MS;
/// After the first silence the questions come this much more often.
const PROBES: u64 = 3;
/// How long what nobody waits for is delivered.
const CHORE_TIMEOUT: u64 = 5_000 * MS;
/// Such requests under way, at most; over it they are dropped.
const MOST_CHORES: usize = 32;

/// What was heard of the cluster's clock is asked for again after this long.
const CLOCK_AGE: u64 = 10_000 * MS;
/// How far the client's wall clock may move before it does so at once.
const CLOCK_TOLERANCE: u64 = 1_000 * MS;

/// Whom a delivery is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The machine, under this token.
    Call(u64),
    /// A lock-free read.
    Latest,
    /// Nobody: it frees locks.
    Chore,
    /// The search for a leader.
    Probe,
}

/// A request under way.
#[derive(Debug)]
struct Flight {
    number: u64,
    owner: Owner,
    /// Index of the shard.
    shard: usize,
    /// What its keys were mapped by.
    hashing: Option<Hashing>,
    request: Request,
    to: NodeId,
    tour: Tour,
    /// When it is sent: it may wait before. The end of time while it is parked.
    sent: u64,
    /// While it waits for a leader to be found: when it looks for one.
    look_at: u64,
    /// Since when it waits so, and how often it looked.
    parked: (u64, u32),
    /// When the others are asked who leads.
    probe_at: u64,
    /// When it goes elsewhere.
    timeout_at: u64,
    /// When it is given up.
    until: u64,
    /// Whether a copy may have been handled without us hearing of it.
    maybe: bool,
    /// The shard's term when it was sent.
    term: Option<Term>,
    /// The shard's keys when it was made.
    span: Option<Span>,
}

impl Flight {
    fn due(&self) -> u64 {
        let own = self.probe_at.min(self.timeout_at).min(self.until);
        own.min(self.look_at)
    }

    const fn commits(&self) -> bool {
        matches!(self.request, Request::Commit(_))
    }
}

/// The cluster's clock: what was last heard of it, and when.
#[derive(Clone, Copy, Debug)]
struct Clock {
    told: Timestamp,
    at: u64,
    /// The client's wall clock then.
    wall: Timestamp,
}

impl Clock {
    fn now(&self, t: u64) -> Timestamp {
        self.told.plus(t - self.at)
    }

    /// Whether it was not heard of for long, or the wall clock jumped since.
    fn is_doubtful(&self, t: u64, wall: Timestamp) -> bool {
        let passed = t - self.at;
        let moved = wall.0.abs_diff(self.wall.plus(passed).0);
        passed >= CLOCK_AGE || moved > CLOCK_TOLERANCE
    }
}

/// Patience, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) probe_after: u64,
    pub(super) attempt_timeout: u64,
    pub(super) round_pause: u64,
    pub(super) longest_pause: u64,
    /// Whether nodes are told of requests whose answers nobody waits for any more.
    pub(super) withdraws: bool,
}

/// A client's deliveries.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) table: Table,
    pub(super) patience: Patience,
    herd: Herd,
    flights: Vec<Flight>,
    numbers: u64,
    /// The client's wall clock, when it last looked.
    wall: Timestamp,
    clock: Option<Clock>,
    /// What came of requests, to be taken by their owners.
    pub(super) done: Vec<(Owner, Reply)>,
    /// What is to be sent.
    pub(super) wants: Vec<Want>,
}

impl Delivery {
    pub(super) fn new(table: Table, patience: Patience, herd: Herd) -> Delivery {
        Delivery {
            table,
            patience,
            herd,
            flights: Vec::new(),
            numbers: 0,
            wall: Timestamp(0),
            clock: None,
            done: Vec::new(),
            wants: Vec::new(),
        }
    }

    /// The client's own wall clock shows `wall` at true time `t`.
    pub(super) fn look_at_clock(&mut self, t: u64, wall: Timestamp) {
        self.wall = wall;
        if self.clock.is_none() {
            self.learn_clock(t, wall);
        }
    }

    /// The cluster's time for ids, about.
    pub(super) fn now(&self, t: u64) -> Timestamp {
        self.clock.map_or(self.wall, |clock| clock.now(t))
    }

    fn learn_clock(&mut self, t: u64, told: Timestamp) {
        let wall = self.wall;
        self.clock = Some(Clock { told, at: t, wall });
    }

    /// A commit took this timestamp: the cluster's time is no less.
    fn learn_commit(&mut self, t: u64, timestamp: Timestamp) {
        let now = self.now(t);
        if timestamp.plus(CLOCK_TOLERANCE) >= now {
            self.learn_clock(t, timestamp.max(now));
        }
    }

    /// Asks for the cluster's time where the client's is in doubt, as the SDK
    /// does; whether it does.
    pub(super) fn renew_clock(&mut self, t: u64, random: &mut Random) -> bool {
        let doubtful = |clock: &Clock| clock.is_doubtful(t, self.wall);
        if !self.clock.as_ref().is_some_and(doubtful) {
            return false;
        }
        self.learn_clock(t, self.now(t));
        let outgoing = Outgoing {
            token: 0,
            shard: random.pick(&self.table.shards).id,
            after_nanos: 0,
            answered: false,
            hashing: None,
            request: Request::Locate,
        };
        self.deliver(t, Owner::Chore, outgoing, t, random);
        true
    }

    /// When something is to be done; the end of time if nothing.
    pub(super) fn due(&self) -> u64 {
        let due = self.flights.iter().map(Flight::due);
        due.min().unwrap_or(u64::MAX)
    }

    /// Whether a call or a lock-free read is under way or answered.
    pub(super) fn is_busy(&self) -> bool {
        let call = |owner: Owner| matches!(owner, Owner::Call(_) | Owner::Latest);
        self.flights.iter().any(|f| call(f.owner)) || !self.done.is_empty()
    }

    /// The transaction under way is over: nobody waits for its answers.
    pub(super) fn drop_calls(&mut self) {
        let call = |owner: Owner| matches!(owner, Owner::Call(_) | Owner::Latest);
        for flight in std::mem::take(&mut self.flights) {
            if call(flight.owner) {
                self.withdraw(&flight);
            } else {
                self.flights.push(flight);
            }
        }
        self.done.clear();
    }

    /// Nobody waits any more for what a node may have been asked.
    fn withdraw(&mut self, flight: &Flight) {
        if self.patience.withdraws && flight.number > 0 {
            self.wants.push(Want::Cancel {
                to: flight.to,
                number: flight.number,
            });
        }
    }

    /// Everything under way is forgotten.
    pub(super) fn clear(&mut self) {
        self.flights.clear();
        self.done.clear();
        self.wants.clear();
    }

    /// Somebody else is thought to lead a shard: not all clients hear of a new leader.
    pub(super) fn forget_a_leader(&mut self, random: &mut Random) {
        let index = random.range(0, self.table.shards.len() as u64) as usize;
        let shard = &mut self.table.shards[index];
        shard.leader = *random.pick(&shard.replicas);
    }

    /// Begins a delivery; what comes of it is found in `done`.
    pub(super) fn deliver(
        &mut self,
        t: u64,
        owner: Owner,
        outgoing: Outgoing,
        until: u64,
        random: &mut Random,
    ) {
        let known = self.table.shards.iter();
        let Some(shard) = { known }.position(|s| s.id == outgoing.shard) else {
            self.done.push((owner, Reply::Moved));
            return;
        };
        let until = if owner == Owner::Chore {
            let chores = self.flights.iter().filter(|f| f.owner == Owner::Chore);
            if chores.count() >= MOST_CHORES {
                return;
            }
            t + CHORE_TIMEOUT
        } else {
            until
        };
        let flight = Flight {
            number: 0,
            owner,
            shard,
            hashing: outgoing.hashing,
            request: outgoing.request,
            to: NodeId::default(),
            tour: Tour::new(self.table.shards[shard].leader),
            sent: 0,
            look_at: u64::MAX,
            parked: (0, 0),
            probe_at: 0,
            timeout_at: 0,
            until,
            maybe: false,
            term: None,
            span: self.table.span(shard).cloned(),
        };
        self.launch(t, flight, outgoing.after_nanos, random);
    }

    /// Sends a request to the next of its tour, after a pause.
    fn launch(&mut self, t: u64, mut flight: Flight, pause: u64, random: &mut Random) {
        let replicas = &self.table.shards[flight.shard].replicas;
        let (to, failed_round) = flight.tour.target(replicas);
        flight.to = to;
        if failed_round {
            flight.parked = (t, flight.tour.rounds().saturating_sub(1));
            self.park(t + pause, flight, random);
        } else {
            self.send(t, flight, pause);
        }
    }

    /// Nobody leads: a request waits, longer each time.
    fn park(&mut self, t: u64, mut flight: Flight, random: &mut Random) {
        let most = self.longest(&flight);
        flight.look_at = t + most / 2 + random.range(0, most / 2);
        if flight.look_at >= flight.until {
            return self.give_up(&flight);
        }
        flight.number = 0;
        (flight.sent, flight.probe_at, flight.timeout_at) = (u64::MAX, u64::MAX, u64::MAX);
        self.flights.push(flight);
    }

    fn longest(&self, flight: &Flight) -> u64 {
        let pause = self.patience.round_pause << flight.parked.1.min(8);
        pause.min(self.patience.longest_pause)
    }

    /// Goes to the leader that another client found, or searches for it, or waits.
    fn look(&mut self, t: u64, mut flight: Flight, random: &mut Random) {
        flight.look_at = u64::MAX;
        let interval = self.longest(&flight) / 2;
        if let Some(leader) = self
            .herd
            .found(self.table.shards[flight.shard].id, flight.parked.0)
        {
            let replicas = &self.table.shards[flight.shard].replicas;
            flight.tour.stay(replicas, leader);
            self.launch(t, flight, 0, random);
        } else if self
            .herd
            .may_search(self.table.shards[flight.shard].id, t, interval)
        {
            self.send(t, flight, 0);
        } else {
            flight.parked.1 += 1;
            self.park(t, flight, random);
        }
    }

    fn send(&mut self, t: u64, mut flight: Flight, pause: u64) {
        if t + pause >= flight.until {
            return self.give_up(&flight);
        }
        let shard = &self.table.shards[flight.shard];
        self.numbers += 1;
        flight.number = self.numbers;
        flight.sent = t + pause;
        flight.probe_at = flight.sent + self.patience.probe_after;
        flight.timeout_at = flight.sent + self.patience.attempt_timeout;
        flight.term = self.table.term(shard.id);
        self.wants.push(Want::Send {
            to: flight.to,
            number: flight.number,
            request: Box::new(ShardRequest {
                shard: shard.id,
                generation: shard.generation,
                request: flight.request.clone(),
                hashing: flight.hashing.clone().map(Box::new),
            }),
            after: pause,
        });
        self.flights.push(flight);
    }

    fn give_up(&mut self, flight: &Flight) {
        let reply = if flight.maybe {
            Reply::Lost
        } else {
            Reply::Unsent
        };
        self.tell(flight.owner, reply);
    }

    fn tell(&mut self, owner: Owner, reply: Reply) {
        if matches!(owner, Owner::Call(_) | Owner::Latest) {
            self.done.push((owner, reply));
        }
    }

    /// Time passed: what is not answered goes elsewhere.
    pub(super) fn tick(&mut self, t: u64, random: &mut Random) {
        while let Some(index) = self.flights.iter().position(|f| f.due() <= t) {
            let mut flight = self.flights.swap_remove(index);
            if flight.until <= t {
                flight.maybe |= flight.sent <= t;
                self.withdraw(&flight);
                self.give_up(&flight);
            } else if flight.look_at <= t {
                self.look(t, flight, random);
            } else if flight.timeout_at <= t {
                flight.maybe = true;
                self.withdraw(&flight);
                if flight.commits() {
                    self.tell(flight.owner, Reply::Lost);
                } else {
                    self.launch(t, flight, 0, random);
                }
            } else if flight.owner == Owner::Probe {
                flight.probe_at = u64::MAX;
                self.flights.push(flight);
            } else {
                self.silent(t, flight, random);
            }
        }
    }

    /// A leader is silent: goes to a newer one if one was found, or asks another
    /// replica whether it leads.
    fn silent(&mut self, t: u64, mut flight: Flight, random: &mut Random) {
        flight.probe_at = t + (self.patience.probe_after / PROBES).max(MS);
        let shard = &self.table.shards[flight.shard];
        let term = self.table.term(shard.id);
        let newer = term.is_some_and(|new| flight.term.is_none_or(|old| old.ballot < new.ballot));
        let leader = shard.leader;
        if newer && leader != flight.to {
            return self.turn_to(t, flight, leader, random);
        }
        let asked = |f: &Flight| f.owner == Owner::Probe && f.shard == flight.shard;
        if !self.flights.iter().any(asked) {
            self.probe(t, &flight, random);
        }
        self.flights.push(flight);
    }

    /// Asks one of the other replicas whether it leads.
    fn probe(&mut self, t: u64, silent: &Flight, random: &mut Random) {
        let replicas = &self.table.shards[silent.shard].replicas;
        let others = replicas.iter().copied().filter(|id| *id != silent.to);
        let others: Vec<NodeId> = others.collect();
        if others.is_empty() {
            return;
        }
        let until = t + 2 * self.patience.probe_after;
        let probe = Flight {
            number: 0,
            owner: Owner::Probe,
            shard: silent.shard,
            hashing: self.table.hashing(silent.shard).cloned(),
            request: Request::Locate,
            to: NodeId::default(),
            tour: Tour::new(*random.pick(&others)),
            sent: t,
            look_at: u64::MAX,
            parked: (0, 0),
            probe_at: u64::MAX,
            timeout_at: until,
            until,
            maybe: false,
            term: None,
            span: None,
        };
        self.launch(t, probe, 0, random);
    }

    /// An answer came.
    pub(super) fn answered(&mut self, t: u64, number: u64, reply: ShardReply, random: &mut Random) {
        let Some(index) = self.flights.iter().position(|f| f.number == number) else {
            return;
        };
        let mut flight = self.flights.swap_remove(index);
        let ShardReply::Response(response) = reply else {
            // The node does not have the shard, and may know who has.
            if let ShardReply::WrongNode(Some(descriptor)) = reply {
                self.table.learn_map(&[*descriptor]);
            }
            if flight.owner == Owner::Probe {
                return;
            }
            // One that was absorbed has none.
            let span = self.table.span(flight.shard);
            if span.is_some() && span == flight.span.as_ref() {
                self.launch(t, flight, 0, random);
            } else {
                self.tell(flight.owner, Reply::Moved);
            }
            return;
        };
        if let Response::Refused(Refusal::OtherSharding { hashing }) = &response {
            let shard = self.table.shards[flight.shard].id;
            self.table.routes.learn_hashing(shard, hashing.clone());
            let may_have_come = flight.maybe || !flight.commits();
            if flight.owner != Owner::Probe && may_have_come {
                return self.tell(flight.owner, Reply::Moved);
            }
        }
        match self.judge(t, &flight, &response, random) {
            Verdict::Answer if flight.owner == Owner::Probe => self.found(t, &flight, random),
            Verdict::Answer => self.tell(flight.owner, Reply::Answer(response)),
            _ if flight.owner == Owner::Probe => {}
            Verdict::Elsewhere(hint) => {
                // A leader that was deposed answers so too, and what it had
                // proposed may still be decided by its successor.
                flight.maybe |= flight.commits();
                flight.tour.hint(hint);
                self.launch(t, flight, 0, random);
            }
            Verdict::Later(pause) => {
                let replicas = &self.table.shards[flight.shard].replicas;
                flight.tour.stay(replicas, flight.to);
                self.launch(t, flight, pause, random);
            }
        }
    }

    /// A replica said that it leads: what waits for another one goes there.
    fn found(&mut self, t: u64, probe: &Flight, random: &mut Random) {
        let leader = self.table.shards[probe.shard].leader;
        if leader != probe.to {
            return;
        }
        let waits = |f: &Flight| f.shard == probe.shard && f.to != leader && f.sent <= t;
        let waits = |f: &Flight| waits(f) && f.sent + self.patience.probe_after <= t;
        let mut moved = Vec::new();
        let mut index = 0;
        while index < self.flights.len() {
            if waits(&self.flights[index]) {
                moved.push(self.flights.swap_remove(index));
            } else {
                index += 1;
            }
        }
        for flight in moved {
            self.turn_to(t, flight, leader, random);
        }
    }

    /// What a silent node was asked goes to who leads now; a Commit does not, as it may have arrived.
    fn turn_to(&mut self, t: u64, mut flight: Flight, leader: NodeId, random: &mut Random) {
        self.withdraw(&flight);
        if flight.commits() {
            return self.tell(flight.owner, Reply::Lost);
        }
        flight.maybe = true;
        let replicas = &self.table.shards[flight.shard].replicas;
        flight.tour.stay(replicas, leader);
        self.launch(t, flight, 0, random);
    }

    /// What an answer means for the search of the leader.
    fn judge(
        &mut self,
        t: u64,
        flight: &Flight,
        response: &Response,
        random: &mut Random,
    ) -> Verdict {
        let term = match response {
            Response::Refused(refusal) => match refusal {
                Refusal::NotLeader { hint } => return Verdict::Elsewhere(*hint),
                Refusal::WrongTerm {
                    last_word: false, ..
                } => return Verdict::Elsewhere(None),
                Refusal::Overloaded { retry_after_millis } => {
                    let pause = u64::from((*retry_after_millis).clamp(1, 1_000)) * MS;
                    return Verdict::Later(pause / 2 + random.range(0, pause / 2));
                }
                Refusal::Clock => return Verdict::Later(CLOCK_PAUSE),
                Refusal::WrongTerm { current, .. } => Some(*current),
                Refusal::AttemptTime { now, .. } => {
                    self.learn_clock(t, *now);
                    None
                }
                Refusal::Aborted(_)
                | Refusal::WrongShard
                | Refusal::OtherSharding { .. }
                | Refusal::Invalid(_) => None,
            },
            Response::Read { term, now, .. } | Response::Located { term, now } => {
                self.learn_clock(t, *now);
                Some(*term)
            }
            Response::Outcome {
                outcome: Outcome::Committed(timestamp),
                ..
            } => {
                self.learn_commit(t, *timestamp);
                None
            }
            _ => None,
        };
        self.table.learn(flight.shard, flight.to, term);
        let shard = self.table.shards[flight.shard].id;
        self.herd.find(shard, flight.to, t);
        Verdict::Answer
    }
}

enum Verdict {
    /// It answers the request.
    Answer,
    /// Another node leads.
    Elsewhere(Option<NodeId>),
    /// The same node, after a pause; nanoseconds.
    Later(u64),
}
