//! Shards that are split off others (decision 15), as a node takes them in.
//!
//! Whoever applies a split makes a replica of the new shard, once the engine holds its first
//! state and everything that was written before, synced: so a replica that says anything
//! has all its data. Who gets past the split by a snapshot of the parent makes one
//! without data, which votes and waits for a snapshot of its own. Which of two replicas
//! on a node a key's data belongs to is told by where they begin: the later one has it.

use super::Worker;
use crate::outbox::SnapshotTask;
use crate::shard::split::{first_descriptor, first_durable};
use crate::shard::{Now, Recovered, SplitError, Splitting};
use crate::wire::ShardDescriptor;
use synod_paxos::GroupId;
use synod_paxos::replica::Cx;
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::lineage::BIRTH;
use synod_txn::{Birth, Child, Key};

impl Worker {
    /// Asks the shard's leader, if it is here, to cut the shard's range before key `at`;
    /// what lies from there on becomes shard `child`, whose id no shard may ever have had.
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

    /// What has been split off a shard of this node is taken in.
    pub(super) fn review_children(&mut self, now: Now, group: GroupId) {
        let Some(shard) = self.shards.get_mut(&group) else {
            return;
        };
        let births = shard.take_births();
        let children = shard.group.state().lineage.children.clone();
        for birth in births {
            self.take_birth(now, birth);
        }
        for child in children {
            let known = self.shards.contains_key(&child.id) || self.births.contains_key(&child.id);
            if !known && child.configuration.is_member(self.me) {
                mark(Mark::ChildBornWithoutData);
                let descriptor = first_descriptor(&child);
                self.note_child(&descriptor);
                if self
                    .make_empty(now, descriptor, first_durable(&child))
                    .is_some()
                {
                    self.found(now, &child);
                }
            }
        }
    }

    fn take_birth(&mut self, now: Now, birth: Birth) {
        let id = birth.child.id;
        self.note_child(&first_descriptor(&birth.child));
        let known = self.shards.contains_key(&id) || self.births.contains_key(&id);
        if known || !birth.child.configuration.is_member(self.me) {
            return;
        }
        let task = SnapshotTask::Birth {
            group: id,
            slot: BIRTH,
            state: birth.state.clone(),
        };
        self.outbox.birth(task);
        self.births.insert(id, birth);
        if mutated(Mutation::ChildBeforeSync) {
            self.handle_born(now, id);
        }
    }

    /// Others hear of it by gossip; those that ask here, now.
    fn note_child(&mut self, descriptor: &ShardDescriptor) {
        self.map_changes += u64::from(self.map.learn(descriptor));
    }

    /// The engine holds what a new shard begins with, synced.
    pub(super) fn handle_born(&mut self, now: Now, group: GroupId) {
        let Some(Birth { child, state }) = self.births.remove(&group) else {
            return;
        };
        if self.shards.contains_key(&group) {
            return;
        }
        let recovered = Recovered {
            descriptor: first_descriptor(&child),
            durable: first_durable(&child),
            checkpoint: Some((BIRTH, state)),
            engine_applied: BIRTH,
            is_new: true,
        };
        if self.add(now, recovered).is_some() {
            mark(Mark::ChildBorn);
            self.found(now, &child);
        }
    }

    fn found(&mut self, now: Now, child: &Child) {
        if let Some(shard) = self.shards.get_mut(&child.id) {
            let cx = Cx {
                now: now.mono,
                leases: &self.leases,
            };
            shard.replica.found(&cx, child.leader);
        }
    }

    /// Whether a replica of the shard is about to be split off one that is here, so that
    /// its data need not be sent.
    pub(super) fn will_be_born(&self, descriptor: &ShardDescriptor) -> bool {
        let start = &descriptor.span.start;
        self.births.contains_key(&descriptor.id)
            || self.shards.values().any(|shard| {
                let span = &shard.descriptor.span;
                let parent = span.start < *start && span.contains(start);
                parent && shard.replica.holds_data() && shard.is_member()
            })
    }

    /// A replica's data ends where that of the next one on this node begins.
    pub(super) fn review_clips(&mut self) {
        let mut starts: Vec<Key> = { self.shards.values() }
            .map(|shard| shard.descriptor.span.start.clone())
            .collect();
        starts.sort_unstable();
        for shard in self.shards.values_mut() {
            let start = &shard.descriptor.span.start;
            let next = starts.get(starts.partition_point(|other| other <= start));
            let next = next.filter(|next| shard.descriptor.span.contains(next));
            shard.set_clip(next.cloned());
        }
    }
}
