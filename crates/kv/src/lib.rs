//! The node: one thread that owns the sockets and steps the shards, a log that
//! all its groups share, an engine behind the answers, recovery from both.

//!
//! Without the feature `server` there are neither sockets nor threads nor files:
//! what is left is what the simulator drives, the same code that a node runs.

#[cfg(feature = "server")]
pub mod config;
pub mod engine;
pub mod files;
#[cfg(feature = "server")]
pub mod identity;
pub mod lane;
pub mod log;
pub mod machine;
#[cfg(feature = "server")]
mod node;
#[cfg(feature = "server")]
pub mod repair;
mod snapshot;

#[cfg(feature = "server")]
pub use config::{EngineKind, NodeConfig};
#[cfg(feature = "server")]
pub use node::{Fatal, NodeHandle, StartError, Stopper, start};
pub use snapshot::Staging;
