//! When a majority of the voters is lost for good: a survivor goes on alone because a
//! person says so (decision 16). What it holds is the group's state from then on.
//!
//! The survivor takes its whole log as decided and ends the configuration by a stop-sign
//! that nobody else accepts. The successor has it as its only voter, in a later *era* of
//! epochs. Logs of two eras may differ in what each calls decided, so they are never joined: a
//! replica that has a log of an earlier era takes nothing of a later one before it is
//! emptied, and until then it neither votes nor leads.

use crate::config::{Began, Configuration};
use crate::entry::{Entry, StopSign};
use crate::ids::{Ballot, Epoch, NodeId, Slot};
use crate::leaving::Leaving;
use crate::message::Message;
use crate::reconfigure::{ABSURD_EPOCH, Seal};
use crate::record::Record;
use crate::replica::{Cx, Ignored, Replica, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a replica held when it was looked at: it goes on alone from there or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// The configuration in force, as far as it knows.
    pub epoch: Epoch,
    /// The ballot of its log's suffix.
    pub accepted: Ballot,
    /// The last slot of its log.
    pub last: Slot,
}

/// Why a replica does not go on alone. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RecoverError {
    /// This node has no replica of the shard.
    #[error("this node has no replica of the shard; plan again")]
    NoReplica,
    /// It holds something else than what was planned with.
    #[error(
        "it holds {}/{} in {} by now, which is not what was planned with; plan again",
        holds.accepted, holds.last, holds.epoch
    )]
    Changed {
        /// What it holds.
        holds: Holds,
    },
    /// The group lives.
    #[error("{leader} leads the shard, as far as this node knows; nothing is lost")]
    Led {
        /// Who leads.
        leader: NodeId,
    },
    /// Most of those who vote are there.
    #[error(
        "{alive} of those who vote in the shard are connected, {majority} are a majority; wait for them"
    )]
    MajorityLives {
        /// How many support this node, with itself.
        alive: usize,
        /// How many are enough.
        majority: usize,
    },
    /// It has no state that could be gone on with.
    #[error("its copy of the shard holds no data, or is not whole; choose another survivor")]
    NoData,
    /// The group went on without it, or is about to.
    #[error("the shard went on without this node; choose another survivor")]
    LeftOut,
    /// The state machine is in the middle of taking another group in, or of being taken in.
    #[error(
        "the shard is in the middle of a merge, or was merged into another one; choose another survivor"
    )]
    Merging,
    /// Asked for already.
    #[error("it is being done already; ask again in a moment")]
    UnderWay,
    /// The new epoch is not the first of an era after the known one.
    #[error("{epoch} begins no later era than the one of {known}; plan again")]
    BadEpoch {
        /// The epoch asked for.
        epoch: Epoch,
        /// The one in force.
        known: Epoch,
    },
}

/// The act, until it is durable.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Recovering {
    /// The persist effect that carries it.
    number: u64,
    /// The slot of the stop-sign.
    slot: Slot,
}

/// The survivor.
impl Replica {
    /// What it holds, for whoever plans.
    #[must_use]
    pub fn holds(&self) -> Holds {
        Holds {
            epoch: self.configuration().epoch,
            accepted: self.accepted(),
            last: self.last(),
        }
    }

    /// How many of those who vote support this node, with itself.
    fn electors_alive(&self, cx: &Cx<'_>) -> usize {
        let electors = self.configuration().electors();
        let alive = |n: &NodeId| *n == self.me || cx.leases.held_from(*n, cx.now).is_some();
        electors.filter(alive).count()
    }

    /// Goes on alone: the log through `holds.last` is decided, and so is a stop-sign after
    /// it whose successor, `epoch`, has just this replica. Believed, and acted on, once it
    /// is durable; the replica hears nothing until then.
    ///
    /// # Errors
    /// See [`RecoverError`]; nothing was changed then.
    pub fn recover(
        &mut self,
        cx: &Cx<'_>,
        holds: Holds,
        epoch: Epoch,
        seal: Seal,
    ) -> Result<Slot, RecoverError> {
        self.may_recover(cx, holds, epoch)?;
        self.end_campaign();
        self.stop_helping();
        let slot = self.last().next();
        let members = self.configuration().members();
        let mut left: BTreeSet<NodeId> = members.collect();
        left.extend(&self.log.durable.left);
        for (_, entry) in self.entries_from(self.decided().next()) {
            // Members whom a change was to take in; it is decided now, and over at once.
            if let Entry::StopSign(stop) = entry {
                left.extend(stop.successor.members());
            }
        }
        left.remove(&self.me);
        // What any of those who may have led was allowed to use, as far as is known here.
        let granted = left.iter().chain([&self.me]);
        let granted = granted.map(|node| cx.leases.granted_limit(*node)).max();
        let stop = Entry::StopSign(Box::new(StopSign {
            successor: Configuration {
                epoch,
                ..Configuration::of_voters(vec![self.me])
            },
            left: left.into_iter().collect(),
            limit: seal.limit.max(granted.unwrap_or_default()),
            last: seal.last,
            horizon: seal.horizon,
            slot,
        }));
        self.out.records.push(Record::Accept {
            ballot: self.accepted(),
            first: slot,
            entries: vec![stop.clone()],
            decided: slot,
            sync: None,
        });
        self.log.push(stop);
        self.recovering = Some(Recovering {
            number: self.out.number + 1,
            slot,
        });
        Ok(slot)
    }

