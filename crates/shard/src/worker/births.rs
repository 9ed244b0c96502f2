//! Shards that are split off others (decision 15), as a node takes them in.
//!
//! Whoever applies a split makes a replica of the new shard, once the engine holds its first
//! state and everything that was written before, synced: so a replica that says anything
//! has all its data. Who gets past the split by a snapshot of the parent makes one
//! without data, outside of the group, which is taken in with a snapshot of its own. Which of two replicas
//! on a node a key's data belongs to is told by where they begin: the later one has it.

use super::Worker;
use super::merges::SnapshotHead;
use crate::outbox::SnapshotTask;
use crate::shard::split::{first_descriptor, first_durable};
use crate::shard::{HashError, Now, Recovered, Shard, SplitError, Splitting};
use crate::wire::ShardDescriptor;
use serde::Serialize;
use std::collections::BTreeSet;
use synod_paxos::replica::Cx;
use synod_paxos::{GroupId, Message, NodeId};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::lineage::BIRTH;
use synod_txn::{Birth, Child, Hashing, Key, Span};

/// A leader's messages wait so long for a birth before its snapshot is taken.
const AWAITED_NANOS: u64 = 5_000_000_000;

/// A replica that begins once the engine is ready.
#[derive(Clone, Serialize)]
pub(super) enum Coming {
    /// With its data, which the engine holds by then.
    Whole(Box<Birth>),
    /// Without.
    Empty(Box<ShardDescriptor>),
}

/// Whether a shard was split off another one, or others off it.
pub(super) fn is_of_split(descriptor: &ShardDescriptor) -> bool {
    descriptor.generation > u64::from(descriptor.configuration.epoch.0)
}

impl Worker {
    /// Asks the shard's leader, if it is here, to cut the shard's range before key `at`;
    /// what lies from there on becomes shard `child`, whose id no shard may ever have had: once
    /// this was said to be under way, the id is spent for all other shards, whatever follows.
    /// May be repeated until it says that this is done.
    ///
    /// # Errors
    /// See [`SplitError`]; nothing was proposed then.
    pub fn split(
        &mut self,
        now: Now,
        group: GroupId,
        at: &Key,
        child: GroupId,
    ) -> Result<Splitting, SplitError> {
        let Some(shard) = self.shards.get_mut(&group) else {
            return Err(SplitError::NotLeader { leader: None });
        };
        let born = shard.group.state().lineage.children.iter();
        if born.clone().any(|c| c.id == child && c.span.start == *at) {
            return Ok(Splitting::Done);
        }
        if child == GroupId(0) || self.map.shard(child).is_some() {
            return Err(SplitError::Taken { child });
        }
        let splitting = shard.split(now, at, child)?;
        self.dirty.insert(group);
        Ok(splitting)
    }

    /// Asks the shard's leader, if it is here, to store its keys in another way; none is as
    /// they are. May be repeated until it says that this is done.
    ///
    /// # Errors
    /// See [`HashError`]; nothing was proposed then.
    pub fn hash(
        &mut self,
        now: Now,
        group: GroupId,
        hashing: Option<&Hashing>,
    ) -> Result<Splitting, HashError> {
        let Some(shard) = self.shards.get_mut(&group) else {
            return Err(HashError::NotLeader { leader: None });
        };
        let hashed = shard.hash(now, hashing)?;
        self.dirty.insert(group);
        Ok(hashed)
    }

    /// What has been split off a shard of this node is taken in.
    pub(super) fn review_children(&mut self, now: Now, group: GroupId) {
        let Some(shard) = self.shards.get_mut(&group) else {
            return;
        };
        let births = shard.take_births();
        let children = shard.group.state().lineage.children.clone();
        // Others hear of them by gossip; those that ask here, now. Also where no replica of
        // them is: the parent's range ends there, and what has no owner is routed nowhere.
        for child in &children {
            let descriptor = first_descriptor(child);
            self.map_changes += u64::from(self.map.learn(&descriptor));
        }
        for birth in births {
            self.take_birth(now, birth);
        }
        for child in children {
            let known = self.shards.contains_key(&child.id) || self.births.contains_key(&child.id);
            // Perhaps it was absorbed since.
            let exists = self.map.shard(child.id).is_some();
            if exists && !known && child.configuration.is_member(self.me) {
                mark(Mark::ChildBornWithoutData);
                self.make_empty_later(first_descriptor(&child));
            }
        }
    }

