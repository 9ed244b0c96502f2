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
enum Contradiction {
    #[error("the account then has {found} cents; the bank printed {printed}")]
    Balance { found: i64, printed: i64 },
    #[error("the key {key} holds `{value}`, which is no balance")]
    NoBalance { key: String, value: String },
    #[error("the movement is recorded already, but as `{found}`")]
    OtherRecord { found: String },
    #[error("the key {key} would leave the range of 64 bits")]
    Overflow { key: String },
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

/// One row inside its transaction; false if it was booked before.
async fn book(txn: &mut synod_client::Transaction, row: &Row) -> Result<bool, Error> {
    let (movement, account, party) = (row.movement_key(), row.account_key(), row.party_key());
    // All three at once is one round trip. Only the counterparty is contended:
    // the account and its movements belong to this worker.
    let read = txn
        .get_many_for_update([&movement, &account, &party])
        .await?;
    let value = |index: usize| read.get(index).and_then(Option::as_deref);
    if let Some(found) = value(0) {
        let found = String::from_utf8_lossy(found).into_owned();
        if found == row.record() {
            return Ok(false);
        }
        return Err(Error::application(Contradiction::OtherRecord { found }));
    }
    let customer = add(&account, value(1), row.amount_cents)?;
    if customer != row.balance_cents {
        return Err(Error::application(Contradiction::Balance {
            found: customer,
            printed: row.balance_cents,
        }));
    }
    let other = add(&party, value(2), row.amount_cents.saturating_neg())?;
    txn.put(&account, customer.to_string()).await?;
    txn.put(&party, other.to_string()).await?;
    txn.put(&movement, row.record()).await?;
    Ok(true)
}

fn add(key: &str, value: Option<&[u8]>, cents: i64) -> Result<i64, Error> {
    let before = match value {
        None => 0,
        Some(value) => balance(value).ok_or_else(|| {
            Error::application(Contradiction::NoBalance {
                key: key.to_owned(),
                value: String::from_utf8_lossy(value).into_owned(),
            })
        })?,
    };
    before.checked_add(cents).ok_or_else(|| {
        Error::application(Contradiction::Overflow {
            key: key.to_owned(),
        })
    })
}

/// A balance as kept: decimal text.
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
