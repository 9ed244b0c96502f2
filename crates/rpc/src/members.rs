//! Changes of a shard's members, as whoever makes them asks and what he has to wait for.

use serde::{Deserialize, Serialize};
use synod_paxos::{Configuration, Epoch, GroupId, NodeId, ReconfigureError, Slot};

/// The members that a shard is to have. It names the configuration that it follows,
/// so repeating it is safe: once the change has happened the copy is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersRequest {
    /// The shard; this node leads it.
    pub shard: GroupId,
    /// The configuration that this one follows.
    pub follows: Epoch,
    /// Vote and hold data; in any order, like the others.
    pub voters: Vec<NodeId>,
    /// Vote, and count for no data.
    pub witnesses: Vec<NodeId>,
    /// Hold data, and do not vote.
    pub learners: Vec<NodeId>,
}

/// What became of a [`MembersRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersAnswer {
    /// The change is proposed. It has happened once the shard's configuration follows
    /// the one named; until then another leader may yet go on without it.
    Proposed {
        /// The slot of the stop-sign.
        slot: Slot,
    },
    /// Nothing was proposed.
    Refused(ReconfigureError),
}

/// What one replica knows of its shard's members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersStatus {
    /// The shard.
    pub shard: GroupId,
    /// The configuration in force, as far as it knows.
    pub configuration: Configuration,
    /// Where that began: the slot of the stop-sign before it, 0 for the first.
    pub began: Slot,
    /// Whether it leads and is in office: changes are asked of it.
    pub in_office: bool,
    /// Whether it leads and is between two configurations.
    pub changing: bool,
    /// Whether it holds the data.
    pub holds_data: bool,
    /// Whether it takes in a snapshot.
    pub receiving: bool,
    /// Whether the shard went on without this node, and its copy is deleted.
    pub emptied: bool,
    /// Nodes left out, whose copies are not known to be deleted.
    pub left: Vec<NodeId>,
    /// As leader: every other member.
    pub others: Vec<MemberStatus>,
}

/// One member, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Who.
    pub node: NodeId,
    /// It holds everything up to here, durably.
    pub matched: Slot,
    /// Whether it holds the data, as it said last.
    pub holds_data: bool,
    /// Whether it has caught up: as a learner it may be made a witness now, and with
    /// the data a voter.
    pub caught_up: bool,
    /// Whether a snapshot is on its way to it.
    pub snapshot: bool,
}