    fn take_birth(&mut self, now: Now, birth: Birth) {
        let id = birth.child.id;
        let known = self.shards.contains_key(&id) || self.births.contains_key(&id);
        if known || !birth.child.configuration.is_member(self.me) {
            return;
        }
        self.outbox.birth(SnapshotTask::Birth {
            group: id,
            slot: BIRTH,
            state: Some(birth.state.clone()),
        });
        self.births.insert(id, Coming::Whole(Box::new(birth)));
        if mutated(Mutation::ChildBeforeSync) {
            self.handle_born(now, id);
        }
    }

    /// A replica without data begins once the engine has forgotten what an interrupted birth
    /// may have left of it.
    pub(super) fn make_empty_later(&mut self, descriptor: ShardDescriptor) {
        self.outbox.birth(SnapshotTask::Birth {
            group: descriptor.id,
            slot: BIRTH,
            state: None,
        });
        let id = descriptor.id;
        let coming = Coming::Empty(Box::new(descriptor));
        self.births.insert(id, coming);
    }

    /// The engine is ready for a replica to begin.
    pub(super) fn handle_born(&mut self, now: Now, group: GroupId) {
        let Some(coming) = self.births.remove(&group) else {
            return self.handle_merge_saved(now, group);
        };
        if self.shards.contains_key(&group) {
            return;
        }
        match coming {
            Coming::Whole(birth) => {
                let Birth { child, state } = *birth;
                mark(Mark::ChildBorn);
                let recovered = Recovered {
                    descriptor: first_descriptor(&child),
                    durable: first_durable(&child),
                    checkpoint: Some((BIRTH, state.into_state())),
                    engine_applied: BIRTH,
                    begins_empty: false,
                    is_new: true,
                };
                if self.add(now, recovered).is_some() {
                    self.found(now, group, child.leader);
                }
            }
            Coming::Empty(descriptor) => {
                self.make_empty(now, *descriptor);
            }
        }
    }

    fn found(&mut self, now: Now, group: GroupId, first: NodeId) {
        if let Some(shard) = self.shards.get_mut(&group) {
            let cx = Cx {
                now: now.mono,
                leases: &self.leases,
            };
            shard.replica.found(&cx, first);
        }
    }

    /// A shard that was split off exists, so the split is decided: a replica of the shard
    /// that it was part of applies it, if it has accepted it.
    pub(super) fn pass_split_of(&mut self, now: Now, descriptor: &ShardDescriptor) {
        let Some(origin) = descriptor.born else {
            return;
        };
        let Some(parent) = self.shards.get_mut(&origin.parent) else {
            return;
        };
        if parent.pass_splits(now, &self.leases, None, &[origin.split]) {
            self.dirty.insert(origin.parent);
        }
    }

    /// Whether a chunk of a snapshot is dropped, to come again: what the log holds of a split behind
    /// the snapshot is applied first, and the replica of what was split off is there for
    /// good. Until then its data is this shard's, which the snapshot replaces.
    pub(super) fn is_born_first(
        &mut self,
        now: Now,
        group: GroupId,
        message: &Message,
        head: Option<&SnapshotHead>,
    ) -> bool {
        let Message::SnapshotChunk { ballot, .. } = message else {
            return false;
        };
        let Some(shard) = self.shards.get_mut(&group) else {
            return false;
        };
        let passed = head.map_or(&[][..], |head| &head.passed);
        if shard.pass_splits(now, &self.leases, Some(*ballot), passed) {
            self.dirty.insert(group);
            return true;
        }
        let is_coming = |child: &Child| {
            let coming = self.births.get(&child.id);
            matches!(coming, Some(Coming::Whole(_)))
        };
        let children = &shard.group.state().lineage.children;
        shard.group.has_births() || children.iter().any(is_coming)
    }

