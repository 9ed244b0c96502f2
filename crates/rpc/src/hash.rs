//! Hashed directories, as whoever wants one asks for it.

use serde::{Deserialize, Serialize};
use synod_paxos::GroupId;
use synod_shard::HashError;
use synod_txn::Hashing;

/// How the keys of a shard are to be stored. To be repeated until [`HashAnswer::Done`]: each
/// copy begins the change or goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashRequest {
    /// The shard; this node leads it.
    pub shard: GroupId,
    /// How they are to be stored; none is as they are.
    pub hashing: Option<Hashing>,
}

/// What became of a [`HashRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashAnswer {
    /// It waits for something, or is proposed: ask again in a moment.
    Underway,
    /// They are stored like that.
    Done,
    /// Nothing was proposed.
    Refused(HashError),
}

/// A shard of a hashed directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedShard {
    /// The shard.
    pub shard: GroupId,
    /// How its keys are stored.
    pub hashing: Hashing,
}
