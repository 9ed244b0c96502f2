//! The client's side of a transaction, sans-IO.
//!
//! A [`Transaction`] buffers writes, reads through the locks of the leaders,
//! and commits by sending everything to all participants at once (§6). It does
//! no IO: each call may leave [`Outgoing`] requests behind, the driver delivers
//! them to the shard's leader, and hands what came back to
//! [`Transaction::handle_reply`], until [`Transaction::take_done`] has a result:
//!
//! ```text
//! get / scan / commit ─► take_outgoing ─► (the driver delivers) ─► handle_reply ─► take_done
//! ```
//!
//! The driver owns finding leaders, back-off under load and the deadline; it
//! repeats whatever may be repeated. The machine owns what answers *mean*:
//! terms, sessions, which refusals are final, and the three outcomes (U4).
//! Ids and time are arguments, so equal inputs give equal transactions.

mod buffer;
mod commit;
mod error;
mod merge;
mod read;
mod retry;
mod routes;
mod transaction;
mod validate;

#[cfg(test)]
mod tests;

pub use buffer::check_stored;
pub use error::{TransactionError, describe};
pub use merge::{Merge, Piece, SLOTS_AT_ONCE};
pub use read::{MAX_GET_KEYS, Page};
pub use retry::{IdWindow, Retry, RetrySettings, attempt_id, is_retryable};
pub use routes::{Place, Route, Routes};
pub use transaction::{Begin, Committed, Done, Outgoing, Reply, Transaction};
