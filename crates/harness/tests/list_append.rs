//! Known anomalies, one per test, and their absence in sound histories.

use std::time::{Duration, Instant};
use synod_harness::check::{Anomaly, Findings, list_append, registers, timestamp_order};
use synod_harness::edn;
use synod_harness::history::{History, ListOp, Outcome, RwOp, Seen, Transaction};

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

/// The findings of one kind, word by word.
#[track_caller]
fn tells(found: &Findings, anomaly: Anomaly, text: &str) {
    let of_kind: Vec<&str> = found
        .violations
        .iter()
        .filter(|v| v.anomaly == anomaly)
        .map(|v| v.text.as_str())
        .collect();
    assert_eq!(of_kind, [text], "{found}");
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
    tells(
        &found,
        Anomaly::WriteCycle,
        "T0 of client 0 [append 1 to 1, append 1 to 2] wrote key 1 before T1; T1 of client 0 [append 2 to 1, append 2 to 2] wrote key 2 before T0; so each of them comes before itself",
    );
}

#[test]
fn g1a_aborted_read() {
    let found = run(vec![
        ended(Outcome::Aborted, &[append(1, 1)]),
        t(0, 100, &[read(1, &[1])]),
    ]);
    tells(
        &found,
        Anomaly::AbortedRead,
        "T1 of client 0 [read 1 = [1]] saw 1 in key 1, an append of the aborted T0 of client 0 [append 1 to 1]",
    );
}

#[test]
fn g1b_intermediate_read() {
    let found = concurrent(&[&[append(1, 1), append(1, 2)], &[read(1, &[1])]]);
    tells(
        &found,
        Anomaly::IntermediateRead,
        "T1 of client 0 [read 1 = [1]] saw key 1 end with 1, from the middle of T0 of client 0 [append 1 to 1, append 2 to 1]",
    );
}

#[test]
fn g1c_circular_information() {
    let found = concurrent(&[
        &[append(1, 1), read(2, &[1])],
        &[append(2, 1), read(1, &[1])],
    ]);
    tells(
        &found,
        Anomaly::CircularInformation,
        "T0 of client 0 [append 1 to 1, read 2 = [1]] wrote to key 1 what was read by T1; T1 of client 0 [append 1 to 2, read 1 = [1]] wrote to key 2 what was read by T0; so each of them comes before itself",
    );
}

#[test]
fn g_single_read_skew() {
    let found = concurrent(&[
        &[append(1, 1), append(2, 1)],
        &[read(1, &[1]), read(2, &[])],
        &[read(2, &[1])],
    ]);
    tells(
        &found,
        Anomaly::SingleAntiDependency,
        "T1 of client 0 [read 1 = [1], read 2 = []] read key 2 before the write of T0; T0 of client 0 [append 1 to 1, append 1 to 2] wrote to key 1 what was read by T1; so each of them comes before itself",
    );
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
    tells(
        &found,
        Anomaly::LostUpdate,
        "T1 of client 0 [read 1 = [1], append 2 to 1] and T2 of client 0 [read 1 = [1], append 3 to 1] read the same state of key 1 and both appended to it",
    );
}

#[test]
fn g2_write_skew() {
    let found = concurrent(&[
        &[read(1, &[]), append(2, 1)],
        &[read(2, &[]), append(1, 1)],
        &[read(1, &[1]), read(2, &[1])],
    ]);
    tells(
        &found,
        Anomaly::AntiDependency,
        "T0 of client 0 [read 1 = [], append 1 to 2] read key 1 before the write of T1; T1 of client 0 [read 2 = [], append 1 to 1] read key 2 before the write of T0; so each of them comes before itself",
    );
}

#[test]
fn a_stale_read_breaks_real_time() {
    let found = run(vec![
        t(0, 1, &[append(1, 1)]),
        t(2, 3, &[read(1, &[])]),
        t(4, 5, &[read(1, &[1])]),
    ]);
    tells(
        &found,
        Anomaly::RealTime,
        "T0 of client 0 [append 1 to 1] had ended before the begin of T1; T1 of client 0 [read 1 = []] read key 1 before the write of T0; so each of them comes before itself",
    );
}

#[test]
fn writes_in_the_wrong_real_time_order_are_found() {
    let found = run(vec![
        t(0, 1, &[append(1, 1)]),
        t(2, 3, &[append(1, 2)]),
        t(4, 5, &[read(1, &[2, 1])]),
    ]);
    tells(
        &found,
        Anomaly::RealTime,
        "T0 of client 0 [append 1 to 1] had ended before the begin of T1; T1 of client 0 [append 2 to 1] wrote key 1 before T0; so each of them comes before itself",
    );
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
    tells(
        &found,
        Anomaly::Duplicate,
        "key 1 holds 1 twice: the append was applied more than once",
    );
}

#[test]
fn a_value_from_nowhere_is_found() {
    let found = concurrent(&[&[read(1, &[7])]]);
    tells(
        &found,
        Anomaly::Garbage,
        "T0 of client 0 [read 1 = [7]] saw 7 in key 1, which nobody appended",
    );
}

