//! The bank: money moves between accounts and is neither made nor lost, and
//! every transfer leaves its marker exactly as often as its client was told.

use super::{Anomaly, Findings, once};
use crate::history::{BankOp, History, Outcome};
use std::collections::BTreeMap;

/// What the cluster held after the last transfer.
#[derive(Clone, Debug, Default)]
pub struct FinalState {
    /// Balance of every account, ascending by account.
    pub balances: Vec<i64>,
    /// The markers found: ids of the transfers that took effect.
    pub markers: Vec<u64>,
}

/// Checks that every read of all balances has the initial total, that markers
/// and outcomes agree, and that the final balances are exactly the initial ones
/// plus the transfers whose markers are there.
#[must_use]
pub fn check(history: &History<BankOp>, initial: &[i64], last: &FinalState) -> Findings {
    let mut findings = Findings {
        checked: history.transactions.len(),
        ..Findings::default()
    };
    let total: i64 = initial.iter().sum();
    let mut transfers = BTreeMap::new();
    for transaction in &history.transactions {
        for op in &transaction.ops {
            match op {
                BankOp::ReadAll { balances } => {
                    let seen: i64 = balances.iter().sum();
                    if seen != total && matches!(transaction.outcome, Outcome::Committed(_)) {
                        findings.add(Anomaly::Total, || {
                            format!(
                                "client {} read balances that add up to {seen}, not {total}",
                                transaction.process
                            )
                        });
                    }
                }
                BankOp::Transfer {
                    id,
                    from,
                    to,
                    amount,
                } => {
                    let entry = (transaction.outcome, *from, *to, *amount);
                    if transfers.insert(*id, entry).is_some() {
                        findings.add(Anomaly::BadHistory, || {
                            format!("two transfers carry the id {id}")
                        });
                    }
                }
            }
        }
    }
    let outcomes = transfers.iter().map(|(id, (outcome, ..))| (*id, *outcome));
    findings.absorb(once::check("transfer", &outcomes.collect(), &last.markers));
    check_balances(&transfers, initial, last, &mut findings);
    findings
}

type Transfers = BTreeMap<u64, (Outcome, u32, u32, i64)>;

fn check_balances(
    transfers: &Transfers,
    initial: &[i64],
    last: &FinalState,
    findings: &mut Findings,
) {
    let mut expected = initial.to_vec();
    for marker in &last.markers {
        if let Some((_, from, to, amount)) = transfers.get(marker) {
            for (account, delta) in [(*from, -amount), (*to, *amount)] {
                if let Some(balance) = expected.get_mut(account as usize) {
                    *balance += delta;
                }
            }
        }
    }
    if expected.len() != last.balances.len() {
        findings.add(Anomaly::Lost, || {
            format!(
                "{} accounts were opened, {} are there at the end",
                expected.len(),
                last.balances.len()
            )
        });
    }
    for (account, (expected, found)) in expected.iter().zip(&last.balances).enumerate() {
        if expected != found {
            findings.add(Anomaly::Total, || {
                format!(
                    "account {account} holds {found}, but the transfers that took effect leave \
                     {expected}"
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Transaction;

    fn transfer(id: u64, outcome: Outcome) -> Transaction<BankOp> {
        Transaction {
            process: 0,
            invoked: id,
            completed: id + 1,
            outcome,
            ops: vec![BankOp::Transfer {
                id,
                from: 0,
                to: 1,
                amount: 5,
            }],
        }
    }

    fn history(outcomes: &[Outcome]) -> History<BankOp> {
        let transactions = outcomes.iter().zip(1..).map(|(o, id)| transfer(id, *o));
        History {
            transactions: transactions.collect(),
        }
    }

    fn state(balances: &[i64], markers: &[u64]) -> FinalState {
        FinalState {
            balances: balances.to_vec(),
            markers: markers.to_vec(),
        }
    }

    #[test]
    fn every_outcome_may_leave_what_it_promises() {
        let history = history(&[
            Outcome::Committed(Some(3)),
            Outcome::Aborted,
            Outcome::Unknown,
        ]);
        for markers in [&[1][..], &[1, 3]] {
            let moved = 5 * i64::try_from(markers.len()).unwrap();
            let last = state(&[10 - moved, 10 + moved], markers);
            let findings = check(&history, &[10, 10], &last);
            assert!(findings.is_clean(), "{findings}");
        }
    }

    #[test]
    fn a_lost_acknowledged_transfer_is_found() {
        let found = check(
            &history(&[Outcome::Committed(None)]),
            &[10, 10],
            &state(&[10, 10], &[]),
        );
        assert!(found.has(Anomaly::Lost), "{found}");
    }

    #[test]
    fn an_aborted_transfer_that_took_effect_is_found() {
        let found = check(
            &history(&[Outcome::Aborted]),
            &[10, 10],
            &state(&[5, 15], &[1]),
        );
        assert!(found.has(Anomaly::Undead), "{found}");
    }

    #[test]
    fn a_transfer_applied_twice_or_by_half_is_found() {
        let history = history(&[Outcome::Committed(None)]);
        for balances in [[0, 20], [5, 10], [10, 15]] {
            let found = check(&history, &[10, 10], &state(&balances, &[1]));
            assert!(found.has(Anomaly::Total), "{found}");
        }
    }

    #[test]
    fn a_read_of_half_a_transfer_is_found() {
        let mut history = history(&[]);
        history.transactions.push(Transaction {
            process: 3,
            invoked: 0,
            completed: 1,
            outcome: Outcome::Committed(None),
            ops: vec![BankOp::ReadAll {
                balances: vec![5, 10],
            }],
        });
        let found = check(&history, &[10, 10], &state(&[10, 10], &[]));
        assert!(found.has(Anomaly::Total), "{found}");
    }
}
