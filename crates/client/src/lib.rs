//! The Rust SDK of Synod, a transactional key-value service.
//!
//! ```no_run
//! use synod_client::{Client, Config, Identity, Range};
//!
//! # async fn doc() -> Result<(), synod_client::Error> {
//! let client = Client::connect(Config::new(
//!     ["10.0.0.1:7600", "10.0.0.2:7600"],
//!     Identity::Files {
//!         ca: "certs/ca.crt".into(),
//!         cert: "certs/user-app.crt".into(),
//!         key: "certs/user-app.key".into(),
//!     },
//! ))
//! .await?;
//!
//! client.put("greeting", "hello").await?;
//! assert_eq!(client.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
//!
//! client
//!     .transact(async |txn| {
//!         for (key, _) in txn.scan(Range::prefix("inbox/").limit(10)).await? {
//!             txn.delete(key).await?;
//!         }
//!         Ok(())
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! Requests go straight to the leader of the shard they are about, from a
//! cached shard map that learns from wrong-node answers. Every call has a
//! deadline and ends in a result or an [`Error`] that says what is known about
//! its effects. [`script`] is the language of `synod txn` and `synod shell`.
//!
//! Not here: reads at past timestamps and optimistic transactions (nodes do
//! not serve them yet), and prefix grants (nodes check them).

mod attempt;
mod client;
mod config;
mod core;
mod error;
mod flight;
mod range;
mod reads;
mod router;
pub mod script;
mod table;
mod transaction;
mod transport;

#[cfg(test)]
mod tests;

pub use attempt::{Attempt, Receipt, Status};
pub use client::Client;
pub use config::{Config, Identity};
pub use error::{Effect, Error};
pub use range::{Page, Range};
pub use synod_paxos::Timestamp;
pub use synod_rpc::PoolOptions;
pub use synod_txn::client::RetrySettings;
pub use synod_txn::{AbortReason, AttemptId, Key, Priority, Value};
pub use transaction::Transaction;
