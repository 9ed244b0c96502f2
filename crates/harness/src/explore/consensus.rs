//! The consensus core alone: three replicas of one group on real [`Replica`]
//! and `NodeLease` machines.
//!
//! # What is explored
//!
//! Messages form a multiset: any of them may be delivered next, or never, and as
//! many as the budget allows a second time. Each replica's persist effects
//! complete one at a time, first in, first out; a crash loses those that have
//! not, and the replica is rebuilt from its disk at once (a node that is down is
//! one that takes no step). Campaigns, proposals, timers, crashes and repetitions
//! are bounded by a [`Budget`].
//!
//! Without leases (`times == 0`) time stands still and every armed timer is due:
//! the purely asynchronous protocol, in which any replica may campaign at any
//! moment. With leases, time advances in steps of half a lease, the support
//! machines run for real, and L1 and L4 are checked.
//!
//! # What is left out, and why that is sound
//!
//! - **The vote before a campaign.** It changes nothing durable and safety does not
//!   rest on it: a campaign step begins with one forged yes. Every phase 1 that a
//!   real vote allows is among those explored.
//! - **Support for who never leads.** Only candidates ask for it: nobody counts the rest.
//! - **Renews on the way.** A Renew arrives when it is sent: the supporter counts from
//!   then, so every delay would only lengthen what it promises. Its answer travels.
//! - **Messages nobody acts upon** are dropped when that is certain: answers under a
//!   ballot that their receiver has left for good, questions under a ballot that both
//!   sides have; without leases also what only leases heed.
//! - **Disks of followers that cannot crash any more** complete at once: all that a
//!   completion does there is to release messages, which may stay on the way anyway.
//!   Without `slow_disks`, for larger budgets, those of all followers do, and those
//!   of leaders once nobody can crash: this leaves out crashes that look to others as
//!   if a message had been lost, and leaders that decide before their own disk.
//! - Trimming, snapshots, learners and reconfiguration are not part of this.

mod node;
mod rules;

use super::hash::Digest;
use super::search::Model;
use node::{Body, Node, Packet, fresh_node, note_packets};
use rules::Past;
use std::rc::Rc;
use synod_paxos::{Cx, Message, Mono, NodeId, Replica, Role, Slot, Urgency};

/// One tick of abstract time: half a lease; nanoseconds.
const TICK: u64 = 1_000_000;
/// A candidate gives up after at most so many timeouts.
const GIVE_UP: usize = 8;

/// How much of everything may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Campaigns, over all replicas.
    pub campaigns: u8,
    /// Proposals, over all leaders.
    pub proposals: u8,
    /// Crashes, each with its restart.
    pub crashes: u8,
    /// Timers of leaders that fire (retransmissions, Decided); with leases, also
    /// those of others.
    pub timers: u8,
    /// Messages delivered and kept, so that they can be delivered again.
    pub repeats: u8,
    /// Steps of time, half a lease each. 0: no leases at all.
    pub times: u8,
    /// Renews, over all nodes.
    pub renews: u8,
    /// Whether every persist effect completes in a step of its own; see the module.
    pub slow_disks: bool,
    /// Whether entries travel one by one: syncs and Promises come in parts.
    pub parts: bool,
    /// How many of the three may campaign, and ask for support.
    pub candidates: u8,
    /// Whether answers under ballots that their receiver has left stay on the way.
    /// The machines ignore them; a machine that is broken on purpose may not.
    pub stale: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Consensus {
    /// What may happen.
    pub budget: Budget,
    /// Whether leases and time take part.
    leases: bool,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The message at this place arrives; `true`: and stays, to arrive again.
    Deliver(usize, bool),
    /// The oldest persist effect of a node completes.
    Persist(usize),
    /// A replica gives up what it does and begins phase 1.
    Campaign(usize),
    /// A leader in office proposes the next value.
    Propose(usize),
    /// A replica's timers fire.
    Timer(usize),
    /// A node crashes and restarts from its disk.
    Crash(usize),
    /// Half a lease passes everywhere.
    Time,
    /// A node asks another for support, and itself.
    Renew(usize, usize),
}

