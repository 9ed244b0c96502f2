//! Merges (decision 19), as a node sees them: messages find their leaders, a replica gets the state
//! that it takes in from the node's replica of the other shard, and what was absorbed goes
//! once nobody needs it any more.

use super::Worker;
use super::routing::MAX_HOPS;
use crate::outbox::MergeTo;
use crate::shard::{MergeError, Merging, Now, Shard};
use crate::wire::{self, MergeMessage, NodeMessage, ShardReply};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{GroupId, Message, Mono, NodeId, SnapshotId};
use synod_probe::{Mark, mark};
use synod_txn::{Key, Passed, Span};

/// Between two looks at what was absorbed and is still there; nanoseconds.
const LOOK_NANOS: u64 = 200_000_000;
/// Looks in vain double the time up to this power of two.
const MAX_BACKOFF: u32 = 5;

/// What the worker keeps of merges.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct MergeView {
    /// Which replica here waits for the end of which other.
    awaiting: BTreeMap<GroupId, GroupId>,
    /// Replicas of shards that the map says are absorbed, or of shards that have absorbed one.
    looked_at: BTreeSet<GroupId>,
    /// When they are looked at next.
    next: Option<Mono>,
    /// Looks since anything was news.
    looks: u32,
}

/// What the first chunk of a snapshot says of it.
pub(super) struct SnapshotHead {
    id: SnapshotId,
    span: Span,
    /// The last splits that it has behind it.
    pub(super) passed: Vec<Passed>,
    /// Shards that it descends from or has absorbed.
    ancestors: BTreeSet<GroupId>,
}

impl SnapshotHead {
    /// None for every other message, and for a damaged chunk.
    pub(super) fn of(message: &Message) -> Option<SnapshotHead> {
        let Message::SnapshotChunk {
            id,
            chunk: 0,
            checksum,
            data,
            ..
        } = message
        else {
            return None;
        };
        let sound = crc32fast::hash(data) == *checksum;
        let (state, ancestors) = sound.then(|| wire::snapshot_head(data)).flatten()?;
        Some(SnapshotHead {
            id: *id,
            span: state.span,
            passed: state.passed,
            ancestors,
        })
    }
}

impl Worker {
    /// Asks the leader of `left`, if it is here, to take in `right`, the shard that begins
    /// where it ends. May be repeated until it says that this is done.
    ///
    /// # Errors
    /// See [`MergeError`]; nothing has changed then, or will go back by itself.
    pub fn merge(
        &mut self,
        now: Now,
        left: GroupId,
        right: GroupId,
    ) -> Result<Merging, MergeError> {
        let Some(shard) = self.shards.get_mut(&left) else {
            return Err(MergeError::NotLeader { leader: None });
        };
        if shard.group.state().has_absorbed(right) {
            return Ok(Merging::Done);
        }
        let Some(descriptor) = self.map.shard(right) else {
            return Err(MergeError::NotNeighbours);
        };
        let merging = shard.merge(now, descriptor)?;
        self.dirty.insert(left);
        Ok(merging)
    }

    /// Takes what shards want to say to each other about merges to their leaders.
    pub(super) fn deliver_merges(&mut self, now: Now) {
        for _ in 0..self.outbox.merges.len() {
            let Some((to, message)) = self.outbox.merges.pop_front() else {
                return;
            };
            let shard = match to {
                MergeTo::Shard(shard) => Some(shard),
                MergeTo::Before(key) => self.owner_before(&key),
            };
            if let Some(shard) = shard {
                self.route_merge(now, shard, 0, message);
            }
        }
    }

    /// The shard that ends where a key's begins, or one that has heard of it.
    fn owner_before(&self, key: &Key) -> Option<GroupId> {
        let shards = &self.map.shards;
        let before = shards.partition_point(|s| s.span.start < *key);
        Some(shards.get(before.checked_sub(1)?)?.id)
    }

    /// To the shard's leader: here, or where it seems to be.
    pub(super) fn route_merge(
        &mut self,
        now: Now,
        shard: GroupId,
        hops: u8,
        message: MergeMessage,
    ) {
        if let Some(local) = self.shards.get_mut(&shard)
            && local.leads()
        {
            local.handle_merge(now, &self.leases, message, &mut self.outbox);
            self.dirty.insert(shard);
            return;
        }
        if hops >= MAX_HOPS {
            return;
        }
        if let Some(to) = self.whom_to_ask(shard, now.mono) {
            let message = NodeMessage::Merge {
                shard,
                hops: hops + 1,
                message: Box::new(message),
            };
            self.outbox.send(to, message);
        }
    }

