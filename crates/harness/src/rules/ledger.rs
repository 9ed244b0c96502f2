//! What is known of every attempt, from decided entries and from what was
//! disclosed: the material of the rules about transactions.
//!
//! Events come in the order in which they happened. A rule sees an event
//! *before* the ledger takes it in.

use super::hash::Map;
use std::collections::{BTreeMap, VecDeque};
use synod_paxos::{Ballot, GroupId, NodeId, Slot, Timestamp};
use synod_txn::lineage::BIRTH;
use synod_txn::{AttemptId, Child, Command, Key, Outcome, Participant};

/// Attempts remembered; the oldest go first.
const ATTEMPTS: usize = 1 << 18;
/// Big intents under way, at most.
const PARTS: usize = 4096;
/// Versions remembered per key.
const PER_KEY: usize = 16;

/// Where an outcome showed itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// An entry that decided or resolved it.
    Entry,
    /// A coordinator's Resolve.
    Resolve,
    /// An answer to a client.
    Answer,
    /// A version shown to a reader.
    Read,
}

/// An entry that was decided for the first time anywhere.
#[derive(Debug)]
pub struct Fresh {
    /// The group.
    pub group: GroupId,
    /// The slot.
    pub slot: Slot,
    /// The ballot of the last TermStart up to this slot: whose term it is.
    pub term: Ballot,
    /// The highest timestamp of all slots before it (K3), in this group.
    pub above: Timestamp,
    /// True time when it became known; nanoseconds.
    pub t: u64,
    /// The command; none for a Noop, a TermStart, or what cannot be decoded.
    pub command: Option<Command>,
}

/// One thing that happened to an attempt.
#[derive(Debug)]
pub enum Event<'a> {
    /// An entry was decided.
    Decided(&'a Fresh),
    /// An outcome was disclosed by a node, for this group.
    Told {
        /// The attempt.
        attempt: AttemptId,
        /// The outcome.
        outcome: Outcome,
        /// By whom; for an entry, the first node known to have it decided.
        node: NodeId,
        /// How.
        how: How,
    },
    /// A shard's final no (T4).
    No {
        /// The attempt.
        attempt: AttemptId,
        /// The shard.
        group: GroupId,
        /// In whose name: the participant's anchor.
        anchor: Key,
        /// By whom.
        node: NodeId,
    },
    /// A shard says that it knows nothing of an attempt below its forget floor (T7).
    Forgotten {
        /// The attempt.
        attempt: AttemptId,
        /// The shard.
        group: GroupId,
        /// In whose name: the participant's anchor.
        anchor: Key,
        /// By whom.
        node: NodeId,
    },
    /// A participant's yes left a node.
    Yes {
        /// The attempt.
        attempt: AttemptId,
        /// The participant's shard.
        group: GroupId,
        /// Its anchor.
        anchor: Key,
        /// ts_i, or the commit's timestamp.
        timestamp: Timestamp,
        /// By whom.
        node: NodeId,
    },
    /// A participant's ack left a node.
    Ack {
        /// The attempt.
        attempt: AttemptId,
        /// The participant's shard.
        group: GroupId,
        /// Its anchor.
        anchor: Key,
        /// By whom.
        node: NodeId,
    },
    /// A Commit reached its coordinator.
    Asked {
        /// The attempt.
        attempt: AttemptId,
    },
}

/// A participant's decided intent.
#[derive(Clone, Debug)]
pub struct Held {
    /// The participant.
    pub group: GroupId,
    /// The key that names it.
    pub anchor: Key,
    /// ts_i.
    pub timestamp: Timestamp,
    /// Where.
    pub slot: Slot,
    /// True time when it became known; nanoseconds.
    pub t: u64,
    /// What it writes.
    pub keys: Vec<Key>,
    /// Where its resolution, or the outcome, was decided.
    pub resolved: Option<Slot>,
    /// Whether an entry marks the resolution as recorded, and in which slot.
    pub recorded: Option<Slot>,
}

/// A shard's final no.
#[derive(Clone, Debug)]
pub struct Denied {
    /// The shard.
    pub group: GroupId,
    /// In whose name: the participant's anchor.
    pub anchor: Key,
    /// By whom.
    pub node: NodeId,
}

