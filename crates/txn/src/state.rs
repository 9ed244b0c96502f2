//! The replicated state of a shard's transactions: a pure function of its
//! decided entries (P7).
//!
//! The first of {Staged, Abort, Committed} per attempt wins; later ones change
//! nothing. Everything here is ordered, so that equal states encode equally.

use crate::attempts::{Attempts, Settle};
use crate::command::{Command, Intent};
use crate::digest;
use crate::hashing::Hashing;
use crate::lineage::{Birth, Lineage};
use crate::merge::{Absorbed, Ended};
use crate::one_shards::OneShards;
use crate::settings::TERM_INCREMENT;
use crate::types::{AttemptId, Key, Outcome, Participant, Value, Write};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use synod_paxos::{Began, ClusterVersion, GroupId, Slot, StopSign, Term, TermStart, Timestamp};
use synod_probe::{Mark, Mutation, mark, mutated};

/// The format a checkpoint is written in, and the only one that is read.
const FORMAT: u8 = 5;

/// A checkpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Nothing in it.
    #[error("the checkpoint of shard {0} is empty; fetch a snapshot from another replica")]
    Empty(GroupId),
    /// Written by another version of this program.
    #[error(
        "the checkpoint of shard {shard} has format {found}, this program reads format {FORMAT}; \
         run the program that wrote it or fetch a snapshot from another replica"
    )]
    Format {
        /// The shard.
        shard: GroupId,
        /// The format found.
        found: u8,
    },
    /// Damaged.
    #[error(
        "the checkpoint of shard {shard} is damaged ({source}); fetch a snapshot from another replica"
    )]
    Damaged {
        /// The shard.
        shard: GroupId,
        /// What the decoder said.
        source: postcard::Error,
    },
}

/// The coordinator's record of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// All participants of what was staged, this shard included; of an abort without
    /// Staged those that are known.
    pub participants: Vec<Participant>,
    /// The coordinator's anchor.
    pub anchor: Key,
    /// The outcome; none while staged.
    pub outcome: Option<Outcome>,
    /// Anchors of participants whose resolution is decided.
    pub acked: BTreeSet<Key>,
}

/// A participant as a [`RecordView`] shows it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Named<'a> {
    /// See [`Participant::anchor`].
    pub anchor: &'a [u8],
    /// Not looked at.
    _hint: (GroupId, Term),
}

/// A record without those who have acknowledged it, borrowed.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordView<'a> {
    /// See [`Record::participants`].
    #[serde(borrow)]
    pub participants: Vec<Named<'a>>,
    /// See [`Record::anchor`].
    pub anchor: &'a [u8],
    /// See [`Record::outcome`].
    pub outcome: Option<Outcome>,
}

impl Named<'_> {
    fn of(participant: &Participant) -> Named<'_> {
        Named {
            anchor: &participant.anchor,
            _hint: (participant.shard, participant.term),
        }
    }
}

impl Settle for Record {
    type View<'a> = RecordView<'a>;

    fn view(&self) -> RecordView<'_> {
        RecordView {
            participants: self.participants.iter().map(Named::of).collect(),
            anchor: &self.anchor,
            outcome: self.outcome,
        }
    }

    /// Whether every participant's resolution is decided.
    fn is_settled(&self) -> bool {
        self.outcome.is_some()
            && self
                .participants
                .iter()
                .all(|p| p.anchor == self.anchor || self.acked.contains(&p.anchor))
    }
}

impl Settle for Resolution {
    type View<'a> = ResolutionView<'a>;

    fn view(&self) -> ResolutionView<'_> {
        ResolutionView {
            _before: (self.outcome, self.recorded, self.coordinator),
            anchor: self.anchor.as_deref(),
        }
    }

    fn is_settled(&self) -> bool {
        self.recorded
    }
}

/// A resolution as splits look at it, borrowed.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ResolutionView<'a> {
    /// Not looked at.
    _before: (Outcome, bool, GroupId),
    /// See [`Resolution::anchor`].
    #[serde(borrow)]
    pub anchor: Option<&'a [u8]>,
}

/// What a participant keeps of a resolved intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// How it ended.
    pub outcome: Outcome,
    /// The outcome is decided in the coordinator shard (T6).
    pub recorded: bool,
    /// Where the coordinator was (a hint); 0 if the intent was not known.
    pub coordinator: GroupId,
    /// The key that named this shard in it: where that goes, the resolution goes (T10).
    /// None if the intent was not known.
    pub anchor: Option<Key>,
}

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

