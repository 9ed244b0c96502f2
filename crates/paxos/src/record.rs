//! What one replica keeps on stable storage, and how it is read back.

use crate::config::{Began, Configuration};
use crate::entry::Entry;
use crate::ids::{Ballot, NodeId, Slot};
use serde::{Deserialize, Serialize};

/// One durable step of a replica. The log of a node holds the records of all
/// its groups, in the order of their persist effects. New variants are only
/// added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// `promised` rose.
    Promised(Ballot),
    /// Entries were accepted under `ballot`.
    Accept {
        /// The ballot.
        ballot: Ballot,
        /// Slot of the first entry.
        first: Slot,
        /// The entries.
        entries: Vec<Entry>,
        /// The decided slot known when this was written.
        decided: Slot,
        /// The sync this is a part of: its first and last slot. The old suffix is
        /// replaced only by the part that completes it (P4).
        sync: Option<(Slot, Slot)>,
    },
    /// The decided slot rose with nothing else to write.
    Decided {
        /// The ballot it was learned under.
        ballot: Ballot,
        /// The slot.
        slot: Slot,
    },
    /// The log up to and including `slot` was dropped: the engine holds its effect, synced.
    Trimmed {
        /// The last slot dropped.
        slot: Slot,
    },
    /// A snapshot of the state after `slot` was installed; accepted entries above it stay.
    Installed {
        /// The snapshot's slot.
        slot: Slot,
    },
    /// A configuration that the log's own entries do not tell: a snapshot did.
    Configured(Box<Began>),
    /// The group has moved on without this replica, and its data is gone: what is
    /// kept is the promise and the configuration that left it out.
    Emptied(Box<Began>),
}

impl Record {
    /// Bytes of its entries, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Record::Accept { entries, .. } => entries.iter().map(Entry::weight).sum(),
            _ => 0,
        }
    }
}

/// Everything durable of one replica, as recovery rebuilds it by replaying
/// its records in order into [`Durable::replay`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The ballot of the log's suffix.
    pub accepted: Ballot,
    /// The slot before the first entry kept.
    pub trimmed: Slot,
    /// The entries `trimmed + 1 ..= last`.
    pub entries: std::collections::VecDeque<Entry>,
    /// The highest decided slot known, at most `last`.
    pub decided: Slot,
    /// The group's members, as of the last stop-sign known to be decided.
    pub configuration: Configuration,
    /// The slot of that stop-sign; 0 in a group's first configuration.
    pub began: Slot,
    /// Nodes left out by then, whose replicas are not known to be gone.
    pub left: Vec<NodeId>,
    /// Parts of a sync that is not complete yet.
    pub staging: Option<Staging>,
}

/// A sync whose parts have not all arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staging {
    /// Its ballot.
    pub ballot: Ballot,
    /// Its first slot.
    pub first: Slot,
    /// Its last slot.
    pub end: Slot,
    /// What has arrived, contiguous from `first`.
    pub entries: Vec<Entry>,
}

impl crate::replica::Replica {
    /// Everything durable of this replica, or on its way to be: what a log must
    /// repeat further on before its older part may go.
    #[must_use]
    pub fn durable(&self) -> Durable {
        let mut durable = self.log.durable.clone();
        if let Some(slot) = self.recovering() {
            // The record that makes it so is ahead of whatever repeats it.
            durable.believe(durable.accepted, slot);
        }
        durable
    }
}