/// One attempt.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// The participants, once an intent or an abort names them.
    pub participants: Vec<Participant>,
    /// The key that names the coordinator, once an entry there did.
    pub anchor: Option<Key>,
    /// Staged: the coordinator, the term and the slot.
    pub staged: Option<(GroupId, Ballot, Slot)>,
    /// Decided intents.
    pub held: Vec<Held>,
    /// A one-shard commit.
    pub one_shard: Option<(GroupId, Timestamp)>,
    /// The first outcome disclosed, how and by whom.
    pub told: Option<(Outcome, How, NodeId)>,
    /// The outcome entry that counted: the group and the slot.
    pub outcome: Option<(Outcome, GroupId, Slot)>,
    /// Where all acks were recorded.
    pub acked: Option<Slot>,
    /// Who was said no to for good: each once.
    pub noes: Vec<Denied>,
    /// A Commit reached the coordinator.
    pub asked: bool,
    /// The abort was decided in another term than Staged (T3).
    pub aborted_later: bool,
}

impl Attempt {
    /// The decided intent in this shard.
    #[must_use]
    pub fn held_in(&self, group: GroupId) -> Option<&Held> {
        self.held.iter().find(|held| held.group == group)
    }

    /// The decided intent of the participant that this anchor names. Of two that were shards of
    /// their own and are one by now, each has its own, or none: the shard does not tell them apart.
    #[must_use]
    pub fn held_by(&self, anchor: &Key) -> Option<&Held> {
        self.held.iter().find(|held| held.anchor == *anchor)
    }

    /// Whether every participant's intent is decided.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.participants.is_empty()
            && self.staged.is_some()
            && self
                .participants
                .iter()
                .all(|p| self.held_by(&p.anchor).is_some())
    }

    /// The maximum of all ts_i.
    #[must_use]
    pub fn maximum(&self) -> Timestamp {
        let all = self.held.iter().map(|held| held.timestamp);
        all.max().unwrap_or_default()
    }
}

/// A version of a key, as decided.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its attempt.
    pub attempt: AttemptId,
    /// Counts all versions, in the order of their decision.
    pub stamp: u64,
}

/// See the module.
#[derive(Default)]
pub struct Ledger {
    attempts: Map<AttemptId, Attempt>,
    order: VecDeque<AttemptId>,
    /// Each key's latest versions, in the order of their decision.
    keys: Map<Key, VecDeque<Made>>,
    /// Keys of IntentParts whose Intent has not come.
    parts: Map<(GroupId, AttemptId), Vec<Key>>,
    stamp: u64,
    forgot: bool,
    /// Shards that were split off, and those they descend from.
    ancestors: BTreeMap<GroupId, Vec<GroupId>>,
    /// Of shards that were one once, or are one now: another one of them.
    kin: BTreeMap<GroupId, GroupId>,
}

impl Ledger {
    /// A shard was split off another one: what was held or staged there by an anchor that it
    /// owns now is its own (T10), as part of the state that it begins with.
    pub(super) fn split(&mut self, parent: GroupId, child: &Child) {
        let mut line = self.ancestors.get(&parent).cloned().unwrap_or_default();
        line.push(parent);
        self.ancestors.insert(child.id, line);
        self.join(parent, child.id);
        let goes = |anchor: &Key| child.span.contains(anchor);
        for known in self.attempts.values_mut() {
            let all = known.participants.iter_mut();
            let mut moves = false;
            for participant in all.filter(|p| p.shard == parent && goes(&p.anchor)) {
                participant.shard = child.id;
                moves = true;
            }
            if !moves {
                continue;
            }
            let held = known.held.iter_mut();
            for held in held.filter(|held| held.group == parent && goes(&held.anchor)) {
                held.group = child.id;
                held.slot = BIRTH;
                held.resolved = held.resolved.map(|_| BIRTH);
                held.recorded = held.recorded.map(|_| BIRTH);
            }
            if known.anchor.as_ref().is_some_and(goes) {
                if let Some(staged) = known.staged.as_mut().filter(|staged| staged.0 == parent) {
                    (staged.0, staged.2) = (child.id, BIRTH);
                }
                if let Some(outcome) = known.outcome.as_mut().filter(|o| o.1 == parent) {
                    (outcome.1, outcome.2) = (child.id, BIRTH);
                }
            }
            known.acked = known.acked.map(|_| BIRTH);
        }
    }

