//! Histories as text: what is written is read back, what is no history is told
//! where, and nothing that comes from outside panics.

use proptest::prelude::*;
use synod_harness::check::check_any;
use synod_harness::edn::{AnyHistory, HistoryError, Recorded, read_history, write_edn, write_json};
use synod_harness::history::{History, ListOp, Outcome, RwOp, Seen, Transaction};

fn edn<Op: Recorded>(history: &History<Op>) -> String {
    let mut text = Vec::new();
    write_edn(history, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn json<Op: Recorded>(history: &History<Op>) -> String {
    let mut text = Vec::new();
    write_json(history, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Histories are sets of transactions: a text orders them by their events.
fn sorted<Op: Clone>(history: &History<Op>) -> History<Op> {
    let mut transactions = history.transactions.clone();
    transactions.sort_by_key(|t| t.invoked);
    History { transactions }
}

fn lists(text: &str) -> History<ListOp> {
    match read_history(text) {
        Ok(AnyHistory::Lists(history)) => history,
        other => panic!("{other:?}"),
    }
}

fn example() -> History<ListOp> {
    let transaction = |process, invoked, completed, outcome, ops| Transaction {
        process,
        invoked,
        completed,
        outcome,
        ops,
    };
    let append = |key, value| ListOp::Append { key, value };
    let read = |key, list| ListOp::Read { key, list };
    History {
        transactions: vec![
            transaction(
                3,
                10,
                20,
                Outcome::Committed(Some(17)),
                vec![append(5, 1), read(5, Some(vec![1]))],
            ),
            transaction(
                1,
                15,
                30,
                Outcome::Unknown,
                vec![append(5, 2), read(6, None)],
            ),
            transaction(1, 40, 50, Outcome::Aborted, vec![append(5, 3)]),
            transaction(
                3,
                60,
                70,
                Outcome::Committed(None),
                vec![read(5, Some(vec![1, 2]))],
            ),
        ],
    }
}

#[test]
fn the_form_is_jepsens() {
    let expected = "\
{:index 0, :type :invoke, :f :txn, :process 3, :time 10, :value [[:append 5 1] [:r 5 nil]]}
{:index 1, :type :invoke, :f :txn, :process 1, :time 15, :value [[:append 5 2] [:r 6 nil]]}
{:index 2, :type :ok, :f :txn, :process 3, :time 20, :value [[:append 5 1] [:r 5 [1]]], :timestamp 17}
{:index 3, :type :info, :f :txn, :process 1, :time 30, :value [[:append 5 2] [:r 6 nil]]}
{:index 4, :type :invoke, :f :txn, :process 4, :time 40, :value [[:append 5 3]], :client 1}
{:index 5, :type :fail, :f :txn, :process 4, :time 50, :value [[:append 5 3]], :client 1}
{:index 6, :type :invoke, :f :txn, :process 3, :time 60, :value [[:r 5 nil]]}
{:index 7, :type :ok, :f :txn, :process 3, :time 70, :value [[:r 5 [1 2]]]}
";
    assert_eq!(edn(&example()), expected);
    assert_eq!(lists(expected), example());
    assert!(check_any(&read_history(expected).unwrap()).is_clean());
}

#[test]
fn json_lines_have_the_same_shape() {
    let text = json(&example());
    let first = text.lines().next().unwrap();
    let expected = r#"{"index": 0, "type": "invoke", "f": "txn", "process": 3, "time": 10, "value": [["append", 5, 1], ["r", 5, null]]}"#;
    assert_eq!(first, expected);
    assert_eq!(lists(&text), example());
    let array = format!("[{}]", text.trim_end().replace('\n', ",\n"));
    assert_eq!(lists(&array), example());
}

#[test]
fn whole_transactions_as_json_are_read_too() {
    let mut text = Vec::new();
    example().write_json(&mut text).unwrap();
    assert_eq!(lists(std::str::from_utf8(&text).unwrap()), example());
}

#[test]
fn what_other_programs_write_is_read() {
    let text = "
        ; a history in one vector, with tags, commas, lists, and a nemesis
        [#jepsen.history.Op{:index 0 :type :invoke :process 0 :f :txn :value ((:w 1 7) (:r 2 nil)) :time 5}
         {:type :info, :process :nemesis, :f :start, :value {:n1 #{\"n2\" \\a}, :at 1.5e3}, :time 6N}
         #_ {:an-event #_ that is left out}
         {:type :ok :process 0 :f :txn :value [[:w 1 7] [:r 2 nil]] :time 9 :error [:x \"\\u00e9\"]}
         {:type :invoke :process 1 :f :txn :value [[:r 1 nil]] :time 9}
        ]";
    let Ok(AnyHistory::Registers(history)) = read_history(text) else {
        panic!("{:?}", read_history(text));
    };
    let nothing = |seen| RwOp::Read { key: 2, seen };
    assert_eq!(
        history.transactions[0].ops,
        [RwOp::Write { key: 1, value: 7 }, nothing(Seen::Nothing)]
    );
    assert_eq!(history.transactions[0].outcome, Outcome::Committed(None));
    assert_eq!(
        (
            history.transactions[0].invoked,
            history.transactions[0].completed
        ),
        (5, 9)
    );
    // What never completes may have happened.
    assert_eq!(history.transactions[1].outcome, Outcome::Unknown);
}

#[test]
fn without_times_events_are_ordered_as_they_stand() {
    let text = "{:type :invoke :process 0 :value [[:append 1 1]]}
                {:type :ok :process 0 :value [[:append 1 1]]}
                {:type :invoke :process 0 :value [[:r 1 nil]]}
                {:type :ok :process 0 :value [[:r 1 []]]}";
    let found = check_any(&read_history(text).unwrap());
    assert!(found.to_string().contains("real-time violation"), "{found}");
}

#[test]
fn nothing_is_a_history() {
    for text in [
        "",
        " \n",
        "[]",
        "()",
        "; nothing\n",
        "{:type :invoke :process 1}",
    ] {
        assert!(check_any(&read_history(text).unwrap()).is_clean(), "{text}");
    }
}

#[test]
fn errors_tell_what_is_wrong_and_where() {
    let invoke = "{:type :invoke :process 1 :value [[:append 1 1]]}";
    let info = "{:type :info :process 1 :value nil}";
    for (text, expected) in [
        ("{:a 1", "line 1, column 6: the text ends before a }"),
        ("\n  ]", "line 2, column 3: a ] that nothing opened"),
        (
            "{:a}",
            "line 1, column 5: a map ends with a key that has no value",
        ),
        (
            "{:a \"x\\q\"}",
            "line 1, column 9: an unknown escape in a string",
        ),
        ("{:a 1x}", "line 1, column 5: 1x is no number"),
        (
            "[] 7",
            "line 1, column 4: the history has ended, but the text goes on",
        ),
        ("7", "the event on line 1: it is an integer, not a map"),
        ("{:type :ok}", "the event on line 1: it has no :process"),
        ("{:process 1}", "the event on line 1: it has no :type"),
        (
            "{:type :invoke :process -1}",
            "the event on line 1: process is -1, not an integer from 0 to 2^64 - 1",
        ),
        (
            "{:type :ok :process 1 :value []}",
            "the event on line 1: process 1 completes what it did not invoke",
        ),
        (
            &format!("{invoke}\n{invoke}"),
            "the event on line 2: process 1 has not completed what it invoked on line 1",
        ),
        (
            &format!("{invoke}\n{info}\n{invoke}"),
            "the event on line 3: process 1 ended with :info on line 2; what goes on in its place \
             needs a new number",
        ),
        (
            &format!("{invoke}\n{{:type :ok :process 1 :value [[:append 1 2]]}}"),
            "the event on line 2: its operations are not those invoked on line 1",
        ),
        (
            &format!("{invoke}\n{{:type :ok :process 1 :value nil}}"),
            "the event on line 2: it is :ok, but its :value tells no operations",
        ),
        (
            &format!("{invoke}\n{{:type :invoke :process 2 :value [[:w 1 2]]}}"),
            "the event on line 2: lists and registers are mixed: line 1 has an operation on a \
             list, line 2 one on a register",
        ),
        (
            "{:type :invoke :process 1 :value [[:cas 1 2]]}",
            "the event on line 1: an operation is :cas, not :append, :w or :r",
        ),
        (
            "{:type :invoke :process 1 :value [[:r 1]]}",
            "the event on line 1: an operation has 2 parts, not three as in [:r 5 nil]",
        ),
        (
            "{\"type\": \"invoke\",}",
            "line 1, column 19: trailing comma",
        ),
        (
            "{\"type\": \"invoke\", \"process\": 1}\n{\"type\": 5, \"process\": 1}",
            "the event on line 2: it has no :type",
        ),
    ] {
        let error = read_history(text).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let deep = "[".repeat(100);
    assert!(matches!(
        read_history(&deep),
        Err(HistoryError::Syntax { .. })
    ));
    let wide = format!(
        "{{:type :invoke :process 1 :value [{}]}}",
        "1 ".repeat(1_100_000)
    );
    let error = read_history(&wide).expect_err("too many values");
    assert!(
        error.to_string().contains("more than 1000000 values"),
        "{error}"
    );
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        proptest::option::of(any::<u64>()).prop_map(Outcome::Committed),
        Just(Outcome::Aborted),
        Just(Outcome::Unknown),
    ]
}

/// Transactions of a few clients, each of which has one at a time; begins differ,
/// so that their order is told by the text.
fn frames<Op: Clone + std::fmt::Debug>(
    op: impl Strategy<Value = Op>,
) -> impl Strategy<Value = History<Op>> {
    let transaction = (
        0..4u32,
        1..50u64,
        0..40u64,
        outcome(),
        prop::collection::vec(op, 1..5),
    );
    prop::collection::vec(transaction, 1..30).prop_map(|all| {
        let mut now = 0;
        let transactions = all
            .into_iter()
            .map(|(process, pause, length, outcome, ops)| {
                now += pause;
                Transaction {
                    process,
                    invoked: now,
                    completed: now + length,
                    outcome,
                    ops,
                }
            });
        History {
            transactions: transactions.collect(),
        }
    })
}

fn list_histories() -> impl Strategy<Value = History<ListOp>> {
    let op = prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(key, value)| ListOp::Append { key, value }),
        (0..9u64, prop::collection::vec(any::<u64>(), 0..5)).prop_map(|(key, list)| ListOp::Read {
            key,
            list: Some(list)
        }),
    ];
    frames(op).prop_map(|mut history| {
        for transaction in &mut history.transactions {
            let answered = matches!(transaction.outcome, Outcome::Committed(_));
            for op in &mut transaction.ops {
                if let ListOp::Read { list, .. } = op
                    && !answered
                {
                    *list = None;
                }
            }
        }
        history
    })
}

fn register_histories() -> impl Strategy<Value = History<RwOp>> {
    let seen = prop_oneof![Just(Seen::Nothing), any::<u64>().prop_map(Seen::Value)];
    let op = prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(key, value)| RwOp::Write { key, value }),
        (0..9u64, seen).prop_map(|(key, seen)| RwOp::Read { key, seen }),
    ];
    frames(op).prop_map(|mut history| {
        for transaction in &mut history.transactions {
            let answered = matches!(transaction.outcome, Outcome::Committed(_));
            for op in &mut transaction.ops {
                if let RwOp::Read { seen, .. } = op
                    && !answered
                {
                    *seen = Seen::Unanswered;
                }
            }
            // One write tells that these are registers.
            transaction.ops.push(RwOp::Write { key: 0, value: 0 });
        }
        history
    })
}

/// Tokens that histories are made of, to get past the first character.
fn tokens() -> impl Strategy<Value = String> {
    let words = [
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "#{",
        "#_",
        "#tag",
        ":type",
        ":invoke",
        ":ok",
        ":info",
        ":process",
        ":value",
        ":append",
        ":r",
        ":w",
        "nil",
        "1",
        "-7",
        "18446744073709551616",
        "3.5",
        "\"",
        "\\",
        "\\a",
        ";",
        "\n",
        ",",
        "\"type\"",
        ":time",
        "##Inf",
        "99999999999999999999999999999999999999999999",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..60).prop_map(|all| all.join(" "))
}

proptest! {
    #[test]
    fn lists_come_back(history in list_histories()) {
        let expected = AnyHistory::Lists(sorted(&history));
        // Reads alone may be of anything; one append tells.
        let is_told = history.transactions.iter().flat_map(|t| &t.ops).any(|op| match op {
            ListOp::Append { .. } => true,
            ListOp::Read { list, .. } => list.is_some(),
        });
        prop_assume!(is_told);
        prop_assert_eq!(read_history(&edn(&history)), Ok(expected.clone()));
        prop_assert_eq!(read_history(&json(&history)), Ok(expected));
    }

    #[test]
    fn registers_come_back(history in register_histories()) {
        let expected = AnyHistory::Registers(sorted(&history));
        prop_assert_eq!(read_history(&edn(&history)), Ok(expected.clone()));
        prop_assert_eq!(read_history(&json(&history)), Ok(expected));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".*", tokens in tokens()) {
        for text in [text, tokens] {
            if let Ok(history) = read_history(&text) {
                let _ = check_any(&history);
            }
        }
    }

    #[test]
    fn damaged_histories_are_read_or_refused(
        history in list_histories(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        for text in [edn(&history), json(&history)] {
            let mut bytes = text.into_bytes();
            for (at, byte, what) in &cuts {
                let at = at.index(bytes.len().max(1));
                match what {
                    0 => bytes.truncate(at),
                    1 if at < bytes.len() => bytes[at] = *byte,
                    2 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.insert(at.min(bytes.len()), *byte),
                }
            }
            if let Ok(history) = read_history(&String::from_utf8_lossy(&bytes)) {
                let _ = check_any(&history);
            }
        }
    }
}