/// A global state.
#[derive(Clone)]
pub struct Cluster {
    nodes: [Rc<Node>; 3],
    /// Sorted by hash.
    net: Vec<Rc<Packet>>,
    past: Rc<Past>,
    left: Budget,
    now: Mono,
}

impl Consensus {
    /// An exploration within this budget.
    #[must_use]
    pub fn new(budget: Budget) -> Consensus {
        Consensus {
            budget,
            leases: budget.times > 0,
        }
    }

    /// Runs one input of a node, carries out what follows, checks the rules.
    fn with(
        &self,
        state: &mut Cluster,
        at: usize,
        input: impl FnOnce(&mut Node, Mono),
    ) -> Result<(), String> {
        let now = state.now;
        let node = Rc::make_mut(&mut state.nodes[at]);
        input(node, now);
        node.settle(now)?;
        if self.quiet_disk(state, at) {
            let node = Rc::make_mut(&mut state.nodes[at]);
            while !node.pending.is_empty() {
                node.complete(now);
                node.settle(now)?;
            }
        }
        let node = Rc::make_mut(&mut state.nodes[at]);
        node.rehash();
        let mut sent = std::mem::take(&mut node.sent);
        state.check_sent(&sent)?;
        sent.retain(|packet| self.leases || !packet.is_for_leases());
        note_packets(&mut state.net, sent);
        state.check(at)
    }

    /// Whether completions on this node do nothing but release messages.
    fn quiet_disk(&self, state: &Cluster, at: usize) -> bool {
        let follows = state.nodes[at].replica.role() == Role::Follower;
        let safe = state.left.crashes == 0;
        if self.budget.slow_disks {
            follows && safe
        } else {
            follows || safe
        }
    }

    fn deliver(&self, state: &mut Cluster, place: usize, keep: bool) -> Result<(), String> {
        let packet = Rc::clone(&state.net[place]);
        if keep {
            state.left.repeats -= 1;
        } else {
            state.net.remove(place);
        }
        let (from, at) = (packet.from, index(packet.to));
        match packet.body.clone() {
            Body::Paxos(message) => self.with(state, at, |node, now| {
                node.input(now, |r, cx| r.handle_message(cx, from, message));
            }),
            Body::Lease(message) => self.with(state, at, |node, now| {
                node.leases.handle_message(now, wall(now), from, message);
            }),
        }
    }

    /// Phase 1, whatever the replica did before.
    fn campaign(&self, state: &mut Cluster, at: usize) -> Result<(), String> {
        let before = state.clone();
        if state.nodes[at].replica.role() == Role::Leader {
            let ballot = state.nodes[at].replica.ballot();
            let used = state.past.used_under(ballot);
            self.with(state, at, |node, now| {
                node.input(now, |r, cx| r.relinquish(cx, used));
            })?;
        }
        let voter = NodeId((at as u64 + 1) % 3 + 1);
        let mut begun = false;
        self.with(state, at, |node, now| {
            node.give_up(now);
            node.input(now, Replica::handle_timeout);
            if node.replica.role() != Role::PreCandidate {
                return;
            }
            let Some(ballot) = node.take_question() else {
                return;
            };
            let yes = Message::PreVoteReply { ballot };
            node.input(now, |r, cx| r.handle_message(cx, voter, yes));
            begun = node.replica.role() == Role::Candidate;
        })?;
        if begun {
            state.left.campaigns -= 1;
        } else {
            *state = before;
        }
        Ok(())
    }

    fn propose(&self, state: &mut Cluster, at: usize) -> Result<(), String> {
        let number = self.budget.proposals - state.left.proposals;
        let value = format!("x{number}").as_bytes().into();
        let before = state.clone();
        let mut taken = false;
        self.with(state, at, |node, now| {
            let outcome = node.input(now, |r, cx| r.propose(cx, value, Urgency::Now));
            taken = outcome.is_ok();
        })?;
        if taken {
            before.check_office(at)?;
            state.left.proposals -= 1;
        } else {
            *state = before;
        }
        Ok(())
    }

