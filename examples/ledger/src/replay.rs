//! Books rows, one transaction each.

use crate::row::Row;
use std::cell::Cell;
use std::time::{Duration, Instant};
use synod_client::{Client, Error};

/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// What all workers have done so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Rows booked by this run.
    pub booked: Cell<u64>,
    /// Rows that an earlier run had booked.
    pub skipped: Cell<u64>,
    /// Attempts beyond the first.
    pub retries: Cell<u64>,
    stopped: Cell<bool>,
}

impl Counts {
    /// Tells all workers to end after the row they are at.
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    /// Prints progress to standard error until it is dropped.
    pub async fn tell(&self, total: usize, begun: Instant) {
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            let done = self.booked.get() + self.skipped.get();
            eprintln!(
                "{done} of {total} rows, {:.0}/s, {} retries",
                done as f64 / begun.elapsed().as_secs_f64(),
                self.retries.get()
            );
        }
    }
}

/// Why a row could not be booked.
#[derive(Debug, thiserror::Error)]
#[error("movement {trans_id} of account {account}: {reason}")]
pub struct RowError {
    trans_id: u64,
    account: u64,
    reason: Error,
}

/// What is wrong with a stored value.
#[derive(Debug, thiserror::Error)]
pub enum Contradiction {
    /// Not what the bank printed.
    #[error("the account then has {found} cents; the bank printed {printed}")]
    Balance {
        /// What the account has, in cents.
        found: i64,
        /// What it should have.
        printed: i64,
    },
    /// Not a number.
    #[error("the key {key} holds `{value}`, which is no balance")]
    NoBalance {
        /// The key.
        key: String,
        /// What it holds.
        value: String,
    },
    /// The same movement, otherwise.
    #[error("the movement is recorded already, but as `{found}`")]
    OtherRecord {
        /// The record there is.
        found: String,
    },
    /// A balance too large.
    #[error("the key {key} would leave the range of 64 bits")]
    Overflow {
        /// The key.
        key: String,
    },
}

/// Books the rows one after the other.
pub async fn worker(client: &Client, rows: &[Row], counts: &Counts) -> Result<(), RowError> {
    for row in rows {
        if counts.stopped.get() {
            return Ok(());
        }
        let booked = client
            .transact_with_receipt(async |txn| book(txn, row).await)
            .await;
        let (is_new, receipt) = booked.map_err(|reason| RowError {
            trans_id: row.trans_id,
            account: row.account,
            reason,
        })?;
        let count = if is_new {
            &counts.booked
        } else {
            &counts.skipped
        };
        count.set(count.get() + 1);
        let retries = u64::from(receipt.attempts.saturating_sub(1));
        counts.retries.set(counts.retries.get() + retries);
    }
    Ok(())
}

/// The keys that a row reads and writes: movement, account, counterparty.
#[must_use]
pub fn keys(row: &Row) -> [String; 3] {
    [row.movement_key(), row.account_key(), row.party_key()]
}

/// What the row's [`keys`] shall hold, given what they do hold; none if it was
/// booked before.
///
/// # Errors
/// When what they hold contradicts the row.
pub fn booking(row: &Row, held: &[Option<&[u8]>]) -> Result<Option<[String; 3]>, Contradiction> {
    let value = |index: usize| held.get(index).copied().flatten();
    if let Some(found) = value(0) {
        let found = String::from_utf8_lossy(found).into_owned();
        if found == row.record() {
            return Ok(None);
        }
        return Err(Contradiction::OtherRecord { found });
    }
    let customer = add(&row.account_key(), value(1), row.amount_cents)?;
    if customer != row.balance_cents {
        return Err(Contradiction::Balance {
            found: customer,
            printed: row.balance_cents,
        });
    }
    let gained = row.amount_cents.saturating_neg();
    let other = add(&row.party_key(), value(2), gained)?;
    Ok(Some([
        row.record(),
        customer.to_string(),
        other.to_string(),
    ]))
}

/// One row inside its transaction; false if it was booked before.
async fn book(txn: &mut synod_client::Transaction, row: &Row) -> Result<bool, Error> {
    let keys = keys(row);
    // All three at once is one round trip. Only the counterparty is contended:
    // the account and its movements belong to this worker.
    let read = txn.get_many_for_update(&keys).await?;
    let held: Vec<Option<&[u8]>> = read.iter().map(Option::as_deref).collect();
    let Some(values) = booking(row, &held).map_err(Error::application)? else {
        return Ok(false);
    };
    for (key, value) in keys.iter().zip(values) {
        txn.put(key, value).await?;
    }
    Ok(true)
}

fn add(key: &str, value: Option<&[u8]>, cents: i64) -> Result<i64, Contradiction> {
    let before = match value {
        None => 0,
        Some(value) => balance(value).ok_or_else(|| Contradiction::NoBalance {
            key: key.to_owned(),
            value: String::from_utf8_lossy(value).into_owned(),
        })?,
    };
    let after = before.checked_add(cents);
    after.ok_or_else(|| Contradiction::Overflow {
        key: key.to_owned(),
    })
}

/// A balance as kept: decimal text.
#[must_use]
pub fn balance(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balances_are_decimal_text_and_stay_in_range() {
        assert_eq!(add("k", None, 5).ok(), Some(5));
        assert_eq!(add("k", Some(b"-7"), 5).ok(), Some(-2));
        let bad = add("k", Some(b"seven"), 5).expect_err("no number");
        assert!(bad.to_string().contains("`seven`"), "{bad}");
        assert!(add("k", Some(i64::MAX.to_string().as_bytes()), 1).is_err());
    }
}
