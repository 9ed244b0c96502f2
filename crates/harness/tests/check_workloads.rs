//! The checkers of workloads with a shape of their own: ring, markers, sessions,
//! timestamps.

use std::collections::BTreeMap;
use synod_harness::check::timestamp_order::{self, Untimed};
use synod_harness::check::{Anomaly, Findings, check_any, once, ring, sessions};
use synod_harness::edn::AnyHistory;
use synod_harness::history::{History, ListOp, Outcome, RingOp, RwOp, Seen, Transaction};

fn t<Op>(invoked: u64, outcome: Outcome, ops: Vec<Op>) -> Transaction<Op> {
    Transaction {
        process: 3,
        invoked,
        completed: invoked + 1,
        outcome,
        ops,
    }
}

fn at(timestamp: u64) -> Outcome {
    Outcome::Committed(Some(timestamp))
}

const DONE: Outcome = Outcome::Committed(None);

#[track_caller]
fn only(found: &Findings, anomaly: Anomaly, text: &str) {
    let all: Vec<(Anomaly, &str)> = found
        .violations
        .iter()
        .map(|v| (v.anomaly, v.text.as_str()))
        .collect();
    assert_eq!(all, [(anomaly, text)]);
}

fn ring_of(next: &[u64]) -> Findings {
    let next = next.iter().map(|n| Some(*n)).collect();
    let transactions = vec![t(0, DONE, vec![RingOp::ReadAll { next }])];
    ring::check(&History { transactions }, 5)
}

#[test]
fn a_ring_stays_a_ring() {
    let swap = |timestamp, path| t(0, at(timestamp), vec![RingOp::Swap { path }]);
    let all = |next: [u64; 5]| RingOp::ReadAll {
        next: next.map(Some).to_vec(),
    };
    let history = History {
        transactions: vec![
            swap(20, [0, 2, 1, 3]),
            swap(10, [0, 1, 2, 3]),
            t(0, DONE, vec![all([2, 3, 1, 4, 0])]),
            t(0, Outcome::Aborted, vec![all([0; 5])]),
        ],
    };
    let found = ring::check(&history, 5);
    assert!(found.is_clean(), "{found}");
}

#[test]
fn what_is_no_ring_is_found() {
    only(
        &ring_of(&[1, 2, 0, 4, 3]),
        Anomaly::Ring,
        "T0 of client 3: the links from key 0 return to it after 3 steps, not 5",
    );
    only(
        &ring_of(&[1, 2, 3, 1, 0]),
        Anomaly::Ring,
        "T0 of client 3: the links from key 0 do not return to it in 5 steps",
    );
    only(
        &ring_of(&[1, 9, 3, 4, 0]),
        Anomaly::Ring,
        "T0 of client 3: key 1 leads to 9, which is no key",
    );
    only(
        &ring_of(&[1, 2, 0]),
        Anomaly::Ring,
        "T0 of client 3: read 3 keys of 5",
    );
}

#[test]
fn swaps_out_of_order_are_found() {
    let swap = |timestamp, path| t(0, at(timestamp), vec![RingOp::Swap { path }]);
    let transactions = vec![swap(10, [0, 1, 2, 3]), swap(20, [0, 1, 2, 3])];
    only(
        &ring::check(&History { transactions }, 5),
        Anomaly::TimestampOrder,
        "T1 of client 3 swapped along [0, 1, 2, 3] at 20, but lower timestamps leave other links",
    );
    let transactions = vec![swap(10, [0, 1, 0, 1])];
    only(
        &ring::check(&History { transactions }, 5),
        Anomaly::Ring,
        "T0 of client 3: the links [0, 1, 0, 1] close a ring of less than 5 keys",
    );
}

#[test]
fn markers_are_there_exactly_once() {
    let outcomes = BTreeMap::from([
        (1, DONE),
        (2, Outcome::Aborted),
        (3, Outcome::Unknown),
        (4, Outcome::Unknown),
    ]);
    assert!(once::check("write", &outcomes, &[4, 1]).is_clean());
    for (found, anomaly, text) in [
        (
            &[3][..],
            Anomaly::Lost,
            "write 1 was acknowledged, but its marker is not there",
        ),
        (
            &[1, 2],
            Anomaly::Undead,
            "write 2 was reported as aborted, but its marker is there",
        ),
        (
            &[1, 3, 3],
            Anomaly::Duplicate,
            "the marker of write 3 is there twice",
        ),
        (
            &[1, 9],
            Anomaly::Garbage,
            "there is a marker 9 of a write that nobody asked for",
        ),
    ] {
        only(&once::check("write", &outcomes, found), anomaly, text);
    }
}

fn append(key: u64, value: u64) -> ListOp {
    ListOp::Append { key, value }
}

fn read(key: u64, list: &[u64]) -> ListOp {
    let list = Some(list.to_vec());
    ListOp::Read { key, list }
}

#[test]
fn a_client_that_goes_back_is_found() {
    let transactions = vec![
        t(0, DONE, vec![read(1, &[1, 2])]),
        t(1, DONE, vec![read(1, &[1])]),
    ];
    only(
        &sessions::check_lists(&History { transactions }),
        Anomaly::Stale,
        "T1 of client 3 [read 1 = [1]] read key 1 = [1], though the same client had read [1, 2] \
         in T0",
    );
}

