//! A shard's range is cut in two (decision 15), as the shard lives through it.

use serde::{Deserialize, Serialize};
use synod_paxos::{GroupId, NodeId};

/// How far a split that was asked for has come. Asking again is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Splitting {
    /// Under way: ask again in a moment.
    Underway,
    /// The new shard exists.
    Done,
}

/// Why a shard is not split. Nothing changed, and asking again is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SplitError {
    /// Another replica leads, or none.
    #[error("this node does not lead the shard; ask the one that does")]
    NotLeader {
        /// The best guess at who does.
        leader: Option<NodeId>,
    },
    /// The shard's leader has just been elected, or its members are changing.
    #[error("the shard is between two leaders or two sets of members; ask again in a moment")]
    NotReady,
    /// Another split of the shard is under way.
    #[error("the shard is being split already, into shard {child}; wait for that")]
    Underway {
        /// The shard that it makes.
        child: GroupId,
    },
    /// The key lies outside of the shard, or is its first one.
    #[error("the key is not inside of the shard's range, or is its first key; name another one")]
    NotInside,
    /// The meta shard holds the cluster's own records, and stays whole.
    #[error("the meta shard is not split")]
    Meta,
    /// The id belongs to a shard that was not split off this one.
    #[error("shard {child} exists already; take an id that no shard ever had")]
    Taken {
        /// The id.
        child: GroupId,
    },
    /// Transactions that are not decided stood in the way until patience ended; the shard
    /// serves on as before.
    #[error("{open} transactions were not decided in time, so the shard stays whole; ask again")]
    Busy {
        /// How many.
        open: u64,
    },
}
