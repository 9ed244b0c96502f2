//! What replicas of one group say to each other. Any of these may be lost,
//! repeated or overtaken; none is trusted beyond what its ballot proves.

use crate::config::Began;
use crate::effect::SnapshotId;
use crate::entry::Entry;
use crate::ids::{Ballot, Epoch, Round, Slot, SupportEpoch, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A message within one group. New variants are only added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Candidate → electors: would you promise me? Changes nothing durable.
    PreVote {
        /// The ballot a Prepare would carry.
        ballot: Ballot,
        /// The candidate's `accepted`.
        accepted: Ballot,
        /// The candidate's last slot.
        last: Slot,
        /// The candidate's decided slot.
        decided: Slot,
        /// A ballot its leader gave up, if the candidate knows of one (L3).
        relinquished: Option<Ballot>,
    },
    /// Elector → candidate: yes. (A no is a Nack.)
    PreVoteReply {
        /// The ballot asked about.
        ballot: Ballot,
    },
    /// Candidate → electors: phase 1.
    Prepare {
        /// The ballot to promise.
        ballot: Ballot,
        /// The candidate's `accepted`.
        accepted: Ballot,
        /// The candidate's last slot.
        last: Slot,
        /// The candidate's decided slot.
        decided: Slot,
        /// A ballot its leader gave up, if the candidate knows of one (L3).
        relinquished: Option<Ballot>,
    },
    /// Elector → candidate: phase 1's yes, released once `promised` is durable.
    /// Its entries may come in several parts; only all parts together are a Promise.
    Promise {
        /// The ballot promised.
        ballot: Ballot,
        /// The elector's `accepted`.
        accepted: Ballot,
        /// The elector's last slot.
        last: Slot,
        /// The elector's decided slot (of a log whose ballot is `accepted`).
        decided: Slot,
        /// The highest limit this elector granted to the node of `accepted` (L4).
        limit: Timestamp,
        /// Slot of the first entry of this part.
        first: Slot,
        /// The elector's log from `first` on, if its `(accepted, last)` is higher.
        entries: Vec<Entry>,
        /// Whether more parts follow.
        more: bool,
    },
    /// Leader → members: phase 2. With no entries it is a heartbeat or a
    /// confirming round.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// Slot of the first entry.
        first: Slot,
        /// The entries, contiguous.
        entries: Vec<Entry>,
        /// The leader's decided slot.
        decided: Slot,
        /// During the sync: its first and its last slot. The receiver's old log
        /// stands until it holds everything through the last (P4).
        sync: Option<(Slot, Slot)>,
        /// The youngest confirming round, to be echoed.
        round: Round,
    },
    /// Member → leader: holds everything through `last` under `ballot`, durably.
    Accepted {
        /// The ballot accepted.
        ballot: Ballot,
        /// The member's last slot under it.
        last: Slot,
        /// The member's support for the leader's node when the Accept was handled (L2).
        support: SupportEpoch,
        /// The youngest round seen.
        round: Round,
        /// Whether the member holds the data, and not only the log (G3).
        data: bool,
    },
    /// Leader → members, when there is no Accept to carry it.
    Decided {
        /// The leader's ballot; believed only under it (P5).
        ballot: Ballot,
        /// Everything up to here is decided.
        slot: Slot,
    },
    /// Anyone: what you sent cannot be taken, for this reason.
    Nack {
        /// The ballot of the message refused.
        ballot: Ballot,
        /// Why.
        reason: NackReason,
    },
    /// Elector → the node it supports: somebody else wants to lead the group
    /// whose ballot of yours I accepted. Answer Relinquish unless you lead under it (L3).
    Contested {
        /// The ballot accepted from the receiver.
        ballot: Ballot,
    },
    /// Leader → electors: I never claim this ballot again. The lease under it is over.
    Relinquish {
        /// The ballot given up.
        ballot: Ballot,
        /// The highest timestamp used under it, if its sender knows; then a new
        /// leader's floor need not lie above the limit granted (L4).
        used: Option<Timestamp>,
    },
    /// Leader → target: take over. Sent after the target holds the whole log
    /// and the sender has relinquished.
    TransferLeader {
        /// The ballot given up.
        ballot: Ballot,
        /// The highest timestamp used under it.
        used: Timestamp,
    },
    /// Leader → member: one chunk of a snapshot (on a stream for bulk).
    SnapshotChunk {
        /// The leader's ballot.
        ballot: Ballot,
        /// Which snapshot.
        id: SnapshotId,
        /// The chunk's number, from 0.
        chunk: u64,
        /// Checksum (crc32) of `data`.
        checksum: u32,
        /// The chunk; its inside belongs to the driver.
        data: Bytes,
        /// Whether this is the last one.
        done: bool,
        /// With the last one: the configuration in force after the snapshot's slot,
        /// or one before it if the receiver needs to be told of none.
        began: Option<Box<Began>>,
    },
    /// Member → leader: send this chunk next, or (`installed`) everything is in place.
    SnapshotAck {
        /// The leader's ballot.
        ballot: Ballot,
        /// Which snapshot.
        id: SnapshotId,
        /// The next chunk wanted.
        next: u64,
        /// Whether the snapshot is installed.
        installed: bool,
    },
    /// Anyone in a younger configuration → a member that missed its beginning: what
    /// was decided up to and including the stop-sign before it. Good under any
    /// ballot, like a snapshot; may come in several parts, which count together.
    Settled {
        /// The configuration that the stop-sign begins.
        epoch: Epoch,
        /// Slot of the first entry.
        first: Slot,
        /// The entries, contiguous.
        entries: Vec<Entry>,
        /// The slot of the stop-sign.
        end: Slot,
    },
    /// Who cannot lead in the configuration and hears from no leader there → its
    /// electors: it began. One that is in an older configuration still says so, and
    /// is helped; the others say whether they hold the state, and one outside may
    /// go once enough do (G3).
    Began {
        /// The configuration.
        epoch: Epoch,
        /// The slot of the stop-sign before it.
        after: Slot,
    },
    /// Anyone → a replica outside the configuration: the one in force here, and
    /// whether the sender votes in it and durably holds the state it begins with.
    Held {
        /// The configuration, and where it begins.
        began: Box<Began>,
        /// Whether the sender holds it.
        holds: bool,
    },
    /// A node outside the configuration → who told it so: nothing of the group is
    /// left here.
    Gone {
        /// The configuration that it was told of.
        epoch: Epoch,
    },
}