#[test]
fn diverged_reads_are_found() {
    let found = concurrent(&[
        &[append(1, 1)],
        &[append(1, 2)],
        &[read(1, &[1])],
        &[read(1, &[2, 1])],
    ]);
    tells(
        &found,
        Anomaly::IncompatibleOrder,
        "T2 of client 0 [read 1 = [1]] read key 1 with 1 as element 0, where T3 of client 0 [read 1 = [2, 1]] read 2",
    );
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
    tells(
        &found,
        Anomaly::TimestampOrder,
        "T0 of client 0 [append 1 to 1] at 5 comes before T1 of client 0 [read 1 = [1], append 2 to 1] at 4 because of key 1",
    );
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
fn sound(transactions: u64) -> History<ListOp> {
    let mut lists: std::collections::HashMap<u64, Vec<u64>> = std::collections::HashMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut history = History::default();
    for index in 0..transactions {
        let at = index * 10;
        let mut ops = Vec::new();
        for step in 0..4 {
            // Each list takes some 200 elements in its life; 300 are in use at a time.
            let key = index / 100 + next() % 300;
            let list = lists.entry(key).or_default();
            if next() % 2 == 0 {
                list.push(index * 4 + step);
                ops.push(append(key, index * 4 + step));
            } else {
                ops.push(read(key, list));
            }
        }
        history.transactions.push(Transaction {
            process: u32::try_from(index % 50).unwrap(),
            invoked: at.saturating_sub(next() % 250),
            completed: at + 1 + next() % 250,
            outcome: Outcome::Committed(Some(at + 1)),
            ops,
        });
    }
    history
}

#[test]
fn a_hundred_thousand_sound_transactions_are_clean_and_quick() {
    // Unoptimised, a fifth must do.
    let history = sound(if cfg!(debug_assertions) {
        20_000
    } else {
        100_000
    });
    let start = Instant::now();
    let found = list_append::check(&history);
    assert!(found.is_clean(), "{found}");
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

/// Prints how long each step takes for 100,000 transactions of 50 clients on a few
/// hundred keys: `cargo test --release -p synod-harness --test list_append -- --ignored
/// --nocapture`.
#[test]
#[ignore = "a measurement"]
fn how_long_a_hundred_thousand_take() {
    let history = sound(100_000);
    let elements = |t: &Transaction<ListOp>| -> usize {
        let length = |op: &ListOp| match op {
            ListOp::Read { list, .. } => list.as_ref().map_or(0, Vec::len),
            ListOp::Append { .. } => 0,
        };
        t.ops.iter().map(length).sum()
    };
    let read: usize = history.transactions.iter().map(elements).sum();
    println!("100,000 transactions that read {read} elements");
    let timed = |what: &str, run: &dyn Fn() -> Findings| {
        let start = Instant::now();
        let found = run();
        println!("{what}: {:?}", start.elapsed());
        assert!(found.is_clean(), "{found}");
    };
    timed("list-append", &|| list_append::check(&history));
    timed("timestamp order", &|| {
        timestamp_order::check_lists(&history, timestamp_order::Untimed::AnyMoment)
    });
    let registers = registers_of(&history);
    timed("registers", &|| registers::check(&registers));
    let mut text = Vec::new();
    edn::write_edn(&history, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    println!("EDN of {} MB", text.len() / 1_000_000);
    timed("reading EDN", &|| {
        assert_eq!(edn::read_history(&text).unwrap().len(), 100_000);
        Findings::default()
    });
}

/// The same transactions on registers: the last element is the value.
fn registers_of(history: &History<ListOp>) -> History<RwOp> {
    let op = |op: &ListOp| match op {
        ListOp::Append { key, value } => RwOp::Write {
            key: *key,
            value: *value,
        },
        ListOp::Read { key, list } => RwOp::Read {
            key: *key,
            seen: match list.as_deref().and_then(<[u64]>::last) {
                Some(last) => Seen::Value(*last),
                None => Seen::Nothing,
            },
        },
    };
    History {
        transactions: history
            .transactions
            .iter()
            .map(|t| Transaction {
                process: t.process,
                invoked: t.invoked,
                completed: t.completed,
                outcome: t.outcome,
                ops: t.ops.iter().map(op).collect(),
            })
            .collect(),
    }
}

/// A history that is broken all over is told about in good time, too.
#[test]
fn much_that_is_broken_is_told_quickly() {
    let mut history = sound(if cfg!(debug_assertions) {
        3_000
    } else {
        30_000
    });
    for (index, transaction) in history.transactions.iter_mut().enumerate() {
        for op in &mut transaction.ops {
            if let ListOp::Read {
                list: Some(list), ..
            } = op
                && index % 3 == 0
            {
                list.pop();
            }
        }
    }
    let start = Instant::now();
    assert!(!list_append::check(&history).is_clean());
    assert!(!registers::check(&registers_of(&history)).is_clean());
    assert!(
        start.elapsed() < Duration::from_secs(20),
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
