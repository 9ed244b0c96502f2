//! The bank: transfers between accounts in different shards, audits of all
//! balances, and a marker per transfer that tells afterwards whether it took effect.
//!
//! Keys are `bank/<account>/balance` and `bank/<account>/marker/<id>`, so that
//! one split between accounts separates both ([`Bank::splits`]).

use super::{Meter, Run, back_off, failed, random};
use crate::check::bank::FinalState;
use crate::history::{BankOp, History, Outcome, Transaction};
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;
use synod_client::{Client, Error, Range};

/// How often the final state is asked for while the cluster recovers.
const FINAL_ATTEMPTS: u32 = 100;

/// A bank.
#[derive(Clone, Debug)]
pub struct Bank {
    /// Accounts.
    pub accounts: u32,
    /// What each begins with.
    pub initial: i64,
    /// Seeds the clients' choices.
    pub seed: u64,
}

fn balance_key(account: u32) -> String {
    format!("bank/{account:05}/balance")
}

fn marker_key(account: u32, id: u64) -> String {
    format!("bank/{account:05}/marker/{id:020}")
}

fn number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// A balance as read; anything that is no number is a violation and shows as
/// an impossible one.
fn balance(value: Option<&[u8]>) -> i64 {
    value.and_then(number).unwrap_or(i64::MIN / 2)
}

impl Bank {
    /// Keys that cut the accounts evenly into `shards` shards.
    #[must_use]
    pub fn splits(accounts: u32, shards: u32) -> Vec<String> {
        let cut = |i: u32| u64::from(accounts) * u64::from(i) / u64::from(shards);
        let keys = (1..shards).map(|i| format!("bank/{:05}", cut(i)));
        let mut keys: Vec<String> = keys.collect();
        keys.dedup();
        keys
    }

    /// The balances before the first transfer.
    #[must_use]
    pub fn initial_balances(&self) -> Vec<i64> {
        vec![self.initial; self.accounts as usize]
    }

    /// Opens all accounts in one transaction.
    ///
    /// # Errors
    /// The SDK's.
    pub async fn open(&self, client: &Client) -> Result<(), Error> {
        let value = self.initial.to_string();
        client
            .transact(async |txn| {
                for account in 0..self.accounts {
                    txn.put(balance_key(account), &value).await?;
                }
                Ok(())
            })
            .await
    }

    /// One client that transfers until the run stops. `client_number` names it.
    pub async fn transfer(
        &self,
        client: Client,
        run: Run,
        meter: &Meter,
        client_number: u32,
    ) -> History<BankOp> {
        let mut random = random(self.seed, client_number);
        let mut history = History::default();
        let mut sequence = 0u64;
        while !run.is_stopped() {
            sequence += 1;
            let id = (u64::from(client_number) << 40) | sequence;
            let (transaction, attempts) = self.step(&client, &run, &mut random, id).await;
            let outcome = transaction.outcome;
            meter.count(&run, transaction.invoked, outcome, attempts);
            history.transactions.push(transaction);
            if !matches!(outcome, Outcome::Committed(_)) {
                back_off(&mut random).await;
            }
        }
        history
    }

    /// One transfer between two accounts drawn by chance; what to record of it, and
    /// how many attempts it took. `id` is unique; its upper bits number the client.
    pub(crate) async fn step(
        &self,
        client: &Client,
        run: &Run,
        random: &mut StdRng,
        id: u64,
    ) -> (Transaction<BankOp>, u32) {
        let from = random.random_range(0..self.accounts);
        // Half a bank away is another shard, as long as there are several.
        let distance = self.accounts / 4 + random.random_range(0..self.accounts / 2);
        let to = (from + distance.max(1)) % self.accounts;
        let amount = random.random_range(1..=10);
        let invoked = run.now();
        let result = self.transfer_once(client, id, from, to, amount).await;
        let (outcome, attempts) = match result {
            Ok((timestamp, attempts)) => (Outcome::Committed(timestamp), attempts),
            Err(error) => {
                tracing::debug!(id, %error, "transfer failed");
                (failed(&error), 1)
            }
        };
        let transaction = Transaction {
            process: u32::try_from(id >> 40).unwrap_or(u32::MAX),
            invoked,
            completed: run.now(),
            outcome,
            ops: vec![BankOp::Transfer {
                id,
                from,
                to,
                amount,
            }],
        };
        (transaction, attempts)
    }

