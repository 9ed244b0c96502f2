//! The exchange between two nodes, and what the supporter keeps durably.

use crate::ids::{Incarnation, Mono, NodeId, SupportEpoch, Timestamp};
use serde::{Deserialize, Serialize};

/// Between two nodes (a node supports itself through the same messages, locally).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseMessage {
    /// Holder → supporter, every L/4 to L/2: support me, and let me use timestamps up to `want`.
    Renew {
        /// The sender's incarnation.
        holder: Incarnation,
        /// The receiver's incarnation as the sender knows it (0 = not known).
        supporter: Incarnation,
        /// The holder's monotonic clock when it sent this; echoed.
        sent: Mono,
        /// How long the support shall last; nanoseconds (L).
        lease_nanos: u64,
        /// The limit wanted (L4), at most L/2 ahead of the holder's wall clock.
        want: Timestamp,
        /// The holder's wall clock interval, for K2.
        earliest: Timestamp,
        /// See `earliest`.
        latest: Timestamp,
    },
    /// Supporter → holder: granted, once the limit is durable.
    Support {
        /// The holder's incarnation this is for.
        holder: Incarnation,
        /// Echo of the Renew's `sent`: the holder counts from then (L2).
        sent: Mono,
        /// Names this unbroken support; a gap makes a new one.
        epoch: SupportEpoch,
        /// How long from `sent` (as the holder counts); nanoseconds.
        lease_nanos: u64,
        /// Timestamps up to here may be used by the holder's leaders.
        limit: Timestamp,
        /// The supporter's wall clock interval, for K2.
        earliest: Timestamp,
        /// See `earliest`.
        latest: Timestamp,
    },
}

/// Durable, one per node pair: the limit this node granted to `holder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// To whom.
    pub holder: NodeId,
    /// Up to where.
    pub limit: Timestamp,
    /// The longest lease this node ever granted, for the abstention after a restart (L5); nanoseconds.
    pub longest_lease_nanos: u64,
}
