//! The rules, checked after every step.

use super::super::hash::hash_of;
use super::node::{Body, Packet};
use super::{Cluster, index};
use std::collections::BTreeMap;
use std::rc::Rc;
use synod_paxos::{Ballot, Entry, Ignored, Message, Role, Slot, Timestamp};

/// What the checks must remember: a function of what was sent and decided.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(super) struct Past {
    /// Every decided entry, and the ballot under which it was first believed.
    decided: Vec<(Entry, Ballot)>,
    /// Per node, the highest Promise and Accepted that left it.
    promised: [Ballot; 3],
    accepted: [(Ballot, Slot); 3],
    /// What each ballot's leader proposed in each slot.
    proposed: BTreeMap<(Ballot, Slot), u64>,
    /// The highest timestamp that each ballot's leader might have used.
    used: BTreeMap<Ballot, Timestamp>,
    #[serde(skip)]
    hash: u128,
}

impl Past {
    pub(super) fn hash(&self) -> u128 {
        self.hash
    }

    pub(super) fn used_under(&self, ballot: Ballot) -> Timestamp {
        self.used.get(&ballot).copied().unwrap_or_default()
    }

    fn rehash(&mut self) {
        self.hash = hash_of(&*self);
    }
}

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

/// L4, P4: who accepted under a ballot holds its whole sync, which ends with its TermStart.
fn is_whole<'a>(accepted: Ballot, mut log: impl Iterator<Item = &'a Entry>) -> bool {
    let ends = |e: &Entry| matches!(e, Entry::TermStart(start) if start.ballot == accepted);
    accepted == Ballot::default() || log.any(ends)
}

impl Cluster {
    /// What leaves a node must be true of its disk, now and for ever.
    pub(super) fn check_sent(&mut self, sent: &[Packet]) -> Result<(), String> {
        for packet in sent {
            let Body::Paxos(message) = &packet.body else {
                continue;
            };
            let at = index(packet.from);
            let disk = &self.nodes[at].disk.durable;
            let from = packet.from;
            match message {
                Message::Promise { ballot, .. } => {
                    ensure(disk.promised >= *ballot, || {
                        format!("P1: {from} promised {ballot}, which its disk does not know")
                    })?;
                    let past = Rc::make_mut(&mut self.past);
                    past.promised[at] = past.promised[at].max(*ballot);
                }
                Message::Prepare { ballot, .. } => ensure(disk.promised >= *ballot, || {
                    format!("P1: {from} campaigns with {ballot}, which its disk does not know")
                })?,
                Message::Accepted { ballot, last, .. } => {
                    let promised = self.past.promised[at];
                    ensure(*ballot >= promised, || {
                        format!("P1: {from} accepted under {ballot} after promising {promised}")
                    })?;
                    ensure((disk.accepted, disk.last()) >= (*ballot, *last), || {
                        format!("P4: {from} says it holds {ballot}/{last}; its disk does not")
                    })?;
                    let past = Rc::make_mut(&mut self.past);
                    past.accepted[at] = past.accepted[at].max((*ballot, *last));
                }
                Message::Accept {
                    ballot,
                    first,
                    entries,
                    ..
                } => self.check_proposals(*ballot, *first, entries)?,
                _ => continue,
            }
            Rc::make_mut(&mut self.past).rehash();
        }
        Ok(())
    }

    /// One value per ballot and slot.
    fn check_proposals(
        &mut self,
        ballot: Ballot,
        first: Slot,
        entries: &[Entry],
    ) -> Result<(), String> {
        let past = Rc::make_mut(&mut self.past);
        for (slot, entry) in (first.0..).map(Slot).zip(entries) {
            let hash = hash_of(entry) as u64;
            let known = *past.proposed.entry((ballot, slot)).or_insert(hash);
            ensure(known == hash, || {
                format!("P2: {ballot} proposed two values in slot {slot}")
            })?;
        }
        Ok(())
    }

    /// Everything about a node that took a step.
    pub(super) fn check(&mut self, at: usize) -> Result<(), String> {
        let node = Rc::clone(&self.nodes[at]);
        let (replica, id) = (&node.replica, node.id);
        ensure(replica.accepted() <= replica.ballot(), || {
            format!("P1: {id} accepted above its promise")
        })?;
        ensure(replica.ballot() >= self.past.promised[at], || {
            format!("P1: {id}'s promise went down")
        })?;
        ensure(
            replica.applied() <= replica.decided() && replica.decided() <= replica.last(),
            || format!("P7: {id} applied or decided what it does not hold"),
        )?;
        let disk = &node.disk.durable;
        let of_disk = disk.entries.iter();
        ensure(
            is_whole(
                replica.accepted(),
                replica.entries_from(Slot(1)).map(|(_, e)| e),
            ) && is_whole(disk.accepted, of_disk),
            || format!("P4: {id} accepted under a ballot whose sync it does not hold"),
        )?;
        self.check_decided(at)?;
        if replica.role() == Role::Leader {
            self.check_leader(at)?;
            self.note_used(at)?;
        }
        Ok(())
    }

