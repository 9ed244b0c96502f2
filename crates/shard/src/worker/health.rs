//! What leases, the clock and the disk of the node mean for its leaderships.

use super::Worker;
use crate::clock::ClockVerdict;
use crate::shard::Now;
use crate::wire::NodeMessage;
use synod_paxos::lease::LeaseEffect;
use synod_probe::{Mutation, mutated};

impl Worker {
    /// Carries out what the lease machine wants; a change of any view goes to all replicas,
    /// a higher limit to those that wait for one.
    pub(super) fn lease_step(&mut self, now: Now) {
        loop {
            let effects = self.leases.drain_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    LeaseEffect::Send { to, message } if to == self.me => {
                        let wall = (now.clock.earliest, now.clock.latest);
                        self.leases.handle_message(now.mono, wall, to, message);
                    }
                    LeaseEffect::Send { to, message } => {
                        self.outbox.send(to, NodeMessage::Lease(message));
                    }
                    LeaseEffect::Persist {
                        record,
                        release,
                        seq,
                    } => self.outbox.persist_lease(record, release, seq),
                }
            }
        }
        let raised = self.leases.take_raised();
        if self.leases.take_changed() {
            for (id, shard) in &mut self.shards {
                shard.handle_lease_change(now, &self.leases);
                self.dirty.insert(*id);
            }
        } else if raised {
            for id in &self.parked {
                if let Some(shard) = self.shards.get_mut(id) {
                    shard.handle_lease_change(now, &self.leases);
                    self.dirty.insert(*id);
                }
            }
        }
    }

    pub(super) fn clock_verdict(&mut self, now: Now, verdict: ClockVerdict) {
        if mutated(Mutation::IgnoreQuarantine) {
            return;
        }
        let usable = verdict == ClockVerdict::Usable;
        for (id, shard) in &mut self.shards {
            shard.set_clock_usable(now, &self.leases, usable);
            self.dirty.insert(*id);
        }
        self.review_health(now);
    }

    /// A node with a stalled disk (L6) or a clock in quarantine (K2) asks nobody
    /// for support, so it neither keeps leaderships nor wins new ones.
    pub(super) fn review_health(&mut self, now: Now) {
        let disk = self.disk_healthy || mutated(Mutation::RenewOnStalledDisk);
        let healthy = disk && self.clock.quarantine().is_none();
        self.leases.set_healthy(now.mono, healthy);
        self.lease_step(now);
    }

    pub(super) fn hand_over_all(&mut self, now: Now) {
        for (id, shard) in &mut self.shards {
            if shard.leads() {
                shard.hand_over(now, &self.leases, &mut self.outbox);
                self.dirty.insert(*id);
            }
        }
    }
}
