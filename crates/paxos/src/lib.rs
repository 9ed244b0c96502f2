//! One group's consensus: classic Multi-Paxos with a contiguous log, phase 1
//! once per leader, phase 2 pipelined, and leader leases granted node to node.
//!
//! Everything here is sans-IO and deterministic: inputs go in through
//! `handle_*` and command methods, effects come out as plain data. Time,
//! seeds and what is durable are arguments.

mod acceptor;
pub mod campaign;
mod config;
mod counting;
mod display;
pub mod effect;
mod election;
pub mod entry;
pub mod ids;
mod leader;
pub mod lease;
mod leaving;
mod log;
pub mod message;
mod office;
mod outgoing;
mod payload;
mod prng;
mod progress;
mod quorum;
pub mod reconfigure;
pub mod record;
pub mod recover;
pub mod replica;
mod snapshot;
mod views;

pub use config::{Began, Configuration, ConfigurationError, Settings};
pub use effect::{Effect, PersistSeq, SnapshotId};
pub use entry::{Entry, StopSign, TermStart};
pub use ids::{
    Ballot, ClusterVersion, Epoch, GroupId, Incarnation, Mono, NodeId, Round, Slot, SupportEpoch,
    Term, Timestamp, VersionRange,
};
pub use message::{Message, NackReason};
pub use payload::Payload;
pub use reconfigure::{ReconfigureError, Seal};
pub use record::{Durable, Record};
pub use recover::{Holds, RecoverError};
pub use replica::{Cx, FollowerProgress, Ignored, ProposeError, Replica, Role, Urgency};
