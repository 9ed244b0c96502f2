//! The left shard's part of a merge.

use super::{Absorbing, MergeError, Merging, PATIENCE_NANOS, RETRY_NANOS, same_members};
use crate::outbox::{MergeTo, Outbox};
use crate::shard::{Now, Shard};
use crate::wire::{META_SHARD, MergeMessage, ShardDescriptor};
use synod_paxos::lease::NodeLease;
use synod_paxos::replica::Urgency;
use synod_paxos::{GroupId, NodeId, Slot};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::{Absorb, Call, Command, Ended};

impl Shard {
    /// Begins to merge the shard with the one on its right, or says how far that has come.
    pub(crate) fn merge(
        &mut self,
        now: Now,
        right: &ShardDescriptor,
    ) -> Result<Merging, MergeError> {
        if let Some(absorbing) = &self.merges.absorbing {
            return match absorbing.right() {
                under_way if under_way == right.id => Ok(Merging::Underway),
                right => Err(MergeError::Underway { right }),
            };
        }
        if let Some((_, why)) = self.merges.failed.take_if(|(of, _)| *of == right.id) {
            return Err(why);
        }
        if self.office.is_none() && !self.leads() {
            let leader = self.replica.leader().filter(|n| *n != self.replica.me());
            return Err(MergeError::NotLeader { leader });
        }
        self.may_merge()?;
        if right.id == META_SHARD {
            return Err(MergeError::Meta);
        }
        let end = &self.descriptor.span.end;
        if end.is_empty() || *end != right.span.start {
            return Err(MergeError::NotNeighbours);
        }
        if !same_members(self.replica.configuration(), &right.configuration) {
            return Err(MergeError::OtherMembers);
        }
        self.group.suspend_joint();
        self.merges.absorbing = Some(Absorbing::Draining {
            right: right.id,
            until: now.mono.plus(PATIENCE_NANOS),
        });
        Ok(Merging::Underway)
    }

    pub(super) fn go_on_absorbing(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        match &mut self.merges.absorbing {
            Some(Absorbing::Draining { right, until }) => {
                let (right, until) = (*right, *until);
                let open = self.group.undecided() as u64;
                if open > 0 && until <= now.mono {
                    mark(Mark::MergeBusy);
                    return self.stay_two(now, leases, right, MergeError::Busy { open });
                }
                if open > 0 && !mutated(Mutation::MergeOverIntents) {
                    return;
                }
                self.merges.calls += 1;
                let call = Call {
                    left: self.descriptor.id,
                    ballot: self.replica.ballot(),
                    number: self.merges.calls,
                };
                self.merges.absorbing = Some(Absorbing::Calling {
                    right,
                    call,
                    until: now.mono.plus(2 * PATIENCE_NANOS),
                    next: now.mono.plus(RETRY_NANOS),
                });
                self.call(right, call, out);
            }
            Some(Absorbing::Calling {
                right,
                call,
                until,
                next,
            }) => {
                let (right, call) = (*right, *call);
                if *until <= now.mono {
                    mark(Mark::MergeSilent);
                    self.stay_two(now, leases, right, MergeError::Silent);
                } else if *next <= now.mono {
                    *next = now.mono.plus(RETRY_NANOS);
                    self.call(right, call, out);
                }
            }
            _ => {}
        }
    }

    pub(super) fn call(&self, right: GroupId, call: Call, out: &mut Outbox) {
        let message = MergeMessage::Call {
            call,
            border: self.descriptor.span.end.clone(),
            configuration: self.replica.configuration().clone(),
            hashing: self.group.state().tail.hashing.clone(),
        };
        out.merge(MergeTo::Shard(right), message);
    }

    /// The merge does not come about: whoever asks is told why.
    pub(super) fn stay_two(
        &mut self,
        now: Now,
        leases: &NodeLease,
        right: GroupId,
        why: MergeError,
    ) {
        self.merges.absorbing = None;
        self.merges.failed = Some((right, why));
        let cx = self.txn_cx(now, leases);
        self.group.resume(&cx);
        self.hand_in_waiting(now, leases);
    }

