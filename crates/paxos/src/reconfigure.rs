//! Change of members by stop-sign (G1, G2; decision 11).
//!
//! A group has one log for its whole life. A stop-sign in it ends a configuration;
//! the slots after it belong to the next one, whose number is the epoch of its
//! ballots. A replica moves on when it knows the stop-sign to be decided, which it
//! can only while it holds everything up to it. From there all begin equal: with
//! nothing accepted above the stop-sign, under the new epoch's *founding* ballot.
//!
//! Whoever decides a stop-sign has stopped leading before it tells anybody. If it
//! is a voter of the successor it runs phase 1 there at once; when that brings
//! nothing foreign, its term goes on.

use crate::acceptor::{ABSURD, Part};
use crate::config::{Began, Configuration, ConfigurationError};
use crate::effect::Effect;
use crate::entry::{Entry, StopSign};
use crate::ids::{Ballot, Epoch, NodeId, Round, Slot, SupportEpoch, Timestamp};
use crate::log::Taken;
use crate::message::{Message, NackReason};
use crate::record::Record;
use crate::replica::{Cx, Ignored, Replica, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use synod_probe::{Mark, Mutation, mark, mutated};

/// Epochs from outside lie below this.
pub(crate) const ABSURD_EPOCH: u32 = 1 << 30;
/// Who stands still waits as many retries before it asks for a snapshot.
const STANDING_WAITS: u64 = 10;

/// What a stop-sign carries over for the state machine above. From the call on, the
/// caller uses no timestamp above `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// At least every timestamp that this leader has used, and may yet use.
    pub limit: Timestamp,
    /// The group's `last` timestamp.
    pub last: Timestamp,
    /// The garbage horizon.
    pub horizon: Timestamp,
}

/// Why a change of members was refused. Nothing was proposed; a retry is safe, where
/// and when each variant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReconfigureError {
    /// Another replica leads, or none.
    #[error("this replica does not lead the group; retry at its leader")]
    NotLeader {
        /// The best guess at who does.
        leader: Option<NodeId>,
    },
    /// The first entry of the term is not decided and applied yet (P6).
    #[error("the leader is not in office yet; retry in a moment")]
    NotInOffice,
    /// Leadership is on its way to another replica.
    #[error("leadership is moving to {to}; retry there")]
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// A change is under way.
    #[error("the group's members are changing already; look at the outcome, then retry")]
    UnderWay,
    /// The change was meant for another configuration.
    #[error(
        "the change follows configuration {named}, the group is in {current}; look at its \
         members again"
    )]
    OtherEpoch {
        /// The configuration in force.
        current: Epoch,
        /// The one that the change would follow.
        named: Epoch,
    },
    /// No group can live by that configuration.
    #[error("the new configuration is refused: {0}")]
    Bad(#[from] ConfigurationError),
    /// Nobody knows a node that is named.
    #[error("{node} is no node of the cluster; let it join first")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// A new voter or witness is not a member yet, or still lacks entries or data.
    #[error(
        "{node} has not caught up; make it a learner first, wait until it holds the data, \
         then retry"
    )]
    NotCaughtUp {
        /// The node.
        node: NodeId,
    },
    /// Too few of the new voters are known to hold the data now (G3).
    #[error(
        "only {have} of the new voters hold the data and are up to date, {need} must; wait \
         until more have caught up"
    )]
    TooFewHold {
        /// How many do.
        have: usize,
        /// How many must.
        need: usize,
    },
}

impl ReconfigureError {
    /// Whether the same request may be taken a moment later, as it stands; the others
    /// are wrong as long as nobody changes them, or the cluster.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            ReconfigureError::NotLeader { .. }
            | ReconfigureError::NotInOffice
            | ReconfigureError::Transferring { .. }
            | ReconfigureError::UnderWay
            | ReconfigureError::NotCaughtUp { .. }
            | ReconfigureError::TooFewHold { .. } => true,
            ReconfigureError::OtherEpoch { .. }
            | ReconfigureError::Bad(_)
            | ReconfigureError::UnknownNode { .. } => false,
        }
    }
}

