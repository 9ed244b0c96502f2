//! Office: the term in which this replica's transaction machine leads, how it is taken, given up and handed on.

use super::backlog::Backlog;
use super::{Now, Shard, hash, paxos_cx};
use crate::outbox::Outbox;
use synod_paxos::lease::NodeLease;
use synod_paxos::replica::FollowerProgress;
use synod_paxos::{ClusterVersion, NodeId, Term};

impl Shard {
    /// Quarantine of the node's clock begins or ends (K2): a leader hands over.
    pub(crate) fn set_clock_usable(&mut self, now: Now, leases: &NodeLease, usable: bool) {
        self.clock_usable = usable;
        if !usable && self.leads() {
            self.step_down(now, leases);
        }
    }

    /// Relinquish leadership, if any; says which timestamps were used, so that
    /// the next leader need not wait for the limit.
    pub(crate) fn step_down(&mut self, now: Now, leases: &NodeLease) {
        let used = self.group.last();
        self.replica.relinquish(&paxos_cx(now, leases), used);
    }

    /// Hand leadership to `to` (a planned move, L4). From here on this replica
    /// proposes nothing and uses no timestamp; refused if it leads not, or `to`
    /// is not up to date.
    pub(crate) fn transfer(&mut self, now: Now, leases: &NodeLease, to: NodeId, out: &mut Outbox) {
        let used = self.group.last();
        if self
            .replica
            .transfer(&paxos_cx(now, leases), to, used)
            .is_ok()
        {
            self.handing_over = true;
            self.leave_office(out);
        }
    }

    /// Hands leadership, if any, to the follower that is best prepared: one that
    /// supports this node and holds most of the log. Which of several equals
    /// differs from shard to shard, so that one node's shards go to all others.
    /// Without such a follower it is given up. May be repeated until this replica
    /// leads no more.
    pub(crate) fn hand_over(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        if !self.leads() || self.handing_over {
            return;
        }
        let progress = self.replica.progress();
        let fit = |f: &&FollowerProgress| {
            self.replica.configuration().is_voter(f.node)
                && !f.snapshot
                && leases.held_from(f.node, now.mono).is_some()
        };
        let most = progress.iter().filter(fit).map(|f| f.matched).max();
        let equals: Vec<NodeId> = progress
            .iter()
            .filter(fit)
            .filter(|f| Some(f.matched) == most)
            .map(|f| f.node)
            .collect();
        let turn = usize::try_from(self.descriptor.id.0).unwrap_or_default();
        // A term between two configurations cannot be carried to another node.
        if let Some(to) = equals.get(turn % equals.len().max(1))
            && !self.replica.changes_members()
        {
            self.transfer(now, leases, *to, out);
        }
        if !self.handing_over {
            self.step_down(now, leases);
        }
    }

    pub(super) fn take_office(&mut self, now: Now, leases: &NodeLease) {
        if self.handing_over || !self.replica.in_office() || self.has_ended() {
            return;
        }
        if self.office.is_some() {
            return self.go_on(now, leases);
        }
        // A node in quarantine does not campaign, and gives up what it leads; should a
        // campaign begun before it still be won, the office is declined. So it is by one
        // whose program the cluster has overtaken.
        if !self.clock_usable || self.stands_back() {
            return self.step_down(now, leases);
        }
        let Some(ballot) = self.replica.term() else {
            return;
        };
        let term = Term {
            group: self.descriptor.id,
            ballot,
        };
        self.office = Some(term);
        let cx = self.txn_cx(now, leases);
        self.group.take_office(&cx, term);
        // Last in the order of P6: the requests that queued meanwhile.
        self.hand_in_waiting(now, leases);
    }

    pub(super) fn leave_office(&mut self, out: &mut Outbox) {
        if self.office.take().is_some() {
            self.group.leave_office();
        }
        self.held.clear();
        self.suspended = false;
        self.cut = None;
        self.uncut = None;
        self.leave_merges();
        self.rehash = None;
        self.unhashed = None;
        self.raising = ClusterVersion::default();
        self.unconfirmed.clear();
        self.rounds.clear();
        self.backlog = Backlog::default();
        let answer = self.not_leader();
        for caller in self.group.take_orphans() {
            if caller != hash::LOOKING {
                out.reply(caller, answer.clone());
            }
        }
        for caller in std::mem::take(&mut self.waiting).into_callers() {
            out.reply(caller, answer.clone());
        }
    }
}
