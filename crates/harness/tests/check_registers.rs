//! Strict serializability of registers: every anomaly in words, and its absence.

use synod_harness::check::{Anomaly, Findings, registers, sessions};
use synod_harness::history::{History, Outcome, RwOp, Seen, Transaction};

fn w(key: u64, value: u64) -> RwOp {
    RwOp::Write { key, value }
}

fn r(key: u64, value: u64) -> RwOp {
    let seen = Seen::Value(value);
    RwOp::Read { key, seen }
}

fn nothing(key: u64) -> RwOp {
    let seen = Seen::Nothing;
    RwOp::Read { key, seen }
}

fn t(invoked: u64, completed: u64, ops: &[RwOp]) -> Transaction<RwOp> {
    Transaction {
        process: 0,
        invoked,
        completed,
        outcome: Outcome::Committed(None),
        ops: ops.to_vec(),
    }
}

fn ended(outcome: Outcome, ops: &[RwOp]) -> Transaction<RwOp> {
    Transaction {
        outcome,
        ..t(0, 100, ops)
    }
}

fn run(transactions: Vec<Transaction<RwOp>>) -> Findings {
    registers::check(&History { transactions })
}

/// All of these run at the same time, so that only dependencies order them.
fn concurrent(transactions: &[&[RwOp]]) -> Findings {
    run(transactions.iter().map(|ops| t(0, 100, ops)).collect())
}

#[track_caller]
fn finds(found: &Findings, anomaly: Anomaly, text: &str) {
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
        t(0, 1, &[nothing(1), w(1, 1), w(2, 1)]),
        t(2, 3, &[r(1, 1), w(1, 2), r(1, 2)]),
        t(4, 5, &[r(1, 2), r(2, 1), nothing(3)]),
    ]);
    assert!(found.is_clean(), "{found}");
}

#[test]
fn blind_writes_at_one_time_may_come_in_any_order() {
    let found = concurrent(&[
        &[w(1, 1)],
        &[w(1, 2)],
        &[r(1, 1)],
        &[r(1, 2)],
        &[nothing(1)],
    ]);
    assert!(found.is_clean(), "{found}");
}

#[test]
fn unknown_outcomes_may_show_or_not() {
    for seen in [nothing(1), r(1, 1)] {
        let found = run(vec![
            ended(Outcome::Unknown, &[w(1, 1)]),
            t(200, 201, &[seen]),
        ]);
        assert!(found.is_clean(), "{found}");
    }
    // Late, over a later write, too.
    let found = run(vec![
        ended(Outcome::Unknown, &[w(1, 1)]),
        t(200, 201, &[w(1, 2)]),
        t(202, 203, &[r(1, 2)]),
        t(204, 205, &[r(1, 1)]),
    ]);
    assert!(found.is_clean(), "{found}");
}

#[test]
fn once_seen_an_unknown_outcome_is_whole() {
    let found = run(vec![
        ended(Outcome::Unknown, &[w(1, 1), w(2, 1)]),
        t(200, 201, &[r(1, 1), nothing(2)]),
    ]);
    finds(
        &found,
        Anomaly::SingleAntiDependency,
        "T1 of client 0 [read 1 = 1, read 2 = nothing] read key 2 before the write of T0; T0 of \
         client 0 [write 1 := 1, write 2 := 1] wrote to key 1 what was read by T1; so each of \
         them comes before itself",
    );
}

#[test]
fn g0_write_cycle() {
    // T2 and T3 tell that T1 overwrote T0 in key 1, and the reverse in key 2.
    let found = concurrent(&[
        &[nothing(1), w(1, 1), r(2, 2), w(2, 1)],
        &[r(1, 1), w(1, 2), nothing(2), w(2, 2)],
    ]);
    finds(
        &found,
        Anomaly::WriteCycle,
        "T0 of client 0 [read 1 = nothing, write 1 := 1, read 2 = 2, write 2 := 1] wrote key 1 \
         before T1; T1 of client 0 [read 1 = 1, write 1 := 2, read 2 = nothing, write 2 := 2] \
         wrote key 2 before T0; so each of them comes before itself",
    );
}

#[test]
fn g1a_aborted_read() {
    let found = run(vec![
        ended(Outcome::Aborted, &[w(1, 1)]),
        t(0, 100, &[r(1, 1)]),
    ]);
    finds(
        &found,
        Anomaly::AbortedRead,
        "T1 of client 0 [read 1 = 1] saw 1 in key 1, a write of the aborted T0 of client 0 \
         [write 1 := 1]",
    );
}

#[test]
fn g1b_intermediate_read() {
    let found = concurrent(&[&[w(1, 1), w(1, 2)], &[r(1, 1)]]);
    finds(
        &found,
        Anomaly::IntermediateRead,
        "T1 of client 0 [read 1 = 1] saw 1 in key 1, from the middle of T0 of client 0 \
         [write 1 := 1, write 1 := 2]",
    );
}

#[test]
fn g1c_circular_information() {
    let found = concurrent(&[&[w(1, 1), r(2, 1)], &[w(2, 1), r(1, 1)]]);
    finds(
        &found,
        Anomaly::CircularInformation,
        "T0 of client 0 [write 1 := 1, read 2 = 1] wrote to key 1 what was read by T1; T1 of \
         client 0 [write 2 := 1, read 1 = 1] wrote to key 2 what was read by T0; so each of them \
         comes before itself",
    );
}

