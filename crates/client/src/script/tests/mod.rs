//! The language: mistakes, values, events; in [`runs`] scripts on a fake cluster.

mod runs;

use super::execute::holds;
use super::expression::{Variables, evaluate};
use super::syntax::{Comparison, Op};
use super::*;
use crate::Receipt;
use bytes::Bytes;
use proptest::prelude::*;
use std::time::Duration;
use synod_paxos::Timestamp;
use synod_txn::AttemptId;

fn mistake(script: &str) -> String {
    let mistakes = parse(script).expect_err(script);
    mistakes[0].to_string()
}

#[test]
fn every_mistake_is_told_with_its_place() {
    for (script, place, words) in [
        (
            "frobnicate x",
            "line 1, column 1",
            "\"frobnicate\" is no statement: expected begin",
        ),
        ("put a", "line 1, column 6", "expected a value"),
        ("put a b c", "line 1, column 9", "nothing more was expected"),
        ("\n\n  put", "line 3, column 4", "expected a key"),
        ("put \"a b", "line 1, column 5", "quote is not closed"),
        (
            "put \"a\"b c",
            "line 1, column 8",
            "space after the closing quote",
        ),
        ("put a\"b c", "line 1, column 6", "quote the whole word"),
        ("put \"\\q\" c", "line 1, column 6", "unknown escape"),
        (
            "put \"\\x4\" c",
            "line 1, column 6",
            "two hexadecimal digits",
        ),
        (
            "put x'0' c",
            "line 1, column 7",
            "pairs of hexadecimal digits",
        ),
        (
            "put x'0g' c",
            "line 1, column 7",
            "pairs of hexadecimal digits",
        ),
        ("put x'00'b c", "line 1, column 10", "space after x'…'"),
        (
            "put a ${1 + }",
            "line 1, column 13",
            "expected a variable, an integer",
        ),
        ("put a ${1 + 2", "line 1, column 7", "not closed by }"),
        (
            "put a ${(1 + 2}",
            "line 1, column 9",
            "parenthesis is not closed",
        ),
        (
            "put a ${1 2}",
            "line 1, column 11",
            "expected an operator or }, found '2'",
        ),
        ("put a ${12x}", "line 1, column 9", "12x is not an integer"),
        (
            "put a ${9223372036854775808}",
            "line 1, column 9",
            "not an integer of 64 bits",
        ),
        ("put a ${b}", "line 1, column 7", "no variable b yet"),
        (
            "let = get a",
            "line 1, column 5",
            "expected a variable's name",
        ),
        (
            "let 1a = get a",
            "line 1, column 5",
            "expected a variable's name",
        ),
        ("let a get b", "line 1, column 7", "expected ="),
        ("let a = put b", "line 1, column 9", "expected get"),
        (
            "begin\nget a for ever\ncommit",
            "line 2, column 11",
            "expected update",
        ),
        (
            "get a for update",
            "line 1, column 1",
            "for update needs a transaction",
        ),
        (
            "scan a limit",
            "line 1, column 9",
            "expected a number of rows",
        ),
        ("scan a limit 0", "line 1, column 14", "from 1 to 100000"),
        ("scan a limit x", "line 1, column 14", "from 1 to 100000"),
        (
            "scan a limit 1 limit 2",
            "line 1, column 16",
            "limit is given twice",
        ),
        (
            "scan a reverse reverse",
            "line 1, column 16",
            "reverse is given twice",
        ),
        (
            "begin\nrequire 1 = 1\ncommit",
            "line 2, column 11",
            "expected a comparison",
        ),
        (
            "require 1 == 1",
            "line 1, column 1",
            "require needs a transaction",
        ),
        ("commit", "line 1, column 1", "commit needs a transaction"),
        (
            "rollback",
            "line 1, column 1",
            "rollback needs a transaction",
        ),
        (
            "savepoint s",
            "line 1, column 1",
            "savepoint needs a transaction",
        ),
        (
            "begin\nbegin",
            "line 2, column 1",
            "begun on line 1 is still open",
        ),
        ("  begin\nput a b", "line 1, column 3", "never ended"),
        (
            "begin\nrollback to s\ncommit",
            "line 2, column 1",
            "no savepoint s",
        ),
        (
            "begin\nsavepoint s\nsavepoint t\nrollback to s\nrollback to t\ncommit",
            "line 5",
            "no savepoint t",
        ),
        (
            "begin read-only\nput a b\ncommit",
            "line 2, column 1",
            "put in a read-only",
        ),
        (
            "begin read-only\ndelete a\ncommit",
            "line 2, column 1",
            "delete in a read-only",
        ),
        (
            "begin read-only\nget a for update\ncommit",
            "line 2, column 1",
            "read-only",
        ),
        (
            "begin read-only at 7\ncommit",
            "line 1, column 17",
            "not in this version",
        ),
        (
            "begin read-only stale 5s\ncommit",
            "line 1, column 17",
            "not in this version",
        ),
        (
            "begin optimistic\ncommit",
            "line 1, column 7",
            "not in this version",
        ),
        (
            "begin quickly\ncommit",
            "line 1, column 7",
            "nothing more was expected",
        ),
        ("put \"\" a", "line 1, column 5", "a key has 1 to"),
        (
            "put x'ffff01' a",
            "line 1, column 5",
            "reserved for the cluster",
        ),
    ] {
        let told = mistake(script);
        assert!(
            told.starts_with(place) && told.contains(words),
            "{script:?}: {told}"
        );
    }
    let deep = format!("put a ${{{}1{}}}", "(".repeat(100), ")".repeat(100));
    assert!(mistake(&deep).contains("nests at most"));
    let long = format!("put a ${{1{}}}", "+1".repeat(100));
    assert!(mistake(&long).contains("nests at most"));
    let big = format!("put a {}", "v".repeat(synod_txn::MAX_VALUE_BYTES + 1));
    assert!(mistake(&big).contains("a value has at most"));
}