/// Proposing.
impl Replica {
    /// Ends the configuration in force and names its successor; from here on nothing
    /// else is proposed in it. The change has happened once
    /// [`Replica::configuration`] is the successor; until then another leader may
    /// yet replace the stop-sign.
    ///
    /// # Errors
    /// See [`ReconfigureError`]; nothing was appended then.
    pub fn reconfigure(
        &mut self,
        cx: &Cx<'_>,
        successor: Configuration,
        seal: Seal,
    ) -> Result<Slot, ReconfigureError> {
        let hint = self.leader();
        let in_office = self.in_office();
        let State::Leader(leader) = &self.state else {
            return Err(ReconfigureError::NotLeader { leader: hint });
        };
        if let Some(handover) = leader.handover {
            return Err(ReconfigureError::Transferring { to: handover.to });
        }
        if leader.stop.is_some() {
            return Err(ReconfigureError::UnderWay);
        }
        if !in_office {
            return Err(ReconfigureError::NotInOffice);
        }
        let current = self.configuration().epoch;
        if successor.epoch != current.next() {
            return Err(ReconfigureError::OtherEpoch {
                current,
                named: Epoch(successor.epoch.0.saturating_sub(1)),
            });
        }
        if !mutated(Mutation::WitnessAsData) {
            successor.check()?;
        }
        self.successor_is_ready(cx, &successor)?;
        let slot = self.last().next();
        let State::Leader(leader) = &mut self.state else {
            return Err(ReconfigureError::NotLeader { leader: hint });
        };
        leader.stop = Some(seal.limit);
        leader.hurry();
        let durable = &self.log.durable;
        let before = durable.configuration.members();
        let left: BTreeSet<NodeId> = before
            .chain(durable.left.iter().copied())
            .filter(|n| !successor.is_member(*n) && !leader.gone.contains(n))
            .collect();
        self.log.push(Entry::StopSign(Box::new(StopSign {
            successor,
            left: left.into_iter().collect(),
            limit: seal.limit,
            last: seal.last,
            horizon: seal.horizon,
            slot,
        })));
        Ok(slot)
    }

    /// New electors have caught up as learners, so that the successor can go on at
    /// once; and a majority of its electors' number holds the data (G3).
    fn successor_is_ready(
        &self,
        cx: &Cx<'_>,
        successor: &Configuration,
    ) -> Result<(), ReconfigureError> {
        let State::Leader(leader) = &self.state else {
            return Ok(());
        };
        // Alive, holds the sync, and all the rest is on its way to it.
        let follows = |node: NodeId| {
            cx.leases.held_from(node, cx.now).is_some() && leader.has_caught_up(node)
        };
        let has_data = |node: NodeId| leader.followers.get(&node).is_some_and(|f| f.data);
        let old = self.configuration();
        for node in successor.electors().filter(|n| *n != self.me) {
            let ready = follows(node) && (has_data(node) || !successor.is_voter(node));
            if !ready && !old.is_elector(node) {
                return Err(ReconfigureError::NotCaughtUp { node });
            }
        }
        let holds = |node: &&NodeId| {
            **node == self.me && !self.lacks_data() || follows(**node) && has_data(**node)
        };
        let have = successor.voters.iter().filter(holds).count();
        let need = successor.majority();
        if have < need && !mutated(Mutation::WitnessAsData) {
            return Err(ReconfigureError::TooFewHold { have, need });
        }
        Ok(())
    }
}

/// Messages of other epochs.
impl Replica {
    /// Whether a message may be acted on. One of an older configuration is not; its
    /// sender is helped to the younger. One of a younger configuration brings the
    /// state that this replica needs to become part of it, or asks for what it may
    /// not give before (G1).
    pub(crate) fn admits(&mut self, cx: &Cx<'_>, from: NodeId, message: &Message) -> bool {
        let Some(ballot) = message.ballot() else {
            return true;
        };
        let epoch = self.configuration().epoch;
        if ballot.epoch == epoch {
            if !self.configuration().is_member(from) {
                self.ignore(Ignored::Stranger);
                return false;
            }
            return true;
        }
        if ballot.epoch > epoch {
            let asks = matches!(message, Message::PreVote { .. } | Message::Prepare { .. });
            let brings = matches!(
                message,
                Message::Accept { .. } | Message::SnapshotChunk { .. }
            );
            if ballot.epoch.0 < ABSURD_EPOCH
                && (brings || asks && mutated(Mutation::VoteWithoutState))
            {
                return true;
            }
            if asks {
                self.lacks_configuration(from, ballot);
            }
        } else if let Message::PreVote { decided, .. }
        | Message::Prepare { decided, .. }
        | Message::Accept { decided, .. } = message
        {
            self.help(cx, from, *decided);
        }
        self.ignore(Ignored::WrongEpoch);
        false
    }

    /// For who misses a leader and may not lead: perhaps others do not know that this
    /// configuration began, and wait for a leader of the last one, whose node may be
    /// this one.
    pub(crate) fn tell_began(&mut self) {
        let durable = &self.log.durable;
        let (epoch, after) = (durable.configuration.epoch, durable.began);
        if after == Slot(0) || !durable.configuration.is_member(self.me) {
            // A group's first configuration; or `Leaving` asks, until all is gone.
            return;
        }
        mark(Mark::BeganTold);
        self.tell_electors(&Message::Began { epoch, after });
    }

