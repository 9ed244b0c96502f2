//! List-append: transactions that read lists and append unique elements to
//! them, over keys in several shards; the history proves or refutes strict
//! serializability.
//!
//! A list is kept as text, `1 2 3`. Keys retire after a while, so that lists
//! and with them reads stay short.

use super::{Meter, Run, back_off, failed, random};
use crate::history::{History, ListOp, Outcome, Transaction};
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicU64, Ordering};
use synod_client::{Client, Error};

/// Keys in use at one time.
const LIVE_KEYS: u64 = 12;
/// After so many elements in all, one key retires.
const ELEMENTS_PER_KEY: u64 = 60;

/// The lists and the counter of their elements, shared by all clients.
#[derive(Debug)]
pub struct Lists {
    /// Accounts of the bank among whose keys the lists are spread; so the same
    /// splits put them into different shards.
    pub accounts: u32,
    /// Seeds the clients' choices.
    pub seed: u64,
    next: AtomicU64,
}

impl Lists {
    /// Lists spread over as many places.
    #[must_use]
    pub fn new(accounts: u32, seed: u64) -> Lists {
        Lists {
            accounts: accounts.max(1),
            seed,
            next: AtomicU64::new(1),
        }
    }

    fn key(&self, key: u64) -> String {
        // Neighbouring keys lie far apart.
        let place = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) % u64::from(self.accounts);
        format!("bank/{place:05}/list/{key:010}")
    }

    fn plan(&self, random: &mut StdRng) -> Vec<ListOp> {
        let mut ops = Vec::new();
        for _ in 0..random.random_range(1..=4) {
            let oldest = self.next.load(Ordering::Relaxed) / ELEMENTS_PER_KEY;
            let key = oldest + random.random_range(0..LIVE_KEYS);
            ops.push(if random.random_bool(0.5) {
                let value = self.next.fetch_add(1, Ordering::Relaxed);
                ListOp::Append { key, value }
            } else {
                ListOp::Read { key, list: None }
            });
        }
        ops
    }

    /// One client, until the run stops.
    pub async fn client(
        &self,
        client: Client,
        run: Run,
        meter: &Meter,
        client_number: u32,
    ) -> History<ListOp> {
        let mut random = random(self.seed, client_number);
        let mut history = History::default();
        while !run.is_stopped() {
            let (transaction, attempts) =
                self.step(&client, &run, &mut random, client_number).await;
            let outcome = transaction.outcome;
            meter.count(&run, transaction.invoked, outcome, attempts);
            history.transactions.push(transaction);
            if !matches!(outcome, Outcome::Committed(_)) {
                back_off(&mut random).await;
            }
        }
        history
    }

    /// One transaction drawn by chance; what to record of it, and how many attempts
    /// it took.
    pub(crate) async fn step(
        &self,
        client: &Client,
        run: &Run,
        random: &mut StdRng,
        client_number: u32,
    ) -> (Transaction<ListOp>, u32) {
        let plan = self.plan(random);
        let invoked = run.now();
        let result = self.execute(client, &plan).await;
        let completed = run.now();
        let (outcome, attempts, ops) = match result {
            Ok((timestamp, attempts, ops)) => (Outcome::Committed(timestamp), attempts, ops),
            Err(error) => (failed(&error), 1, plan),
        };
        let transaction = Transaction {
            process: client_number,
            invoked,
            completed,
            outcome,
            ops,
        };
        (transaction, attempts)
    }

    async fn execute(
        &self,
        client: &Client,
        plan: &[ListOp],
    ) -> Result<(Option<u64>, u32, Vec<ListOp>), Error> {
        let (ops, receipt) = client
            .transact_with_receipt(async |txn| {
                let mut done = Vec::with_capacity(plan.len());
                for op in plan {
                    match op {
                        ListOp::Append { key, value } => {
                            let at = self.key(*key);
                            let old = txn.get_for_update(&at).await?.unwrap_or_default();
                            let mut text = String::from_utf8_lossy(&old).into_owned();
                            if !text.is_empty() {
                                text.push(' ');
                            }
                            text.push_str(&value.to_string());
                            txn.put(&at, text).await?;
                            done.push(op.clone());
                        }
                        ListOp::Read { key, .. } => {
                            let value = txn.get(self.key(*key)).await?.unwrap_or_default();
                            done.push(ListOp::Read {
                                key: *key,
                                list: Some(parse(&value)),
                            });
                        }
                    }
                }
                Ok(done)
            })
            .await?;
        let timestamp = receipt.timestamp.map(|t| t.0);
        Ok((timestamp, receipt.attempts, ops))
    }

    /// Reads every list once, in one transaction each, so that the history ends
    /// with all elements seen.
    ///
    /// # Errors
    /// The SDK's.
    pub async fn read_all(
        &self,
        client: &Client,
        run: &Run,
        client_number: u32,
    ) -> Result<History<ListOp>, Error> {
        let mut history = History::default();
        let last = self.next.load(Ordering::Relaxed) / ELEMENTS_PER_KEY + LIVE_KEYS;
        for key in 0..=last {
            let invoked = run.now();
            let plan = [ListOp::Read { key, list: None }];
            let (timestamp, _, ops) = self.execute(client, &plan).await?;
            history.transactions.push(Transaction {
                process: client_number,
                invoked,
                completed: run.now(),
                outcome: Outcome::Committed(timestamp),
                ops,
            });
        }
        Ok(history)
    }
}

/// Elements of a list as kept; what is no number becomes one nobody wrote.
fn parse(value: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(value);
    let elements = text.split_ascii_whitespace();
    elements.map(|e| e.parse().unwrap_or(u64::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_unique_and_keys_move_on() {
        let lists = Lists::new(10, 1);
        let mut random = random(1, 0);
        let mut seen = std::collections::BTreeSet::new();
        let mut keys = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            for op in lists.plan(&mut random) {
                if let ListOp::Append { key, value } = op {
                    assert!(seen.insert(value));
                    keys.insert(key);
                }
            }
        }
        assert!(keys.len() > 20);
    }

    #[test]
    fn lists_are_read_as_kept() {
        assert_eq!(parse(b""), Vec::<u64>::new());
        assert_eq!(parse(b"1 22 3"), [1, 22, 3]);
        assert_eq!(parse(b"1 x"), [1, u64::MAX]);
    }
}
