//! The replicated state of a shard's transactions: a pure function of its
//! decided entries (P7).
//!
//! The first of {Staged, Abort, Committed} per attempt wins; later ones change
//! nothing. Everything here is ordered, so that equal states encode equally.

use crate::attempts::Attempts;
use crate::command::{Command, Intent};
use crate::hashing::Hashing;
use crate::lineage::{Birth, Lineage};
use crate::merge::{Absorbed, Ended};
use crate::one_shards::OneShards;
use crate::records::{Record, Resolution};
use crate::settings::TERM_INCREMENT;
use crate::types::{AttemptId, Key, Outcome, Participant, Value, Write};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{Began, ClusterVersion, GroupId, Slot, StopSign, Term, TermStart, Timestamp};
use synod_probe::{Mark, Mutation, mark, mutated};

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// The last slot applied.
    pub applied: Slot,
    /// The term of the last TermStart.
    pub term: Term,
    /// The maximum of every timestamp applied (K3).
    pub last: Timestamp,
    /// Open intents, with the writes of all their parts.
    pub intents: BTreeMap<AttemptId, Box<Intent>>,
    /// Parts whose Intent entry has not come yet: how many, and their writes.
    pub parts: BTreeMap<AttemptId, (u32, Vec<Write>)>,
    /// Coordinator records.
    pub records: Attempts<Record>,
    /// Resolutions of intents whose coordinator is elsewhere.
    pub resolutions: Attempts<Resolution>,
    /// One-shard outcomes.
    pub one_shard: OneShards,
    /// Outcomes of attempts with an earlier millisecond may have been dropped.
    pub forget_floor: u64,
    /// Versions shadowed at or below this may be collected.
    pub horizon: Timestamp,
    /// What the log may hold from here on (P8), if that is more than at first.
    pub version: ClusterVersion,
    /// The shard's descriptor and its generation.
    pub descriptor: (u64, Bytes),
    /// The configuration that the last stop-sign began; none in the group's first.
    pub began: Option<Began>,
    /// What splits and merges have made of the shard.
    pub lineage: Lineage,
    /// What programs of cluster version 2 do not know: encoded behind all else, and only if
    /// there is something of it.
    #[serde(skip)]
    pub tail: Tail,
}

/// See [`State::tail`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// How the shard's keys are stored; none is as they are.
    pub hashing: Option<Hashing>,
    /// The shard's end, if it is to become part of its left neighbour: nothing is applied any
    /// more unless that is refused.
    pub ended: Option<Ended>,
    /// Ends of right neighbours that were refused last: which shard, which slot of its log.
    pub reopened: Vec<(GroupId, Slot)>,
    /// The shard that it absorbed last, until no replica of that is needed any more.
    pub absorbed: Option<Absorbed>,
    /// Of resolutions of attempts that both shards of a merge took part in: the keys that named
    /// this shard besides [`Resolution::anchor`].
    pub anchors: BTreeMap<AttemptId, BTreeSet<Key>>,
}

/// One version that an entry made.
pub type NewVersion = (Key, Timestamp, AttemptId, Option<Value>);

/// What an entry did to the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing the transaction machine has to follow up.
    Quiet,
    /// A one-shard transaction committed.
    OneShard(AttemptId, Timestamp),
    /// An intent came; false if something else of the attempt had come first.
    Intent(AttemptId, bool),
    /// An outcome came; false if there was one already.
    Outcome(AttemptId, bool),
    /// A resolution came.
    Resolved(AttemptId),
    /// The intent or staged record is gone from memory.
    Acked,
    /// The end of the range became another shard's; none if the entry was void.
    Split(Option<Box<Birth>>),
    /// The shard ended, goes on after all, or is another one's part: no leader in office now has
    /// the right to go on.
    Merge,
    /// Keys are stored in another way from here on; false if the entry was void.
    Hashed(bool),
}

impl State {
    /// Applies the command of `slot` in `shard`'s log; returns what it did and the versions
    /// it made.
    pub fn apply(
        &mut self,
        shard: GroupId,
        slot: Slot,
        command: Command,
    ) -> (Applied, Vec<NewVersion>) {
        debug_assert!(
            slot > self.applied,
            "P7: entries are applied once, in order"
        );
        self.applied = slot;
        if self.tail.ended.is_some() && !matches!(command, Command::Resume { .. }) {
            return (Applied::Quiet, Vec::new());
        }
        match command {
            Command::OneShard {
                attempt,
                timestamp,
                writes,
                ..
            } => self.apply_one_shard(attempt, timestamp, writes),
            Command::Intent(intent) => (self.apply_intent(intent), Vec::new()),
            Command::IntentPart {
                attempt,
                part,
                writes,
            } => {
                let entry = self.parts.entry(attempt).or_default();
                if entry.0 == part {
                    entry.0 += 1;
                    entry.1.extend(writes);
                }
                (Applied::Quiet, Vec::new())
            }
            Command::Outcome {
                attempt,
                outcome,
                participants,
                anchor,
            } => self.apply_outcome(attempt, outcome, participants, anchor),
            Command::Resolve {
                attempt,
                outcome,
                recorded,
            } => self.apply_resolve(attempt, outcome, recorded),
            Command::Acked {
                attempt,
                participants,
            } => {
                self.records
                    .update(attempt, |record| record.acked.extend(participants));
                (Applied::Acked, Vec::new())
            }
            Command::Split(split) => {
                let born = self.apply_split(shard, *split).map(Box::new);
                (Applied::Split(born), Vec::new())
            }
            Command::End(end) => {
                self.apply_end(*end);
                (Applied::Merge, Vec::new())
            }
            Command::Resume { slot } => {
                self.apply_resume(slot);
                (Applied::Merge, Vec::new())
            }
            Command::Hash(hash) => (Applied::Hashed(self.apply_hash(*hash)), Vec::new()),
            other => {
                self.apply_housekeeping(other);
                (Applied::Quiet, Vec::new())
            }
        }
    }

