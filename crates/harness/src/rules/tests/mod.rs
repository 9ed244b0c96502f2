//! Violations made by hand: each rule that can be shown one without a cluster is.

mod believed;
mod retired;
mod stories;

use crate::rules::{Event, Everyone, Fresh, How, Ledger, Look, Peer, Rule, Rules, Setting, Step};
use bytes::Bytes;
use synod_paxos::lease::{LeaseMessage, LeaseSettings};
use synod_paxos::{
    Ballot, ClusterVersion, Configuration, Durable, Epoch, GroupId, Incarnation, Message, Mono,
    NodeId, Round, Slot, SupportEpoch, Term, Timestamp,
};
use synod_shard::{
    Input, NodeDescriptor, NodeMessage, Now, Recovered, Setup, ShardDescriptor, ShardMap,
    ShardReply, ShardRequest, Versions, Worker,
};
use synod_txn::command::{Intent, Split};
use synod_txn::{
    AbortReason, AttemptId, Caller, Command, GroupSettings, Interval, Outcome, Participant,
    Priority, Request, Response, Span, Version, Write,
};

const A: GroupId = GroupId(2);
const B: GroupId = GroupId(3);
const X: AttemptId = AttemptId(7 << 80);
const SECOND: u64 = 1_000_000_000;
const MS: u64 = SECOND / 1_000;

fn map() -> ShardMap {
    let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let shard = |id, start: &'static [u8], end: &'static [u8]| ShardDescriptor {
        id,
        span: Span {
            start: Bytes::from_static(start),
            end: Bytes::from_static(end),
        },
        generation: 1,
        configuration: Configuration::of_voters(nodes.clone()),
        preferred_leader: NodeId(1),
        born: None,
    };
    ShardMap {
        nodes: nodes
            .iter()
            .map(|id| NodeDescriptor {
                id: *id,
                name: String::new(),
                address: std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
                locality: String::new(),
            })
            .collect(),
        shards: vec![shard(A, b"", b"m"), shard(B, b"m", b"")],
    }
}

fn setting() -> Setting {
    Setting {
        map: map(),
        nodes: 3,
        lease: LeaseSettings::default(),
        txn: GroupSettings::default(),
        election_nanos: synod_paxos::Settings::default().election_nanos,
        fast: 50,
        version: ClusterVersion::NEWEST,
        full_every: 0,
    }
}

fn ballot(round: u64, node: u64) -> Ballot {
    Ballot {
        epoch: Epoch(1),
        round,
        priority: 0,
        node: NodeId(node),
    }
}

fn at(mono: u64, wall: u64) -> Now {
    let wall = Timestamp(wall);
    Now {
        mono: Mono(mono),
        clock: Interval {
            earliest: wall,
            latest: wall,
        },
    }
}

/// Node 1, and all rules.
struct Lab {
    rules: Rules,
    worker: Worker,
    now: Now,
}

impl Lab {
    fn new(incarnation: u64) -> Lab {
        let map = map();
        let now = at(SECOND, 100 * SECOND);
        let recovered = |descriptor: &ShardDescriptor| Recovered {
            descriptor: descriptor.clone(),
            durable: Durable::new(descriptor.configuration.clone()),
            checkpoint: None,
            engine_applied: Slot(0),
            begins_empty: true,
            is_new: false,
        };
        let setup = Setup {
            me: NodeId(1),
            incarnation: Incarnation(incarnation),
            map: map.clone(),
            nodes: Vec::new(),
            versions: Versions::of(ClusterVersion::NEWEST),
            leases: Vec::new(),
            shards: map.shards.iter().map(recovered).collect(),
            paxos: synod_paxos::Settings::default(),
            lease: LeaseSettings::default(),
            txn: GroupSettings::default(),
            seed: 1,
        };
        let worker = Worker::new(setup, now);
        let mut lab = Lab {
            rules: Rules::new(setting()),
            worker,
            now,
        };
        lab.show(&[], &[], true);
        lab
    }

    fn show(
        &mut self,
        sent: &[(NodeId, Vec<NodeMessage>)],
        replies: &[(Caller, ShardReply)],
        restarted: bool,
    ) {
        let peer = |id, worker| Peer {
            id: NodeId(id),
            worker,
            now: self.now,
            life: 0,
        };
        let nodes = [peer(1, Some(&self.worker)), peer(2, None), peer(3, None)];
        let everyone = Everyone {
            t: self.now.mono.0,
            nodes: &nodes,
        };
        let look = Look {
            t: self.now.mono.0,
            node: 0,
            id: NodeId(1),
            life: 0,
            now: self.now,
            worker: &self.worker,
            step: Step { sent, replies },
            died: false,
            engine: None,
        };
        if restarted {
            self.rules.restarted(&look, &everyone);
        } else {
            self.rules.step(&look, &everyone);
        }
    }

