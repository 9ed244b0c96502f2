//! What one replica keeps on stable storage, and how it is read back.

use crate::config::Configuration;
use crate::entry::Entry;
use crate::ids::{Ballot, Slot};
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
    /// A first or later configuration took effect.
    Configured(Configuration),
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
    /// The group's members.
    pub configuration: Configuration,
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
        self.log.durable.clone()
    }
}
