//! One check for a history from anywhere.

use super::timestamp_order::{self, Untimed};
use super::{Findings, list_append, registers, sessions};
use crate::edn::AnyHistory;
use crate::history::{Outcome, Transaction};

/// Everything that can be checked without knowing the workload: strict
/// serializability, sessions and, where commits carry timestamps, their order.
#[must_use]
pub fn check_any(history: &AnyHistory) -> Findings {
    match history {
        AnyHistory::Lists(history) => {
            let mut findings = list_append::check(history);
            findings.absorb(sessions::check_lists(history));
            if has_timestamps(&history.transactions) {
                let order = timestamp_order::check_lists(history, Untimed::AnyMoment);
                findings.absorb(order);
            }
            findings
        }
        AnyHistory::Registers(history) => {
            let mut findings = registers::check(history);
            findings.absorb(sessions::check_registers(history));
            if has_timestamps(&history.transactions) {
                let order = timestamp_order::check_registers(history, Untimed::AnyMoment);
                findings.absorb(order);
            }
            findings
        }
    }
}

fn has_timestamps<Op>(history: &[Transaction<Op>]) -> bool {
    let timed = |t: &Transaction<Op>| matches!(t.outcome, Outcome::Committed(Some(_)));
    history.iter().any(timed)
}
