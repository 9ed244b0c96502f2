//! What a driver may see of a replica: for routing, for status, and to apply
//! what is decided.

use crate::config::Configuration;
use crate::effect::SnapshotId;
use crate::entry::Entry;
use crate::ids::{Ballot, Epoch, GroupId, NodeId, Slot};
use crate::leaving::Leaving;
use crate::replica::{FollowerProgress, Ignored, Replica, Role, State};
use std::collections::BTreeMap;

/// Views.
impl Replica {
    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The node this replica lives on.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The part it plays.
    #[must_use]
    pub fn role(&self) -> Role {
        match &self.state {
            State::Follower => Role::Follower,
            State::Campaign(c) if c.pre => Role::PreCandidate,
            State::Campaign(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// The highest ballot promised.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.log.durable.promised
    }

    /// The ballot of the log's suffix.
    #[must_use]
    pub fn accepted(&self) -> Ballot {
        self.log.durable.accepted
    }

    /// Who leads, as far as this replica knows. None once it knows that it was left behind:
    /// whoever led last in its own configuration may be gone for good, and who leads in a
    /// later one tells it nothing of that.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        if self.left_behind_by().is_some() {
            return None;
        }
        let accepted = self.accepted();
        match &self.state {
            State::Leader(_) => Some(self.me),
            State::Campaign(_) => None,
            State::Follower => (!accepted.is_founding()
                && accepted == self.ballot()
                && accepted.node != self.me
                && !self.is_relinquished(accepted))
            .then_some(accepted.node),
        }
    }

    /// The ballot of the term, while this replica leads.
    #[must_use]
    pub fn term_ballot(&self) -> Option<Ballot> {
        match &self.state {
            State::Leader(leader) => Some(leader.ballot),
            _ => None,
        }
    }

    /// Everything up to here is decided, as far as this replica knows.
    #[must_use]
    pub fn decided(&self) -> Slot {
        self.log.durable.decided
    }

    /// Everything up to here is applied above.
    #[must_use]
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// The slot before the first entry kept.
    #[must_use]
    pub fn trimmed(&self) -> Slot {
        self.log.durable.trimmed
    }

    /// The last slot of the log.
    #[must_use]
    pub fn last(&self) -> Slot {
        self.log.durable.last()
    }

    /// The entry in `slot`, if the log holds it.
    #[must_use]
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.log.durable.entry(slot)
    }

    /// The entries from `slot` on, with their slots.
    pub fn entries_from(&self, slot: Slot) -> impl Iterator<Item = (Slot, &Entry)> + '_ {
        let first = slot.max(self.trimmed().next());
        (first.0..)
            .map(Slot)
            .zip(self.log.range(first, self.last()))
    }

    /// The members.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.log.durable.configuration
    }

    /// The youngest configuration that this replica knows to leave it out, while it keeps
    /// its copy until that one's voters hold the state (G3).
    #[must_use]
    pub fn left_out_of(&self) -> Option<Epoch> {
        self.leaving.as_ref().map(Leaving::epoch)
    }

    /// That configuration, if it is younger than the one that this replica's log is in. So it may
    /// stay for ever, while too few of its voters hold the state.
    #[must_use]
    pub fn left_behind_by(&self) -> Option<&Configuration> {
        let told = self.leaving.as_ref().map(Leaving::configuration)?;
        (told.epoch > self.configuration().epoch).then_some(told)
    }

    /// Whether the state machine above is complete (if not, a snapshot is needed).
    #[must_use]
    pub fn holds_data(&self) -> bool {
        self.holds_data
    }

    /// The slot of the stop-sign that the configuration comes from; 0 in a group's first one.
    #[must_use]
    pub fn began(&self) -> Slot {
        self.log.durable.began
    }

    /// Bytes of the entries kept.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        self.log.bytes()
    }

    /// Bytes of the entries not decided yet.
    #[must_use]
    pub fn undecided_bytes(&self) -> usize {
        self.log.undecided_bytes()
    }

    /// Whether so much is undecided that the layer above should admit nothing new
    /// (`undecided_bytes`). What it admitted before still gets its slot.
    #[must_use]
    pub fn undecided_full(&self) -> bool {
        self.log.undecided_bytes() >= self.settings.undecided_bytes
    }

    /// How far each follower is; empty unless this replica leads.
    #[must_use]
    pub fn progress(&self) -> Vec<FollowerProgress> {
        match &self.state {
            State::Leader(leader) => leader.status(),
            _ => Vec::new(),
        }
    }

    /// How often messages were dropped, by reason.
    #[must_use]
    pub fn ignored(&self) -> &BTreeMap<Ignored, u64> {
        &self.ignored
    }

    /// Snapshots that are being received.
    #[must_use]
    pub fn incoming_snapshot(&self) -> Option<SnapshotId> {
        self.incoming.as_ref().map(|i| i.id)
    }
}