    /// A replica here goes on as far as its log says, if need be with the state of another one.
    pub(super) fn apply_decided(&mut self, now: Now, group: GroupId) {
        // Merges that follow each other in one log: each round takes one in.
        while let Some(shard) = self.shards.get_mut(&group) {
            shard.apply_decided(now, &self.leases, &mut self.outbox);
            if shard.take_grown() {
                self.review_clips();
                continue;
            }
            let Some(awaited) = shard.awaited() else {
                break;
            };
            let right = awaited.right;
            self.merges.awaiting.insert(right, group);
            let at_end = |s: &Shard| s.is_at_end(awaited.slot);
            if !self.shards.get(&right).is_some_and(at_end) {
                let other = self.shards.get_mut(&right);
                if other.is_none() {
                    mark(Mark::AbsorbWithoutData);
                }
                let mut gets_there = false;
                let mut is_held_up = false;
                if let Some(other) = other {
                    gets_there = other.reach_end(now, &self.leases, &awaited);
                    is_held_up = other.is_superseded() && other.replica.decided() >= awaited.slot;
                }
                if is_held_up && let Some(shard) = self.shards.get_mut(&group) {
                    // By a snapshot that need not come any more.
                    shard.drop_incoming();
                    self.review_clips();
                    let still = self.shards.get(&right).is_some_and(Shard::is_superseded);
                    gets_there |= !still;
                }
                if gets_there {
                    self.dirty.insert(right);
                }
                if let Some(shard) = self.shards.get_mut(&group) {
                    shard.stand_still(now, &self.leases);
                }
                break;
            }
            if self.shards.get(&right).is_some_and(Shard::is_superseded)
                && let Some(shard) = self.shards.get_mut(&group)
            {
                // By a snapshot that need not come any more.
                shard.drop_incoming();
                self.review_clips();
                if self.shards.get(&right).is_some_and(Shard::is_superseded) {
                    if let Some(shard) = self.shards.get_mut(&group) {
                        shard.stand_still(now, &self.leases);
                    }
                    break;
                }
            }
            let Some(other) = self.shards.get_mut(&right) else {
                break;
            };
            let state = other.group.state().clone();
            other.save_end(&mut self.outbox);
            self.merges.awaiting.remove(&right);
            if let Some(shard) = self.shards.get_mut(&group) {
                shard.hand_in(now, &self.leases, state);
            }
        }
        if let Some(left) = self.merges.awaiting.get(&group)
            && let Some(shard) = self.shards.get(&group)
            && shard.group.state().tail.ended.is_some()
        {
            self.dirty.insert(*left);
        }
    }

    /// The ranges of these replicas may have changed: which data here is whose?
    pub(super) fn review_merges(&mut self, now: Now, groups: &[GroupId]) {
        if groups.is_empty() {
            return;
        }
        self.review_clips();
        for group in groups {
            let absorbed = self.shards.get(group).and_then(|shard| shard.absorbed());
            if absorbed.is_some() {
                self.merges.looked_at.insert(*group);
                self.look_soon(now);
            }
        }
    }

    fn look_soon(&mut self, now: Now) {
        self.merges.looks = 0;
        let at = now.mono.plus(LOOK_NANOS);
        self.merges.next = Some(self.merges.next.map_or(at, |next| next.min(at)));
    }

    /// The map has changed: replicas of shards that it does not know any more are of absorbed ones,
    /// or what is left of them.
    pub(super) fn review_strays(&mut self, now: Now) {
        let known: BTreeSet<GroupId> = self.map.shards.iter().map(|s| s.id).collect();
        let is_done = |shard: &Shard| shard.is_gone() && !shard.is_member();
        let strays: Vec<GroupId> = { self.shards.iter() }
            .filter(|(id, shard)| !known.contains(*id) && !is_done(shard))
            .map(|(id, _)| *id)
            .collect();
        if strays.iter().any(|id| !self.merges.looked_at.contains(id)) {
            self.look_soon(now);
        }
        for id in strays {
            let reply = self.reply_of_absorbed(id);
            if let Some(shard) = self.shards.get_mut(&id) {
                shard.send_away(reply.as_ref(), &mut self.outbox);
                self.dirty.insert(id);
            }
            self.merges.looked_at.insert(id);
        }
    }

    /// Where requests to a shard that was absorbed are sent.
    pub(super) fn reply_of_absorbed(&self, id: GroupId) -> Option<ShardReply> {
        let shard = self.shards.get(&id)?;
        let owner = self.map.shard_of(&shard.descriptor.span.start);
        let owner = owner.filter(|owner| owner.id != id)?;
        Some(ShardReply::WrongNode(Some(Box::new(owner.clone()))))
    }

    /// When replicas of merged shards are looked at next.
    pub(super) fn merges_timeout(&self) -> Option<Mono> {
        self.merges.next
    }