    /// A shard became part of another one, in that slot: what was its is that one's.
    pub(super) fn merge(&mut self, left: GroupId, right: GroupId, at: Slot) {
        let gained = self.ancestors.get(&right).cloned().unwrap_or_default();
        let line = self.ancestors.entry(left).or_default();
        line.extend(gained);
        line.push(right);
        line.retain(|group| *group != left);
        self.join(left, right);
        for known in self.attempts.values_mut() {
            let both = known.participants.iter();
            let both = both.filter(|p| p.shard == left || p.shard == right).count() > 1;
            for participant in known.participants.iter_mut().filter(|p| p.shard == right) {
                participant.shard = left;
            }
            let coordinated = known
                .staged
                .is_some_and(|staged| [left, right].contains(&staged.0));
            if both && coordinated {
                // One need not tell the other any more.
                known.acked.get_or_insert(at);
            }
            for held in known.held.iter_mut().filter(|held| held.group == right) {
                held.group = left;
                held.slot = at;
                held.resolved = held.resolved.map(|_| at);
                held.recorded = held.recorded.map(|_| at);
            }
            // Of one attempt a shard has one resolution, for all its anchors there.
            let here = |held: &&mut Held| held.group == left;
            if known
                .held
                .iter_mut()
                .filter(here)
                .any(|h| h.recorded.is_some())
            {
                for held in known.held.iter_mut().filter(here) {
                    held.recorded.get_or_insert(at);
                }
            }
            if let Some(staged) = known.staged.as_mut().filter(|staged| staged.0 == right) {
                (staged.0, staged.2) = (left, at);
            }
            if let Some(outcome) = known.outcome.as_mut().filter(|o| o.1 == right) {
                (outcome.1, outcome.2) = (left, at);
            }
        }
    }

    fn root(&self, mut group: GroupId) -> GroupId {
        while let Some(next) = self.kin.get(&group) {
            group = *next;
        }
        group
    }

    fn join(&mut self, one: GroupId, other: GroupId) {
        let (one, other) = (self.root(one), self.root(other));
        if one != other {
            self.kin.insert(other, one);
        }
    }

    /// Whether a shard is another one, or descends from it.
    #[must_use]
    pub fn is_of(&self, group: GroupId, ancestor: GroupId) -> bool {
        let line = self.ancestors.get(&group);
        group == ancestor || line.is_some_and(|line| line.contains(&ancestor))
    }

    /// Whether two shards were one once, or are.
    #[must_use]
    pub fn are_kin(&self, one: GroupId, other: GroupId) -> bool {
        self.root(one) == self.root(other)
    }

    /// What is known of an attempt.
    #[must_use]
    pub fn get(&self, attempt: AttemptId) -> Option<&Attempt> {
        self.attempts.get(&attempt)
    }

    /// Whether anything was dropped: what is not known then says nothing.
    #[must_use]
    pub fn forgot(&self) -> bool {
        self.forgot
    }

