//! One file per command.

pub mod cert;
pub mod config;
pub mod data;
pub mod init;
pub mod placement;
pub mod repair;
pub mod shell;
pub mod start;
pub mod status;
pub mod survey;
pub mod txn;
