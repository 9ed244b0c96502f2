//! Merges, as the replicated states of both shards know them (decision 19).
//!
//! The right one's log ends with `End`, once nothing is undecided in it: from there on it
//! applies nothing but `Resume`. The left one's log alone decides what follows: `Absorb` takes
//! the right one's state as of that entry in, `Reopen` gives its range back. The first of the two
//! counts. Whoever absorbed a shard has it among its ancestors for ever, and hands that on to
//! whatever is split off it, so nobody can give the range back a second time.

use crate::hashing::Hashing;
use crate::lineage::CHILDREN;
use crate::state::State;
use crate::types::{Key, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use synod_paxos::{Ballot, Configuration, GroupId, Slot, Timestamp};
use synod_probe::{Mark, Mutation, mark, mutated};

/// Shards whose end was refused last that are remembered, at most. Who is not remembered
/// and asks again is refused again.
const REOPENED: usize = 16;

/// One asking of a shard to end: no two are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The shard that wants to absorb.
    pub left: GroupId,
    /// Its leader's ballot.
    pub ballot: Ballot,
    /// Counts the askings of that leader.
    pub number: u64,
}

/// The end of a shard that is to become part of its left neighbour: nothing undecided
/// before it, nothing but `Resume` after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The shard's range.
    pub span: Span,
    /// Its members: the left one's, when it absorbs.
    pub configuration: Configuration,
    /// The generation of its descriptor.
    pub generation: u64,
    /// Nothing above was assigned or served before it (K3).
    pub last: Timestamp,
    /// How its keys are stored: as the left one's, when it absorbs.
    pub hashing: Option<Hashing>,
    /// Who asked for it.
    pub call: Call,
    /// The ballot it was proposed under. With its slot it names one log up to here.
    pub under: Ballot,
}

/// A shard has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The entry's slot.
    pub slot: Slot,
    /// The entry.
    pub end: End,
}

/// The shard to the right is part of this one from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absorb {
    /// The range before it.
    pub span: Span,
    /// The shard.
    pub right: GroupId,
    /// Its range.
    pub gained: Span,
    /// The slot of its end.
    pub slot: Slot,
    /// The ballot that was proposed under.
    pub under: Ballot,
    /// Nothing above was assigned or served there (K3).
    pub last: Timestamp,
    /// How the keys of both are stored.
    pub hashing: Option<Hashing>,
    /// What [`crate::Lineage::splits`] is afterwards: the descriptor's generation lies above those of
    /// both shards.
    pub splits: u64,
}

/// A shard that was absorbed, while replicas of it are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absorbed {
    /// The shard.
    pub id: GroupId,
    /// The slot here that absorbed it.
    pub at: Slot,
}

impl State {
    /// Whether a shard is part of this one, or of one that this descends from: for ever, and
    /// only if that was decided. (A shard to the right is never an ancestor otherwise: where
    /// a shard begins never changes, and splits give away the end.)
    #[must_use]
    pub fn has_absorbed(&self, right: GroupId) -> bool {
        self.lineage.ancestors.contains(&right)
    }

    /// Whether the end in that slot, or a later one, of a shard was refused.
    #[must_use]
    pub fn has_reopened(&self, right: GroupId, slot: Slot) -> bool {
        let reopened = self.tail.reopened.iter();
        reopened.filter(|(id, _)| *id == right).any(|r| r.1 >= slot)
    }

    fn is_of_range(&self, span: &Span) -> bool {
        self.lineage.span.as_ref().is_none_or(|known| known == span)
    }

    /// Whether an `Absorb` counts here and now.
    #[must_use]
    pub fn absorbs(&self, absorb: &Absorb) -> bool {
        let adjacent = !absorb.span.end.is_empty() && absorb.span.end == absorb.gained.start;
        let undecided = self.has_undecided() && !mutated(Mutation::MergeOverIntents);
        let refused = self.has_reopened(absorb.right, absorb.slot);
        adjacent
            && self.is_of_range(&absorb.span)
            && !undecided
            && !refused
            && !self.has_absorbed(absorb.right)
            && self.tail.hashing == absorb.hashing
            && self.tail.absorbed.is_none()
            && self.tail.ended.is_none()
    }

    /// The shard ends here, unless something undecided stands in the way.
    pub(crate) fn apply_end(&mut self, end: End) {
        self.last = self.last.max(end.last);
        let undecided = self.has_undecided() && !mutated(Mutation::MergeOverIntents);
        if undecided || self.tail.ended.is_some() || !self.is_of_range(&end.span) {
            mark(Mark::EndVoid);
            return;
        }
        mark(Mark::EndApplied);
        let slot = self.applied;
        self.tail.ended = Some(Ended { slot, end });
    }

    /// The end in that slot was refused: the shard goes on.
    pub(crate) fn apply_resume(&mut self, slot: Slot) {
        if self
            .tail
            .ended
            .take_if(|ended| ended.slot == slot)
            .is_some()
        {
            mark(Mark::ResumeApplied);
        }
    }

