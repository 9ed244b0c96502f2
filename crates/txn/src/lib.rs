//! Transactions over groups: clocks' arithmetic, the lock table, participant,
//! coordinator, and the client's side of a transaction. Sans-IO and
//! deterministic, like all of ring 0.

pub mod attempts;
pub mod bounded;
pub mod checkpoint;
mod chunks;
pub mod client;
pub mod command;
mod digest;
pub mod effect;
pub mod group;
pub mod hashing;
pub mod lineage;
pub mod locks;
pub mod merge;
pub mod one_shards;
pub mod overlay;
pub mod peer;
pub mod records;
pub mod request;
mod scratch;
pub mod settings;
mod shared;
pub mod show;
pub mod state;
pub mod types;

pub use checkpoint::{RestoreError, Unencoded};
pub use command::{Command, Split};
pub use effect::{Effect, ReadToken, WriteBatch};
pub use group::{Cx, Group};
pub use hashing::{Hashing, HashingError};
pub use lineage::{Birth, Child, Lineage, Passed};
pub use merge::{Absorb, Call, End, Ended};
pub use peer::PeerMessage;
pub use request::{CommitRequest, Request, Response};
pub use scratch::Scratch;
pub use settings::GroupSettings;
pub use types::*;
