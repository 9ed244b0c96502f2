//! Replays a bank's ledger on Synod and proves that every cent is where it belongs.
//!
//! Each row of the file is one transaction over three keys, usually in three
//! shards: the customer's balance, the counterparty's balance, and the record
//! of the movement. Rows of one account are replayed in order, accounts side by
//! side; counterparties such as `interest` are hot keys that everybody writes.
//!
//! Checked inside every transaction: the account's balance is the one the bank
//! printed. Checked at the end: every balance, that customers and counterparties
//! together sum to zero, and that every movement is there exactly once. A run
//! that was interrupted is simply repeated: rows whose record exists are skipped.

pub mod replay;
pub mod row;
pub mod verify;