    /// A step that sends these to node 2; the rules it breaks.
    fn sends(&mut self, messages: Vec<NodeMessage>) -> Vec<&'static str> {
        self.show(&[(NodeId(2), messages)], &[], false);
        self.found()
    }

    /// Node 1 is asked and answers in the same step; the rules it breaks.
    fn answers(&mut self, request: Request, response: Response) -> Vec<&'static str> {
        let caller = Caller {
            connection: 1,
            request: 1,
        };
        let request = ShardRequest {
            shard: A,
            generation: 1,
            request,
            hashing: None,
        };
        let input = Input::Client { caller, request };
        self.rules.taken(0, NodeId(1), self.now, &input);
        self.show(&[], &[(caller, ShardReply::Response(response))], false);
        self.found()
    }

    fn pass(&mut self, nanos: u64) {
        let (mono, wall) = (self.now.mono.0, self.now.clock.latest.0);
        self.now = at(mono + nanos, wall + nanos);
    }

    fn hears(&mut self, from: u64, message: NodeMessage) {
        let from = NodeId(from);
        self.worker.handle(self.now, Input::Peer { from, message });
    }

    /// Ends the worker's step; its log is synced at once.
    fn finish(&mut self) {
        while let Some(batch) = self.worker.finish(self.now).log {
            let ticket = batch.ticket;
            self.worker.handle(self.now, Input::Logged { ticket });
        }
    }

    /// Node 1 leads group `A` with node 2's vote.
    fn lead(&mut self) {
        let ballot = Ballot {
            priority: 1,
            ..ballot(1, 1)
        };
        self.finish();
        self.pass(2 * setting().election_nanos);
        self.worker.handle(self.now, Input::Tick);
        self.finish();
        self.hears(2, group(Message::PreVoteReply { ballot }));
        self.finish();
        self.hears(2, promise(ballot));
        self.finish();
        let led = self.worker.shard(A).map(|s| s.replica().term_ballot());
        assert_eq!(led, Some(Some(ballot)));
    }

    fn found(&mut self) -> Vec<&'static str> {
        let found = self.rules.take_violations();
        found.into_iter().map(|violation| violation.rule).collect()
    }
}

fn group(message: Message) -> NodeMessage {
    NodeMessage::Group { group: A, message }
}

fn promise(ballot: Ballot) -> NodeMessage {
    group(Message::Promise {
        ballot,
        accepted: Ballot::default(),
        last: Slot(0),
        decided: Slot(0),
        limit: Timestamp(0),
        first: Slot(1),
        entries: Vec::new(),
        more: false,
    })
}

fn accepted(ballot: Ballot) -> NodeMessage {
    group(Message::Accepted {
        ballot,
        last: Slot(1),
        support: SupportEpoch::NONE,
        round: Round(0),
        data: true,
    })
}

fn support(limit: Timestamp) -> NodeMessage {
    NodeMessage::Lease(LeaseMessage::Support {
        holder: Incarnation(1),
        sent: Mono(1),
        epoch: SupportEpoch::NONE,
        lease_nanos: SECOND,
        limit,
        earliest: Timestamp(0),
        latest: Timestamp(0),
    })
}

/// What a node that supports node 1 answers to what was sent then.
fn support_of(sent: Mono, lease_nanos: u64, wall: Timestamp) -> NodeMessage {
    NodeMessage::Lease(LeaseMessage::Support {
        holder: Incarnation(1),
        sent,
        epoch: SupportEpoch {
            supporter: Incarnation(1),
            holder: Incarnation(1),
            counter: 1,
        },
        lease_nanos,
        limit: Timestamp(0),
        earliest: wall,
        latest: wall,
    })
}

fn renew() -> NodeMessage {
    NodeMessage::Lease(LeaseMessage::Renew {
        holder: Incarnation(1),
        supporter: Incarnation(1),
        sent: Mono(1),
        lease_nanos: SECOND,
        want: Timestamp(0),
        earliest: Timestamp(0),
        latest: Timestamp(0),
    })
}

#[test]
fn p1_accepting_below_a_promise() {
    let mut lab = Lab::new(1);
    assert_eq!(lab.sends(vec![promise(ballot(2, 2))]), [""; 0]);
    assert_eq!(lab.sends(vec![accepted(ballot(1, 3))]), ["P1"]);
}

#[test]
fn p1_and_l4_what_was_said_is_gone_after_a_restart() {
    let mut lab = Lab::new(1);
    assert_eq!(lab.sends(vec![promise(ballot(2, 2))]), [""; 0]);
    assert_eq!(lab.sends(vec![support(Timestamp(100 * SECOND))]), [""; 0]);
    lab.rules.crashed(0);
    lab.show(&[], &[], true);
    // The incarnation is the same as well.
    assert_eq!(lab.found(), ["P1", "L2", "L4"]);
}

