//! The right shard's part of a merge.

use super::{Ending, MergeError, PATIENCE_NANOS, RETRY_NANOS, same_members};
use crate::outbox::{MergeTo, Outbox};
use crate::shard::{Now, Shard};
use crate::wire::{MergeMessage, ShardReply};
use synod_paxos::lease::NodeLease;
use synod_paxos::replica::Urgency;
use synod_paxos::{Configuration, Slot};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::{Call, Command, End, Hashing};

impl Shard {
    /// Whether a left shard like this can absorb it.
    pub(super) fn fits(
        &self,
        border: &[u8],
        configuration: &Configuration,
        hashing: Option<&Hashing>,
    ) -> Result<(), MergeError> {
        if *border != self.descriptor.span.start[..] {
            return Err(MergeError::NotNeighbours);
        }
        if !same_members(self.replica.configuration(), configuration) {
            return Err(MergeError::OtherMembers);
        }
        if self.group.state().hashing() != hashing {
            return Err(MergeError::OtherSharding);
        }
        Ok(())
    }

    pub(super) fn handle_call(
        &mut self,
        now: Now,
        call: Call,
        fits: Result<(), MergeError>,
        out: &mut Outbox,
    ) {
        let known = match (&self.merges.ending, &self.group.state().tail.ended) {
            (Some(Ending::Draining { call, .. } | Ending::Proposed { call, .. }), _) => Some(*call),
            (None, ended) => ended.as_ref().map(|ended| ended.end.call),
        };
        if known == Some(call) {
            // The question may be lost.
            self.merges.ask = now.mono;
            return;
        }
        if let Err(why) = self.may_merge().and(fits) {
            let message = MergeMessage::Declined { call, why };
            return out.merge(MergeTo::Shard(call.left), message);
        }
        self.group.suspend_joint();
        self.merges.ending = Some(Ending::Draining {
            call,
            until: now.mono.plus(PATIENCE_NANOS),
        });
    }

    pub(super) fn go_on_ending(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        let Some(Ending::Draining { call, until }) = self.merges.ending else {
            return;
        };
        let open = self.group.undecided() as u64;
        if open == 0 || mutated(Mutation::MergeOverIntents) {
            return self.propose_end(now, leases, call);
        }
        if until <= now.mono {
            mark(Mark::MergeBusy);
            self.merges.ending = None;
            let why = MergeError::Busy { open };
            out.merge(
                MergeTo::Shard(call.left),
                MergeMessage::Declined { call, why },
            );
            let cx = self.txn_cx(now, leases);
            self.group.resume(&cx);
        }
    }

    pub(super) fn propose_end(&mut self, now: Now, leases: &NodeLease, call: Call) {
        let end = End {
            span: self.descriptor.span.clone(),
            configuration: self.replica.configuration().clone(),
            generation: self.descriptor.generation,
            last: self.group.last(),
            hashing: self.group.state().tail.hashing.clone(),
            call,
            under: self.replica.ballot(),
        };
        let command = Command::End(Box::new(end));
        if let Some(slot) = self.try_propose(now, leases, &command, Urgency::Now) {
            mark(Mark::EndProposed);
            self.merges.ending = Some(Ending::Proposed { call, slot });
            return;
        }
        self.merges.ending = None;
        let cx = self.txn_cx(now, leases);
        self.group.resume(&cx);
    }

    /// What became of the shard's end.
    pub(super) fn handle_answer(
        &mut self,
        now: Now,
        leases: &NodeLease,
        slot: Slot,
        absorbed: bool,
    ) {
        let ended = &self.group.state().tail.ended;
        if ended.as_ref().is_none_or(|ended| ended.slot != slot) {
            return;
        }
        if absorbed {
            // Its replica here will hear of it by the other shard's log; there is no hurry.
            self.merges.ask = now.mono.plus(20 * RETRY_NANOS);
            return;
        }
        if self.merges.resuming {
            return;
        }
        let command = Command::Resume { slot };
        if let Some(taken) = self.try_propose(now, leases, &command, Urgency::Now) {
            mark(Mark::ResumeProposed);
            self.backlog.add(taken, now.mono);
            self.merges.resuming = true;
        }
    }

    /// The shard is part of another by now: whoever waits is sent there.
    pub(crate) fn send_away(&mut self, to: Option<&ShardReply>, out: &mut Outbox) {
        self.merges.gone = true;
        for caller in std::mem::take(&mut self.waiting).into_callers() {
            let nothing = ShardReply::WrongNode(None);
            out.reply_wrong_node(caller, to.cloned().unwrap_or(nothing));
        }
    }

    /// Whether the node's map says that the shard is part of another.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.merges.gone
    }

    /// The shard's end was refused: another term begins, as this leader has forgotten its own.
    pub(in crate::shard) fn resume_applied(&mut self) {
        self.merges.renew = true;
        self.merges.resuming = false;
    }
}
