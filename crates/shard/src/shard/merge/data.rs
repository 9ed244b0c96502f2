//! What every replica does with what is absorbed: where its state comes from, and whose data is
//! whose on a node.

use super::Awaited;
use crate::outbox::{Outbox, SnapshotTask};
use crate::shard::{Now, Shard, paxos_cx};
use std::collections::BTreeSet;
use synod_paxos::lease::NodeLease;
use synod_paxos::{Entry, GroupId, Slot};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::state::State;
use synod_txn::{Absorb, Command, Span};

impl Shard {
    /// The other shard's state, if it was handed in.
    pub(in crate::shard) fn take_right(&mut self, absorb: &Absorb) -> Option<Box<State>> {
        let right = self.merges.right.take();
        if right.is_none() {
            self.merges.awaited = Some(Awaited {
                right: absorb.right,
                slot: absorb.slot,
                under: absorb.under,
            });
        }
        right
    }

    /// The end of another shard that this replica waits for.
    pub(crate) fn awaited(&self) -> Option<Awaited> {
        self.merges.awaited
    }

    /// Whether a merge was applied since this was last asked.
    pub(crate) fn take_grown(&mut self) -> bool {
        std::mem::take(&mut self.merges.grown)
    }

    /// Hands the awaited state in.
    pub(crate) fn hand_in(&mut self, now: Now, leases: &NodeLease, right: State) {
        self.forget_awaited();
        self.replica.stand_still(&paxos_cx(now, leases), false);
        self.merges.right = Some(Box::new(right));
    }

    /// The awaited state is not to be had now: until it is, or a snapshot brings it and what
    /// follows, this replica does not count as one that has the data.
    pub(crate) fn stand_still(&mut self, now: Now, leases: &NodeLease) {
        self.merges.awaits_since.get_or_insert(now.mono);
        self.replica.stand_still(&paxos_cx(now, leases), true);
    }

    /// Gives up a snapshot on its way in: the awaited state is here.
    pub(crate) fn drop_incoming(&mut self) {
        if !self.installing && self.replica.installing().is_none() {
            self.replica.drop_incoming();
            self.merges.incoming = None;
        }
    }

    /// Whether its state is that of the end in that slot, with all that was written before in
    /// the engine.
    pub(crate) fn is_at_end(&self, slot: Slot) -> bool {
        let ended = &self.group.state().tail.ended;
        let at_end = ended.as_ref().is_some_and(|ended| ended.slot == slot);
        let at_end = at_end || mutated(Mutation::AbsorbEarly);
        at_end && self.is_whole() && self.group.is_written()
    }

    /// An end is decided, since it was absorbed: a replica whose log holds it applies it. (As for
    /// splits, this goes beyond P5.) Returns whether it does so now.
    pub(crate) fn reach_end(&mut self, now: Now, leases: &NodeLease, awaited: &Awaited) -> bool {
        if !self.is_whole() || self.replica.decided() >= awaited.slot {
            return false;
        }
        let Some(Entry::Command(bytes)) = self.replica.entry(awaited.slot) else {
            return false;
        };
        let command = synod_txn::command::decode(bytes);
        if !matches!(command, Ok(Command::End(end)) if end.under == awaited.under) {
            return false;
        }
        mark(Mark::EndBelieved);
        let cx = paxos_cx(now, leases);
        self.replica.learn_decided(&cx, None, awaited.slot)
    }

    /// A merge was applied here.
    pub(in crate::shard) fn absorbed_applied(&mut self) {
        self.merges.renew = true;
        self.merges.unsaved = true;
        self.merges.grown = true;
        self.merges.followed.clear();
        self.merges.retiring = false;
        self.merges.incoming = None;
    }

    /// What was absorbed goes to the engine for good, behind everything that was written.
    pub(super) fn save_merge(&mut self, out: &mut Outbox) {
        if !std::mem::take(&mut self.merges.unsaved) {
            return;
        }
        if self.is_whole() {
            self.merges.saving += 1;
            self.save_end(out);
        }
    }

    /// The engine holds what was absorbed for good.
    pub(crate) fn merge_saved(&mut self) {
        self.merges.saving = self.merges.saving.saturating_sub(1);
    }

    /// Whether the engine holds the last merge for good.
    pub(crate) fn is_merge_saved(&self) -> bool {
        self.merges.saving == 0 && !self.merges.unsaved
    }

    /// The state came from elsewhere, or is gone: nothing is awaited.
    pub(in crate::shard) fn forget_awaited(&mut self) {
        self.merges.awaited = None;
        self.merges.awaits_since = None;
        self.merges.right = None;
    }

    /// The shard that it absorbed last and whose replicas are still there.
    pub(crate) fn absorbed(&self) -> Option<GroupId> {
        let absorbed = self.group.state().tail.absorbed;
        absorbed.filter(|_| self.is_whole()).map(|a| a.id)
    }

    /// Shards of whose data here this replica's is made, or was: those that it has absorbed, and
    /// others that it descends from.
    pub(crate) fn absorbed_so_far(&self) -> impl Iterator<Item = GroupId> {
        let held = self.is_whole() || self.installing || self.replica.is_being_destroyed();
        let ancestors = self.group.state().lineage.ancestors.iter().copied();
        ancestors.filter(move |_| held)
    }

    /// What a snapshot on its way in is of, and the shards that it descends from or has absorbed.
    pub(crate) fn on_the_way(&self) -> Option<&(Span, BTreeSet<GroupId>)> {
        let on_its_way = self.installing || self.replica.incoming_snapshot().is_some();
        self.merges.incoming.as_ref().filter(|_| on_its_way)
    }

    /// Such a snapshot is on its way in.
    pub(crate) fn expect_absorbed(&mut self, span: Span, ancestors: BTreeSet<GroupId>) {
        self.merges.incoming = Some((span, ancestors));
    }

    /// Replicas on this node whose data is this one's, or is about to be.
    pub(crate) fn supersedes(&self) -> &[GroupId] {
        &self.merges.supersedes
    }

    pub(crate) fn set_supersedes(&mut self, ids: Vec<GroupId>) {
        self.merges.supersedes = ids;
    }

    /// What it has goes to the engine for good, for another replica that takes it in: after
    /// a restart it may be asked for, and does not apply anything any more.
    pub(crate) fn save_end(&mut self, out: &mut Outbox) {
        if let Some((slot, state)) = self.checkpoint() {
            out.birth(SnapshotTask::Birth {
                group: self.descriptor.id,
                slot,
                state: Some(state),
            });
        }
    }

    /// Whether the data is another replica's.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.merges.superseded
    }

    pub(crate) fn set_superseded(&mut self, superseded: bool) {
        self.merges.superseded = superseded;
    }

    /// No replica of the shard is needed any more. With `clears` its data goes, too.
    pub(crate) fn retire(&mut self, now: Now, leases: &NodeLease, clears: bool) {
        self.merges.clears = clears;
        self.replica.retire(&paxos_cx(now, leases));
    }

    /// What goes with the replica.
    pub(in crate::shard) fn span_to_clear(&self) -> Span {
        let span = self.data_span();
        let outlived = self.has_ended() && !self.merges.clears;
        if outlived || self.merges.superseded {
            return Span {
                start: span.start.clone(),
                end: span.start,
            };
        }
        span
    }
}