#[test]
fn l3_going_on_after_relinquish() {
    let mut lab = Lab::new(1);
    let (ballot, used) = (ballot(1, 1), None);
    let given_up = group(Message::Relinquish { ballot, used });
    assert_eq!(lab.sends(vec![given_up]), [""; 0]);
    let slot = Slot(1);
    let decided = group(Message::Decided { ballot, slot });
    assert_eq!(lab.sends(vec![decided]), ["L3"]);
}

#[test]
fn l3_refusing_for_nobody() {
    let reason = synod_paxos::NackReason::Supports(ballot(1, 3));
    let ballot = ballot(2, 2);
    let refused = group(Message::Nack { ballot, reason });
    assert_eq!(Lab::new(1).sends(vec![refused]), ["L3"]);
}

#[test]
fn l4_granting_what_no_clock_allows() {
    let mut lab = Lab::new(1);
    assert_eq!(lab.sends(vec![support(Timestamp(101 * SECOND))]), [""; 0]);
    assert_eq!(lab.sends(vec![support(Timestamp(102 * SECOND))]), ["L4"]);
}

#[test]
fn l5_promising_right_after_a_restart() {
    assert_eq!(Lab::new(2).sends(vec![promise(ballot(2, 2))]), ["L5"]);
}

#[test]
fn l6_and_k2_asking_for_support_when_one_may_not() {
    let mut lab = Lab::new(1);
    let stalls = Input::DiskHealth { healthy: false };
    lab.rules.taken(0, NodeId(1), lab.now, &stalls);
    assert_eq!(lab.sends(Vec::new()), [""; 0]);
    assert_eq!(lab.sends(vec![renew()]), ["L6"]);

    let mut lab = Lab::new(1);
    lab.now = at(2 * SECOND, 500 * SECOND);
    lab.worker.handle(lab.now, Input::Tick);
    assert_eq!(lab.sends(Vec::new()), [""; 0]);
    assert_eq!(lab.sends(vec![renew()]), ["K2"]);
}

/// The worker is never told the time here, so it leads without support for as long
/// as the test goes on.
#[test]
fn l6_leading_on_without_support() {
    let setting = setting();
    let (wait, lease) = (setting.election_nanos, setting.lease.lease_nanos);
    let mut lab = Lab::new(1);
    lab.lead();
    // For two lease times nobody supports it at any look that is due, but between
    // two of them a majority does for a moment: each time its wait begins anew.
    for look in 1..=20 {
        lab.pass(wait);
        assert_eq!(lab.sends(Vec::new()), [""; 0], "at look {look}");
        if look % 10 == 0 {
            lab.pass(wait / 3);
            let sent = Mono(lab.now.mono.0 - lease + 10 * MS);
            for from in [2, 3] {
                lab.hears(from, support_of(sent, lease, lab.now.clock.latest));
            }
            assert_eq!(lab.sends(Vec::new()), [""; 0]);
        }
    }
    // Then nobody does.
    lab.pass(wait);
    let alone = lab.now.mono;
    while lab.sends(Vec::new()).is_empty() {
        assert!(lab.now.mono.since(alone) <= 16 * wait);
        lab.pass(wait / 4);
    }
    assert_eq!(lab.now.mono.since(alone), 16 * wait + wait / 4);
}

#[test]
fn k2_a_jump_that_goes_unnoticed() {
    let mut lab = Lab::new(1);
    assert_eq!(lab.sends(Vec::new()), [""; 0]);
    lab.now = at(2 * SECOND, 500 * SECOND);
    assert_eq!(lab.sends(Vec::new()), [""; 0]);
    lab.now = at(5 * SECOND, 503 * SECOND);
    assert_eq!(lab.sends(Vec::new()), [""; 0], "it did nothing");
    assert_eq!(lab.sends(vec![renew()]), ["K2"]);
}

#[test]
fn p6_and_t2_answering_out_of_office() {
    let status = Request::Status {
        attempt: X,
        anchor: Bytes::from_static(b"a"),
        term: Term::default(),
    };
    let outcome = Outcome::Committed(Timestamp(5));
    let answer = Response::Outcome { outcome, syncs: 0 };
    assert_eq!(Lab::new(1).answers(status, answer), ["T2", "P6"]);
}

#[test]
fn a_suspended_rule_says_nothing() {
    let mut lab = Lab::new(2);
    assert!(lab.rules.suspend("L5"));
    assert!(!lab.rules.suspend("L7"));
    assert_eq!(lab.sends(vec![promise(ballot(2, 2))]), [""; 0]);
}

#[test]
fn t10_a_message_to_who_does_not_own_its_anchor() {
    let message = NodeMessage::Transaction {
        shard: B,
        hops: 1,
        message: synod_txn::PeerMessage {
            attempt: X,
            anchor: Bytes::from_static(b"a"),
            from: Bytes::from_static(b"z"),
            body: synod_txn::peer::PeerBody::Moved,
        },
    };
    assert_eq!(Lab::new(1).sends(vec![message]), ["T10"]);
}
