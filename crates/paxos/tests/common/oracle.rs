//! What must hold across replicas, checked after every step. It sees everything.

use super::Node;
use std::collections::BTreeMap;
use synod_paxos::{
    Ballot, Configuration, Cx, Durable, Entry, Ignored, Message, NodeId, Replica, Role, Round,
    Slot, Timestamp,
};

/// What the whole cluster has done so far.
pub struct Oracle {
    /// Every configuration, by the slot after which it begins.
    configurations: BTreeMap<Slot, Configuration>,
    /// The value of every decided slot, and who said so first.
    decided: BTreeMap<Slot, (Entry, NodeId)>,
    checked: BTreeMap<NodeId, Slot>,
    /// The era of the last survivor that went on alone.
    era: u32,
    promised: BTreeMap<NodeId, Ballot>,
    /// The highest Promise and Accepted that left each node.
    sent_promise: BTreeMap<NodeId, Ballot>,
    sent_accepted: BTreeMap<NodeId, (Ballot, Slot)>,
    /// The highest timestamp used under each ballot.
    pub used: BTreeMap<Ballot, Timestamp>,
    /// Floors of decided TermStarts; each stands on those before it in the log.
    floors: BTreeMap<Ballot, Timestamp>,
    /// The highest ballot with a decided TermStart when a round was asked for.
    rounds: BTreeMap<(NodeId, Round), (Ballot, Ballot)>,
    /// How often each leader's ballot took part, and other marks of coverage.
    pub marks: BTreeMap<&'static str, u64>,
}

impl Oracle {
    pub fn new(configuration: &Configuration) -> Oracle {
        Oracle {
            configurations: BTreeMap::from([(Slot(0), configuration.clone())]),
            decided: BTreeMap::new(),
            checked: BTreeMap::new(),
            era: 0,
            promised: BTreeMap::new(),
            sent_promise: BTreeMap::new(),
            sent_accepted: BTreeMap::new(),
            used: BTreeMap::new(),
            floors: BTreeMap::new(),
            rounds: BTreeMap::new(),
            marks: BTreeMap::new(),
        }
    }

    pub fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    pub fn decided_through(&self) -> Slot {
        self.decided.keys().next_back().copied().unwrap_or_default()
    }

    pub fn value(&self, slot: Slot) -> Option<&Entry> {
        self.decided.get(&slot).map(|(entry, _)| entry)
    }

    /// The configuration that the last decided stop-sign names.
    pub fn latest(&self) -> &Configuration {
        let (_, latest) = self.configurations.last_key_value().expect("the first");
        latest
    }

    /// A message leaves a node: what it says must survive the node's crash.
    pub fn sent(&mut self, disk: &Durable, from: NodeId, to: NodeId, message: &Message) {
        assert_ne!(from, to, "nobody sends to itself");
        if let Message::Promise { ballot, .. } | Message::Accepted { ballot, .. } = message {
            assert!(
                disk.configuration.epoch >= ballot.epoch && disk.decided >= disk.began,
                "G1: {from} takes part in {} and holds the state before {} only",
                ballot.epoch,
                disk.configuration.epoch
            );
        }
        match message {
            Message::Promise { ballot, more, .. } => {
                let sent = self.sent_promise.entry(from).or_default();
                *sent = (*sent).max(*ballot);
                if *more {
                    self.mark("promise in parts");
                }
            }
            Message::Accepted { ballot, last, .. } => {
                let sent = self.sent_accepted.entry(from).or_default();
                *sent = (*sent).max((*ballot, *last));
            }
            Message::Settled { .. } => self.mark("settled"),
            Message::Held { holds: true, .. } => self.mark("held"),
            Message::Relinquish { .. } => self.mark("relinquish"),
            Message::Contested { .. } => self.mark("contested"),
            Message::SnapshotAck {
                installed: true, ..
            } => self.mark("snapshot installed"),
            Message::Accept {
                sync: Some((_, end)),
                first,
                entries,
                ..
            } if first.0 + (entries.len() as u64) <= end.0 => {
                self.mark("sync in parts");
            }
            _ => {}
        }
    }

    /// P1, P4: what left a node before the crash is still there.
    pub fn restarted(&mut self, replica: &Replica) {
        let me = replica.me();
        let promise = self.sent_promise.get(&me).copied().unwrap_or_default();
        assert!(
            replica.ballot() >= promise,
            "P1: {me} forgot its promise {promise}"
        );
        let (ballot, last) = self.sent_accepted.get(&me).copied().unwrap_or_default();
        assert!(
            (replica.accepted(), replica.last()) >= (ballot, last),
            "P4: {me} forgot what it accepted: {ballot}/{last}, has {}/{}",
            replica.accepted(),
            replica.last()
        );
        self.checked.insert(me, Slot(0));
        self.promised.insert(me, replica.ballot());
    }