    /// How many attempts are known.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.attempts.len()
    }

    /// All attempts remembered, oldest first.
    pub fn all(&self) -> impl Iterator<Item = (AttemptId, &Attempt)> {
        let known = self.order.iter();
        known.filter_map(|id| Some((*id, self.attempts.get(id)?)))
    }

    /// A key's latest versions, in the order of their decision.
    #[must_use]
    pub fn versions(&self, key: &Key) -> Option<&VecDeque<Made>> {
        self.keys.get(key)
    }

    /// How many versions were decided so far.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The versions that this entry makes: the keys and their timestamp. None if
    /// it makes none (the first outcome of an attempt counts).
    #[must_use]
    pub fn makes<'a>(&'a self, fresh: &'a Fresh) -> Option<(AttemptId, Timestamp, Vec<&'a Key>)> {
        match fresh.command.as_ref()? {
            Command::OneShard {
                attempt,
                timestamp,
                writes,
                ..
            } => {
                let twice = self.get(*attempt).is_some_and(|a| a.one_shard.is_some());
                let keys = || writes.iter().map(|w| &w.key).collect();
                (!twice).then(|| (*attempt, *timestamp, keys()))
            }
            Command::Outcome {
                attempt, outcome, ..
            }
            | Command::Resolve {
                attempt, outcome, ..
            } => {
                let Outcome::Committed(timestamp) = outcome else {
                    return None;
                };
                let held = self.get(*attempt)?.held_in(fresh.group)?;
                let open = held.resolved.is_none();
                open.then(|| (*attempt, *timestamp, held.keys.iter().collect()))
            }
            _ => None,
        }
    }

    /// Takes an event in.
    pub(super) fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Decided(fresh) => self.take_entry(fresh),
            Event::Told {
                attempt,
                outcome,
                node,
                how,
            } => {
                let known = self.enter(*attempt);
                known.told.get_or_insert((*outcome, *how, *node));
            }
            Event::No {
                attempt,
                group,
                anchor,
                node,
            } => {
                let known = self.enter(*attempt);
                if !known.noes.iter().any(|no| no.anchor == *anchor) {
                    known.noes.push(Denied {
                        group: *group,
                        anchor: anchor.clone(),
                        node: *node,
                    });
                }
            }
            Event::Asked { attempt } => self.enter(*attempt).asked = true,
            Event::Yes { .. } | Event::Forgotten { .. } | Event::Ack { .. } => {}
        }
    }

    fn enter(&mut self, attempt: AttemptId) -> &mut Attempt {
        if !self.attempts.contains_key(&attempt) {
            self.order.push_back(attempt);
            if self.order.len() > ATTEMPTS
                && let Some(old) = self.order.pop_front()
            {
                self.attempts.remove(&old);
                self.forgot = true;
            }
        }
        self.attempts.entry(attempt).or_default()
    }

    fn take_entry(&mut self, fresh: &Fresh) {
        if let Some((attempt, timestamp, keys)) = self.makes(fresh) {
            let keys: Vec<Key> = keys.into_iter().cloned().collect();
            for key in keys {
                self.stamp += 1;
                let stamp = self.stamp;
                let versions = &mut self.keys.entry(key).or_default();
                versions.push_back(Made {
                    timestamp,
                    attempt,
                    stamp,
                });
                if versions.len() > PER_KEY {
                    versions.pop_front();
                }
            }
        }
        let (group, slot) = (fresh.group, fresh.slot);
        match fresh.command.as_ref() {
            Some(Command::OneShard {
                attempt, timestamp, ..
            }) => {
                let known = self.enter(*attempt);
                known.one_shard.get_or_insert((group, *timestamp));
            }
            Some(Command::IntentPart {
                attempt, writes, ..
            }) => {
                if self.parts.len() > PARTS {
                    // Left by terms that ended before their Intents.
                    self.parts.clear();
                }
                let keys = self.parts.entry((group, *attempt)).or_default();
                keys.extend(writes.iter().map(|w| w.key.clone()));
            }
            Some(Command::Intent(intent)) => self.take_intent(fresh, intent),
            Some(Command::Outcome {
                attempt,
                outcome,
                participants,
                anchor,
            }) => {
                let term = fresh.term;
                let known = self.enter(*attempt);
                if known.outcome.is_some() {
                    return;
                }
                known.outcome = Some((*outcome, group, slot));
                known.anchor.get_or_insert_with(|| anchor.clone());
                known.aborted_later = matches!(outcome, Outcome::Aborted(_))
                    && known.staged.is_some_and(|(_, staged, _)| staged != term);
                if known.participants.is_empty() {
                    known.participants.clone_from(participants);
                }
                for held in known.held.iter_mut().filter(|h| h.group == group) {
                    held.resolved.get_or_insert(slot);
                    held.recorded.get_or_insert(slot);
                }
            }
            Some(Command::Resolve {
                attempt, recorded, ..
            }) => {
                let known = self.enter(*attempt);
                for held in known.held.iter_mut().filter(|h| h.group == group) {
                    held.resolved.get_or_insert(slot);
                    if *recorded {
                        held.recorded.get_or_insert(slot);
                    }
                }
            }
            Some(Command::Acked { attempt, .. }) => {
                self.enter(*attempt).acked.get_or_insert(slot);
            }
            _ => {}
        }
    }

    fn take_intent(&mut self, fresh: &Fresh, intent: &synod_txn::command::Intent) {
        let (group, slot) = (fresh.group, fresh.slot);
        let parts = self.parts.remove(&(group, intent.attempt));
        let anchor = intent.anchor().clone();
        let known = self.enter(intent.attempt);
        if known.held_in(group).is_some() {
            return;
        }
        // An outcome that came first wins: this intent holds nothing.
        if known.outcome.is_some_and(|(_, at, _)| at == group) {
            return;
        }
        if known.participants.is_empty() || intent.here == intent.coordinator {
            known.participants.clone_from(&intent.participants);
        }
        if intent.here == intent.coordinator {
            known.staged.get_or_insert((group, fresh.term, slot));
            known.anchor.get_or_insert_with(|| anchor.clone());
        }
        let mut keys = parts.unwrap_or_default();
        keys.extend(intent.writes.iter().map(|w| w.key.clone()));
        known.held.push(Held {
            group,
            anchor,
            timestamp: intent.timestamp,
            slot,
            t: fresh.t,
            keys,
            resolved: None,
            recorded: None,
        });
    }
}

/// Whether two outcomes are the same decision. Reasons may be told differently.
#[must_use]
pub(super) fn agree(a: Outcome, b: Outcome) -> bool {
    match (a, b) {
        (Outcome::Committed(x), Outcome::Committed(y)) => x == y,
        (Outcome::Aborted(_), Outcome::Aborted(_)) => true,
        _ => false,
    }
}