    /// The right shard has ended, and asks.
    pub(super) fn handle_ended(
        &mut self,
        now: Now,
        leases: &NodeLease,
        right: GroupId,
        ended: &Ended,
        out: &mut Outbox,
    ) {
        if self.office.is_none() || self.pauses() {
            return;
        }
        let state = self.group.state();
        let slot = ended.slot;
        let answer = |absorbed| MergeMessage::Answer { slot, absorbed };
        if state.has_absorbed(right) && !mutated(Mutation::ReopenAbsorbed) {
            return out.merge(MergeTo::Shard(right), answer(true));
        }
        if state.has_reopened(right, slot) {
            return out.merge(MergeTo::Shard(right), answer(false));
        }
        // Not this shard's to decide, or not any more.
        if self.descriptor.span.end != ended.end.span.start {
            return;
        }
        if let Some(Absorbing::Calling {
            right: called,
            call,
            ..
        }) = &self.merges.absorbing
            && *called == right
            && *call == ended.end.call
        {
            let fits = same_members(self.replica.configuration(), &ended.end.configuration)
                && state.tail.hashing == ended.end.hashing;
            if fits && (self.group.undecided() == 0 || mutated(Mutation::MergeOverIntents)) {
                return self.propose_absorb(now, leases, right, ended);
            }
            let open = self.group.undecided() as u64;
            let why = if fits {
                MergeError::Busy { open }
            } else {
                MergeError::OtherMembers
            };
            self.stay_two(now, leases, right, why);
        }
        self.reopen(now, leases, right, slot);
    }

    pub(super) fn propose_absorb(
        &mut self,
        now: Now,
        leases: &NodeLease,
        right: GroupId,
        ended: &Ended,
    ) {
        let Ended { slot: end, end: of } = ended;
        let epoch = u64::from(self.replica.configuration().epoch.0);
        let generation = self.descriptor.generation.max(of.generation);
        let splits = self.group.state().lineage.splits;
        let absorb = Absorb {
            span: self.descriptor.span.clone(),
            right,
            gained: of.span.clone(),
            slot: *end,
            under: of.under,
            last: of.last,
            hashing: of.hashing.clone(),
            splits: generation
                .saturating_add(1)
                .saturating_sub(epoch)
                .max(splits.saturating_add(1)),
        };
        let command = Command::Absorb(Box::new(absorb));
        match self.try_propose(now, leases, &command, Urgency::Now) {
            Some(slot) => {
                mark(Mark::AbsorbProposed);
                let end = *end;
                self.merges.absorbing = Some(Absorbing::Proposed { right, slot, end });
            }
            None => {
                let shard = self.descriptor.id;
                self.stay_two(now, leases, right, MergeError::NotReady { shard });
            }
        }
    }

    /// Refuses the right shard's end: nobody here wants it, or any more.
    pub(super) fn reopen(&mut self, now: Now, leases: &NodeLease, right: GroupId, slot: Slot) {
        let done = |(known, at): &(GroupId, Slot)| *known == right && *at >= slot;
        if self.merges.reopening.as_ref().is_some_and(done) || self.version() < Command::MERGE_SINCE
        {
            return;
        }
        let command = Command::Reopen { right, slot };
        if let Some(taken) = self.try_propose(now, leases, &command, Urgency::Now) {
            mark(Mark::ReopenProposed);
            self.backlog.add(taken, now.mono);
            self.merges.reopening = Some((right, slot));
        }
    }

    /// A member has what was absorbed, for good, or a node that is none has no use for it.
    pub(super) fn handle_followed(
        &mut self,
        now: Now,
        leases: &NodeLease,
        right: GroupId,
        node: NodeId,
        out: &mut Outbox,
    ) {
        if self.office.is_none() || self.pauses() {
            return;
        }
        let state = self.group.state();
        let absorbed = state.tail.absorbed.map(|absorbed| absorbed.id);
        if absorbed != Some(right) {
            if state.has_absorbed(right) {
                out.retired(node, right);
            }
            return;
        }
        if self.replica.configuration().is_member(node) {
            self.merges.followed.insert(node);
        }
        let mut members = self.replica.configuration().members();
        let all = members.all(|n| self.merges.followed.contains(&n));
        drop(members);
        let enough = all || mutated(Mutation::RetireEarly);
        if !enough || self.merges.retiring || self.suspended {
            return;
        }
        let command = Command::Retire { right };
        if let Some(slot) = self.try_propose(now, leases, &command, Urgency::Now) {
            mark(Mark::RetireProposed);
            self.backlog.add(slot, now.mono);
            self.merges.retiring = true;
        }
    }
}