#[test]
fn a_client_that_misses_its_own_write_is_found() {
    let transactions = vec![
        t(0, DONE, vec![append(1, 7)]),
        t(1, Outcome::Unknown, vec![append(1, 8)]),
        t(2, DONE, vec![read(1, &[1, 2])]),
    ];
    only(
        &sessions::check_lists(&History { transactions }),
        Anomaly::Stale,
        "T2 of client 3 [read 1 = [1, 2]] does not see 7 in key 1, which the same client had \
         appended in T0",
    );
}

#[test]
fn timestamp_order_of_lists_is_replayed() {
    let history = |third: &[u64]| History {
        transactions: vec![
            t(9, at(10), vec![append(1, 1)]),
            t(
                0,
                at(20),
                vec![read(1, &[1]), append(1, 2), read(1, &[1, 2])],
            ),
            t(0, at(20), vec![read(2, &[])]),
            t(0, at(30), vec![read(1, third)]),
        ],
    };
    let check =
        |history: &History<ListOp>| timestamp_order::check_lists(history, Untimed::AnyMoment);
    assert!(check(&history(&[1, 2])).is_clean());
    only(
        &check(&history(&[1])),
        Anomaly::TimestampOrder,
        "T3 of client 3 [read 1 = [1]] at 30: lower timestamps leave [1, 2] in key 1",
    );
}

#[test]
fn an_unknown_outcome_needs_a_timestamp() {
    let history = |seen: &[u64]| History {
        transactions: vec![
            t(0, Outcome::Unknown, vec![append(1, 1), append(2, 2)]),
            t(0, at(20), vec![append(3, 3), read(1, &[1])]),
            t(0, at(30), vec![append(3, 4), read(2, seen)]),
        ],
    };
    let check =
        |history: &History<ListOp>| timestamp_order::check_lists(history, Untimed::AnyMoment);
    assert!(check(&history(&[2])).is_clean());
    let text = "no timestamp fits T0 of client 3 [append 1 to 1, append 2 to 2]: it would have \
                to lie above 30, because of T2 of client 3 [append 4 to 3, read 2 = []], and \
                below 20, because of T1 of client 3 [append 3 to 3, read 1 = [1]]";
    // Whether somebody sees it later or not.
    let mut unseen = history(&[]);
    only(&check(&unseen), Anomaly::TimestampOrder, text);
    unseen.transactions.push(t(0, at(40), vec![read(2, &[2])]));
    only(&check(&unseen), Anomaly::TimestampOrder, text);
}

#[test]
fn equal_timestamps_in_conflict_are_found() {
    let transactions = vec![
        t(0, at(10), vec![append(1, 1)]),
        t(0, at(10), vec![read(1, &[]), append(2, 1)]),
    ];
    only(
        &timestamp_order::check_lists(&History { transactions }, Untimed::AnyMoment),
        Anomaly::TimestampOrder,
        "T0 of client 3 [append 1 to 1] and T1 of client 3 [read 1 = [], append 1 to 2] conflict \
         on key 1, and both have the timestamp 10",
    );
}

#[test]
fn snapshots_are_of_one_moment() {
    let list = History {
        transactions: vec![
            t(0, at(10), vec![append(1, 1)]),
            t(0, at(20), vec![append(2, 2)]),
            t(0, DONE, vec![read(1, &[]), read(2, &[2])]),
        ],
    };
    assert!(timestamp_order::check_lists(&list, Untimed::AnyMoment).is_clean());
    let found = timestamp_order::check_lists(&list, Untimed::OneMoment);
    assert!(found.has(Anomaly::TimestampOrder), "{found}");
    let read = |key, seen| RwOp::Read { key, seen };
    let registers = |first| History {
        transactions: vec![
            t(0, at(10), vec![RwOp::Write { key: 1, value: 1 }]),
            t(0, at(20), vec![RwOp::Write { key: 2, value: 2 }]),
            t(0, DONE, vec![read(1, first), read(2, Seen::Value(2))]),
        ],
    };
    let check = timestamp_order::check_registers;
    assert!(check(&registers(Seen::Nothing), Untimed::AnyMoment).is_clean());
    assert!(check(&registers(Seen::Value(1)), Untimed::OneMoment).is_clean());
    only(
        &check(&registers(Seen::Nothing), Untimed::OneMoment),
        Anomaly::TimestampOrder,
        "no timestamp fits T2 of client 3 [read 1 = nothing, read 2 = 2]: it would have to lie \
         above 19, because of T1 of client 3 [write 2 := 2], and below 10, because of T0 of \
         client 3 [write 1 := 1]",
    );
}

#[test]
fn a_history_of_any_kind_gets_all_checks() {
    let history = AnyHistory::Lists(History {
        transactions: vec![
            t(0, at(10), vec![append(1, 1)]),
            t(2, DONE, vec![read(1, &[])]),
            t(4, DONE, vec![read(1, &[1])]),
        ],
    });
    let found = check_any(&history);
    assert!(
        found.has(Anomaly::RealTime) && found.has(Anomaly::Stale),
        "{found}"
    );
    assert_eq!(found.checked, 3);
}
