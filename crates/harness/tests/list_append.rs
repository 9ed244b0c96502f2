//! Known anomalies, one per test, and their absence in sound histories.

use std::time::{Duration, Instant};
use synod_harness::check::{Anomaly, Findings, list_append};
use synod_harness::history::{History, ListOp, Outcome, Transaction};

fn append(key: u64, value: u64) -> ListOp {
    ListOp::Append { key, value }
}

fn read(key: u64, list: &[u64]) -> ListOp {
    ListOp::Read {
        key,
        list: Some(list.to_vec()),
    }
}

/// A committed transaction without timestamp.
fn t(invoked: u64, completed: u64, ops: &[ListOp]) -> Transaction<ListOp> {
    Transaction {
        process: 0,
        invoked,
        completed,
        outcome: Outcome::Committed(None),
        ops: ops.to_vec(),
    }
}

fn ended(outcome: Outcome, ops: &[ListOp]) -> Transaction<ListOp> {
    Transaction {
        outcome,
        ..t(0, 100, ops)
    }
}

fn run(transactions: Vec<Transaction<ListOp>>) -> Findings {
    list_append::check(&History { transactions })
}

/// All of these run at the same time, so that only dependencies order them.
fn concurrent(transactions: &[&[ListOp]]) -> Findings {
    run(transactions.iter().map(|ops| t(0, 100, ops)).collect())
}

#[track_caller]
fn finds(findings: &Findings, anomaly: Anomaly) {
    assert!(findings.has(anomaly), "{findings}");
}

#[test]
fn a_serial_history_is_clean() {
    let found = run(vec![
        t(0, 1, &[append(1, 1), append(2, 1)]),
        t(2, 3, &[read(1, &[1]), append(1, 2), read(1, &[1, 2])]),
        t(4, 5, &[read(1, &[1, 2]), read(2, &[1]), read(3, &[])]),
    ]);
    assert!(found.is_clean(), "{found}");
}

#[test]
fn g0_write_cycle() {
    let found = concurrent(&[
        &[append(1, 1), append(2, 1)],
        &[append(1, 2), append(2, 2)],
        &[read(1, &[1, 2])],
        &[read(2, &[2, 1])],
    ]);
    finds(&found, Anomaly::WriteCycle);
}

#[test]
fn g1a_aborted_read() {
    let found = run(vec![
        ended(Outcome::Aborted, &[append(1, 1)]),
        t(0, 100, &[read(1, &[1])]),
    ]);
    finds(&found, Anomaly::AbortedRead);
}

#[test]
fn g1b_intermediate_read() {
    let found = concurrent(&[&[append(1, 1), append(1, 2)], &[read(1, &[1])]]);
    finds(&found, Anomaly::IntermediateRead);
}

#[test]
fn g1c_circular_information() {
    let found = concurrent(&[
        &[append(1, 1), read(2, &[1])],
        &[append(2, 1), read(1, &[1])],
    ]);
    finds(&found, Anomaly::CircularInformation);
}

#[test]
fn g_single_read_skew() {
    let found = concurrent(&[
        &[append(1, 1), append(2, 1)],
        &[read(1, &[1]), read(2, &[])],
        &[read(2, &[1])],
    ]);
    finds(&found, Anomaly::SingleAntiDependency);
}

#[test]
fn a_lost_update_is_found_even_if_nobody_reads_it() {
    let found = concurrent(&[
        &[append(1, 1)],
        &[read(1, &[1]), append(1, 2)],
        &[read(1, &[1]), append(1, 3)],
    ]);
    // Each read the list before the other's write.
    assert!(!found.is_clean(), "{found}");
    finds(&found, Anomaly::AntiDependency);
}

#[test]
fn g2_write_skew() {
    let found = concurrent(&[
        &[read(1, &[]), append(2, 1)],
        &[read(2, &[]), append(1, 1)],
        &[read(1, &[1]), read(2, &[1])],
    ]);
    finds(&found, Anomaly::AntiDependency);
}

#[test]
fn a_stale_read_breaks_real_time() {
    let found = run(vec![
        t(0, 1, &[append(1, 1)]),
        t(2, 3, &[read(1, &[])]),
        t(4, 5, &[read(1, &[1])]),
    ]);
    finds(&found, Anomaly::RealTime);
}

#[test]
fn writes_in_the_wrong_real_time_order_are_found() {
    let found = run(vec![
        t(0, 1, &[append(1, 1)]),
        t(2, 3, &[append(1, 2)]),
        t(4, 5, &[read(1, &[2, 1])]),
    ]);
    finds(&found, Anomaly::RealTime);
}

