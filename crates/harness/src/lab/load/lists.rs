//! List-append.

use super::{Checked, Worker};
use crate::check::list_append;
use crate::history::{History, ListOp, Outcome};
use crate::workload::Run;
use crate::workload::list_append::Lists;
use std::sync::{Mutex, PoisonError};
use synod_client::{Client, Error};

/// Lists, and what happened to them.
pub(in crate::lab) struct ListLoad {
    lists: Lists,
    history: Mutex<History<ListOp>>,
}

impl ListLoad {
    pub(super) fn new(accounts: u32, seed: u64) -> ListLoad {
        ListLoad {
            lists: Lists::new(accounts, seed),
            history: Mutex::default(),
        }
    }

    pub(super) async fn request(&self, client: &Client, worker: &mut Worker) -> Outcome {
        let step = self
            .lists
            .step(client, &worker.run, &mut worker.random, worker.number);
        let (transaction, _) = step.await;
        let outcome = transaction.outcome;
        let history = self.history.lock();
        let mut history = history.unwrap_or_else(PoisonError::into_inner);
        history.transactions.push(transaction);
        outcome
    }

    pub(super) async fn check(&self, client: &Client, run: &Run) -> Result<Checked, Error> {
        let rest = self.lists.read_all(client, run, 0).await?;
        let history = self.history.lock();
        let mut history = history.unwrap_or_else(PoisonError::into_inner);
        history.transactions.extend(rest.transactions);
        let findings = list_append::check(&history);
        Ok(Checked::of(
            "list-append",
            &findings,
            "strictly serializable, and every acknowledged element is there exactly once",
        ))
    }
}
