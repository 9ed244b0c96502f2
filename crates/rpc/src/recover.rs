//! What survivors hold when a majority is lost for good, and the order to go on with one
//! of them alone (decision 16).

use serde::{Deserialize, Serialize};
use synod_paxos::{Ballot, Configuration, Epoch, GroupId, Holds, NodeId, RecoverError, Slot};
use synod_txn::{AttemptId, Key, Span};

/// What one replica holds of its shard, and what it believes of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// The shard.
    pub shard: GroupId,
    /// The range, as far as it knows.
    pub span: Span,
    /// The configuration in force, as far as it knows.
    pub configuration: Configuration,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The ballot of its log's suffix.
    pub accepted: Ballot,
    /// Everything up to here is decided.
    pub decided: Slot,
    /// The last slot of its log.
    pub last: Slot,
    /// Whether it holds the data.
    pub holds_data: bool,
    /// Whether the shard went on without it: its copy is deleted, or waits for that.
    pub left_out: bool,
    /// Who leads, as far as it knows for sure now; perhaps itself.
    pub led_by: Option<NodeId>,
    /// Whether it leads and is in office.
    pub in_office: bool,
    /// Transactions with no outcome here, by its whole log: decided or not.
    pub open: Vec<OpenTransaction>,
    /// How many more there are.
    pub more: u64,
}

impl Remains {
    /// What it is to go on from.
    #[must_use]
    pub fn holds(&self) -> Holds {
        Holds {
            epoch: self.configuration.epoch,
            accepted: self.accepted,
            last: self.last,
        }
    }
}

/// A transaction that has an intent in a shard, or a record of its coordinator without an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// Its attempt.
    pub attempt: AttemptId,
    /// The key that names its coordinator.
    pub coordinator: Key,
    /// Whether this shard is the coordinator's.
    pub here: bool,
    /// Whether what is known of it is in entries that are not known to be decided.
    pub undecided: bool,
    /// The keys that name all participants, where this shard is the coordinator's.
    pub participants: Vec<Key>,
}

/// A replica is to go on alone. It is refused unless the replica holds exactly what was
/// planned with, so repeating it is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverRequest {
    /// The shard.
    pub shard: GroupId,
    /// What the replica held when the plan was made.
    pub holds: Holds,
    /// The new configuration's epoch, the first one of an era.
    pub epoch: Epoch,
}

/// What became of a [`RecoverRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoverAnswer {
    /// It goes on alone once its disk says so: a moment later it leads.
    Begun {
        /// The slot of the stop-sign that ends the lost configuration.
        slot: Slot,
    },
    /// Nothing was changed.
    Refused(RecoverError),
}
