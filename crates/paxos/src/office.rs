//! What a leader may do with its leadership: the lease and the limit (L1, L4),
//! the office (P6), confirming rounds, and giving all of it up (L6).

use crate::ids::{Mono, NodeId, Round, SupportEpoch, Timestamp};
use crate::leader::Handover;
use crate::lease::Held;
use crate::message::Message;
use crate::quorum;
use crate::replica::{Cx, ProposeError, Replica, State};
use synod_probe::{Mark, Mutation, mark, mutated};

/// A leader without support for this many election waits steps down; with the
/// defaults that is the length of one lease.
const LOST_SUPPORT_WAITS: u64 = 10;
/// Who gave leadership up waits as if this many campaigns had failed.
const COURTESY: u32 = 2;

/// Views.
impl Replica {
    /// Until when this leader holds the lease, if it does (L1). A lease says
    /// nothing about the office: see [`Replica::in_office`].
    #[must_use]
    pub fn lease(&self, cx: &Cx<'_>) -> Option<Mono> {
        self.of_majority(cx, |held| held.until)
    }

    /// Timestamps up to here may be used: granted by a majority of the electors
    /// that count for the lease (L4). 0 without a lease.
    #[must_use]
    pub fn limit(&self, cx: &Cx<'_>) -> Timestamp {
        let granted = self.of_majority(cx, |held| held.limit).unwrap_or_default();
        match &self.state {
            // Nothing above what the stop-sign names (G2).
            State::Leader(leader) => leader.stop.map_or(granted, |stop| granted.min(stop)),
            _ => granted,
        }
    }

    fn of_majority<T: Copy + Ord>(
        &self,
        cx: &Cx<'_>,
        value: impl Fn(Held) -> T + Copy,
    ) -> Option<T> {
        let State::Leader(leader) = &self.state else {
            return None;
        };
        if leader.handover.is_some() {
            return None;
        }
        let counting = self.configuration().electors().filter_map(|node| {
            let held = cx.leases.held_from(node, cx.now)?;
            let counts = if node == self.me {
                // It has promised nobody else, or it would not lead any more.
                leader.holds_own_sync() && cx.leases.supports(node, cx.now) == Some(held.epoch)
            } else {
                // The stamp proves that it accepted under this ballot while it
                // gave the very support that has had no gap since.
                let follower = leader.followers.get(&node)?;
                follower.support == held.epoch
                    || mutated(Mutation::LeaseFromPromise) && follower.is_being_synced()
            };
            counts.then(|| value(held))
        });
        quorum::reached(counting, self.configuration().majority())
    }

    /// Whether this replica leads and its TermStart is decided and applied (P6).
    #[must_use]
    pub fn in_office(&self) -> bool {
        match &self.state {
            State::Leader(_) if mutated(Mutation::ServeBeforeOffice) => true,
            State::Leader(leader) => {
                self.decided() >= leader.term_start && self.applied >= leader.term_start
            }
            _ => false,
        }
    }
}

/// Commands.
impl Replica {
    /// Asks a majority whether this replica still leads. Effect `Confirmed` with
    /// this round or a higher one answers; a step-down means no.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`].
    pub fn confirm(&mut self, _cx: &Cx<'_>) -> Result<Round, ProposeError> {
        let hint = self.leader();
        let State::Leader(leader) = &mut self.state else {
            return Err(ProposeError::NotLeader { leader: hint });
        };
        let under_way = mutated(Mutation::JoinOldRound) && leader.round > leader.confirmed;
        if !leader.round_is_open && !under_way {
            leader.round = Round(leader.round.0 + 1);
            leader.round_is_open = true;
        }
        Ok(leader.round)
    }

    /// Steps down in an orderly way; `used` is the highest timestamp used in this
    /// term. Does nothing unless this replica leads, or is about to go on leading in
    /// the next configuration.
    pub fn relinquish(&mut self, cx: &Cx<'_>, used: Timestamp) {
        if self.keeps.is_some() {
            self.end_campaign();
            return self.wait_for_others(cx);
        }
        let State::Leader(leader) = &self.state else {
            return;
        };
        let used = leader.handover.map_or(used, |h| h.used.max(used));
        if mutated(Mutation::ClaimAfterRelinquish) {
            let (ballot, used) = (leader.ballot, Some(used));
            return self.tell_electors(&Message::Relinquish { ballot, used });
        }
        self.step_down(cx, Some(used));
        self.wait_for_others(cx);
    }

    /// Hands leadership to `to`. From this call on nothing is proposed, the lease
    /// is given up, and the caller uses no timestamp above `used`. Once the target
    /// holds the whole log, or has not managed to in `retry_nanos`, this replica
    /// steps down (effect `Deposed`) and the target campaigns at once.
    ///
    /// # Errors
    /// `NotLeader`, `Transferring` (already), `Reconfiguring`, `BadTarget`. Nothing
    /// changed then.
    pub fn transfer(
        &mut self,
        cx: &Cx<'_>,
        to: NodeId,
        used: Timestamp,
    ) -> Result<(), ProposeError> {
        let hint = self.leader();
        let fit = self.configuration().is_voter(to) && to != self.me;
        let deadline = cx.now.plus(self.settings.retry_nanos);
        let State::Leader(leader) = &mut self.state else {
            return Err(ProposeError::NotLeader { leader: hint });
        };
        if let Some(handover) = leader.handover {
            return Err(ProposeError::Transferring { to: handover.to });
        }
        if leader.stop.is_some() {
            return Err(ProposeError::Reconfiguring);
        }
        let follows = leader
            .followers
            .get(&to)
            .is_some_and(|f| f.matched >= leader.term_start && f.transfer.is_none());
        if !fit || !follows {
            return Err(ProposeError::BadTarget { to });
        }
        leader.handover = Some(Handover { to, used, deadline });
        leader.hurry();
        self.advance_handover(cx);
        Ok(())
    }