/// A copy of a shard's replicated state. Encoding takes many times as long as the copy, and a
/// shard that waits for it serves nobody; so it is done elsewhere. Its own copies are the same one.
#[derive(Clone, Debug)]
pub struct Unencoded(Arc<State>);

impl PartialEq for Unencoded {
    fn eq(&self, other: &Unencoded) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.encode() == other.encode()
    }
}

impl Eq for Unencoded {}

impl Serialize for Unencoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&*self.0, &self.0.tail).serialize(serializer)
    }
}

impl Unencoded {
    pub(crate) fn of(state: State) -> Unencoded {
        Unencoded(Arc::new(state))
    }

    /// What [`State::encode`] of the original would have been.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.0.encode()
    }

    /// The state of a shard that begins with it.
    #[must_use]
    pub fn into_state(self) -> State {
        Arc::unwrap_or_clone(self.0)
    }

    /// How many attempts were copied: that is what it cost. Those of one shard, and those that are
    /// settled, are shared with the original.
    #[must_use]
    pub fn attempts(&self) -> usize {
        let state = &self.0;
        let open = state.intents.len() + state.parts.len();
        open + state.records.copied() + state.resolutions.copied()
    }
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

    /// A copy to be encoded elsewhere.
    #[must_use]
    pub(crate) fn to_encode(&self) -> Unencoded {
        let State {
            applied,
            term,
            last,
            intents,
            parts,
            records,
            resolutions,
            one_shard,
            forget_floor,
            horizon,
            version,
            descriptor,
            began,
            lineage,
            tail,
        } = self;
        Unencoded(Arc::new(State {
            applied: *applied,
            term: *term,
            last: *last,
            intents: intents.clone(),
            parts: parts.clone(),
            records: records.clone(),
            resolutions: resolutions.clone(),
            one_shard: one_shard.to_encode(),
            forget_floor: *forget_floor,
            horizon: *horizon,
            version: *version,
            descriptor: descriptor.clone(),
            began: began.clone(),
            lineage: lineage.clone(),
            tail: tail.clone(),
        }))
    }

    /// The state, encoded.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        // Encoding plain data into memory cannot fail; an empty checkpoint
        // would be refused by `decode` rather than believed.
        let mut encoded = postcard::to_extend(self, vec![FORMAT]).unwrap_or_default();
        if self.tail != Tail::default() {
            encoded = postcard::to_extend(&self.tail, encoded).unwrap_or_default();
        }
        Bytes::from(encoded)
    }

    /// A hash of the encoded state.
    #[must_use]
    pub fn digest(&self) -> u64 {
        digest::of(FORMAT, &(self, &self.tail))
    }

    /// The inverse of [`State::encode`].
    ///
    /// # Errors
    /// If the bytes are empty, of a newer format, or damaged.
    pub fn decode(shard: GroupId, encoded: &[u8]) -> Result<State, RestoreError> {
        match encoded.split_first() {
            None => Err(RestoreError::Empty(shard)),
            Some((&FORMAT, rest)) => {
                let damaged = |source| RestoreError::Damaged { shard, source };
                let (mut state, rest): (State, _) =
                    postcard::take_from_bytes(rest).map_err(damaged)?;
                if !rest.is_empty() {
                    state.tail = decode_tail(rest).map_err(damaged)?;
                }
                // Indices that name nobody would be found out only when they are used.
                if !state.intents.values().all(|intent| intent.is_sound()) {
                    return Err(damaged(postcard::Error::DeserializeBadEncoding));
                }
                state.one_shard.rebuild();
                Ok(state)
            }
            Some((&found, _)) => Err(RestoreError::Format { shard, found }),
        }
    }
}

fn decode_tail(bytes: &[u8]) -> Result<Tail, postcard::Error> {
    let (tail, rest): (Tail, _) = postcard::take_from_bytes(bytes)?;
    let sound = tail.hashing.as_ref().is_none_or(Hashing::is_sound);
    // One that says nothing would not have been written.
    if !rest.is_empty() || !sound || tail == Tail::default() {
        return Err(postcard::Error::DeserializeBadEncoding);
    }
    Ok(tail)
}

fn versions(attempt: AttemptId, timestamp: Timestamp, writes: Vec<Write>) -> Vec<NewVersion> {
    writes
        .into_iter()
        .map(|write| (write.key, timestamp, attempt, write.value))
        .collect()
}
