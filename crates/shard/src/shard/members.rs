//! Changes of a shard's members (G1-G3, decision 11), as the shard lives through them.
//!
//! From proposing a stop-sign until its leadership in the next configuration is in
//! office a leader's transaction machine is handed nothing: requests and messages
//! wait, and what applying the last entries makes it want is held. If the term goes
//! on all of that follows in order; if not it ends like any other term.

use super::waiting::Waiting;
use super::{Now, Shard, paxos_cx};
use crate::outbox::Outbox;
use synod_paxos::lease::NodeLease;
use synod_paxos::{NodeId, ReconfigureError, Seal, Slot};
use synod_probe::{Mark, mark};
use synod_txn::Group;
use synod_txn::request::Refusal;
use synod_txn::settings::TERM_INCREMENT;

/// The members somebody wants a shard to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The configuration that this is to follow.
    pub follows: synod_paxos::Epoch,
    /// Vote and hold data.
    pub voters: Vec<NodeId>,
    /// Vote, and hold the log.
    pub witnesses: Vec<NodeId>,
    /// Hold data, and do not vote.
    pub learners: Vec<NodeId>,
}

impl Shard {
    /// Whether this replica leads, or carries its term into another configuration.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.replica.term_ballot().is_some() || self.replica.changes_members()
    }

    /// Whether this node is part of the shard, as far as it knows.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.replica.configuration().is_member(self.replica.me())
    }

    /// Whether the term is between two configurations.
    #[must_use]
    pub fn changes_members(&self) -> bool {
        self.office.is_some() && self.replica.changes_members()
    }

    /// Ends the configuration in force; see [`synod_paxos::Replica::reconfigure`].
    pub(crate) fn reconfigure(
        &mut self,
        now: Now,
        leases: &NodeLease,
        members: Members,
    ) -> Result<Slot, ReconfigureError> {
        let elected = self.office.is_none() && self.replica.term_ballot().is_some();
        let busy = self.cut.is_some() || self.rehash.is_some() || self.merges_now();
        if elected || busy {
            return Err(ReconfigureError::NotInOffice);
        }
        let current = self.replica.configuration();
        if members.follows != current.epoch {
            return Err(ReconfigureError::OtherEpoch {
                current: current.epoch,
                named: members.follows,
            });
        }
        let successor = current.successor(members.voters, members.witnesses, members.learners);
        let last = self.group.last();
        let seal = Seal {
            // A leader may always go one increment above what is applied (K1).
            limit: last.plus(TERM_INCREMENT),
            last,
            horizon: self.group.horizon(),
        };
        let slot = self
            .replica
            .reconfigure(&paxos_cx(now, leases), successor, seal)?;
        self.suspended = true;
        self.group.suspend();
        mark(Mark::StopSignProposed);
        Ok(slot)
    }

    /// The descriptor follows the configuration, and the range that splits have left.
    pub(crate) fn review_descriptor(&mut self) {
        self.review_range();
        let was_behind = self.is_behind;
        self.is_behind = self.applied < self.replica.began();
        self.members_news |= was_behind && !self.is_behind;
        let known = self.descriptor.configuration.epoch;
        let configuration = self.replica.configuration();
        if configuration.epoch <= known {
            return;
        }
        self.descriptor.configuration = configuration.clone();
        self.review_generation();
    }

    /// Whether the state has not come to where the configuration began: the descriptor names members
    /// of later than its range. Its generation would claim what was split off since.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Whether the descriptor changed since this was last asked.
    pub(crate) fn take_members_news(&mut self) -> bool {
        std::mem::take(&mut self.members_news)
    }

    /// Whether this node has no part in the shard any more, and nothing of it.
    #[must_use]
    pub fn is_emptied(&self) -> bool {
        !self.is_member() && self.replica.last() == Slot(0) && !self.replica.is_being_destroyed()
    }

    /// The term goes on in another configuration, if it was between two.
    pub(super) fn go_on(&mut self, now: Now, leases: &NodeLease) {
        if !self.suspended || self.changes_members() {
            return;
        }
        self.suspended = false;
        // What was asked under the old ballot is asked again.
        self.unconfirmed
            .extend(std::mem::take(&mut self.rounds).into_values().flatten());
        while let Some((command, lazy)) = self.held.pop_front() {
            self.propose(now, leases, &command, lazy);
        }
        let cx = paxos_cx(now, leases);
        for token in std::mem::take(&mut self.unconfirmed) {
            if let Ok(round) = self.replica.confirm(&cx) {
                self.rounds.entry(round).or_default().push(token);
            }
        }
        let cx = self.txn_cx(now, leases);
        self.group.resume(&cx);
        self.hand_in_waiting(now, leases);
    }

    /// What queued for the office, in order.
    pub(super) fn hand_in_waiting(&mut self, now: Now, leases: &NodeLease) {
        while let Some(waiting) = self.waiting.pop() {
            let cx = self.txn_cx(now, leases);
            match waiting {
                Waiting::Request(caller, hashing, request) if self.owns(&request) => {
                    match self.check_mapping(hashing.as_deref(), &request) {
                        Some(refusal) => self.group.refuse(caller, refusal),
                        None => self.group.handle_request(&cx, caller, request),
                    }
                }
                Waiting::Request(caller, ..) => self.group.refuse(caller, Refusal::WrongShard),
                Waiting::Peer(message) if self.is_anchor_here(&message) => {
                    self.group.handle_peer(&cx, message);
                }
                Waiting::Peer(_) => {}
            }
        }
    }

    /// This node's data of the shard is deleted: the replica is empty, until a later
    /// configuration takes it in again.
    pub(crate) fn handle_destroyed(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        mark(Mark::ReplicaDestroyed);
        self.leave_office(out);
        let mut group = Group::new(self.descriptor.id, self.settings.clone());
        group.number_after(&self.group);
        self.group = group;
        self.forget_awaited();
        self.applied = Slot(0);
        self.engine_applied = Slot(0);
        self.installing = false;
        self.replica.handle_destroyed(&paxos_cx(now, leases));
        self.review_halt();
        self.review_descriptor();
    }
}
