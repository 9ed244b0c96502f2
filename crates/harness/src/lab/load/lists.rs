//! List-append.

use super::{Checked, Worker};
use crate::check::list_append;
use crate::history::{History, ListOp, Outcome};
use crate::workload::Run;
use crate::workload::list_append::Lists;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use synod_client::{Client, Error};

/// How often all lists are read at the end until that succeeds, and the pause in between.
const READS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

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
        let rest = self.read_back(client, run).await?;
        let history = self.history.lock();
        let mut history = history.unwrap_or_else(PoisonError::into_inner);
        let lost = lost(&history, &rest);
        history.transactions.extend(rest.transactions);
        let findings = list_append::check(&history);
        let mut checked = Checked::of(
            "list-append",
            &findings,
            "strictly serializable, and every acknowledged element is there exactly once",
        );
        checked.lost |= lost;
        Ok(checked)
    }

    async fn read_back(&self, client: &Client, run: &Run) -> Result<History<ListOp>, Error> {
        let mut attempt = 1;
        loop {
            match self.lists.read_all(client, run, 0).await {
                Err(_) if attempt < READS => tokio::time::sleep(PAUSE).await,
                read => return read,
            }
            attempt += 1;
        }
    }
}

/// Whether an acknowledged element is in no list at the end.
fn lost(history: &History<ListOp>, rest: &History<ListOp>) -> bool {
    let read = rest.transactions.iter().flat_map(|t| &t.ops);
    let kept: HashSet<(u64, u64)> = read
        .filter_map(|op| match op {
            ListOp::Read {
                key,
                list: Some(list),
            } => Some(list.iter().map(|value| (*key, *value))),
            _ => None,
        })
        .flatten()
        .collect();
    let acknowledged = history.transactions.iter();
    let acknowledged = acknowledged.filter(|t| matches!(t.outcome, Outcome::Committed(_)));
    acknowledged.flat_map(|t| &t.ops).any(|op| match op {
        ListOp::Append { key, value } => !kept.contains(&(*key, *value)),
        ListOp::Read { .. } => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Transaction;

    fn history(outcome: Outcome, op: ListOp) -> History<ListOp> {
        History {
            transactions: vec![Transaction {
                process: 1,
                invoked: 1,
                completed: 2,
                outcome,
                ops: vec![op],
            }],
        }
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        let append = || ListOp::Append { key: 1, value: 7 };
        let read = |list: &[u64]| {
            let list = Some(list.to_vec());
            history(Outcome::Committed(None), ListOp::Read { key: 1, list })
        };
        let committed = history(Outcome::Committed(None), append());
        assert!(!lost(&committed, &read(&[3, 7])));
        assert!(lost(&committed, &read(&[3])));
        assert!(!lost(&history(Outcome::Unknown, append()), &read(&[3])));
    }
}
