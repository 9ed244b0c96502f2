//! The node: one thread that owns the sockets and steps the shards, a log that
//! all its groups share, an engine behind the answers, recovery from both.

pub mod config;
pub mod engine;
pub mod files;
pub mod identity;
pub mod log;
mod node;

pub use config::{EngineKind, NodeConfig};
pub use node::{Fatal, NodeHandle, StartError, Stopper, start};
