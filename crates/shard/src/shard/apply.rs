//! The state machine's side: what is decided is applied, what the engine holds is known, snapshots replace both.

use super::{Now, Shard, paxos_cx, version};
use crate::outbox::Outbox;
use synod_paxos::lease::NodeLease;
use synod_paxos::{Entry, Slot, SnapshotId};
use synod_probe::{Mutation, mutated};
use synod_txn::{Command, Group, Span, Unencoded};

impl Shard {
    /// Applies what is decided, in order; takes office once its entry is applied.
    pub(crate) fn apply_decided(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        if !self.is_whole() || self.merges.superseded {
            return;
        }
        let decided = self.replica.decided();
        if self.applied < decided && self.halted.is_none() {
            let cx = self.txn_cx(now, leases);
            let mut halt = None;
            while self.applied < decided {
                let slot = self.applied.next();
                let Some(entry) = self.replica.entry(slot) else {
                    break;
                };
                match entry {
                    Entry::Command(bytes) => match version::read(slot, bytes, self.supports) {
                        Ok(Command::Absorb(absorb)) if self.group.absorbs(&absorb) => {
                            let Some(right) = self.take_right(&absorb) else {
                                break;
                            };
                            self.group.absorb(&cx, slot, *absorb, &right);
                            self.absorbed_applied();
                            self.review_range();
                            self.applied = slot;
                            // What follows may write where the other replica did so far.
                            break;
                        }
                        Ok(command) => {
                            let resumes = matches!(command, Command::Resume { .. });
                            self.group.apply(&cx, slot, command);
                            self.review_range();
                            if resumes {
                                self.resume_applied();
                            }
                        }
                        Err(why) => {
                            halt = Some(why);
                            break;
                        }
                    },
                    Entry::TermStart(start) => self.group.apply_term_start(&cx, slot, **start),
                    Entry::StopSign(stop) => self.group.apply_stop_sign(slot, stop),
                    Entry::Noop => self.group.apply_noop(slot),
                }
                self.applied = slot;
            }
            out.mark(self.descriptor.id, self.applied);
            self.replica
                .handle_applied(&paxos_cx(now, leases), self.applied);
            self.end_cut(now, leases, out);
            self.review_merge(now, leases, out);
            self.end_hash(now, leases);
            if let Some(why) = halt {
                self.halt(now, leases, why);
            }
        }
        self.take_office(now, leases);
    }

    /// The replicated state and its slot, for the engine; none while the engine
    /// holds something else (§8).
    pub(crate) fn checkpoint(&self) -> Option<(Slot, Unencoded)> {
        let mut slot = self.applied;
        if mutated(Mutation::ApplyTwiceAfterRestart) {
            slot = slot.prev();
        }
        self.is_whole()
            .then(|| (slot, self.group.checkpoint_unencoded()))
    }

    /// Whether the engine holds this replica's data, and nothing else in its place.
    pub(crate) fn is_whole(&self) -> bool {
        !self.installing && self.replica.holds_data() && !self.replica.is_being_destroyed()
    }

    /// The engine holds everything up to `slot`.
    pub(crate) fn handle_engine_applied(&mut self, slot: Slot) {
        self.engine_applied = self.engine_applied.max(slot);
        self.group.handle_engine_applied(slot);
    }

    /// A snapshot was installed in the engine; go on from it.
    pub(crate) fn handle_snapshot_installed(
        &mut self,
        now: Now,
        leases: &NodeLease,
        id: SnapshotId,
        (span, state): (Span, &[u8]),
        out: &mut Outbox,
    ) {
        match Group::restore(self.descriptor.id, self.settings.clone(), state) {
            Ok(mut group) => {
                // An engine's late answer must not meet a reused number.
                group.number_after(&self.group);
                self.group = group;
                self.reviewed = None;
                self.forget_awaited();
                self.applied = id.slot;
                self.engine_applied = id.slot;
                self.installing = false;
                self.replica
                    .handle_snapshot_installed(&paxos_cx(now, leases), id);
                // One made by a map that knew of splits which this state has still before it.
                self.descriptor.span = span;
                self.review_descriptor();
                self.review_halt();
                self.apply_decided(now, leases, out);
            }
            Err(error) => out.fatal(format!(
                "the snapshot of shard {} at slot {} cannot be read: {error}",
                self.descriptor.id.0, id.slot.0
            )),
        }
    }
}
