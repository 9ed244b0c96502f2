//! Three nodes by hand; L1 where an elector's replica is retired while another one leads the
//! group.

use super::*;
use synod_paxos::Record;

/// Nodes 1 to 3, by index.
pub(super) struct Trio {
    rules: Rules,
    pub(super) workers: Vec<Worker>,
    now: Now,
}

/// As `map`, where `B` has absorbed `A`.
fn merged() -> ShardMap {
    let mut merged = map();
    let absorbed = merged.shards.remove(0);
    merged.shards[0].span.start = absorbed.span.start;
    merged.shards[0].generation = 2;
    merged
}

pub(super) fn leads() -> Ballot {
    Ballot {
        priority: 1,
        ..ballot(1, 1)
    }
}

/// A worker whose replica of `A` has accepted an entry under this ballot, if any.
fn worker(id: u64, map: &ShardMap, under: Option<Ballot>, now: Now) -> Worker {
    let recovered = |descriptor: &ShardDescriptor| {
        let mut durable = Durable::new(descriptor.configuration.clone());
        if let Some(ballot) = under.filter(|_| descriptor.id == A) {
            durable.replay(Record::Accept {
                ballot,
                first: Slot(1),
                entries: vec![synod_paxos::Entry::TermStart(Box::new(
                    synod_paxos::TermStart {
                        ballot,
                        term: ballot,
                        floor: Timestamp(0),
                    },
                ))],
                decided: Slot(0),
                sync: Some((Slot(1), Slot(1))),
            });
        }
        Recovered {
            descriptor: descriptor.clone(),
            durable,
            checkpoint: None,
            engine_applied: Slot(0),
            begins_empty: true,
            is_new: false,
        }
    };
    // All have replicas of both, whatever the map says.
    let shards = self::map().shards.iter().map(recovered).collect();
    let setup = Setup {
        me: NodeId(id),
        incarnation: Incarnation(1),
        map: map.clone(),
        nodes: Vec::new(),
        versions: Versions::of(ClusterVersion::NEWEST),
        leases: Vec::new(),
        shards,
        paxos: synod_paxos::Settings::default(),
        lease: LeaseSettings::default(),
        txn: GroupSettings::default(),
        seed: 1,
    };
    Worker::new(setup, now)
}

impl Trio {
    /// Node 1 leads `A` with node 2's vote. Node 2 knows that `B` has absorbed it, and only it
    /// does; its replica has accepted under this ballot.
    fn new(under: Option<Ballot>) -> Trio {
        let maps = [map(), merged(), map()];
        let mut trio = Trio::of(Box::new(crate::rules::l1::L1::default()), &maps, under);
        trio.elects(0, leads(), 2, promise(leads()));
        trio
    }

    /// They go by these maps, and node 2's replica of `A` has accepted under this ballot.
    pub(super) fn of(rule: Box<dyn Rule>, maps: &[ShardMap; 3], under: Option<Ballot>) -> Trio {
        let now = at(SECOND, 100 * SECOND);
        let workers = vec![
            worker(1, &maps[0], None, now),
            worker(2, &maps[1], under, now),
            worker(3, &maps[2], None, now),
        ];
        let mut trio = Trio {
            rules: Rules::of(setting(), vec![rule]),
            workers,
            now,
        };
        (0..3).for_each(|node| trio.show(node, true));
        (0..3).for_each(|node| trio.step(node));
        trio
    }

    /// The node campaigns for `A`, and leads under this ballot with that voter's promise.
    pub(super) fn elects(&mut self, node: usize, ballot: Ballot, voter: u64, promise: NodeMessage) {
        self.pass(2 * setting().election_nanos);
        self.hears(node, Input::Tick);
        self.hears_peer(node, voter, group(Message::PreVoteReply { ballot }));
        self.hears_peer(node, voter, promise);
        let led = self.workers[node].shard(A);
        assert_eq!(led.map(|s| s.replica().term_ballot()), Some(Some(ballot)));
    }

    pub(super) fn pass(&mut self, nanos: u64) {
        let (mono, wall) = (self.now.mono.0, self.now.clock.latest.0);
        self.now = at(mono + nanos, wall + nanos);
    }

    fn takes(&mut self, node: usize, input: Input) {
        let id = NodeId(node as u64 + 1);
        self.rules.taken(node, id, self.now, &input);
        self.workers[node].handle(self.now, input);
    }

    fn hears(&mut self, node: usize, input: Input) {
        self.takes(node, input);
        self.step(node);
    }

    pub(super) fn hears_peer(&mut self, node: usize, from: u64, message: NodeMessage) {
        let from = NodeId(from);
        self.hears(node, Input::Peer { from, message });
    }

    /// The node hears all of these in one step.
    pub(super) fn hears_at_once(&mut self, node: usize, heard: Vec<(u64, NodeMessage)>) {
        for (from, message) in heard {
            let from = NodeId(from);
            self.takes(node, Input::Peer { from, message });
        }
        self.step(node);
    }