    /// Says what this replica holds of the state that the ballot's configuration
    /// begins with.
    pub(crate) fn lacks_configuration(&mut self, to: NodeId, ballot: Ballot) {
        let epoch = self.configuration().epoch;
        let founding = Ballot::founding(ballot.epoch);
        let holds = self.log.durable.wanted_after(founding);
        self.nack(to, ballot, NackReason::Configuration { epoch, holds });
    }

    /// Brings a member that missed the beginning of the configuration in force to
    /// it, from after the slot that it holds; tells others that they are out of it.
    /// Returns whether it has all it needs with that.
    pub(crate) fn help(&mut self, cx: &Cx<'_>, to: NodeId, holds: Slot) -> bool {
        let end = self.log.durable.began;
        if end == Slot(0) || holds >= end || to == self.me {
            return false;
        }
        if !self.configuration().is_member(to) {
            self.tell_held(to);
            return false;
        }
        let first = holds.next();
        if first <= self.trimmed() {
            if let State::Leader(_) = self.state {
                self.begin_snapshot(cx, to);
            } else {
                self.help_by_snapshot(cx, to);
            }
            return false;
        }
        let (entries, _) = self.log.batch(first, end, self.settings.message_bytes);
        if entries.is_empty() {
            // Emptied: this replica is not part of it either.
            return false;
        }
        let whole = first.0 + entries.len() as u64 > end.0;
        let epoch = self.configuration().epoch;
        let message = Message::Settled {
            epoch,
            first,
            entries,
            end,
        };
        mark(Mark::EpochHelped);
        // Once this replica's own knowledge of it is durable.
        self.out.release(to, message);
        whole
    }

    /// A no that comes from an older configuration: helps, and asks again.
    pub(crate) fn handle_older(&mut self, cx: &Cx<'_>, from: NodeId, holds: Slot) {
        if self.help(cx, from, holds) {
            self.ask_again(from);
        }
    }

    pub(crate) fn handle_settled(
        &mut self,
        cx: &Cx<'_>,
        from: NodeId,
        epoch: Epoch,
        first: Slot,
        entries: Vec<Entry>,
        end: Slot,
    ) {
        if epoch <= self.configuration().epoch {
            return self.ignore(Ignored::Repeated);
        }
        let stop = usize::try_from(end.0.saturating_sub(first.0)).unwrap_or(usize::MAX);
        let ends = entries
            .get(stop)
            .is_none_or(|entry| matches!(entry, Entry::StopSign(s) if s.successor.epoch == epoch));
        let part = Part {
            first,
            entries,
            decided: end,
            sync: Some((first, end)),
            round: Round(0),
        };
        if part.is_absurd()
            || part.entries.is_empty()
            || first > end
            || epoch.0 >= ABSURD_EPOCH
            || end.0 > ABSURD
            || !ends
        {
            return self.ignore(Ignored::Absurd);
        }
        let founding = Ballot::founding(epoch);
        // Whatever was led or asked for in an older configuration is over. The promise
        // comes with the last part: until then that configuration may need this
        // replica, should the helper be gone.
        self.yield_to_higher(cx);
        match self.store(founding, part) {
            Taken::Gap(_) => return self.ignore(Ignored::OutOfOrder),
            Taken::Contradicts => return self.ignore(Ignored::Contradicts),
            Taken::Appended(_) | Taken::Staged(_) | Taken::Completed(_) => {}
        }
        let holds = self.log.durable.wanted_after(founding);
        if self.accepted() == founding {
            self.believe(cx, founding, end);
        } else {
            let reason = NackReason::Gap(holds);
            let ballot = founding;
            self.out.release(from, Message::Nack { ballot, reason });
        }
    }
}

/// The moment a configuration begins.
impl Replica {
    /// The configuration in force is a new one, learned under `under`. A leader has
    /// stopped leading before anybody hears of it (G2).
    pub(crate) fn epoch_began(&mut self, cx: &Cx<'_>, under: Ballot) {
        let decided = self.decided();
        // Replayed before anything that is said in the new configuration.
        self.out.records.push(Record::Decided {
            ballot: under,
            slot: decided,
        });
        self.heard = SupportEpoch::NONE;
        // What is being sent leads to the last configuration only.
        self.stop_helping();
        if let State::Leader(leader) = &self.state {
            let ballot = leader.ballot;
            let told: Vec<NodeId> = leader.followers.keys().copied().collect();
            if !mutated(Mutation::LeaseBeyondStop) {
                self.lead_into_epoch(cx);
            }
            for node in told {
                self.out.send(
                    node,
                    Message::Decided {
                        ballot,
                        slot: decided,
                    },
                );
            }
            return;
        }
        self.end_campaign();
        if under.is_founding() || self.configuration().is_voter(under.node) {
            // Who decided it goes first.
            let wait = self.settings.retry_nanos;
            self.wait_for_campaign(cx, wait);
        } else {
            self.campaign_soon(cx);
        }
    }

