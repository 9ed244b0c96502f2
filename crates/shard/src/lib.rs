//! A shard is one Paxos group, the transaction machine above it, and a key
//! range. The [`Worker`] steps all shards of a node: it drains an inbox, then
//! emits one batch of log records and one of messages per peer. Sans-IO and
//! deterministic, like all of ring 0.

pub mod clock;
pub mod input;
pub mod outbox;
pub mod records;
pub mod shard;
pub mod wire;
pub mod worker;

pub use input::{Input, Setup, Versions};
pub use outbox::{EngineRead, LogBatch, NodeRecord, Output, SnapshotTask};
pub use records::{Claim, ClaimError, NodeRow, Records, Roster, Standing};
pub use shard::split::{first_descriptor, first_durable};
pub use shard::{
    Halt, HashError, Members, MergeError, Merging, Now, Recovered, Shard, SplitError, Splitting,
};
pub use wire::{
    Bootstrap, META_SHARD, MergeMessage, NodeDescriptor, NodeMessage, RESERVED_PREFIX,
    ShardDescriptor, ShardMap, ShardReply, ShardRequest,
};
pub use worker::Worker;