    /// Whether a replica of the shard is about to be split off one that is here, so that
    /// its data need not be sent. Not for long: perhaps that one never gets there, unless its
    /// log holds the split.
    pub(super) fn will_be_born(&mut self, now: Now, descriptor: &ShardDescriptor) -> bool {
        if self.births.contains_key(&descriptor.id) {
            return true;
        }
        let gets_there = descriptor.born.is_some_and(|origin| {
            let parent = self.shards.get(&origin.parent);
            parent.is_some_and(|parent| {
                parent.group.has_births()
                    || parent.holds_split(&[origin.split]).is_some()
                    || parent.is_applying(origin.split.slot)
            })
        });
        if gets_there {
            return true;
        }
        let start = &descriptor.span.start;
        let parent = self.shards.values().any(|shard| {
            let span = &shard.descriptor.span;
            let wide = span.start < *start && span.contains(start);
            wide && shard.replica.holds_data() && shard.is_member()
        });
        let since = *self.awaited.entry(descriptor.id).or_insert(now.mono);
        parent && now.mono.since(since) < AWAITED_NANOS
    }

    /// Whether a shard's log must stay because what was split off it has no leader yet. Until
    /// then nobody sends that one's data, so those who have not come as far need the
    /// entries: a snapshot of what is left would put itself in their place (G3).
    pub(super) fn keeps_for_children(&self, group: GroupId) -> bool {
        let Some(shard) = self.shards.get(&group) else {
            return false;
        };
        let begins = |id: &GroupId| {
            let replica = self.shards.get(id).map(|shard| &shard.replica);
            replica.is_some_and(|r| r.decided() == BIRTH && r.configuration().is_member(self.me))
        };
        let mut children = shard.group.state().lineage.children.iter();
        children.any(|child| self.births.contains_key(&child.id) || begins(&child.id))
    }

    /// Whether a candidate of a shard that was split off may need this node's vote.
    pub(super) fn is_founder(&self, from: NodeId, group: GroupId) -> bool {
        self.map.shard(group).is_some_and(|known| {
            let configuration = &known.configuration;
            is_of_split(known) && configuration.is_member(self.me) && configuration.is_member(from)
        })
    }

    /// A replica's data ends where that of the next one on this node begins.
    pub(super) fn review_clips(&mut self) {
        let mut absorbed = BTreeSet::new();
        let mut supersedes = Vec::new();
        for (id, shard) in &self.shards {
            let begins_in = |other: &GroupId, span: &Span| {
                let other = self.shards.get(other).filter(|_| other != id);
                other.is_some_and(|other| span.contains(&other.descriptor.span.start))
            };
            let span = &shard.descriptor.span;
            let so_far = shard
                .absorbed_so_far()
                .filter(|other| begins_in(other, span));
            let mut here: Vec<GroupId> = so_far.collect();
            if let Some((span, ancestors)) = shard.on_the_way() {
                let comes = ancestors.iter().filter(|other| begins_in(other, span));
                here.extend(comes);
            }
            absorbed.extend(here.iter().copied());
            if here != shard.supersedes() {
                supersedes.push((*id, here));
            }
        }
        for (id, here) in supersedes {
            if let Some(shard) = self.shards.get_mut(&id) {
                shard.set_supersedes(here);
            }
        }
        let counts = self
            .shards
            .values()
            .filter(|s| !absorbed.contains(&s.descriptor.id));
        let mut starts: Vec<Key> = counts.map(|s| s.descriptor.span.start.clone()).collect();
        starts.sort_unstable();
        self.clips = false;
        for (id, shard) in &mut self.shards {
            shard.set_superseded(absorbed.contains(id));
            let start = &shard.descriptor.span.start;
            let next = starts.get(starts.partition_point(|other| other <= start));
            // Also where the range ends before that: a snapshot's may not.
            self.clips |= next.is_some_and(|next| shard.descriptor.span.contains(next));
            shard.set_clip(next.cloned());
        }
    }

    /// Looks whether the parts of a replica's range that are others' by now are all there: only
    /// then can it still be sent as a whole.
    pub(super) fn review_parts(&mut self, group: GroupId) {
        let Some(shard) = self.shards.get(&group).filter(|shard| shard.is_clipped()) else {
            return;
        };
        let mut rest = shard.data_span();
        let whole = &shard.descriptor.span;
        let mut parts: Vec<&Shard> = self.shards.values().collect();
        parts.sort_by(|a, b| a.descriptor.span.start.cmp(&b.descriptor.span.start));
        for part in parts {
            let span = &part.descriptor.span;
            if part.is_whole() && span.start == rest.end && whole.contains(&span.start) {
                rest.end.clone_from(&part.data_span().end);
            }
        }
        let whole = rest.end == whole.end;
        if let Some(shard) = self.shards.get_mut(&group) {
            shard.set_parts_whole(whole);
        }
    }
}
