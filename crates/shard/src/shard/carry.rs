//! What the two machines want done, carried from one to the other and to the outside.

use super::{Now, Shard, paxos_cx};
use crate::outbox::{Outbox, SnapshotTask};
use crate::wire::{NodeMessage, SnapshotState};
use synod_paxos::lease::NodeLease;
use synod_paxos::replica::Urgency;
use synod_paxos::{Effect as PaxosEffect, NodeId, Round, Slot, SnapshotId};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::{Command, Effect as TxnEffect};

impl Shard {
    /// Carries effects between the two machines until both are quiet.
    pub(crate) fn pump(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        loop {
            let paxos = self.replica.drain_effects();
            let txn = self.group.drain_effects();
            if paxos.is_empty() && txn.is_empty() {
                return;
            }
            for effect in paxos {
                self.carry_out_paxos(now, leases, effect, out);
            }
            for effect in txn {
                self.carry_out_txn(now, leases, effect, out);
            }
        }
    }

    /// End of a step: everything proposed in it goes out as one batch.
    pub(crate) fn flush(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        self.replica.flush(&paxos_cx(now, leases));
        self.pump(now, leases, out);
    }

    fn carry_out_paxos(
        &mut self,
        now: Now,
        leases: &NodeLease,
        effect: PaxosEffect,
        out: &mut Outbox,
    ) {
        let group = self.descriptor.id;
        match effect {
            PaxosEffect::Send { to, message } => {
                out.send(to, NodeMessage::Group { group, message });
            }
            PaxosEffect::Persist {
                records,
                release,
                seq,
            } => out.persist(group, records, release, seq),
            PaxosEffect::Decided { .. } => self.apply_decided(now, leases, out),
            PaxosEffect::Deposed { .. } => {
                self.handing_over = false;
                if !mutated(Mutation::KeepOffice) {
                    self.leave_office(out);
                }
            }
            PaxosEffect::Confirmed { round } => {
                let later = self.rounds.split_off(&Round(round.0 + 1));
                let ready = std::mem::replace(&mut self.rounds, later);
                let cx = self.txn_cx(now, leases);
                for token in ready.into_values().flatten() {
                    self.group.handle_confirmed(&cx, token);
                }
            }
            PaxosEffect::ReadSnapshot { to, id, chunk } => match id {
                Some(id) => out.read_snapshot(group, to, id, chunk),
                // Part of the range is another replica's by now, and gone; once the split is
                // applied here again there is something to send.
                None if self.is_clipped() && !self.parts_whole => {}
                // What is left of it here is another shard's, and perhaps not all of it there.
                None if self.merges.superseded && !self.has_ended() => {}
                None => self.open_snapshot(now, to, out),
            },
            PaxosEffect::CloseSnapshot { to } => out.close_snapshot(group, to),
            PaxosEffect::Destroy => {
                let absorbed = self.supersedes().to_vec();
                out.destroy(group, self.span_to_clear(), absorbed);
            }
            PaxosEffect::StageSnapshot {
                id,
                chunk,
                data,
                done,
            } => {
                self.installing |= done;
                out.stage_snapshot(SnapshotTask::Stage {
                    group,
                    span: self.data_span(),
                    clip: self.clip.clone(),
                    absorbed: self.supersedes().to_vec(),
                    id,
                    chunk,
                    data,
                    done,
                });
            }
        }
    }

    /// Sends the state as it is now to a member that has fallen too far behind.
    fn open_snapshot(&self, now: Now, to: NodeId, out: &mut Outbox) {
        let id = SnapshotId {
            slot: self.applied,
            nonce: now.mono.0,
        };
        let state = SnapshotState {
            span: self.descriptor.span.clone(),
            passed: self.passed(),
            state: self.group.checkpoint(),
        };
        // Older programs cannot read these, and without merges nobody needs them.
        let merges = self.version() >= Command::MERGE_SINCE;
        let ancestors = self.group.state().lineage.ancestors.iter().copied();
        let ancestors = ancestors.filter(|_| merges).collect();
        out.open_snapshot(self.descriptor.id, to, id, state, ancestors);
    }

    fn carry_out_txn(&mut self, now: Now, leases: &NodeLease, effect: TxnEffect, out: &mut Outbox) {
        match effect {
            TxnEffect::Propose { command, lazy } => {
                if self.pauses() || !self.held.is_empty() {
                    self.held.push_back((command, lazy));
                } else {
                    self.propose(now, leases, &command, lazy);
                }
            }
            TxnEffect::Respond { to, response } => self.answer(now, leases, to, response, out),
            TxnEffect::Peer { shard, message } => out.peer(shard, message),
            TxnEffect::Read {
                token,
                keys,
                scan,
                at,
            } => out.read(self.descriptor.id, token, keys, scan, at),
            TxnEffect::Write(batch) => {
                if batch.slot > self.engine_applied {
                    out.write(self.descriptor.id, self.clip_batch(batch));
                }
            }
            TxnEffect::Confirm { token } if self.changes_members() => {
                self.unconfirmed.push(token);
            }
            TxnEffect::Confirm { token } => {
                let cx = paxos_cx(now, leases);
                if let Ok(round) = self.replica.confirm(&cx) {
                    self.rounds.entry(round).or_default().push(token);
                }
            }
        }
    }

    /// Gives a command the next slot; none if consensus refuses it.
    pub(super) fn try_propose(
        &mut self,
        now: Now,
        leases: &NodeLease,
        command: &Command,
        urgency: Urgency,
    ) -> Option<Slot> {
        assert!(
            command.since() <= self.version() || mutated(Mutation::ProposeEarly),
            "P8: an entry of version {} was about to be proposed in a shard of version {}",
            command.since().0,
            self.version().0
        );
        let bytes = self.scratch.encode(command).ok()?;
        let cx = paxos_cx(now, leases);
        self.replica.propose(&cx, bytes, urgency).ok()
    }

    pub(super) fn propose(&mut self, now: Now, leases: &NodeLease, command: &Command, lazy: bool) {
        let urgency = if lazy { Urgency::Lazy } else { Urgency::Now };
        match self.try_propose(now, leases, command, urgency) {
            Some(slot) => self.backlog.add(slot, now.mono),
            None if self.leads() => {
                mark(Mark::ProposalRefused);
                // The machine above counts on its slot. It cannot have it, so this
                // term ends here rather than wait for an entry that never comes.
                self.step_down(now, leases);
            }
            None => {}
        }
    }
}