#[test]
fn g2_write_skew() {
    let found = concurrent(&[&[nothing(1), w(2, 1)], &[nothing(2), w(1, 1)]]);
    finds(
        &found,
        Anomaly::AntiDependency,
        "T0 of client 0 [read 1 = nothing, write 2 := 1] read key 1 before the write of T1; T1 of \
         client 0 [read 2 = nothing, write 1 := 1] read key 2 before the write of T0; so each of \
         them comes before itself",
    );
}

#[test]
fn a_fractured_read_of_blind_writes_is_found() {
    let found = concurrent(&[
        &[w(1, 1), w(2, 1)],
        &[w(1, 2), w(2, 2)],
        &[r(1, 1), r(2, 2)],
    ]);
    finds(
        &found,
        Anomaly::WriteCycle,
        "T0 of client 0 [write 1 := 1, write 2 := 1] wrote key 2 before T1; T1 of client 0 \
         [write 1 := 2, write 2 := 2] wrote key 1 before T0; so each of them comes before itself",
    );
}

#[test]
fn a_lost_update_is_found() {
    let found = concurrent(&[&[w(1, 1)], &[r(1, 1), w(1, 2)], &[r(1, 1), w(1, 3)]]);
    finds(
        &found,
        Anomaly::LostUpdate,
        "T1 of client 0 [read 1 = 1, write 1 := 2] and T2 of client 0 [read 1 = 1, write 1 := 3] \
         both read 1 in key 1 and overwrote it",
    );
}

#[test]
fn a_stale_read_breaks_real_time() {
    let found = run(vec![
        t(0, 1, &[w(1, 1)]),
        t(2, 3, &[w(1, 2)]),
        t(4, 5, &[r(1, 1)]),
    ]);
    assert_eq!(found.total, 1, "{found}");
    finds(
        &found,
        Anomaly::RealTime,
        "T0 of client 0 [write 1 := 1] met key 1 in a state that, by real time, is older than the \
         write of T1; T1 of client 0 [write 1 := 2] met key 1 in a state that, by real time, is \
         older than the write of T0; so each of them comes before itself",
    );
}

#[test]
fn a_read_of_nothing_after_a_write_breaks_real_time() {
    let found = run(vec![t(0, 1, &[w(1, 1)]), t(4, 5, &[nothing(1)])]);
    finds(
        &found,
        Anomaly::RealTime,
        "T0 of client 0 [write 1 := 1] had ended before the begin of T1; T1 of client 0 [read 1 = \
         nothing] read key 1 before the write of T0; so each of them comes before itself",
    );
}

#[test]
fn real_time_orders_versions_for_other_keys() {
    // A long reader saw 1 in key 1, overwritten meanwhile by one who also wrote key 2.
    let found = run(vec![
        t(0, 1, &[w(1, 1)]),
        t(2, 3, &[w(1, 2), w(2, 2)]),
        t(0, 9, &[r(1, 1), r(2, 2)]),
    ]);
    assert_eq!(found.total, 1, "{found}");
    assert!(!found.is_clean());
}

#[test]
fn a_value_from_nowhere_and_one_from_the_future_are_found() {
    let found = concurrent(&[&[r(1, 7)]]);
    finds(
        &found,
        Anomaly::Garbage,
        "T0 of client 0 [read 1 = 7] saw 7 in key 1, which nobody wrote",
    );
    let found = concurrent(&[&[r(1, 7), w(1, 7)]]);
    assert!(found.has(Anomaly::Internal), "{found}");
}

#[test]
fn a_transaction_that_disagrees_with_itself_is_found() {
    for ops in [
        [w(1, 1), nothing(1)],
        [nothing(1), r(1, 5)],
        [w(1, 1), r(1, 5)],
    ] {
        let found = concurrent(&[&ops, &[w(1, 5)]]);
        assert!(found.has(Anomaly::Internal), "{found}");
    }
}

#[test]
fn a_value_written_twice_is_told() {
    let found = concurrent(&[&[w(1, 1)], &[w(1, 1)]]);
    finds(
        &found,
        Anomaly::BadHistory,
        "1 was written to key 1 by more than one operation",
    );
}

#[test]
fn sessions_go_forward_in_the_order_of_timestamps() {
    let at = |ts, from, ops: &[RwOp]| Transaction {
        outcome: Outcome::Committed(Some(ts)),
        ..t(from, from + 1, ops)
    };
    let history = |last| History {
        transactions: vec![
            at(5, 0, &[w(1, 1)]),
            Transaction {
                process: 1,
                ..at(6, 0, &[w(1, 2)])
            },
            t(2, 3, &[r(1, 2)]),
            t(3, 4, &[last]),
        ],
    };
    assert!(sessions::check_registers(&history(r(1, 2))).is_clean());
    let found = sessions::check_registers(&history(r(1, 1)));
    finds(
        &found,
        Anomaly::Stale,
        "T3 of client 0 [read 1 = 1] read key 1 in its version at 5, though the same client had \
         met the one at 6 in T2",
    );
}