    async fn transfer_once(
        &self,
        client: &Client,
        id: u64,
        from: u32,
        to: u32,
        amount: i64,
    ) -> Result<(Option<u64>, u32), Error> {
        let keys = [balance_key(from), balance_key(to)];
        let ((), receipt) = client
            .transact_with_receipt(async |txn| {
                let values = txn.get_many_for_update(&keys).await?;
                let [a, b] = [0, 1].map(|i| balance(values.get(i).and_then(Option::as_deref)));
                txn.put(&keys[0], (a - amount).to_string()).await?;
                txn.put(&keys[1], (b + amount).to_string()).await?;
                txn.put(marker_key(from, id), amount.to_string()).await
            })
            .await?;
        Ok((receipt.timestamp.map(|t| t.0), receipt.attempts))
    }

    /// One client that reads all balances in one transaction, after every `pause`,
    /// until the run stops.
    pub async fn audit(
        &self,
        client: Client,
        run: Run,
        pause: Duration,
        client_number: u32,
    ) -> History<BankOp> {
        let mut history = History::default();
        loop {
            run.pause(pause).await;
            if run.is_stopped() {
                return history;
            }
            let invoked = run.now();
            let result = self.balances(&client).await;
            if let Ok(balances) = result {
                history.transactions.push(Transaction {
                    process: client_number,
                    invoked,
                    completed: run.now(),
                    outcome: Outcome::Committed(None),
                    ops: vec![BankOp::ReadAll { balances }],
                });
            }
        }
    }

    /// All balances at one moment.
    ///
    /// # Errors
    /// The SDK's.
    pub async fn balances(&self, client: &Client) -> Result<Vec<i64>, Error> {
        let keys: Vec<String> = (0..self.accounts).map(balance_key).collect();
        let values = client
            .read_only(async |txn| txn.get_many(&keys).await)
            .await?;
        Ok(values
            .iter()
            .map(|value| balance(value.as_deref()))
            .collect())
    }

    /// What is there once no client runs any more.
    ///
    /// # Errors
    /// The SDK's, if they do not pass within many attempts.
    pub async fn final_state(&self, client: &Client) -> Result<FinalState, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.read_final(client).await {
                Err(_) if attempt < FINAL_ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                result => return result,
            }
        }
    }

    async fn read_final(&self, client: &Client) -> Result<FinalState, Error> {
        let balances = self.balances(client).await?;
        let mut markers = Vec::new();
        let mut rest = Some(Range::prefix("bank/").page_rows(10_000));
        while let Some(range) = rest {
            let page = client.scan_page(range).await?;
            for (key, _) in &page.rows {
                let key = std::str::from_utf8(key).unwrap_or_default();
                if let Some((_, id)) = key.split_once("/marker/") {
                    // Anything but a number is a marker nobody asked for.
                    markers.push(id.parse().unwrap_or(u64::MAX));
                }
            }
            rest = page.rest;
        }
        Ok(FinalState { balances, markers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_separate_accounts_with_their_markers() {
        let splits = Bank::splits(60, 6);
        assert_eq!(splits.len(), 5);
        assert_eq!(splits[0], "bank/00010");
        for split in &splits {
            assert!(marker_key(9, u64::MAX) < *split);
        }
        assert!(balance_key(10) > splits[0] && balance_key(10) < splits[1]);
        assert!(Bank::splits(60, 1).is_empty());
    }
}