    fn timer(&self, state: &mut Cluster, at: usize) -> Result<(), String> {
        let before = state.clone();
        let leases = self.leases;
        self.with(state, at, |node, now| node.fire(now, leases))?;
        if state.nodes[at].replica.role() == Role::PreCandidate {
            *state = before;
        } else {
            state.left.timers -= 1;
        }
        Ok(())
    }

    fn crash(&self, state: &mut Cluster, at: usize) -> Result<(), String> {
        state.left.crashes -= 1;
        let (leases, parts) = (self.leases, self.budget.parts);
        self.with(state, at, |node, now| node.restart(now, leases, parts))?;
        state.check_restart(at)
    }

    fn time(&self, state: &mut Cluster) -> Result<(), String> {
        state.left.times -= 1;
        state.now = state.now.plus(TICK);
        for at in 0..3 {
            self.with(state, at, |node, now| {
                // Only lets the machine notice what ran out.
                let healthy = node.leases.healthy();
                node.leases.set_healthy(now, healthy);
            })?;
        }
        Ok(())
    }

    /// The question arrives at once, which makes the support as short as it may be;
    /// the answer travels.
    fn renew(&self, state: &mut Cluster, at: usize, peer: usize) -> Result<(), String> {
        state.left.renews -= 1;
        self.with(state, at, |node, now| {
            node.leases.handle_timeout(now, wall(now));
        })?;
        let asked = |p: &Rc<Packet>| p.is_renew();
        let to = |p: &Rc<Packet>| asked(p) && index(p.to) == peer;
        let question = state.net.iter().find(|p| to(p)).cloned();
        state.net.retain(|p| !asked(p));
        match question.as_deref().map(|p| (p.from, p.body.clone())) {
            Some((from, Body::Lease(message))) => self.with(state, peer, |node, now| {
                node.leases.handle_message(now, wall(now), from, message);
            }),
            _ => Ok(()),
        }
    }

    /// Drops messages that no order of later steps makes anybody heed.
    fn prune(&self, state: &mut Cluster) {
        let Cluster {
            nodes, net, left, ..
        } = state;
        net.retain(|packet| {
            let Body::Paxos(message) = &packet.body else {
                return true;
            };
            let (from, to) = (&nodes[index(packet.from)], &nodes[index(packet.to)]);
            match message {
                _ if self.budget.stale => true,
                Message::Promise { ballot, .. }
                | Message::Accepted { ballot, .. }
                | Message::Nack { ballot, .. } => !to.has_left(*ballot),
                Message::Accept { ballot, .. } => {
                    !(from.has_left(*ballot) && to.disk.durable.promised > *ballot)
                }
                Message::Prepare { ballot, .. } => {
                    self.leases || !(from.has_left(*ballot) && to.disk.durable.promised >= *ballot)
                }
                Message::Decided { ballot, slot } => {
                    let known = to.replica.accepted() == *ballot && to.replica.decided() >= *slot;
                    to.disk.durable.accepted <= *ballot && !(known && left.crashes == 0)
                }
                _ => true,
            }
        });
    }
}

impl Model for Consensus {
    type State = Cluster;
    type Step = Step;

    fn start(&self) -> Cluster {
        let (leases, parts) = (self.leases, self.budget.parts);
        let node = |id| Rc::new(fresh_node(NodeId(id), leases, parts));
        Cluster {
            nodes: [node(1), node(2), node(3)],
            net: Vec::new(),
            past: Rc::new(Past::default()),
            left: self.budget,
            now: Mono(0),
        }
    }

