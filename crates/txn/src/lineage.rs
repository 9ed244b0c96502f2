//! Splits, as a shard's replicated state knows them (decision 15).
//!
//! One entry cuts the state of a shard in two. It counts only if no intent is open, so
//! all that goes to the new shard is decided: records of transactions that it
//! coordinates from now on, resolutions of intents that were its, and outcomes of one-shard
//! transactions, of which nobody can tell any more where they wrote, so both keep them.
//! Floors, horizon and `last` are the same in both halves.

use crate::attempts::{Attempts, Side};
use crate::checkpoint::Unencoded;
use crate::command::Split;
use crate::records::{RecordView, Resolution};
use crate::state::{State, Tail};
use crate::types::{AttemptId, Key, Span};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{Ballot, Began, Configuration, GroupId, NodeId, Slot, Term, Timestamp};
use synod_probe::{Mark, Mutation, mark, mutated};

/// The slot that stands for everything a shard that was split off begins with.
pub const BIRTH: Slot = Slot(1);
/// Shards split off that are remembered, at most. Only a replica that gets past a split
/// by a snapshot needs to know them, and one that has missed more of them is
/// taken in by their leaders.
pub(crate) const CHILDREN: usize = 64;

/// A shard that was split off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its id.
    pub id: GroupId,
    /// The shard that it was part of.
    pub parent: GroupId,
    /// Its keys.
    pub span: Span,
    /// Its first members.
    pub configuration: Configuration,
    /// Who leads it first, if all goes well.
    pub leader: NodeId,
    /// Splits before it began, in its line.
    pub splits: u64,
    /// The entry that split it off.
    pub split: Passed,
}

/// A split that a shard's state has behind it: its slot in the log, and the ballot it was proposed
/// under. No two logs that hold it there differ before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// The slot.
    pub slot: Slot,
    /// The ballot.
    pub under: Ballot,
}

impl Child {
    /// The configuration that it begins with, and where.
    #[must_use]
    pub fn began(&self) -> Began {
        Began {
            configuration: self.configuration.clone(),
            after: BIRTH,
            left: Vec::new(),
        }
    }
}

/// A shard that an entry split off, and the state that it begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Birth {
    /// The shard.
    pub child: Child,
    /// Its state after [`BIRTH`].
    pub state: Unencoded,
}

/// What splits have made of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Its keys, once a split has set them; before that, those of its first descriptor.
    pub span: Option<Span>,
    /// Splits of it, and in its line before it began; merges raise it above what both shards had.
    pub splits: u64,
    /// Shards that it descends from, and those that it absorbed: a term of theirs is an earlier
    /// one of its own.
    pub ancestors: BTreeSet<GroupId>,
    /// The shards that were split off it last, oldest first.
    pub children: Vec<Child>,
}

impl Lineage {
    /// Whether a key may be this shard's, as far as splits tell.
    #[must_use]
    pub fn owns(&self, key: &Key) -> bool {
        self.span.as_ref().is_none_or(|span| span.contains(key))
    }
}

impl State {
    /// Cuts the state in two, unless something undecided stands in the way or the entry
    /// is about another range than the shard has. Returns what begins with it.
    pub(crate) fn apply_split(&mut self, shard: GroupId, split: Split) -> Option<Birth> {
        self.last = self.last.max(split.last);
        let Split {
            span,
            at,
            child,
            configuration,
            leader,
            under,
            ..
        } = split;
        let slot = self.applied;
        let other = self
            .lineage
            .span
            .as_ref()
            .is_some_and(|known| *known != span);
        let inside = at > span.start && span.contains(&at);
        let undecided = self.has_undecided() && !mutated(Mutation::SplitOverIntents);
        if other || !inside || undecided || self.tail.absorbed.is_some() {
            mark(Mark::SplitVoid);
            return None;
        }
        mark(Mark::SplitApplied);
        self.lineage.splits = self.lineage.splits.saturating_add(1);
        let child = Child {
            id: child,
            parent: shard,
            span: Span {
                start: at.clone(),
                end: span.end,
            },
            configuration,
            leader,
            splits: self.lineage.splits,
            split: Passed { slot, under },
        };
        self.lineage.span = Some(Span {
            start: span.start,
            end: at,
        });
        let state = self.split_off(shard, &child);
        self.lineage.children.push(child.clone());
        if self.lineage.children.len() > CHILDREN {
            self.lineage.children.remove(0);
        }
        Some(Birth {
            child,
            state: Unencoded::of(state),
        })
    }

