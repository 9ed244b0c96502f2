//! Splits of shards, as whoever wants one asks for it.

use serde::{Deserialize, Serialize};
use synod_paxos::GroupId;
use synod_shard::SplitError;
use synod_txn::Key;

/// Where a shard is to be cut in two. To be repeated until [`SplitAnswer::Done`]: each copy
/// begins the split or goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRequest {
    /// The shard; this node leads it.
    pub shard: GroupId,
    /// The first key of the new shard.
    pub at: Key,
    /// The new shard: an id that the asker has claimed
    /// ([`RecordChange::ClaimShard`](crate::placement::RecordChange::ClaimShard)).
    pub child: GroupId,
}

/// What became of a [`SplitRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SplitAnswer {
    /// It waits for something, or is proposed: ask again in a moment.
    Underway,
    /// The new shard exists.
    Done,
    /// Nothing was proposed.
    Refused(SplitError),
}