    fn steps(&self, state: &Cluster) -> Vec<Step> {
        let mut steps = Vec::new();
        let left = &state.left;
        for place in 0..state.net.len() {
            if place > 0 && state.net[place].hash == state.net[place - 1].hash {
                continue;
            }
            steps.push(Step::Deliver(place, false));
            if left.repeats > 0 {
                steps.push(Step::Deliver(place, true));
            }
        }
        for (at, node) in state.nodes.iter().enumerate() {
            let role = node.replica.role();
            if !node.pending.is_empty() {
                steps.push(Step::Persist(at));
            }
            if left.campaigns > 0 && at < usize::from(left.candidates) {
                steps.push(Step::Campaign(at));
            }
            if left.proposals > 0 && role == Role::Leader {
                steps.push(Step::Propose(at));
            }
            if left.timers > 0 && (role == Role::Leader || self.leases) {
                steps.push(Step::Timer(at));
            }
            if left.crashes > 0 {
                steps.push(Step::Crash(at));
            }
            let candidate = at < usize::from(left.candidates);
            if left.renews > 0 && self.leases && candidate && node.may_renew(state.now) {
                let peers = (0..3).filter(|peer| *peer != at);
                steps.extend(peers.map(|peer| Step::Renew(at, peer)));
            }
        }
        if left.times > 0 {
            steps.push(Step::Time);
        }
        steps
    }

    fn take(&self, state: &mut Cluster, step: &Step) -> Result<(), String> {
        match *step {
            Step::Deliver(place, keep) => self.deliver(state, place, keep)?,
            Step::Persist(at) => self.with(state, at, Node::complete)?,
            Step::Campaign(at) => self.campaign(state, at)?,
            Step::Propose(at) => self.propose(state, at)?,
            Step::Timer(at) => self.timer(state, at)?,
            Step::Crash(at) => self.crash(state, at)?,
            Step::Time => self.time(state)?,
            Step::Renew(at, peer) => self.renew(state, at, peer)?,
        }
        self.prune(state);
        Ok(())
    }

    fn inspect(&self, state: &Cluster) -> Result<(), String> {
        state.check_lease()
    }

    fn fingerprint(&self, state: &Cluster) -> u128 {
        let mut digest = Digest::default();
        for node in &state.nodes {
            digest.add(node.hash);
        }
        for packet in &state.net {
            digest.add(packet.hash);
        }
        digest.add(state.past.hash());
        let left = &state.left;
        digest.add_bytes(&[
            left.campaigns,
            left.proposals,
            left.crashes,
            left.timers,
            left.repeats,
            left.times,
            left.renews,
        ]);
        digest.end()
    }

    fn describe(&self, before: &Cluster, step: &Step) -> String {
        match *step {
            Step::Deliver(place, keep) => {
                let again = if keep { " (and may arrive again)" } else { "" };
                format!("{}{again}", before.net[place])
            }
            Step::Persist(at) => match before.nodes[at].pending.front() {
                Some(pending) => format!("n{} has on disk:{pending}", at + 1),
                None => format!("n{} has nothing to persist", at + 1),
            },
            Step::Campaign(at) => format!("n{} campaigns", at + 1),
            Step::Propose(at) => format!("n{} proposes", at + 1),
            Step::Timer(at) => format!("n{}'s timers fire", at + 1),
            Step::Crash(at) => format!("n{} crashes and restarts", at + 1),
            Step::Time => "half a lease passes".to_owned(),
            Step::Renew(at, peer) => format!("n{} asks n{} for support", at + 1, peer + 1),
        }
    }

    fn show(&self, state: &Cluster) -> String {
        let nodes = state.nodes.iter().map(|n| format!("  {n}\n"));
        let net = state.net.iter().map(|p| format!("  on the way: {p}\n"));
        nodes.chain(net).collect()
    }
}

impl Cluster {
    fn cx(&self, at: usize) -> Cx<'_> {
        Cx {
            now: self.now,
            leases: &self.nodes[at].leases,
        }
    }

    fn majority_holds(&self, slot: Slot, entry: &synod_paxos::Entry) -> usize {
        let holds = |n: &&Rc<Node>| n.disk.durable.entry(slot) == Some(entry);
        self.nodes.iter().filter(holds).count()
    }
}

fn index(node: NodeId) -> usize {
    (node.0 as usize).saturating_sub(1).min(2)
}

/// The wall clock, the same everywhere.
fn wall(now: Mono) -> (synod_paxos::Timestamp, synod_paxos::Timestamp) {
    let at = synod_paxos::Timestamp(1_000_000_000 + now.0);
    (at, at)
}
