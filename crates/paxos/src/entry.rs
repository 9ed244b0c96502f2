//! What stands in a group's log.

use crate::config::Configuration;
use crate::ids::{Ballot, NodeId, Slot, Timestamp};
use crate::payload::Payload;
use serde::{Deserialize, Serialize};

/// One log entry. New kinds are only added at the end, and proposed only once
/// the cluster version allows them (P8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Fills a slot and changes nothing.
    Noop,
    /// The last entry of every new leader's sync (L4), unless that ends in a
    /// stop-sign: the leader is in office once it is decided and applied (P6).
    TermStart(Box<TermStart>),
    /// A command for the state machine above; consensus does not look inside.
    Command(Payload),
    /// Ends a configuration and names its successor: nothing is proposed after it
    /// in the same configuration.
    StopSign(Box<StopSign>),
}

impl Entry {
    /// Bytes this entry counts for in windows and bounds.
    #[must_use]
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 48;
        match self {
            Entry::Command(bytes) => OVERHEAD + bytes.len(),
            Entry::Noop | Entry::TermStart(_) => OVERHEAD,
            Entry::StopSign(_) => 16 * OVERHEAD,
        }
    }
}

/// A new leader's first own entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermStart {
    /// The ballot of the leader that made it; when this entry is decided under
    /// exactly this ballot, the term begins, or goes on.
    pub ballot: Ballot,
    /// Names the term: the same ballot, or an earlier one of this leader if its
    /// term goes on in another configuration.
    pub term: Ballot,
    /// At least every limit that the promises of phase 1 returned: no timestamp
    /// of an earlier leader lies above it, and none of this one at or below it.
    pub floor: Timestamp,
}

/// Ends one configuration (reconfiguration by stop-sign).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSign {
    /// The configuration that follows.
    pub successor: Configuration,
    /// Nodes that it and those before it leave out, and whose replicas are not known
    /// to be gone; ascending.
    pub left: Vec<NodeId>,
    /// No timestamp above it was used by its proposer or any leader before: from
    /// proposing it on, its proposer uses none above (G2).
    pub limit: Timestamp,
    /// The group's `last` timestamp when it was proposed.
    pub last: Timestamp,
    /// The garbage horizon when it was proposed.
    pub horizon: Timestamp,
    /// The slot of the stop-sign itself.
    pub slot: Slot,
}