    /// G3: a node deletes its data. Of some configuration that it is not part of, a
    /// majority's number of voters hold the state, durably.
    pub fn destroyed(&mut self, nodes: &BTreeMap<NodeId, Node>, id: NodeId) {
        self.mark("destroyed");
        let holds = |node: &NodeId, after: Slot| {
            let disk = &nodes[node].disk;
            disk.durable.began >= after && disk.durable.decided >= after && !disk.engine_lost
        };
        let fit = self.configurations.iter().any(|(after, configuration)| {
            let holders = configuration.voters.iter().filter(|n| holds(n, *after));
            !configuration.is_member(id) && holders.count() >= configuration.majority()
        });
        assert!(fit, "G3: {id} goes although too few hold the state");
        self.sent_accepted.remove(&id);
        self.checked.insert(id, Slot(0));
    }

    /// A survivor goes on alone, beyond what the protocol promises: its log is the group's
    /// from now on, and what others hold of an earlier era counts for nothing.
    pub fn recovers(&mut self, replica: &Replica) {
        self.mark("recovered");
        self.decided.retain(|slot, _| *slot <= replica.trimmed());
        self.configurations
            .retain(|slot, _| *slot <= replica.trimmed());
        for (slot, entry) in replica.entries_from(Slot(0)) {
            if let Entry::StopSign(stop) = entry {
                self.configurations.insert(slot, stop.successor.clone());
                let founding = Ballot::founding(stop.successor.epoch);
                self.floors.insert(founding, stop.limit);
                self.era = stop.successor.epoch.era();
            }
            self.decided.insert(slot, (entry.clone(), replica.me()));
        }
    }

    /// A leader asks for a confirming round.
    pub fn asked(&mut self, replica: &Replica, round: Round) {
        let highest = self.floors.keys().next_back().copied().unwrap_or_default();
        let ballot = replica.term_ballot().expect("it leads");
        self.rounds.insert((replica.me(), round), (ballot, highest));
    }

    /// It is confirmed: no higher leader can have decided anything when it began.
    pub fn confirmed(&mut self, node: NodeId, round: Round) {
        self.mark("confirmed");
        let (ballot, highest) = self.rounds[&(node, round)];
        assert!(
            highest <= ballot,
            "round {round} of {ballot} confirmed although {highest} led"
        );
    }

    /// A leader uses a timestamp (it was within its limit).
    pub fn uses(&mut self, ballot: Ballot, at: Timestamp) {
        for (higher, floor) in self.floors.range(ballot..).filter(|(b, _)| **b != ballot) {
            assert!(
                at <= *floor,
                "L4: {ballot} uses {at} above the floor {floor} of {higher}"
            );
        }
        let used = self.used.entry(ballot).or_default();
        *used = (*used).max(at);
        self.mark("timestamp used");
    }

    /// Everything about one node that may have changed in a step of its own.
    pub fn check_one(&mut self, now: u64, nodes: &BTreeMap<NodeId, Node>, id: NodeId) {
        let Some(run) = &nodes[&id].run else { return };
        let replica = &run.replica;
        self.check_promise(replica);
        Self::check_disk(&nodes[&id]);
        if replica.last() > Slot(0) && replica.configuration().epoch.era() < self.era {
            return;
        }
        self.check_decided(nodes, replica);
        self.check_leases(now, nodes, replica);
        assert!(replica.applied() <= replica.decided());
        assert!(replica.trimmed() <= replica.decided());
        assert!(replica.decided() <= replica.last());
        assert!(replica.accepted() <= replica.ballot());
        let weights: usize = replica.entries_from(Slot(0)).map(|(_, e)| e.weight()).sum();
        assert_eq!(replica.log_bytes(), weights, "running totals");
        let undecided = replica.entries_from(replica.decided().next());
        let weights: usize = undecided.map(|(_, e)| e.weight()).sum();
        assert_eq!(replica.undecided_bytes(), weights, "running totals");
    }

    /// Once every sync has finished, the disk holds what memory holds, slot for
    /// slot, up to lazy entries that no record carries yet.
    fn check_disk(node: &Node) {
        let Some(run) = &node.run else { return };
        if !run.pending.is_empty() {
            return;
        }
        let (disk, memory) = (&node.disk.durable, run.replica.durable());
        assert_eq!(disk.promised, memory.promised, "{}: promised", node.id);
        assert_eq!(disk.accepted, memory.accepted, "{}: accepted", node.id);
        assert_eq!(disk.trimmed, memory.trimmed, "{}: trimmed", node.id);
        assert!(disk.last() <= memory.last(), "{}: last", node.id);
        for (at, entry) in disk.entries.iter().enumerate() {
            assert_eq!(*entry, memory.entries[at], "{}: entry {at}", node.id);
        }
    }

