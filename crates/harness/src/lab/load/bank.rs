//! The bank.

use super::{Checked, Worker};
use crate::check::bank;
use crate::history::{BankOp, History, Outcome};
use crate::workload::Run;
use crate::workload::bank::Bank;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use synod_client::{Client, Error};

/// What each account begins with.
const INITIAL: i64 = 1_000;

/// A bank, and what happened in it.
pub(in crate::lab) struct BankLoad {
    bank: Bank,
    audit_every: Duration,
    history: Mutex<History<BankOp>>,
}

impl BankLoad {
    pub(super) fn new(accounts: u32, audit_every: Duration, seed: u64) -> BankLoad {
        BankLoad {
            audit_every,
            bank: Bank {
                accounts,
                initial: INITIAL,
                seed,
            },
            history: Mutex::default(),
        }
    }

    pub(super) async fn fill(&self, client: &Client) -> Result<(), Error> {
        self.bank.open(client).await
    }

    fn add(&self, transactions: impl IntoIterator<Item = crate::history::Transaction<BankOp>>) {
        let history = self.history.lock();
        let mut history = history.unwrap_or_else(PoisonError::into_inner);
        history.transactions.extend(transactions);
    }

    pub(super) async fn request(&self, client: &Client, worker: &mut Worker) -> Outcome {
        let id = (u64::from(worker.number) << 40) | worker.sequence;
        let (transaction, _) = self
            .bank
            .step(client, &worker.run, &mut worker.random, id)
            .await;
        let outcome = transaction.outcome;
        self.add([transaction]);
        outcome
    }

    /// Reads all balances now and then until the run stops.
    pub(super) async fn audit(&self, client: Client, run: Run, number: u32) {
        let history = self.bank.audit(client, run, self.audit_every, number).await;
        self.add(history.transactions);
    }

    pub(super) async fn check(&self, client: &Client) -> Result<Checked, Error> {
        let last = self.bank.final_state(client).await?;
        let history = self.history.lock();
        let history = history.unwrap_or_else(PoisonError::into_inner);
        let findings = bank::check(&history, &self.bank.initial_balances(), &last);
        Ok(Checked::of(
            "bank",
            &findings,
            "no money was made or lost, every acknowledged transfer is there exactly once, no \
             other one is",
        ))
    }
}
