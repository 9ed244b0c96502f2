//! Which nodes there are, and which of them a shard's members are.

use super::Worker;
use crate::records::NodeRow;
use crate::shard::{Members, Now, Shard};
use crate::wire::ShardDescriptor;
use synod_paxos::{Epoch, GroupId, Holds, ReconfigureError, RecoverError, Slot};

impl Worker {
    /// Nodes have joined, or are meant to be something else. Who was retired is neither
    /// asked for support nor given any.
    pub fn learn_nodes(&mut self, now: Now, rows: &[NodeRow]) {
        let news = rows.iter().filter(|row| self.roster.learn(row)).count();
        if news == 0 {
            return;
        }
        self.map.nodes = self.roster.nodes().cloned().collect();
        self.map_changes += 1;
        let peers = self.map.nodes.iter().map(|n| n.id).collect();
        let map = &self.map;
        self.hearing.retain(|node| map.node(node).is_some());
        self.leases.set_peers(peers);
        self.lease_step(now);
    }

    /// Asks the shard's leader, if it is here, for other members; it then says so
    /// by [`crate::ShardDescriptor`] once that has happened.
    ///
    /// # Errors
    /// See [`ReconfigureError`]; nothing was proposed then.
    pub fn reconfigure(
        &mut self,
        now: Now,
        group: GroupId,
        members: Members,
    ) -> Result<Slot, ReconfigureError> {
        let Some(shard) = self.shards.get_mut(&group) else {
            return Err(ReconfigureError::NotLeader { leader: None });
        };
        let named = [&members.voters, &members.witnesses, &members.learners];
        if let Some(node) = named
            .into_iter()
            .flatten()
            .find(|n| self.map.node(**n).is_none())
        {
            return Err(ReconfigureError::UnknownNode { node: *node });
        }
        // What has its timestamp takes its slot before the stop-sign (K3).
        shard.pump(now, &self.leases, &mut self.outbox);
        let slot = shard.reconfigure(now, &self.leases, members)?;
        self.dirty.insert(group);
        Ok(slot)
    }

    /// A replica here goes on alone; see [`synod_paxos::Replica::recover`].
    ///
    /// # Errors
    /// See [`RecoverError`]; nothing was changed then.
    pub fn recover(
        &mut self,
        now: Now,
        group: GroupId,
        holds: Holds,
        epoch: Epoch,
    ) -> Result<Slot, RecoverError> {
        let shard = self.shards.get_mut(&group);
        let shard = shard.ok_or(RecoverError::NoReplica)?;
        let slot = shard.recover(now, &self.leases, holds, epoch)?;
        self.dirty.insert(group);
        Ok(slot)
    }

    /// Shards that went on in another era, with a survivor alone: what a replica here holds of
    /// the earlier one counts for nothing, and it must not lead by it.
    pub(super) fn review_eras(&mut self, now: Now, descriptors: &[ShardDescriptor]) {
        for descriptor in descriptors {
            let era = descriptor.configuration.epoch.era();
            let older = |s: &&mut Shard| s.replica.configuration().epoch.era() < era;
            if let Some(shard) = self.shards.get_mut(&descriptor.id).filter(older) {
                shard.overrule(now, &self.leases, &descriptor.configuration);
                self.dirty.insert(descriptor.id);
            }
        }
    }
}