    fn check_promise(&mut self, replica: &Replica) {
        let promised = self.promised.entry(replica.me()).or_default();
        assert!(replica.ballot() >= *promised, "P1: promised went down");
        *promised = replica.ballot();
    }

    /// P2: one value per slot; and what a leader decides is durable on a majority.
    fn check_decided(&mut self, nodes: &BTreeMap<NodeId, Node>, replica: &Replica) {
        let me = replica.me();
        assert!(
            !replica.ignored().contains_key(&Ignored::Contradicts),
            "P2: {me} was sent a log that contradicts what is decided there"
        );
        let from = self.checked.get(&me).copied().unwrap_or_default();
        let decided = replica.decided();
        let entries: Vec<(Slot, Entry)> = replica
            .entries_from(from.next())
            .take_while(|(slot, _)| *slot <= decided)
            .map(|(slot, entry)| (slot, entry.clone()))
            .collect();
        for (slot, entry) in entries {
            if let Some((known, who)) = self.decided.get(&slot) {
                assert_eq!(
                    known, &entry,
                    "P2: slot {slot} differs between {who} and {me}"
                );
                continue;
            }
            let (_, configuration) = self.configurations.range(..slot).next_back().unwrap();
            let copies = configuration.electors().filter(|n| {
                let durable = &nodes[n].disk.durable;
                durable.trimmed >= slot || durable.entry(slot) == Some(&entry)
            });
            let copies = copies.count();
            assert!(
                copies >= configuration.majority(),
                "P2: slot {slot} is durable on {copies} only"
            );
            if let Entry::StopSign(stop) = &entry {
                assert_eq!(stop.successor.epoch, configuration.epoch.next());
                assert_eq!(stop.slot, slot);
                let founding = Ballot::founding(stop.successor.epoch);
                let below = self.floors.values().max().copied().unwrap_or_default();
                let floor = below.max(stop.limit);
                self.floors.insert(founding, floor);
                for (lower, used) in self.used.range(..founding) {
                    assert!(
                        *used <= floor,
                        "G2: {lower} used {used}, above {floor} which its stop-sign names"
                    );
                }
                self.configurations.insert(slot, stop.successor.clone());
                self.mark("reconfigured");
            }
            if let Entry::TermStart(start) = &entry {
                let below = self.floors.values().max().copied().unwrap_or_default();
                let floor = below.max(start.floor);
                if start.term != start.ballot {
                    self.mark("term goes on");
                    assert_eq!(start.term.node, start.ballot.node);
                    let between = self.floors.range(start.term..start.ballot);
                    assert!(
                        between
                            .clone()
                            .all(|(b, _)| b.is_founding() || b.node == start.term.node),
                        "P6: {} goes on as {} although others led between",
                        start.term,
                        start.ballot
                    );
                }
                self.floors.insert(start.ballot, floor);
                for (lower, used) in self.used.range(..start.ballot) {
                    assert!(
                        *used <= floor,
                        "L4: {lower} used {used}, above the floor {floor} of {}",
                        start.ballot
                    );
                }
            }
            self.decided.insert(slot, (entry, me));
        }
        self.checked.insert(me, decided);
        if let Some(run) = &nodes[&me].run
            && replica.holds_data()
        {
            let last = run.engine.len();
            assert!(
                super::configured(&run.engine)
                    .is_none_or(|began| began.configuration.epoch <= replica.configuration().epoch)
            );
            for (i, entry) in run.engine.iter().enumerate().skip(last.saturating_sub(3)) {
                let slot = Slot(i as u64 + 1);
                assert_eq!(
                    self.value(slot),
                    Some(entry),
                    "P7: {me} applied otherwise in {slot}"
                );
            }
        }
    }

    /// L1: at most one replica believes that it holds the lease.
    fn check_leases(&mut self, now: u64, nodes: &BTreeMap<NodeId, Node>, changed: &Replica) {
        if changed.role() != Role::Leader {
            return;
        }
        let holders: Vec<NodeId> = nodes
            .values()
            .filter(|n| {
                n.run.as_ref().is_some_and(|run| {
                    let cx = Cx {
                        now: n.mono(now),
                        leases: &run.leases,
                    };
                    run.replica.lease(&cx).is_some()
                })
            })
            .map(|n| n.id)
            .collect();
        assert!(holders.len() <= 1, "L1: {holders:?} hold the lease at once");
        if let Some(holder) = holders.first() {
            let epoch = |id: &NodeId| {
                let run = nodes[id].run.as_ref();
                run.map(|run| run.replica.configuration().epoch)
            };
            let ballot = nodes[holder].run.as_ref().unwrap().replica.term_ballot();
            for other in nodes.keys().filter(|n| *n != holder) {
                assert!(
                    epoch(other) <= ballot.map(|b| b.epoch),
                    "G2: {holder} holds the lease under {ballot:?} although {other} knows the next configuration"
                );
            }
        }
    }
}
