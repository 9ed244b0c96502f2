//! Merges of shards, as whoever wants one asks for them.

use serde::{Deserialize, Serialize};
use synod_paxos::GroupId;
use synod_shard::MergeError;

/// Which two shards are to become one. To be repeated until [`MergeAnswer::Done`]: each copy begins
/// the merge or goes on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeRequest {
    /// The shard that stays; this node leads it.
    pub left: GroupId,
    /// The one that begins where it ends.
    pub right: GroupId,
}

/// What became of a [`MergeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MergeAnswer {
    /// It waits for something, or is proposed: ask again in a moment.
    Underway,
    /// The right shard is part of the left one.
    Done,
    /// Both are as they were, or will be in a moment.
    Refused(MergeError),
}
