//! One file per command.

pub mod cert;
pub mod cluster;
pub mod config;
pub mod data;
pub mod hash;
mod holdings;
pub mod init;
pub mod loads;
pub mod merge;
mod moves;
pub mod node;
pub mod placement;
mod rearrange;
mod records;
pub mod recover;
pub mod repair;
pub mod shard;
pub mod shell;
pub mod start;
pub mod status;
pub mod txn;