    fn apply_housekeeping(&mut self, command: Command) {
        match command {
            Command::Forget { floor_millis } => self.forget(floor_millis),
            Command::Horizon { horizon } => self.horizon = self.horizon.max(horizon),
            Command::Version(version) => self.version = self.version.max(version),
            Command::Descriptor {
                generation,
                encoded,
            } if generation > self.descriptor.0 => self.descriptor = (generation, encoded),
            Command::Close { timestamp } => self.raise(timestamp),
            Command::Reopen { right, slot } => self.apply_reopen(right, slot),
            Command::Retire { right } => self.apply_retire(right),
            // An `Absorb` that counts comes with the other shard's state.
            Command::Absorb(_) => mark(Mark::AbsorbVoid),
            _ => {}
        }
    }

    /// Applies a new leader's first own entry: `last` rises above everything
    /// an earlier leader may have used, and nothing of an earlier term can
    /// follow, so parts that wait for their Intent wait in vain. Of a leader that goes
    /// on in another configuration everything may follow.
    pub fn apply_term_start(&mut self, shard: GroupId, slot: Slot, start: TermStart) {
        self.applied = slot;
        let term = Term {
            group: shard,
            ballot: start.term,
        };
        self.last = self.last.plus(TERM_INCREMENT).max(start.floor);
        if self.term != term {
            self.term = term;
            self.parts.clear();
        }
    }

    /// Applies the end of a configuration (G2): `last` rises to the limit that it
    /// names, so that whoever leads next uses nothing that was used before.
    pub fn apply_stop_sign(&mut self, slot: Slot, stop: &StopSign) {
        self.applied = slot;
        self.last = self.last.max(stop.last).max(stop.limit);
        self.horizon = self.horizon.max(stop.horizon);
        self.began = Some(Began {
            configuration: stop.successor.clone(),
            after: slot,
            left: stop.left.clone(),
        });
    }

    fn raise(&mut self, timestamp: Timestamp) {
        self.last = self.last.max(timestamp);
    }

    fn apply_one_shard(
        &mut self,
        attempt: AttemptId,
        timestamp: Timestamp,
        writes: Vec<Write>,
    ) -> (Applied, Vec<NewVersion>) {
        if self.one_shard.get(attempt).is_some() && !mutated(Mutation::NoCommitDedup) {
            return (Applied::Quiet, Vec::new());
        }
        self.raise(timestamp);
        self.one_shard.insert(attempt, timestamp);
        (
            Applied::OneShard(attempt, timestamp),
            versions(attempt, timestamp, writes),
        )
    }

    fn apply_intent(&mut self, mut intent: Box<Intent>) -> Applied {
        let attempt = intent.attempt;
        let parts = self.parts.remove(&attempt);
        if self.knows(attempt) {
            return Applied::Intent(attempt, false);
        }
        self.raise(intent.timestamp);
        debug_assert_eq!(
            parts.as_ref().map_or(0, |p| p.0),
            intent.parts,
            "a part of an intent is missing"
        );
        if let Some((_, mut writes)) = parts {
            writes.append(&mut intent.writes);
            intent.writes = writes;
        }
        if intent.here == intent.coordinator {
            let anchor = intent.participants[intent.coordinator as usize]
                .anchor
                .clone();
            self.records.insert(
                attempt,
                Record {
                    participants: intent.participants.clone(),
                    anchor,
                    outcome: None,
                    acked: BTreeSet::new(),
                },
            );
        }
        self.intents.insert(attempt, intent);
        Applied::Intent(attempt, true)
    }

    /// Records without an outcome: transactions in doubt.
    pub fn in_doubt(&self) -> impl Iterator<Item = (AttemptId, &Record)> {
        let unsettled = self.records.unsettled();
        unsettled.filter(|(_, record)| record.outcome.is_none())
    }

    /// Whether an entry of the attempt took effect here and is still remembered.
    #[must_use]
    pub fn knows(&self, attempt: AttemptId) -> bool {
        self.intents.contains_key(&attempt)
            || self.records.contains_key(&attempt)
            || self.resolutions.contains_key(&attempt)
            || self.one_shard.get(attempt).is_some()
    }