    /// The rules broken since this was last asked.
    pub(super) fn found(&mut self) -> Vec<&'static str> {
        let found = self.rules.take_violations();
        found.into_iter().map(|violation| violation.rule).collect()
    }

    /// Ends the node's step, syncs its log at once, and shows it to the rules.
    fn step(&mut self, node: usize) {
        while let Some(batch) = self.workers[node].finish(self.now).log {
            let ticket = batch.ticket;
            self.workers[node].handle(self.now, Input::Logged { ticket });
        }
        self.show(node, false);
    }

    fn show(&mut self, node: usize, restarted: bool) {
        let t = self.now.mono.0;
        let peer = |(index, worker)| Peer {
            id: NodeId(index as u64 + 1),
            worker: Some(worker),
            now: self.now,
            life: 0,
        };
        let nodes: Vec<Peer<'_>> = self.workers.iter().enumerate().map(peer).collect();
        let everyone = Everyone { t, nodes: &nodes };
        let look = Look {
            t,
            node,
            id: nodes[node].id,
            life: 0,
            now: self.now,
            worker: &self.workers[node],
            step: Step::default(),
            died: false,
            engine: None,
        };
        if restarted {
            self.rules.restarted(&look, &everyone);
        } else {
            self.rules.step(&look, &everyone);
        }
    }

    /// Node 2 supports node 1 from now on.
    fn supports(&mut self) {
        let wall = self.now.clock.latest;
        let renew = LeaseMessage::Renew {
            holder: Incarnation(1),
            supporter: Incarnation(1),
            sent: self.now.mono,
            lease_nanos: setting().lease.lease_nanos,
            want: wall,
            earliest: wall,
            latest: wall,
        };
        self.hears_peer(1, 1, NodeMessage::Lease(renew));
    }

    /// Node 2 is told that nobody needs `A` any more.
    fn retires(&mut self) {
        self.hears_peer(1, 1, NodeMessage::Retired(A));
        self.hears(1, Input::Destroyed { group: A });
        let shard = self.workers[1].shard(A);
        assert!(shard.is_some_and(synod_shard::Shard::is_emptied));
    }

    /// What node 2 is believed to have said reaches node 1: that it supports it, and has accepted. So
    /// node 1 holds the lease. The rules that this breaks.
    fn holds(&mut self) -> Vec<&'static str> {
        let lease = setting().lease.lease_nanos;
        let support = support_of(self.now.mono, lease, self.now.clock.latest);
        self.hears_peer(0, 2, support);
        let accepted = Message::Accepted {
            ballot: leads(),
            last: Slot(1),
            support: SupportEpoch {
                supporter: Incarnation(1),
                holder: Incarnation(1),
                counter: 1,
            },
            round: Round(0),
            data: true,
        };
        self.hears_peer(0, 2, group(accepted));
        let cx = synod_paxos::Cx {
            now: self.now.mono,
            leases: self.workers[0].leases(),
        };
        let shard = self.workers[0].shard(A);
        let lease = shard.and_then(|shard| shard.replica().lease(&cx));
        assert!(lease.is_some(), "node 1 believes it");
        self.found()
    }
}

#[test]
fn l1_who_was_retired_still_counts_by_what_it_had_accepted() {
    // The news that it has accepted reaches the leader only afterwards.
    let mut trio = Trio::new(Some(leads()));
    trio.supports();
    trio.retires();
    assert_eq!(trio.holds(), [""; 0]);
}

#[test]
fn l1_who_was_retired_does_not_count_for_what_it_never_accepted() {
    for under in [None, Some(ballot(1, 3))] {
        let mut trio = Trio::new(under);
        trio.supports();
        trio.retires();
        assert_eq!(trio.holds(), ["L1"], "accepted under {under:?}");
    }
}

#[test]
fn l1_who_was_retired_does_not_count_without_support() {
    let mut trio = Trio::new(Some(leads()));
    trio.retires();
    assert_eq!(trio.holds(), ["L1"]);
}

#[test]
fn l1_who_was_left_out_does_not_count() {
    let mut trio = Trio::new(Some(leads()));
    trio.supports();
    let configuration = Configuration {
        epoch: Epoch(2),
        ..Configuration::of_voters(vec![NodeId(1), NodeId(3)])
    };
    for from in [1, 3] {
        let began = Box::new(synod_paxos::Began {
            configuration: configuration.clone(),
            after: Slot(2),
            left: vec![NodeId(2)],
        });
        trio.hears_peer(1, from, group(Message::Held { began, holds: true }));
    }
    trio.hears(1, Input::Destroyed { group: A });
    let shard = trio.workers[1].shard(A);
    assert!(shard.is_some_and(synod_shard::Shard::is_emptied));
    assert_eq!(trio.holds(), ["L1"]);
}