    /// P2: one value per slot, durable on a majority; P5: nothing else is believed.
    fn check_decided(&mut self, at: usize) -> Result<(), String> {
        let node = Rc::clone(&self.nodes[at]);
        let (replica, id) = (&node.replica, node.id);
        ensure(
            !replica.ignored().contains_key(&Ignored::Contradicts),
            || format!("P2: {id} was sent a log that contradicts what is decided there"),
        )?;
        for (slot, entry) in replica.entries_from(Slot(1)) {
            if slot > replica.decided() {
                break;
            }
            if let Some((known, _)) = self.past.decided.get(slot.0 as usize - 1) {
                ensure(known == entry, || {
                    format!("P2: slot {slot} was decided as {known}, {id} believes {entry}")
                })?;
                continue;
            }
            let copies = self.majority_holds(slot, entry);
            ensure(copies >= 2, || {
                format!("P2: {id} believes {entry} decided in {slot}; {copies} disks hold it")
            })?;
            let past = Rc::make_mut(&mut self.past);
            past.decided.push((entry.clone(), replica.accepted()));
            past.rehash();
            if let Entry::TermStart(start) = entry {
                self.check_floor(start.ballot, start.floor)?;
            }
        }
        let lost = self
            .past
            .decided
            .iter()
            .enumerate()
            .find(|(index, (e, _))| self.majority_holds(Slot(*index as u64 + 1), e) < 2);
        ensure(lost.is_none(), || {
            let slot = lost.map_or(0, |(index, _)| index + 1);
            format!("P2: slot {slot} is decided and left the disks of a majority")
        })
    }

    /// P3: whatever was decided under a lower ballot stands in a leader's log.
    fn check_leader(&self, at: usize) -> Result<(), String> {
        let replica = &self.nodes[at].replica;
        let Some(ballot) = replica.term_ballot() else {
            return Ok(());
        };
        for (index, (entry, under)) in self.past.decided.iter().enumerate() {
            let slot = Slot(index as u64 + 1);
            ensure(
                *under >= ballot || replica.entry(slot) == Some(entry),
                || {
                    format!(
                        "P3: {ballot} leads without {entry}, decided in slot {slot} under {under}"
                    )
                },
            )?;
        }
        Ok(())
    }

    /// P6: who proposes has its own TermStart decided and applied.
    pub(super) fn check_office(&self, at: usize) -> Result<(), String> {
        let replica = &self.nodes[at].replica;
        let ballot = replica.term_ballot().unwrap_or_default();
        let own = replica
            .entries_from(Slot(1))
            .find(|(_, entry)| matches!(entry, Entry::TermStart(start) if start.ballot == ballot));
        let through = replica.applied().min(replica.decided());
        ensure(own.is_some_and(|(slot, _)| slot <= through), || {
            format!("P6: {ballot} proposes before its first entry is decided and applied")
        })
    }

    /// What left a node before its crash is still there (P1, P4).
    pub(super) fn check_restart(&self, at: usize) -> Result<(), String> {
        let replica = &self.nodes[at].replica;
        let (ballot, last) = self.past.accepted[at];
        ensure(
            (replica.accepted(), replica.last()) >= (ballot, last),
            || format!("P4: n{} forgot that it accepted {ballot}/{last}", at + 1),
        )
    }

    /// L1: at most one replica believes that it holds the lease, and nothing is
    /// decided under a higher ballot then: reads under the lease miss nothing.
    pub(super) fn check_lease(&self) -> Result<(), String> {
        let holds = |at: &usize| self.nodes[*at].replica.lease(&self.cx(*at)).is_some();
        let holders: Vec<usize> = (0..3).filter(holds).collect();
        for at in &holders {
            let ballot = self.nodes[*at].replica.term_ballot().unwrap_or_default();
            let higher = self.past.decided.iter().find(
                |(entry, _)| matches!(entry, Entry::TermStart(start) if start.ballot > ballot),
            );
            ensure(higher.is_none(), || {
                format!("L1: {ballot} holds the lease, and a higher ballot decides")
            })?;
        }
        ensure(holders.len() <= 1, || {
            format!("L1: {} replicas hold the lease at once", holders.len())
        })
    }

    /// L4: a leader in office may use timestamps up to its limit at any moment.
    fn note_used(&mut self, at: usize) -> Result<(), String> {
        let replica = &self.nodes[at].replica;
        let (Some(ballot), true) = (replica.term_ballot(), replica.in_office()) else {
            return Ok(());
        };
        let limit = replica.limit(&self.cx(at));
        if limit <= self.past.used_under(ballot) {
            return Ok(());
        }
        let past = Rc::make_mut(&mut self.past);
        past.used.insert(ballot, limit);
        past.rehash();
        let later: Vec<(Ballot, Timestamp)> = self
            .past
            .decided
            .iter()
            .filter_map(|(entry, _)| match entry {
                Entry::TermStart(start) if start.ballot > ballot => {
                    Some((start.ballot, start.floor))
                }
                _ => None,
            })
            .collect();
        later
            .into_iter()
            .try_for_each(|(higher, floor)| self.check_floor(higher, floor))
    }

    /// L4: no lower ballot used a timestamp above the floor of `ballot`, where
    /// floors before it in the log count as well.
    fn check_floor(&self, ballot: Ballot, floor: Timestamp) -> Result<(), String> {
        let floors = self
            .past
            .decided
            .iter()
            .filter_map(|(entry, _)| match entry {
                Entry::TermStart(start) if start.ballot <= ballot => Some(start.floor),
                _ => None,
            });
        let floor = floors.max().unwrap_or_default().max(floor);
        let above = self
            .past
            .used
            .range(..ballot)
            .find(|(_, used)| **used > floor);
        ensure(above.is_none(), || {
            format!("L4: {above:?} was used, above the floor {floor} of {ballot}")
        })
    }
}