#[test]
fn all_mistakes_are_told_at_once_and_one_does_not_breed_others() {
    let told = parse("begin\nlet a = got x\nput b ${a}\ncommitt\nput c\n").unwrap_err();
    let lines: Vec<u32> = told.iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [2, 4, 5]);
    let many = "nonsense\n".repeat(1000);
    assert_eq!(parse(&many).unwrap_err().len(), 20);
}

fn value(word: &str, variables: &Variables) -> Result<String, String> {
    let line = format!("let v = get k default {word}");
    let statement = parser::parse_line(1, &line).expect(word).remove(0);
    let Op::Get {
        default: Some(text),
        ..
    } = statement.op
    else {
        panic!("{word}");
    };
    let bytes = evaluate(&text, variables)?;
    Ok(bytes.iter().map(|&b| char::from(b)).collect())
}

#[test]
fn values_and_arithmetic() {
    let variables: Variables = [
        ("a".to_owned(), Some(Bytes::from_static(b"30"))),
        ("t".to_owned(), Some(Bytes::from_static(b"x\xff"))),
        ("none".to_owned(), None),
    ]
    .into();
    for (word, expected) in [
        ("plain/word#1", "plain/word#1"),
        (r#""a b\x00\n\"\\\$""#, "a b\0\n\"\\$"),
        ("\"\"", ""),
        ("x'00fF'", "\0\u{ff}"),
        ("${a}", "30"),
        ("${t}", "x\u{ff}"),
        ("k/${a}/${a+1}", "k/30/31"),
        ("\"k ${ a }\"", "k 30"),
        ("${a - 30}", "0"),
        ("${1 - 2 - 3}", "-4"),
        ("${2 + 3 * 4}", "14"),
        ("${(2 + 3) * 4}", "20"),
        ("${-a + 1}", "-29"),
        ("${- -3}", "3"),
        ("${7 / -2}", "-3"),
        ("${-7 % 4}", "-3"),
        ("${-9223372036854775808}", "-9223372036854775808"),
    ] {
        assert_eq!(value(word, &variables).as_deref(), Ok(expected), "{word}");
    }
    for (word, expected) in [
        ("${t + 1}", "t is not an integer: its value is x'78ff'"),
        ("${none}", "none has no value"),
        ("${none + 1}", "none has no value"),
        ("${a / 0}", "30 / 0: division by zero"),
        ("${a % 0}", "30 % 0: division by zero"),
        ("${9223372036854775807 + a}", "does not fit in 64 bits"),
        ("${-9223372036854775808 / -1}", "does not fit in 64 bits"),
        ("${-(-9223372036854775808)}", "does not fit in 64 bits"),
    ] {
        let error = value(word, &variables).unwrap_err();
        assert!(error.contains(expected), "{word}: {error}");
    }
}

#[test]
fn comparisons_are_of_integers_where_both_are() {
    use Comparison::{Equal, GreaterOrEqual, Less, NotEqual};
    assert_eq!(holds(b"9", Less, b"10"), Ok(true));
    assert_eq!(holds(b"010", Equal, b"10"), Ok(true));
    assert_eq!(holds(b"a", Equal, b"a"), Ok(true));
    assert_eq!(holds(b"a", NotEqual, b"1"), Ok(true));
    assert_eq!(holds(b"-1", GreaterOrEqual, b"-1"), Ok(true));
    let error = holds(b"a", Less, b"1").unwrap_err();
    assert_eq!(error, "< compares integers, and a is none");
}

fn receipt() -> Receipt {
    Receipt {
        attempt: AttemptId(7),
        timestamp: Some(Timestamp(1234)),
        attempts: 1,
        shards: 2,
        syncs: 1,
        elapsed: Duration::from_micros(1500),
    }
}

fn json(what: What) -> String {
    Event { line: 9, what }.json()
}

#[test]
fn events_as_json_have_the_documented_fields_in_order() {
    let get = What::Get {
        key: "k".into(),
        value: Some(Bytes::from_static(b"\xff\x00")),
        found: true,
    };
    assert_eq!(
        json(get),
        r#"{"line":9,"op":"get","key":"k","value":{"hex":"ff00"},"found":true}"#
    );
    let missing = What::Get {
        key: "k\"".into(),
        value: None,
        found: false,
    };
    assert_eq!(
        json(missing),
        r#"{"line":9,"op":"get","key":"k\"","value":null,"found":false}"#
    );
    assert_eq!(
        json(What::Committed(receipt())),
        concat!(
            r#"{"line":9,"op":"commit","outcome":"committed","txn":"00000000-0000-0000-0000-000000000007","#,
            r#""timestamp":1234,"attempts":1,"shards":2,"elapsed_us":1500}"#
        )
    );
    let scan = What::Scan {
        rows: vec![("a".into(), "1".into())],
        more: false,
    };
    assert_eq!(
        json(scan),
        r#"{"line":9,"op":"scan","rows":[{"key":"a","value":"1"}],"more":false}"#
    );
}

#[test]
fn events_as_text_can_be_read() {
    let text = |what| Event { line: 9, what }.text();
    assert_eq!(
        text(What::Committed(receipt())),
        "committed at 1234 (transaction 00000000-0000-0000-0000-000000000007, 2 shards, 1 attempt, 1.5 ms)"
    );
    let get = What::Get {
        key: "a b".into(),
        value: Some("c".into()),
        found: true,
    };
    assert_eq!(text(get), "\"a b\" = c");
    let require = What::Require {
        left: "1".into(),
        sign: ">=",
        right: "2".into(),
        holds: false,
    };
    assert_eq!(text(require), "line 9: require 1 >= 2 does not hold");
}

proptest! {
    #[test]
    fn the_parser_never_panics(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn the_parser_never_panics_on_what_looks_like_a_script(
        words in proptest::collection::vec(prop::sample::select(vec![
            "begin", "let", "a", "=", "get", "put", "scan", "limit", "1", "reverse", "require", "==",
            "commit", "rollback", "to", "savepoint", "${a}", "${", "}", "${(1+", "\"", "\\x", "x'", "'",
            "00", "#", "·", ";", "for", "update", "default", "read-only", "\n", " ", " ", "\u{e9}",
        ]), 0..40),
    ) {
        let _ = parse(&words.concat());
        let _ = parse(&words.join(" "));
    }

    #[test]
    fn bytes_are_shown_as_they_can_be_written(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
        let shown = show_bytes(&bytes);
        let words = lexer::words(1, &shown).expect("one word");
        prop_assert_eq!(words.len(), 1);
        prop_assert_eq!(words[0].text.literal(), Some(bytes));
    }

    #[test]
    fn text_is_shown_as_it_can_be_written(text in "[ -~\n\u{e9}·]{0,12}") {
        let shown = show_bytes(text.as_bytes());
        let words = lexer::words(1, &shown).expect("one word");
        prop_assert_eq!(words.len(), 1);
        prop_assert_eq!(words[0].text.literal(), Some(text.into_bytes()));
    }
}