    fn may_recover(&self, cx: &Cx<'_>, holds: Holds, epoch: Epoch) -> Result<(), RecoverError> {
        if self.recovering.is_some() {
            return Err(RecoverError::UnderWay);
        }
        let configuration = self.configuration();
        if self.leaving.is_some() || !configuration.is_member(self.me) {
            return Err(RecoverError::LeftOut);
        }
        if !self.holds_data || self.installing().is_some() {
            return Err(RecoverError::NoData);
        }
        if holds != self.holds() {
            let holds = self.holds();
            return Err(RecoverError::Changed { holds });
        }
        if matches!(self.state, State::Leader(_)) {
            return Err(RecoverError::Led { leader: self.me });
        }
        if let Some(supported) = self.supported_ballot(cx) {
            let leader = supported.node;
            return Err(RecoverError::Led { leader });
        }
        let (alive, majority) = (self.electors_alive(cx), configuration.majority());
        if alive >= majority {
            return Err(RecoverError::MajorityLives { alive, majority });
        }
        let known = configuration.epoch.max(self.ballot().epoch);
        if epoch != epoch.era_begins() || epoch.era() <= known.era() || epoch.0 >= ABSURD_EPOCH {
            return Err(RecoverError::BadEpoch { epoch, known });
        }
        Ok(())
    }

    /// A persist effect is durable: perhaps the one with the act.
    pub(crate) fn recovery_is_durable(&mut self, cx: &Cx<'_>, number: u64) {
        let done = self.recovering.take_if(|r| r.number <= number);
        if let Some(Recovering { slot, .. }) = done {
            let ballot = self.accepted();
            self.believe(cx, ballot, slot);
            // Nobody else can.
            self.election.deadline = Some(cx.now);
        }
    }

    /// The slot of the stop-sign that is on its way to the disk, if this replica is about
    /// to go on alone.
    pub(crate) fn recovering(&self) -> Option<Slot> {
        self.recovering.map(|r| r.slot)
    }
}

/// Everybody else.
impl Replica {
    /// The era that this replica's log belongs to.
    pub(crate) fn log_era(&self) -> u32 {
        let durable = &self.log.durable;
        durable
            .configuration
            .epoch
            .max(durable.accepted.epoch)
            .era()
    }

    /// Whether what another era decided may contradict this replica's log: one that is
    /// empty can be given any.
    fn is_overruled_by(&self, epoch: Epoch) -> bool {
        epoch.era() > self.log_era() && epoch.0 < ABSURD_EPOCH && self.last() > Slot(0)
    }

    /// Whether this replica knows that the group went on in a later era: it takes part in
    /// nothing, and waits to be emptied.
    #[must_use]
    pub fn is_overruled(&self) -> bool {
        let leaving = self.leaving.as_ref();
        leaving.is_some_and(|l| self.is_overruled_by(l.epoch()))
    }

    /// The group is said to be in a configuration of a later era. Whoever says so need not
    /// be part of it; its voters are asked, and meanwhile this replica does nothing.
    pub fn overrule(&mut self, cx: &Cx<'_>, configuration: &Configuration) {
        let epoch = configuration.epoch;
        let known = self.leaving.as_ref().map(Leaving::epoch);
        if !self.is_overruled_by(epoch)
            || self.is_being_destroyed()
            || known.is_some_and(|known| known >= epoch)
            || configuration.is_elector(self.me)
        {
            return;
        }
        self.yield_to_higher(cx);
        let began = Began {
            configuration: configuration.clone(),
            // The voters know it.
            after: Slot(0),
            left: Vec::new(),
        };
        self.leaving = Some(Leaving::new(began, cx.now));
        self.leaving_timeout(cx);
    }

    /// Whether a message is of this log's era. If it is of a later one its sender is asked
    /// what this replica may do: nothing of it fits the log here. Who is in an earlier one
    /// is told.
    pub(crate) fn admits_era(&mut self, from: NodeId, message: &Message) -> bool {
        if self.is_overruled() && !matches!(message, Message::Held { .. }) {
            self.ignore(Ignored::WrongEpoch);
            return false;
        }
        let epoch = match message {
            Message::Settled { epoch, .. } | Message::Began { epoch, .. } => *epoch,
            // Tell that the group went on, whatever the era.
            Message::Held { .. } | Message::Gone { .. } => return true,
            _ => message.ballot().unwrap_or_default().epoch,
        };
        if self.is_overruled_by(epoch) {
            let durable = &self.log.durable;
            let (epoch, after) = (durable.configuration.epoch, durable.began);
            self.out.send(from, Message::Began { epoch, after });
            self.ignore(Ignored::WrongEpoch);
            return false;
        }
        let asks = matches!(
            message,
            Message::PreVote { .. }
                | Message::Prepare { .. }
                | Message::Accept { .. }
                | Message::Began { .. }
        );
        if asks && epoch.era() < self.configuration().epoch.era() {
            self.tell_held(from);
            self.ignore(Ignored::WrongEpoch);
            return false;
        }
        true
    }
}