    /// The leader's part: its leadership ends, and its term goes on if phase 1 in
    /// the new configuration shows that nobody led there meanwhile.
    fn lead_into_epoch(&mut self, cx: &Cx<'_>) {
        let State::Leader(leader) = std::mem::replace(&mut self.state, State::Follower) else {
            return;
        };
        for (node, follower) in &leader.followers {
            if follower.transfer.is_some() {
                self.out.effects.push(Effect::CloseSnapshot { to: *node });
            }
        }
        let was_in_office = self.applied >= leader.term_start && leader.handover.is_none();
        let may = self.may_campaign(cx);
        if was_in_office && may {
            self.keeps = Some(leader.term);
        } else {
            let ballot = leader.ballot;
            self.out.effects.push(Effect::Deposed { ballot });
        }
        self.election.deadline = None;
        if may {
            self.start_campaign(cx, false);
        }
    }

    /// The term that was to go on in this configuration does not.
    pub(crate) fn lose_term(&mut self) {
        if let Some(ballot) = self.keeps.take() {
            mark(Mark::TermLost);
            self.out.effects.push(Effect::Deposed { ballot });
        }
    }

    /// Takes over the configuration that a snapshot or the engine brought, which
    /// the log here does not tell.
    pub(crate) fn configure(&mut self, began: &Began) -> bool {
        if began.configuration.epoch <= self.configuration().epoch || began.after > self.decided() {
            return false;
        }
        self.log.begin(began.clone());
        self.out
            .records
            .push(Record::Configured(Box::new(began.clone())));
        true
    }
}

impl Replica {
    /// The driver made this replica and has no state for it: a leader's snapshot
    /// brings it.
    pub fn lose_data(&mut self) {
        self.holds_data = false;
    }

    /// While it is halted, the state machine applies nothing more, as what comes next is beyond the
    /// program.
    pub fn halt(&mut self, halted: bool) {
        self.halted = halted;
    }

    /// While it stands back this replica does not campaign: what the group's entries say is
    /// beyond the program. It votes and keeps the log, as that needs no understanding.
    pub fn stand_back(&mut self, back: bool) {
        self.stands_back = back;
    }

    /// While it stands still, the state machine cannot apply what comes next: this replica counts as
    /// one without data for others, does not campaign, and asks for a snapshot that is beyond that.
    pub fn stand_still(&mut self, cx: &Cx<'_>, still: bool) {
        if self.stands_still != still {
            self.stands_still = still;
            // It may get on by itself in a moment.
            let later = cx
                .now
                .plus(self.settings.retry_nanos.saturating_mul(STANDING_WAITS));
            self.ask_snapshot_after = self.ask_snapshot_after.max(later);
            self.review_election(cx);
        }
    }

    /// Campaigns at once: the term that ended here is to be followed by another of the same
    /// node's.
    pub fn campaign(&mut self, cx: &Cx<'_>) {
        self.election.deadline = Some(cx.now);
    }

    /// The group has just begun with a state that its members hold. One of them leads it
    /// first; the others give it time, and tell it that they are there to vote.
    pub fn found(&mut self, cx: &Cx<'_>, first: NodeId) {
        if first == self.me {
            self.campaign(cx);
        } else {
            self.wait_for_campaign(cx, self.settings.retry_nanos);
            self.tell_began();
        }
    }
}

/// Views.
impl Replica {
    /// The configuration in force, and where it begins.
    #[must_use]
    pub fn in_force(&self) -> Began {
        self.log.durable.in_force()
    }

    /// The first ballot of the term, while this replica leads.
    #[must_use]
    pub fn term(&self) -> Option<Ballot> {
        match &self.state {
            State::Leader(leader) => Some(leader.term),
            _ => None,
        }
    }

    /// Whether this replica's term is between two configurations: a stop-sign of its
    /// own is proposed, or decided and the successor is not led yet. Nothing can be
    /// proposed; either the term goes on or effect `Deposed` ends it.
    #[must_use]
    pub fn changes_members(&self) -> bool {
        match &self.state {
            State::Leader(leader) if leader.stop.is_some() => true,
            // The new configuration's TermStart is not decided yet.
            State::Leader(leader) => leader.term != leader.ballot && !self.in_office(),
            _ => self.keeps.is_some(),
        }
    }
}
