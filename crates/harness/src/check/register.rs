//! Real-time order of one register whose writer numbers its writes: a read may
//! not be older than what was acknowledged, or read, before it began, and not
//! newer than what had been asked for when it ended. A write of unknown outcome
//! may take effect at any time after it was asked for, also over a later one.

use super::{Anomaly, Findings};
use crate::history::{History, Outcome, RegisterOp};
use std::collections::BTreeSet;

/// Checks a register. Each transaction holds one operation; numbers written are
/// unique and rise with the order of their invocations (one writer).
#[must_use]
pub fn check(history: &History<RegisterOp>) -> Findings {
    let mut findings = Findings {
        checked: history.transactions.len(),
        ..Findings::default()
    };
    // (time, order at equal times, …): at equal times operations are concurrent, so
    // begins of writes come first, then begins of reads, then ends.
    let mut events = Vec::new();
    let mut unknown = BTreeSet::new();
    for (index, transaction) in history.transactions.iter().enumerate() {
        let Some(op) = transaction.ops.first() else {
            continue;
        };
        let committed = matches!(transaction.outcome, Outcome::Committed(_));
        match op {
            RegisterOp::Write(number) => {
                if transaction.outcome == Outcome::Unknown {
                    unknown.insert(*number);
                }
                if transaction.outcome != Outcome::Aborted {
                    events.push((transaction.invoked, 0, index, *number));
                }
                if committed {
                    events.push((transaction.completed, 2, index, *number));
                }
            }
            RegisterOp::Read(number) if committed => {
                events.push((transaction.invoked, 1, index, *number));
                events.push((transaction.completed, 2, index, *number));
            }
            RegisterOp::Read(_) => {}
        }
    }
    events.sort_unstable();
    let (mut floor, mut ceiling) = (0, 0);
    for (_, phase, index, number) in events {
        let transaction = &history.transactions[index];
        let is_read = matches!(transaction.ops.first(), Some(RegisterOp::Read(_)));
        match phase {
            0 => ceiling = ceiling.max(number),
            1 if number < floor && !unknown.contains(&number) => {
                findings.add(Anomaly::Stale, || {
                    format!(
                        "client {} read {number} although {floor} had been acknowledged or read \
                     before it asked",
                        transaction.process
                    )
                })
            }
            1 => {}
            _ => {
                if is_read && number > ceiling {
                    findings.add(Anomaly::Garbage, || {
                        format!(
                            "client {} read {number} before anybody wrote it",
                            transaction.process
                        )
                    });
                }
                floor = floor.max(number);
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Transaction;

    fn op(invoked: u64, completed: u64, op: RegisterOp) -> Transaction<RegisterOp> {
        Transaction {
            process: 0,
            invoked,
            completed,
            outcome: Outcome::Committed(None),
            ops: vec![op],
        }
    }

    fn run(transactions: Vec<Transaction<RegisterOp>>) -> Findings {
        check(&History { transactions })
    }

    #[test]
    fn concurrent_reads_may_see_either_value() {
        use RegisterOp::{Read, Write};
        for seen in [1, 2] {
            let found = run(vec![
                op(0, 1, Write(1)),
                op(2, 9, Write(2)),
                op(3, 4, Read(seen)),
            ]);
            assert!(found.is_clean(), "{found}");
        }
    }

    #[test]
    fn a_read_older_than_an_acknowledged_write_is_found() {
        use RegisterOp::{Read, Write};
        let found = run(vec![
            op(0, 1, Write(1)),
            op(2, 3, Write(2)),
            op(4, 5, Read(1)),
        ]);
        assert!(found.has(Anomaly::Stale), "{found}");
    }

    #[test]
    fn a_write_of_unknown_outcome_may_come_late() {
        use RegisterOp::{Read, Write};
        let mut late = op(0, 1, Write(1));
        late.outcome = Outcome::Unknown;
        let found = run(vec![late, op(2, 3, Write(2)), op(4, 5, Read(1))]);
        assert!(found.is_clean(), "{found}");
    }

    #[test]
    fn reads_that_go_back_are_found() {
        use RegisterOp::{Read, Write};
        let found = run(vec![
            op(0, 99, Write(1)),
            op(1, 2, Read(1)),
            op(3, 4, Read(0)),
        ]);
        assert!(found.has(Anomaly::Stale), "{found}");
    }

    #[test]
    fn a_read_from_the_future_is_found() {
        use RegisterOp::{Read, Write};
        let found = run(vec![op(0, 1, Read(1)), op(2, 3, Write(1))]);
        assert!(found.has(Anomaly::Garbage), "{found}");
    }
}
