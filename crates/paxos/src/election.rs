//! Who campaigns and when (L3, L5). Nothing here is timed by heartbeats: a follower
//! misses its leader when it no longer supports the leader's node.

use crate::ids::{Ballot, Mono, NodeId, SupportEpoch, Timestamp};
use crate::message::{Message, NackReason};
use crate::replica::{Cx, Ignored, Replica, State};
use serde::Serialize;
use synod_probe::{Mark, mark};

/// Failed campaigns double the wait for the next one up to this power of two.
const MAX_BACKOFF: u32 = 3;

/// When a follower campaigns.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Election {
    pub(crate) deadline: Option<Mono>,
    /// Campaigns that failed since a leader was last known.
    pub(crate) attempts: u32,
    /// The highest round seen in refusals.
    pub(crate) round: u64,
    /// Whether this replica itself still refuses for the missed leader's sake.
    blocked: bool,
}

impl Replica {
    /// At boot the preferred replica of a group that never had a leader starts at once.
    pub(crate) fn arm_first_election(&mut self, now: Mono) {
        if self.ballot() == Ballot::default() && self.settings.priority > 0 {
            self.election.deadline = Some(now);
        } else {
            self.election.deadline = Some(now.plus(self.election_delay()));
        }
    }

    fn election_delay(&mut self) -> u64 {
        let wait = self.settings.election_nanos;
        let head = wait / (1 + u64::from(self.settings.priority));
        (head + self.rng.below(wait)) << self.election.attempts.min(MAX_BACKOFF)
    }

    /// The missed leader is known to be gone: no need to wait for signs of life.
    pub(crate) fn campaign_soon(&mut self, cx: &Cx<'_>) {
        if let State::Follower = self.state {
            self.election.attempts = 0;
            let jitter = self.rng.below(self.settings.election_nanos / 2);
            self.election.deadline = Some(cx.now.plus(jitter));
        }
    }

    /// A leader that spoke just now gets the time that it gives itself to gather
    /// support, even if this node does not support its node (yet, or again).
    pub(crate) fn be_patient(&mut self, cx: &Cx<'_>) {
        if !self.leader_alive(cx) {
            self.election.attempts = 0;
            let wait = self.lost_support_nanos() + self.election_delay();
            self.election.deadline = Some(cx.now.plus(wait));
        }
    }

    /// Lets others try first.
    pub(crate) fn wait_for_campaign(&mut self, cx: &Cx<'_>, wait: u64) {
        self.election.attempts = 0;
        let delay = self.election_delay();
        self.election.deadline = Some(cx.now.plus(wait).plus(delay));
    }

    pub(crate) fn may_campaign(&self, cx: &Cx<'_>) -> bool {
        // Installing a snapshot drops the log's prefix at a moment of the driver's
        // choice; phase 1 and an unflushed sync count with the log as it is.
        !self.lacks_data()
            && !self.stands_back
            && self.installing().is_none()
            && !self.is_overruled()
            && self.configuration().is_voter(self.me)
            && cx.leases.healthy()
    }

    /// Whether the leader this replica follows still has its support.
    fn leader_alive(&self, cx: &Cx<'_>) -> bool {
        let accepted = self.accepted();
        accepted == self.ballot()
            && accepted.node != self.me
            && !self.is_relinquished(accepted)
            && self.heard != SupportEpoch::NONE
            && cx
                .leases
                .supports(accepted.node, cx.now)
                .is_some_and(|support| support.holder == self.heard.holder)
    }

    /// Arms, keeps or stops the election timer; ends every input.
    pub(crate) fn review_election(&mut self, cx: &Cx<'_>) {
        if !matches!(self.state, State::Follower) || self.leader_alive(cx) {
            if matches!(self.state, State::Follower) && self.lacks_data() {
                // The timer then serves to ask for a snapshot again.
                let wait = self.settings.retry_nanos * 4;
                self.election.deadline.get_or_insert(cx.now.plus(wait));
            } else {
                self.election.deadline = None;
            }
            if !matches!(self.state, State::Campaign(_)) {
                self.election.attempts = 0;
            }
            self.election.blocked = false;
            return;
        }
        let blocked = self.supported_ballot(cx).is_some();
        if self.election.blocked && !blocked {
            // What stood in the way is gone; the wait so far was for that.
            self.election.attempts = 0;
            self.election.deadline = None;
        }
        self.election.blocked = blocked;
        if self.election.deadline.is_none() {
            self.election.deadline = Some(cx.now.plus(self.election_delay()));
        }
    }

    pub(crate) fn election_timeout(&mut self, cx: &Cx<'_>) {
        if self.election.deadline.is_none_or(|d| d > cx.now) {
            return;
        }
        self.election.deadline = None;
        if self.leader_alive(cx) {
            let leader = self.accepted();
            return self.ask_for_snapshot(cx, leader.node, leader);
        }
        if cx.leases.abstains(cx.now) {
            mark(Mark::CampaignAbstained);
        } else {
            self.election.attempts = (self.election.attempts + 1).min(MAX_BACKOFF);
        }
        if let Some(supported) = self.supported_ballot(cx) {
            // This replica would refuse others for that leader's sake, yet has
            // not heard from it: it answers with an Accept or gives up (L3).
            mark(Mark::ContestedByFollower);
            let contested = Message::Contested { ballot: supported };
            self.out.send(supported.node, contested);
        } else if self.may_campaign(cx) && !cx.leases.abstains(cx.now) {
            self.start_campaign(cx, true);
        } else {
            self.tell_began();
            self.ask_anybody_for_data();
        }
    }

    /// Nobody leads, and this replica has no data to lead with. Perhaps nobody has who may lead, but a
    /// witness: whoever has data sends it.
    fn ask_anybody_for_data(&mut self) {
        let is_member = self.configuration().is_member(self.me);
        if is_member && self.lacks_data() && self.installing().is_none() {
            let ballot = Ballot::founding(self.configuration().epoch);
            let reason = NackReason::NeedsSnapshot;
            self.tell_electors(&Message::Nack { ballot, reason });
        }
    }

    /// The leader hands over: its lease is over, and this replica is to lead next.
    pub(crate) fn handle_transfer(
        &mut self,
        cx: &Cx<'_>,
        from: NodeId,
        ballot: Ballot,
        used: Timestamp,
    ) {
        if ballot.node != from {
            return self.ignore(Ignored::WrongNode);
        }
        if ballot != self.accepted() || ballot != self.ballot() {
            return self.ignore(Ignored::Stale);
        }
        self.note_relinquished(ballot, Some(used));
        if matches!(self.state, State::Leader(_)) || !self.may_campaign(cx) {
            return;
        }
        self.end_campaign();
        if cx.leases.abstains(cx.now) {
            return self.campaign_soon(cx);
        }
        mark(Mark::TransferTaken);
        self.start_campaign(cx, false);
    }
}
