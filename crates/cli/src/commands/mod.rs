//! One file per command.

pub mod cert;
mod change;
pub mod config;
pub mod data;
pub mod init;
pub mod placement;
mod rearrange;
pub mod repair;
pub mod shell;
pub mod start;
pub mod status;
pub mod survey;
pub mod txn;
