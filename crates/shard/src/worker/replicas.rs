//! Replicas that begin while the node runs.

use super::Worker;
use super::births::is_of_split;
use crate::input::Versions;
use crate::shard::{Now, Recovered, Shard};
use crate::wire::{NodeMessage, ShardDescriptor};
use serde::Serialize;
use synod_paxos::{Configuration, Durable, GroupId, Message, Mono, NodeId, Slot};
use synod_probe::{Mark, mark};
use synod_txn::GroupSettings;

/// What replicas are made with.
#[derive(Clone, Serialize)]
pub(super) struct Making {
    pub(super) paxos: synod_paxos::Settings,
    pub(super) txn: GroupSettings,
    pub(super) versions: Versions,
    pub(super) seed: u64,
}

impl Making {
    pub(super) fn shard(&self, me: NodeId, recovered: Recovered, now: Mono) -> Shard {
        let mut paxos = self.paxos.clone();
        paxos.priority = u16::from(recovered.descriptor.preferred_leader == me);
        let id = recovered.descriptor.id;
        let seed = self.seed ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Shard::new(
            recovered,
            me,
            paxos,
            self.txn.clone(),
            self.versions,
            seed,
            now,
        )
    }
}

impl Worker {
    /// A leader sends a shard's entries or state to a node without a replica of it:
    /// this node is a member by now. It begins outside of the group, and becomes
    /// part of it with the state that a configuration begins with (G1).
    pub(super) fn make(
        &mut self,
        now: Now,
        from: NodeId,
        group: GroupId,
        message: &Message,
    ) -> bool {
        match message {
            Message::Accept { .. } | Message::SnapshotChunk { .. } => {}
            // The first leader of what was split off may need this node's vote, which
            // it has once it is brought to where the others began.
            Message::PreVote { .. } | Message::Prepare { .. } if self.is_founder(from, group) => {}
            Message::Held { began, .. } => {
                let epoch = began.configuration.epoch;
                let message = Message::Gone { epoch };
                self.outbox
                    .send(from, NodeMessage::Group { group, message });
                return false;
            }
            _ => return false,
        }
        let Some(descriptor) = self.map.shard(group).cloned() else {
            return false;
        };
        self.pass_split_of(now, &descriptor);
        if self.will_be_born(now, &descriptor) {
            return false;
        }
        mark(Mark::ReplicaMade);
        if is_of_split(&descriptor) {
            self.make_empty_later(descriptor);
            return false;
        }
        // What else this state consists of a node's driver knows only at a start.
        self.make_empty(now, descriptor).is_some()
    }

    /// A replica without data, outside of its group, until a snapshot brings it.
    pub(super) fn make_empty(
        &mut self,
        now: Now,
        descriptor: ShardDescriptor,
    ) -> Option<&mut Shard> {
        let recovered = Recovered {
            descriptor,
            durable: Durable::new(Configuration::outside()),
            checkpoint: None,
            engine_applied: Slot(0),
            begins_empty: false,
            is_new: true,
        };
        self.add(now, recovered)
    }

    /// Takes a replica in that begins now.
    pub(super) fn add(&mut self, now: Now, recovered: Recovered) -> Option<&mut Shard> {
        let (descriptor, durable) = (recovered.descriptor.clone(), recovered.durable.clone());
        let id = descriptor.id;
        let mut shard = self.making.shard(self.me, recovered, now.mono);
        shard.group.set_disk_full(self.disk_full);
        shard
            .replica
            .set_full(self.unfilled_log_is_full().is_some());
        shard.set_clock_usable(now, &self.leases, self.clock.quarantine().is_none());
        self.outbox.base(&descriptor, durable);
        self.shards.insert(id, shard);
        self.awaited.remove(&id);
        self.dirty.insert(id);
        // Ranges overlap only where there was a split; a node that is filled up has thousands.
        if self.shards.values().any(|s| is_of_split(&s.descriptor)) {
            self.review_clips();
        }
        self.shards.get_mut(&id)
    }
}