    /// Tells leaders what this node has followed, and lets go what nobody needs.
    pub(super) fn look_at_merges(&mut self, now: Now) {
        if self.merges.next.is_none_or(|next| next > now.mono) {
            return;
        }
        self.merges.next = None;
        for id in std::mem::take(&mut self.merges.looked_at) {
            if self.look_at(now, id) {
                self.merges.looked_at.insert(id);
            }
        }
        if !self.merges.looked_at.is_empty() {
            // What stays as it is is looked at less and less often.
            self.merges.looks = (self.merges.looks + 1).min(MAX_BACKOFF);
            let wait = LOOK_NANOS << self.merges.looks;
            self.merges.next = Some(now.mono.plus(wait));
        }
    }

    /// Whether this one is looked at again.
    fn look_at(&mut self, now: Now, id: GroupId) -> bool {
        let Some(shard) = self.shards.get(&id) else {
            return false;
        };
        if let Some(right) = shard.absorbed().filter(|_| !shard.is_superseded()) {
            if shard.is_merge_saved() {
                let node = self.me;
                self.route_merge(now, id, 0, MergeMessage::Followed { right, node });
            }
            return true;
        }
        if !shard.is_member() || self.map.shard(id).is_some() {
            return false;
        }
        let start = shard.descriptor.span.start.clone();
        let mut here = self.shards.values();
        let left = here.find(|s| {
            let of = s.descriptor.id;
            of != id && s.is_member() && s.descriptor.span.contains(&start) && s.is_whole()
        });
        if let Some(left) = left.filter(|left| left.group.state().has_absorbed(id)) {
            if left.absorbed() != Some(id) {
                self.retire(now, id, false);
            }
            return true;
        }
        let owner = self.map.shard_of(&start);
        if let Some(owner) = owner.filter(|o| !o.configuration.is_member(self.me)) {
            let (owner, node) = (owner.id, self.me);
            let message = MergeMessage::Followed { right: id, node };
            self.route_merge(now, owner, 0, message);
        }
        true
    }

    /// A leader says that no replica of the shard is needed any more.
    pub(super) fn handle_retired(&mut self, now: Now, id: GroupId) {
        if self.map.shard(id).is_some() {
            // Its word may be ahead of the map's.
            return;
        }
        let Some(shard) = self.shards.get(&id) else {
            return;
        };
        let span = shard.descriptor.span.clone();
        let mut others = self.shards.values();
        let others = others
            .any(|s| s.descriptor.id != id && !s.is_emptied() && s.descriptor.span.overlaps(&span));
        self.retire(now, id, !others && self.births.is_empty());
    }

    /// Lets a replica go. Empty it stays for ever, as what it promised must (P1): whoever was away for
    /// long may still ask for its vote.
    fn retire(&mut self, now: Now, id: GroupId, clears: bool) {
        if let Some(shard) = self.shards.get_mut(&id).filter(|s| s.is_member()) {
            mark(Mark::ReplicaRetired);
            shard.retire(now, &self.leases, clears);
            self.dirty.insert(id);
        }
    }

    /// The engine holds what a replica has absorbed for good.
    pub(super) fn handle_merge_saved(&mut self, now: Now, group: GroupId) {
        if let Some(shard) = self.shards.get_mut(&group) {
            shard.merge_saved();
            self.look_soon(now);
        }
    }

    /// At a start.
    pub(super) fn begin_merges(&mut self, now: Now) {
        let absorbed = self.shards.values().filter(|s| s.absorbed().is_some());
        let absorbed: Vec<GroupId> = absorbed.map(|s| s.descriptor.id).collect();
        if !absorbed.is_empty() {
            self.merges.looked_at.extend(absorbed);
            self.look_soon(now);
        }
        self.review_strays(now);
    }

    /// A replica has taken that chunk, or not: if so, these replicas' data is about to be its.
    pub(super) fn expect_merged(&mut self, group: GroupId, head: SnapshotHead) {
        let shard = self.shards.get_mut(&group);
        let takes = |s: &&mut Shard| s.replica.incoming_snapshot() == Some(head.id);
        if let Some(shard) = shard.filter(takes) {
            shard.expect_absorbed(head.span, head.ancestors);
            self.review_clips();
        }
    }

    /// A replica is about to be deleted, and with it the data of those that it has absorbed: they
    /// are without from here on.
    pub(super) fn review_superseded(&mut self, now: Now, group: GroupId) {
        let Some(shard) = self.shards.get(&group) else {
            return;
        };
        if !shard.replica.is_being_destroyed() || shard.supersedes().is_empty() {
            return;
        }
        for id in shard.supersedes().to_vec() {
            self.with(id, |s, leases, _| {
                s.step_down(now, leases);
                s.replica.lose_data();
            });
        }
    }

    /// The leader of a shard, as far as known here; else one of its members, each in turn.
    pub(super) fn whom_to_ask(&mut self, shard: GroupId, now: Mono) -> Option<NodeId> {
        let local = self.shards.get(&shard).and_then(|s| s.replica.leader());
        let to = local.or_else(|| self.any_member(shard, now));
        to.filter(|to| *to != self.me)
    }
}