    /// The end of the shard to the right is refused, unless that one is part of this by now.
    pub(crate) fn apply_reopen(&mut self, right: GroupId, slot: Slot) {
        if self.has_absorbed(right) && !mutated(Mutation::ReopenAbsorbed) {
            return;
        }
        mark(Mark::ReopenApplied);
        self.tail
            .reopened
            .retain(|(id, at)| *id != right || *at > slot);
        if !self.has_reopened(right, slot) {
            self.tail.reopened.push((right, slot));
        }
        if self.tail.reopened.len() > REOPENED {
            self.tail.reopened.remove(0);
        }
    }

    /// All members have what was absorbed: no replica of that shard is needed any more.
    pub(crate) fn apply_retire(&mut self, right: GroupId) {
        self.tail.absorbed.take_if(|absorbed| absorbed.id == right);
    }

    /// Takes the state of the shard to the right in, as of its end. [`State::absorbs`] was asked.
    pub(crate) fn apply_absorb(&mut self, shard: GroupId, absorb: Absorb, right: &State) {
        mark(Mark::AbsorbApplied);
        let Absorb {
            span,
            right: id,
            gained,
            last,
            splits,
            ..
        } = absorb;
        if !mutated(Mutation::AbsorbLosesLast) {
            self.last = self.last.max(last);
        }
        self.forget_floor = self.forget_floor.max(right.forget_floor);
        self.horizon = self.horizon.max(right.horizon);
        self.version = self.version.max(right.version);
        self.tail.reopened.retain(|(reopened, _)| *reopened != id);
        self.take_records(right, &span, &gained);
        if !mutated(Mutation::AbsorbForgetsRecords) {
            self.one_shard.absorb(&right.one_shard);
        }
        let lineage = &mut self.lineage;
        lineage.ancestors.insert(id);
        lineage.ancestors.extend(&right.lineage.ancestors);
        lineage.ancestors.remove(&shard);
        lineage
            .children
            .extend(right.lineage.children.iter().cloned());
        let ancestors = &lineage.ancestors;
        lineage.children.retain(|c| !ancestors.contains(&c.id));
        let excess = lineage.children.len().saturating_sub(CHILDREN);
        lineage.children.drain(..excess);
        lineage.splits = splits;
        lineage.span = Some(Span {
            start: span.start,
            end: gained.end,
        });
        self.tail.absorbed = Some(Absorbed {
            id,
            at: self.applied,
        });
    }

    /// Records and resolutions of both shards become one shard's. An attempt that both took part
    /// in is resolved in both: its coordinator, if it was one of them, need not hear of it.
    fn take_records(&mut self, right: &State, kept: &Span, gained: &Span) {
        if mutated(Mutation::AbsorbForgetsRecords) {
            return;
        }
        let acked = |span: &Span, keys: &[&Key]| -> Vec<Key> {
            let inside = keys.iter().filter(|key| span.contains(key));
            inside.map(|key| (*key).clone()).collect()
        };
        let named = self.records.views().filter(|(_, record)| {
            let mut named = record.participants.iter();
            named.any(|p| gained.contains(p.anchor))
        });
        for attempt in named.map(|(attempt, _)| attempt).collect::<Vec<_>>() {
            self.records.update(attempt, |record| {
                let anchors: Vec<&Key> = record.participants.iter().map(|p| &p.anchor).collect();
                let there = acked(gained, &anchors);
                record.acked.extend(there);
            });
        }
        for (attempt, record) in right.records.iter() {
            let mut record = record.into_owned();
            let anchors: Vec<&Key> = record.participants.iter().map(|p| &p.anchor).collect();
            let here = acked(kept, &anchors);
            record.acked.extend(here);
            self.resolutions.remove(&attempt);
            if !self.records.contains_key(&attempt) {
                self.records.insert(attempt, record);
            }
        }
        for (attempt, resolution) in right.resolutions.iter() {
            if self.records.contains_key(&attempt) {
                continue;
            }
            let known = self.resolutions.update(attempt, |known| {
                known.recorded |= resolution.recorded;
                known.anchor.clone()
            });
            let others = right.tail.anchors.get(&attempt).into_iter().flatten();
            let others = others.chain(&resolution.anchor);
            let own = known.as_ref().unwrap_or(&resolution.anchor);
            let others = others.filter(|anchor| own.as_ref() != Some(anchor));
            let others: BTreeSet<Key> = others.cloned().collect();
            if known.is_none() {
                self.resolutions.insert(attempt, resolution.into_owned());
            }
            if !others.is_empty() {
                self.tail.anchors.entry(attempt).or_default().extend(others);
            }
        }
        let resolutions = &self.resolutions;
        self.tail.anchors.retain(|a, _| resolutions.contains_key(a));
    }
}