    /// Whether a transaction is open here, or one that is coordinated from here.
    pub(crate) fn has_undecided(&self) -> bool {
        let open = !self.intents.is_empty() || !self.parts.is_empty();
        open || self.in_doubt().next().is_some()
    }

    /// Further anchors of resolutions, of those in the child's range.
    fn split_anchors(&mut self, child: &Child) -> BTreeMap<AttemptId, BTreeSet<Key>> {
        let mut gone = BTreeMap::new();
        for (attempt, anchors) in &mut self.tail.anchors {
            let goes = |key: &Key| child.span.contains(key);
            let leaving: BTreeSet<Key> = anchors.iter().filter(|k| goes(k)).cloned().collect();
            anchors.retain(|key| !goes(key));
            if !leaving.is_empty() {
                gone.insert(*attempt, leaving);
            }
        }
        self.tail.anchors.retain(|_, anchors| !anchors.is_empty());
        gone
    }

    /// What belongs to the child leaves; what nobody can tell apart both keep.
    fn split_off(&mut self, shard: GroupId, child: &Child) -> State {
        let goes = |key: &[u8]| child.span.contains(key);
        let kept_span = self.lineage.span.clone();
        let owns = |key: &[u8]| kept_span.as_ref().is_some_and(|span| span.contains(key));
        let mut records = self.records.part(|_, record| match goes(record.anchor) {
            true => Side::Goes,
            false => Side::Stays,
        });
        let anchors = self.split_anchors(child);
        let kept = &self.tail.anchors;
        // A resolution without an anchor is of an attempt that has nothing here; one with several, of
        // one that had something in both halves, as they were two before.
        let mut resolutions = self.resolutions.part(|attempt, resolution| {
            let Some(anchor) = resolution.anchor else {
                return Side::Both;
            };
            let (there, here) = (anchors.contains_key(&attempt), kept.contains_key(&attempt));
            match (goes(anchor), there, here) {
                (true, _, false) => Side::Goes,
                (false, false, _) => Side::Stays,
                _ => Side::Both,
            }
        });
        for (attempt, named) in &anchors {
            resolutions.update(*attempt, |resolution| {
                if !resolution.anchor.as_deref().is_none_or(goes) {
                    resolution.anchor = named.first().cloned();
                }
            });
        }
        for (attempt, named) in kept {
            self.resolutions.update(*attempt, |resolution| {
                if resolution.anchor.as_deref().is_some_and(goes) {
                    resolution.anchor = named.first().cloned();
                }
            });
        }
        for (attempt, record) in self.records.views() {
            part(&mut resolutions, shard, attempt, &record, goes);
        }
        for (attempt, record) in records.views() {
            part(&mut self.resolutions, child.id, attempt, &record, |key| {
                !goes(key) && owns(key)
            });
        }
        let mut ancestors = self.lineage.ancestors.clone();
        ancestors.insert(shard);
        let mut one_shard = self.one_shard.clone();
        if mutated(Mutation::SplitForgetsRecords) {
            (records, resolutions, one_shard) = Default::default();
        }
        let loses_last = mutated(Mutation::SplitLosesLast);
        let last = if loses_last { Timestamp(0) } else { self.last };
        State {
            applied: BIRTH,
            term: Term::default(),
            last,
            records,
            resolutions,
            one_shard,
            forget_floor: self.forget_floor,
            horizon: self.horizon,
            version: self.version,
            began: Some(child.began()),
            lineage: Lineage {
                span: Some(child.span.clone()),
                splits: child.splits,
                ancestors,
                children: Vec::new(),
            },
            tail: Tail {
                anchors,
                ..self.tail.clone()
            },
            ..State::default()
        }
    }
}

/// A record of which the other half of a split was a participant, before both were merged, leaves a
/// resolution there: who asks by that anchor is told what became of it.
fn part(
    resolutions: &mut Attempts<Resolution>,
    coordinator: GroupId,
    attempt: AttemptId,
    record: &RecordView<'_>,
    is_there: impl Fn(&[u8]) -> bool,
) {
    let others = record.participants.iter().map(|p| p.anchor);
    let mut there = others.filter(|anchor| *anchor != record.anchor && is_there(anchor));
    if let (Some(outcome), Some(anchor)) = (record.outcome, there.next()) {
        if resolutions.contains_key(&attempt) {
            return;
        }
        let resolution = Resolution {
            outcome,
            recorded: true,
            coordinator,
            anchor: Some(Key::copy_from_slice(anchor)),
        };
        resolutions.insert(attempt, resolution);
    }
}