    /// Finishes a handover whose target holds everything.
    pub(crate) fn advance_handover(&mut self, cx: &Cx<'_>) {
        let State::Leader(leader) = &self.state else {
            return;
        };
        let Some(handover) = leader.handover else {
            return;
        };
        let ready = leader
            .followers
            .get(&handover.to)
            .is_some_and(|f| f.matched == self.log.durable.last());
        if ready {
            mark(Mark::TransferReady);
            self.finish_handover(cx, handover);
        }
    }

    pub(crate) fn handover_timeout(&mut self, cx: &Cx<'_>) {
        if let State::Leader(leader) = &self.state
            && let Some(handover) = leader.handover
            && handover.deadline <= cx.now
        {
            mark(Mark::TransferTimedOut);
            self.finish_handover(cx, handover);
        }
    }

    fn finish_handover(&mut self, cx: &Cx<'_>, handover: Handover) {
        let Some(ballot) = self.term_ballot() else {
            return;
        };
        let used = handover.used;
        self.step_down(cx, Some(used));
        let message = Message::TransferLeader { ballot, used };
        self.out.send(handover.to, message);
        self.wait_for_others(cx);
    }

    fn wait_for_others(&mut self, cx: &Cx<'_>) {
        self.election.attempts = COURTESY;
        self.election.deadline = None;
        self.review_election(cx);
    }
}

/// Lease changes.
impl Replica {
    pub(crate) fn lost_support_nanos(&self) -> u64 {
        self.settings
            .election_nanos
            .saturating_mul(LOST_SUPPORT_WAITS)
    }

    /// Whether a majority of the electors supports this node, whatever their
    /// replicas of this group hold yet. One of them that promised a higher ballot
    /// says so when asked for its stamp.
    fn is_supported(&self, cx: &Cx<'_>) -> bool {
        let electors = self.configuration().electors();
        let supporting = electors.filter(|n| cx.leases.held_from(*n, cx.now).is_some());
        supporting.count() >= self.configuration().majority()
    }

    /// Notices support gained or lost, and asks for fresh stamps after gaps (L2).
    pub(crate) fn review_lease(&mut self, cx: &Cx<'_>) {
        let supported = self.is_supported(cx);
        let deadline = cx.now.plus(self.lost_support_nanos());
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        if !cx.leases.healthy() {
            mark(Mark::SteppedDownUnhealthy);
            self.step_down(cx, None);
            return self.wait_for_others(cx);
        }
        if supported || leader.handover.is_some() {
            leader.lost_support = None;
        } else {
            leader.lost_support.get_or_insert(deadline);
        }
        let term_start = leader.term_start;
        for (node, follower) in &mut leader.followers {
            let held = cx.leases.held_from(*node, cx.now);
            follower.note_reachable(held.is_some());
            if follower.matched >= term_start
                && self.log.durable.configuration.is_elector(*node)
                && let Some(held) = held
                && held.epoch > follower.support
            {
                if follower.support != SupportEpoch::NONE && held.epoch > follower.asked {
                    mark(Mark::FreshStampAsked);
                }
                follower.asked = follower.asked.max(held.epoch);
            }
        }
    }

    /// L6: a leader that has had no support for long gives its ballot up. One
    /// that is supported stays, though it has no lease while its followers still
    /// catch up: stepping down would only make them start over.
    pub(crate) fn lease_timeout(&mut self, cx: &Cx<'_>) {
        self.review_lease(cx);
        if let State::Leader(leader) = &mut self.state
            && leader.lost_support.is_some_and(|t| t <= cx.now)
        {
            if mutated(Mutation::StayWithoutSupport) {
                leader.lost_support = None;
                return;
            }
            mark(Mark::LostSupport);
            self.step_down(cx, None);
        }
    }

    /// An elector was asked for its vote by somebody else: shows it that this
    /// replica leads, or learns that the elector accepts no more of it.
    pub(crate) fn show_leadership(&mut self, cx: &Cx<'_>, to: NodeId) {
        let retry_nanos = self.settings.retry_nanos;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(follower) = leader.followers.get_mut(&to) else {
            return;
        };
        let message = Message::Accept {
            ballot: leader.ballot,
            first: follower.next,
            entries: Vec::new(),
            decided: self.log.durable.decided,
            sync: None,
            round: leader.round,
        };
        follower.sent(cx.now, retry_nanos);
        self.out.send(to, message);
    }

    /// Tells the driver which confirming rounds a majority has echoed.
    pub(crate) fn count_confirmations(&mut self) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        if leader.confirmed == leader.round {
            return;
        }
        let configuration = &self.log.durable.configuration;
        let echoed = configuration.electors().map(|node| match node {
            // Still leading, so it has promised no higher ballot itself.
            _ if node == self.me => leader.round,
            _ => leader.followers.get(&node).map_or(Round(0), |f| f.round),
        });
        if let Some(round) = quorum::reached(echoed, configuration.majority())
            && round > leader.confirmed
        {
            mark(Mark::RoundConfirmed);
            leader.confirmed = round;
            let effect = crate::effect::Effect::Confirmed { round };
            self.out.effects.push(effect);
        }
    }
}
