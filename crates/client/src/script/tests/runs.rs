//! Scripts and sessions on a fake cluster.

use super::super::*;
use crate::tests::{Fake, client};
use std::time::Duration;
use synod_txn::AbortReason;

const TRANSFER: &str = "\
begin                                   # a comment
  let a = get accounts/alice for update default 0
  require ${a} >= 30
  put accounts/alice ${a - 30}
  let b = get zaccounts/bob default 0
  put zaccounts/bob ${b + 30}
  delete holds/42
  scan accounts/ limit 10
  savepoint s1 · rollback to s1
commit
";

async fn run_on(fake: &Fake, script: &str) -> (ExitStatus, Vec<Event>) {
    let client = client(fake).await;
    let script = parse(script).expect("a script without mistakes");
    let mut events = Vec::new();
    let status = run(&client, &script, |event| events.push(event.clone())).await;
    (status, events)
}

fn ops(events: &[Event]) -> Vec<String> {
    let short = |event: &Event| {
        let json: serde_json::Value = serde_json::from_str(&event.json()).expect("JSON");
        let outcome = json
            .get("outcome")
            .and_then(|o| o.as_str())
            .unwrap_or_default();
        format!(
            "{} {} {outcome}",
            json["line"],
            json["op"].as_str().unwrap_or_default()
        )
    };
    events
        .iter()
        .map(|e| short(e).trim_end().to_owned())
        .collect()
}

#[tokio::test]
async fn a_transfer_commits() {
    let fake = Fake::new();
    let (status, _) = run_on(&fake, "put accounts/alice 100").await;
    assert_eq!(status.code(), 0);
    let (status, events) = run_on(&fake, TRANSFER).await;
    assert_eq!(status, ExitStatus::Committed);
    let expected = [
        "1 begin",
        "2 get",
        "3 require",
        "4 put",
        "5 get",
        "6 put",
        "7 delete",
        "8 scan",
        "9 savepoint",
        "9 rollback",
        "10 commit committed",
    ];
    assert_eq!(ops(&events), expected);
    assert_eq!(fake.value("accounts/alice").as_deref(), Some("70"));
    assert_eq!(fake.value("zaccounts/bob").as_deref(), Some("30"));
    let What::Scan { rows, .. } = &events[7].what else {
        panic!()
    };
    assert_eq!(rows[0].1, "70", "own writes are seen");
}

#[tokio::test]
async fn a_require_that_does_not_hold_rolls_back_and_the_script_goes_on() {
    let fake = Fake::new();
    let script = format!("{TRANSFER}get accounts/alice\n");
    let (status, events) = run_on(&fake, &script).await;
    assert_eq!(status.code(), 1);
    let expected = [
        "1 begin",
        "2 get",
        "3 require",
        "10 commit aborted",
        "11 get",
    ];
    assert_eq!(ops(&events), expected);
    assert!(events[3].json().contains(r#""reason":"require""#));
    assert_eq!(fake.applied(), 0);
}

#[tokio::test]
async fn a_conflict_runs_the_transaction_again_and_tells_it_once() {
    let fake = Fake::new();
    let wounded = synod_txn::request::Refusal::Aborted(AbortReason::Wounded);
    fake.refuse("commit", wounded);
    let (status, events) = run_on(
        &fake,
        "begin\nlet a = get k default 1\nput k ${a + 1}\ncommit",
    )
    .await;
    assert_eq!(status.code(), 0);
    assert_eq!(
        ops(&events),
        ["1 begin", "2 get", "3 put", "4 commit committed"]
    );
    assert!(events[3].json().contains(r#""attempts":2"#));
    assert_eq!(fake.value("k").as_deref(), Some("2"));
}

#[tokio::test]
async fn rollback_as_written_is_no_failure_and_unsets_variables() {
    let fake = Fake::new();
    let script = "put k 1\nbegin\nlet a = get k\nput k 2\nrollback\nbegin\nput j ${a}\ncommit";
    let (status, events) = run_on(&fake, script).await;
    assert_eq!(status.code(), 1);
    let expected = [
        "1 put committed",
        "2 begin",
        "3 get",
        "4 put",
        "5 rollback",
        "6 begin",
        "7 put",
        "8 commit aborted",
    ];
    assert_eq!(ops(&events), expected);
    assert!(events[6].json().contains("a has no value"));
    assert_eq!(fake.value("k").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_read_only_transaction_commits_without_a_timestamp() {
    let fake = Fake::new();
    let (status, events) = run_on(&fake, "begin read-only\nget a\nget z\ncommit").await;
    assert_eq!(status.code(), 0);
    assert!(
        events[3]
            .json()
            .contains(r#""timestamp":null,"attempts":1,"shards":2"#)
    );
}

#[tokio::test]
async fn a_session_answers_line_by_line() {
    let fake = Fake::new();
    let mut session = Session::new(client(&fake).await);
    let mut answers = Vec::new();
    for line in [
        "put k 5",
        "begin",
        "let a = get k",
        "put k ${a * 2}",
        "nonsense",
        "commit",
        "begin",
        "require ${a} == 6",
        "put k 7",
        "commit",
        "get k",
    ] {
        answers.extend(session.execute(line).await);
    }
    let expected = [
        "1 put committed",
        "2 begin",
        "3 get",
        "4 put",
        "5",
        "6 commit committed",
        "7 begin",
        "8 require",
        "9 put",
        "10 commit aborted",
        "11 get",
    ];
    assert_eq!(ops(&answers), expected);
    assert!(answers[8].json().contains(r#""error":"aborted""#));
    assert_eq!(fake.value("k").as_deref(), Some("10"));
    assert_eq!(session.status(), ExitStatus::BadScript);
    session.execute("begin").await;
    assert!(session.in_transaction());
    assert!(session.finish().is_some() && session.finish().is_none());
}

#[tokio::test]
async fn without_a_cluster_the_status_is_4_and_the_script_stops() {
    let fake = Fake::new();
    let client = client(&fake).await.with_timeout(Duration::from_millis(50));
    (1..=3).for_each(|node| fake.down(node));
    let script = parse("get a\nget b").expect("a script");
    let mut told = 0;
    let status = run(&client, &script, |_| told += 1).await;
    assert_eq!((status.code(), told), (4, 1));
}