#[test]
fn concurrent_operations_have_no_real_time_order() {
    let found = run(vec![
        t(0, 5, &[append(1, 1)]),
        t(5, 6, &[read(1, &[])]),
        t(7, 8, &[read(1, &[1])]),
    ]);
    assert!(found.is_clean(), "{found}");
}

#[test]
fn unknown_outcomes_may_show_or_not() {
    for seen in [&[][..], &[1]] {
        let found = run(vec![
            ended(Outcome::Unknown, &[append(1, 1)]),
            t(200, 201, &[read(1, seen)]),
        ]);
        assert!(found.is_clean(), "{found}");
    }
    // But once seen, they happened: half of one is an anomaly.
    let found = run(vec![
        ended(Outcome::Unknown, &[append(1, 1), append(2, 1)]),
        t(200, 201, &[read(1, &[1]), read(2, &[])]),
        t(202, 203, &[read(2, &[1])]),
    ]);
    assert!(!found.is_clean());
}

#[test]
fn an_append_applied_twice_is_found() {
    let found = concurrent(&[&[append(1, 1)], &[read(1, &[1, 1])]]);
    finds(&found, Anomaly::Duplicate);
}

#[test]
fn a_value_from_nowhere_is_found() {
    let found = concurrent(&[&[read(1, &[7])]]);
    finds(&found, Anomaly::Garbage);
}

#[test]
fn diverged_reads_are_found() {
    let found = concurrent(&[
        &[append(1, 1)],
        &[append(1, 2)],
        &[read(1, &[1])],
        &[read(1, &[2, 1])],
    ]);
    finds(&found, Anomaly::IncompatibleOrder);
}

#[test]
fn a_transaction_that_disagrees_with_itself_is_found() {
    for ops in [
        [append(1, 1), read(1, &[])],
        [read(1, &[]), read(1, &[5])],
        [append(1, 1), read(1, &[1, 5])],
    ] {
        let found = concurrent(&[&ops, &[append(1, 5)]]);
        finds(&found, Anomaly::Internal);
    }
}

#[test]
fn falling_timestamps_are_found() {
    let at = |ts, ops: &[ListOp]| ended(Outcome::Committed(Some(ts)), ops);
    let found = run(vec![
        at(5, &[append(1, 1)]),
        at(4, &[read(1, &[1]), append(1, 2)]),
    ]);
    finds(&found, Anomaly::TimestampOrder);
}

#[test]
fn a_cycle_is_told_in_words() {
    let found = run(vec![
        t(0, 1, &[append(1, 1)]),
        t(2, 3, &[read(1, &[])]),
        t(4, 5, &[read(1, &[1])]),
    ]);
    let text = &found.violations[0].text;
    assert!(text.contains("T1 of client 0 [read 1 = []]"), "{text}");
    assert!(text.contains("read key 1 before the write of"), "{text}");
    assert!(text.contains("had ended before the begin of"), "{text}");
}

/// A sound history of many transactions, made by executing them one after the
/// other at a point inside their spans, on keys that rotate.
fn sound(transactions: usize) -> History<ListOp> {
    let mut lists: std::collections::HashMap<u64, Vec<u64>> = std::collections::HashMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut history = History::default();
    for index in 0..transactions as u64 {
        let at = index * 10;
        let mut ops = Vec::new();
        for step in 0..4 {
            let key = index / 1000 * 10 + next() % 20;
            let list = lists.entry(key).or_default();
            if next() % 2 == 0 {
                list.push(index * 4 + step);
                ops.push(append(key, index * 4 + step));
            } else {
                ops.push(read(key, list));
            }
        }
        history.transactions.push(Transaction {
            process: u32::try_from(index % 32).unwrap(),
            invoked: at.saturating_sub(next() % 200),
            completed: at + 1 + next() % 200,
            outcome: Outcome::Committed(Some(at + 1)),
            ops,
        });
    }
    history
}

#[test]
fn a_hundred_thousand_sound_transactions_are_clean_and_quick() {
    let history = sound(100_000);
    let start = Instant::now();
    let found = list_append::check(&history);
    assert!(found.is_clean(), "{found}");
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn one_bad_read_among_many_is_found() {
    let mut history = sound(20_000);
    // Some read late in the history loses its last element.
    let victim = history.transactions[10_000..]
        .iter_mut()
        .flat_map(|t| &mut t.ops)
        .find_map(|op| match op {
            ListOp::Read { list: Some(l), .. } if l.len() > 30 => Some(l),
            _ => None,
        })
        .expect("a long read");
    victim.truncate(victim.len() - 20);
    assert!(!list_append::check(&history).is_clean());
}