impl Message {
    /// The ballot it speaks of; none of those that speak of configurations.
    #[must_use]
    pub fn ballot(&self) -> Option<Ballot> {
        match self {
            Message::PreVote { ballot, .. }
            | Message::PreVoteReply { ballot }
            | Message::Prepare { ballot, .. }
            | Message::Promise { ballot, .. }
            | Message::Accept { ballot, .. }
            | Message::Accepted { ballot, .. }
            | Message::Decided { ballot, .. }
            | Message::Nack { ballot, .. }
            | Message::Contested { ballot }
            | Message::Relinquish { ballot, .. }
            | Message::TransferLeader { ballot, .. }
            | Message::SnapshotChunk { ballot, .. }
            | Message::SnapshotAck { ballot, .. } => Some(*ballot),
            Message::Settled { .. }
            | Message::Began { .. }
            | Message::Held { .. }
            | Message::Gone { .. } => None,
        }
    }
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NackReason {
    /// A higher ballot was promised.
    Promised(Ballot),
    /// The elector accepted under this ballot and supports its node (L3).
    Supports(Ballot),
    /// The elector restarted and abstains for a while (L5).
    Abstains,
    /// The candidate's log ends before the elector's first slot: it needs a snapshot first.
    Trimmed(Slot),
    /// An Accept left a gap; the log ends here.
    Gap(Slot),
    /// The receiver needs a snapshot: its data is missing or older than its log.
    NeedsSnapshot,
    /// The message belongs to a younger configuration than the receiver knows, which
    /// holds the state before it only up to here (G1).
    Configuration {
        /// The configuration known.
        epoch: Epoch,
        /// What the receiver holds of the state, decided slots or parts of a Settled.
        holds: Slot,
    },
}