    fn apply_outcome(
        &mut self,
        attempt: AttemptId,
        outcome: Outcome,
        participants: Vec<Participant>,
        anchor: Key,
    ) -> (Applied, Vec<NewVersion>) {
        let first = self.records.update(attempt, |record| {
            let first = record.outcome.is_none();
            record.outcome.get_or_insert(outcome);
            first
        });
        let Some(first) = first else {
            // Without Staged only an Abort counts (T5), and only where its anchor is (T10).
            let fresh = matches!(outcome, Outcome::Aborted(_))
                && !self.knows(attempt)
                && self.lineage.owns(&anchor);
            if fresh {
                self.records.insert(
                    attempt,
                    Record {
                        participants,
                        anchor,
                        outcome: Some(outcome),
                        acked: BTreeSet::new(),
                    },
                );
            }
            return (Applied::Outcome(attempt, fresh), Vec::new());
        };
        if !first {
            return (Applied::Outcome(attempt, false), Vec::new());
        }
        let made = self.close_intent(attempt, outcome);
        (Applied::Outcome(attempt, true), made)
    }

    fn apply_resolve(
        &mut self,
        attempt: AttemptId,
        outcome: Outcome,
        recorded: bool,
    ) -> (Applied, Vec<NewVersion>) {
        let known = self
            .resolutions
            .update(attempt, |resolution| resolution.recorded |= recorded);
        if known.is_some() {
            return (Applied::Resolved(attempt), Vec::new());
        }
        if self.records.contains_key(&attempt) {
            return (Applied::Quiet, Vec::new());
        }
        let intent = self.intents.get(&attempt);
        let coordinator =
            intent.map_or(GroupId(0), |i| i.participants[i.coordinator as usize].shard);
        let anchor = intent.map(|i| i.anchor().clone());
        let resolution = Resolution {
            outcome,
            recorded,
            coordinator,
            anchor,
        };
        self.resolutions.insert(attempt, resolution);
        let made = self.close_intent(attempt, outcome);
        (Applied::Resolved(attempt), made)
    }

    /// Removes the intent; its writes become versions if it committed.
    fn close_intent(&mut self, attempt: AttemptId, outcome: Outcome) -> Vec<NewVersion> {
        self.parts.remove(&attempt);
        if let Outcome::Committed(timestamp) = outcome {
            self.raise(timestamp);
        }
        match (self.intents.remove(&attempt), outcome) {
            (Some(intent), Outcome::Committed(timestamp)) => {
                debug_assert!(timestamp >= intent.timestamp, "T5: a commit below ts_i");
                versions(attempt, timestamp, intent.writes)
            }
            _ => Vec::new(),
        }
    }

    /// Raises the floor, then drops what T6 allows to drop below it.
    fn forget(&mut self, floor_millis: u64) {
        if floor_millis <= self.forget_floor {
            return;
        }
        self.forget_floor = floor_millis;
        let floor = AttemptId(u128::from(floor_millis) << 80);
        self.records.forget(floor, |record| {
            mutated(Mutation::ForgetUnacked) && record.outcome.is_some()
        });
        self.resolutions
            .forget(floor, |_| mutated(Mutation::ForgetUnrecorded));
        let resolutions = &self.resolutions;
        self.tail.anchors.retain(|a, _| resolutions.contains_key(a));
        self.one_shard.forget(floor);
    }

    /// Whether a Forget with this floor would drop anything.
    #[must_use]
    pub fn has_below(&self, floor_millis: u64) -> bool {
        let floor = AttemptId(u128::from(floor_millis) << 80);
        self.records.has_below(floor)
            || self.resolutions.has_below(floor)
            || self.one_shard.has_below(floor)
    }

    /// From which millisecond on there are at most so many settled records up to now, and as many
    /// settled resolutions; none if there are no more of either.
    pub(crate) fn millis_of_newest(&self, most: usize, now_millis: u64) -> Option<u64> {
        let now = AttemptId(u128::from(now_millis.saturating_add(1)) << 80);
        let records = self.records.lowest_of(most, now);
        let lowest = records.max(self.resolutions.lowest_of(most, now));
        lowest.map(AttemptId::millis)
    }

    /// The millisecond that so many settled records, or resolutions, reach; none if there are not as
    /// many.
    pub(crate) fn millis_reached_by(&self, count: usize) -> Option<u64> {
        let records = self.records.below_newest(count);
        let reached = records.max(self.resolutions.below_newest(count));
        reached.map(AttemptId::millis)
    }

    /// Below this millisecond, an attempt that is not known may have been
    /// forgotten; from it on, unknown means never decided.
    #[must_use]
    pub fn unknown_below(&self) -> u64 {
        self.forget_floor.max(self.one_shard.floor_millis())
    }
}

fn versions(attempt: AttemptId, timestamp: Timestamp, writes: Vec<Write>) -> Vec<NewVersion> {
    writes
        .into_iter()
        .map(|write| (write.key, timestamp, attempt, write.value))
        .collect()
}
