//! The write-gap probe: one writer and one reader per register. The writer
//! shows for how long a shard took no writes; both together show whether reads
//! ever went back in time.

use super::{Gap, Run};
use crate::history::{History, Nanos, Outcome, RegisterOp, Transaction};
use std::time::Duration;
use synod_client::{Client, Error};

/// Between two operations of a prober.
const PAUSE: Duration = Duration::from_millis(2);

/// One register.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Its key.
    pub key: String,
}

/// What a writer did.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Its history.
    pub history: History<RegisterOp>,
    /// When its writes were acknowledged, ascending.
    pub acks: Vec<Nanos>,
}

impl Written {
    /// The longest gap between acknowledgements that ends after `since`.
    #[must_use]
    pub fn longest_gap(&self, since: Nanos, until: Nanos) -> Gap {
        Gap::longest(&self.acks, since, until)
    }
}

impl Probe {
    /// Writes 1, 2, 3 … until the run stops.
    pub async fn write(&self, client: Client, run: Run) -> Written {
        let mut written = Written::default();
        let mut number = 0;
        while !run.is_stopped() {
            number += 1;
            let invoked = run.now();
            let result = client.put(&self.key, number.to_string()).await;
            let completed = run.now();
            let outcome = match &result {
                Ok(_) => {
                    written.acks.push(completed);
                    Outcome::Committed(None)
                }
                Err(error) => super::failed(error),
            };
            written.history.transactions.push(Transaction {
                process: 0,
                invoked,
                completed,
                outcome,
                ops: vec![RegisterOp::Write(number)],
            });
            tokio::time::sleep(PAUSE).await;
        }
        written
    }

    /// Reads until the run stops.
    pub async fn read(&self, client: Client, run: Run) -> History<RegisterOp> {
        let mut history = History::default();
        while !run.is_stopped() {
            let invoked = run.now();
            if let Ok(number) = self.read_once(&client).await {
                history.transactions.push(Transaction {
                    process: 1,
                    invoked,
                    completed: run.now(),
                    outcome: Outcome::Committed(None),
                    ops: vec![RegisterOp::Read(number)],
                });
            }
            tokio::time::sleep(PAUSE * 5).await;
        }
        history
    }

    /// Reads once and adds that to the history: after the last write, it shows
    /// whether an acknowledged one is missing.
    ///
    /// # Errors
    /// The SDK's.
    pub async fn read_into(
        &self,
        client: &Client,
        run: &Run,
        history: &mut History<RegisterOp>,
    ) -> Result<(), Error> {
        let invoked = run.now();
        let number = self.read_once(client).await?;
        history.transactions.push(Transaction {
            process: 2,
            invoked,
            completed: run.now(),
            outcome: Outcome::Committed(None),
            ops: vec![RegisterOp::Read(number)],
        });
        Ok(())
    }

    /// What it holds; 0 if nothing.
    ///
    /// # Errors
    /// The SDK's.
    pub async fn read_once(&self, client: &Client) -> Result<u64, Error> {
        let value = client.get(&self.key).await?;
        let text = String::from_utf8_lossy(value.as_deref().unwrap_or(b"0")).into_owned();
        // What is no number is one that nobody wrote.
        Ok(text.parse().unwrap_or(u64::MAX))
    }
}
