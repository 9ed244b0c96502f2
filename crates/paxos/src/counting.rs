//! What a leader makes of the answers: what is decided, who lacks what.

use crate::ids::{Ballot, NodeId, Round, Slot, SupportEpoch};
use crate::message::NackReason;
use crate::progress::Mode;
use crate::quorum;
use crate::replica::{Cx, Ignored, Replica, State};
use synod_probe::{Mark, Mutation, mark, mutated};

/// The body of an Accepted.
#[derive(Clone, Copy)]
pub(crate) struct Heard {
    pub(crate) last: Slot,
    pub(crate) support: SupportEpoch,
    pub(crate) round: Round,
    pub(crate) data: bool,
}

/// Counting.
impl Replica {
    pub(crate) fn own_log_is_durable(&mut self, cx: &Cx<'_>, ballot: Ballot, slot: Slot) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        if leader.ballot != ballot {
            return;
        }
        leader.own = leader.own.max(slot);
        self.count_accepted(cx);
        self.review_lease(cx);
    }

    pub(crate) fn handle_accepted(
        &mut self,
        cx: &Cx<'_>,
        from: NodeId,
        ballot: Ballot,
        heard: Heard,
    ) {
        let Heard {
            last,
            support,
            round,
            data,
        } = heard;
        let retry_nanos = self.settings.retry_nanos;
        let State::Leader(leader) = &mut self.state else {
            return self.ignore(Ignored::Stale);
        };
        if leader.ballot != ballot && !mutated(Mutation::CountStaleAccepted) {
            return self.ignore(Ignored::Stale);
        }
        if last > leader.flushed() || last < leader.term_start || round > leader.round {
            return self.ignore(Ignored::Absurd);
        }
        let Some(follower) = leader.followers.get_mut(&from) else {
            return self.ignore(Ignored::Stranger);
        };
        follower.data = data;
        let news = follower.landed(last);
        let stamped = support > follower.support;
        follower.support = follower.support.max(support);
        follower.round = follower.round.max(round);
        if follower.mode == Mode::Probe {
            let matched = follower.matched;
            follower.restart_after(matched);
            follower.advanced(cx.now, retry_nanos);
        } else if news || !follower.is_owed() {
            follower.advanced(cx.now, retry_nanos);
        }
        if news {
            follower.gap = None;
            self.count_accepted(cx);
        }
        if stamped || news && self.lease(cx).is_none() {
            self.review_lease(cx);
        }
        self.count_confirmations();
        self.advance_handover(cx);
    }

    /// Decides what a majority durably holds under this ballot; older slots come
    /// along only with one of the own term.
    fn count_accepted(&mut self, cx: &Cx<'_>) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let configuration = &self.log.durable.configuration;
        let held = configuration.electors().map(|node| match node {
            _ if node == self.me && mutated(Mutation::CountUnsyncedSelf) => leader.flushed(),
            _ if node == self.me => leader.own,
            _ => leader.followers.get(&node).map_or(Slot(0), |f| f.matched),
        });
        let Some(slot) = quorum::reached(held, configuration.majority()) else {
            return;
        };
        if slot < leader.term_start || slot <= self.log.durable.decided {
            return;
        }
        if slot > leader.own {
            mark(Mark::DecidedBeforeOwnDisk);
        }
        let tell = cx.now.plus(self.settings.lazy_nanos);
        leader.tell_soon(tell);
        let ballot = leader.ballot;
        self.believe(cx, ballot, slot);
    }

    pub(crate) fn handle_nack(
        &mut self,
        cx: &Cx<'_>,
        from: NodeId,
        ballot: Ballot,
        reason: NackReason,
    ) {
        match reason {
            NackReason::Configuration { epoch, holds } if epoch < ballot.epoch => {
                return self.handle_older(cx, from, holds);
            }
            NackReason::Gap(slot) if ballot.is_founding() => {
                self.help(cx, from, slot);
                return;
            }
            NackReason::NeedsSnapshot if ballot.is_founding() => {
                let alike = ballot.epoch == self.configuration().epoch;
                if alike
                    && !matches!(self.state, State::Leader(_))
                    && self.configuration().is_member(from)
                {
                    self.help_by_snapshot(cx, from);
                }
                return;
            }
            _ => {}
        }
        if self.campaign_ballot() == Some(ballot) {
            return self.handle_campaign_nack(from, reason);
        }
        if self.term_ballot() != Some(ballot) {
            return self.ignore(Ignored::Stale);
        }
        match reason {
            NackReason::Promised(higher) if higher > ballot => {
                // That elector accepts nothing more from this ballot: a higher one
                // is needed, and this replica is as good as any to try.
                mark(Mark::DeposedByNack);
                self.step_down(cx, None);
                self.campaign_soon(cx);
            }
            NackReason::Gap(slot) => self.fill_gap(cx, from, slot),
            NackReason::NeedsSnapshot => self.begin_snapshot(cx, from),
            NackReason::Trimmed(slot) => self.drop_old_snapshot(from, slot),
            NackReason::Promised(_)
            | NackReason::Supports(_)
            | NackReason::Abstains
            | NackReason::Configuration { .. } => self.ignore(Ignored::Stale),
        }
    }

    /// The follower's log, or its part of the sync, ends at `slot`.
    pub(crate) fn fill_gap(&mut self, cx: &Cx<'_>, from: NodeId, slot: Slot) {
        let retry_nanos = self.settings.retry_nanos;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let flushed = leader.flushed();
        let Some(follower) = leader.followers.get_mut(&from) else {
            return self.ignore(Ignored::Stranger);
        };
        if slot > flushed {
            return self.ignore(Ignored::Absurd);
        }
        if slot < follower.matched || follower.mode == Mode::Snapshot {
            return self.ignore(Ignored::Stale);
        }
        if follower.mode == Mode::Stream {
            if follower.staged_through(slot) {
                return follower.advanced(cx.now, retry_nanos);
            }
            if follower.gap == Some(slot) {
                return self.ignore(Ignored::Repeated);
            }
        }
        follower.gap = Some(slot);
        follower.restart_after(slot);
        follower.advanced(cx.now, retry_nanos);
    }
}
