//! Transactions: retries, outcomes, and what is cleaned up.

use super::*;
use crate::transaction::Rest;
use crate::{AbortReason, Effect, Status};
use synod_paxos::Timestamp;
use synod_txn::Request;
use synod_txn::client::Outgoing;
use synod_txn::request::Refusal;

async fn add(txn: &mut Transaction, key: &str, amount: i64) -> Result<i64, Error> {
    let old = txn.get_for_update(key).await?;
    let old: i64 = old.map_or(0, |v| std::str::from_utf8(&v).unwrap().parse().unwrap());
    txn.put(key, (old + amount).to_string()).await?;
    Ok(old + amount)
}

#[tokio::test]
async fn a_transaction_over_two_shards_is_one_commit() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let move_five = async |txn: &mut Transaction| {
        add(txn, "a", -5).await?;
        add(txn, "z", 5).await
    };
    let (left, receipt) = client.transact_with_receipt(move_five).await.unwrap();
    assert_eq!((left, receipt.shards, receipt.attempts), (5, 2, 1));
    assert_eq!(fake.value("a").as_deref(), Some("-5"));
    assert_eq!(fake.applied(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_run_in_spawned_tasks() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let task = |n: usize| {
        let client = client.clone();
        tokio::spawn(async move {
            let key = format!("a{n}");
            client
                .transact(async |txn| {
                    let old = txn.get(&key).await?;
                    txn.put(&key, old.map_or_else(String::new, |_| "x".to_owned()))
                        .await?;
                    Ok(())
                })
                .await
        })
    };
    let tasks: Vec<_> = (0..20).map(task).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(fake.applied(), 20);
}

#[tokio::test]
async fn a_wounded_transaction_runs_again_with_its_age() {
    let fake = Fake::new();
    let client = client(&fake).await;
    for _ in 0..2 {
        fake.fault(
            "commit",
            Fault::Refuse(Refusal::Aborted(AbortReason::Wounded)),
        );
    }
    fake.fault(
        "read",
        Fault::Refuse(Refusal::Aborted(AbortReason::Wounded)),
    );
    let add = async |txn: &mut Transaction| add(txn, "a", 1).await;
    let (_, receipt) = client.transact_with_receipt(add).await.unwrap();
    assert_eq!(receipt.attempts, 4);
    assert_eq!(fake.value("a").as_deref(), Some("1"));
    let commits = fake.asked("commit");
    let of = |request: &Request| match request {
        Request::Commit(commit) => (commit.attempt, commit.priority),
        _ => unreachable!(),
    };
    let (first, age) = of(&commits[0].1);
    let (last, same_age) = of(&commits[2].1);
    assert_ne!(first, last);
    assert_eq!(age, same_age);
    eventually(|| fake.asked("release").len() >= 3).await;
}

#[tokio::test]
async fn an_id_of_another_time_is_taken_anew_from_the_cluster() {
    let fake = Fake::new();
    let client = client(&fake).await;
    // The cluster's clocks are at the year 2001: those of this machine are ahead.
    let millis = 1_000_000_000_000;
    let untimely = Refusal::AttemptTime {
        now: Timestamp(millis * 1_000_000),
        least_millis: millis - 500,
        most_millis: millis + 30_000,
    };
    fake.fault("commit", Fault::Refuse(untimely));
    let receipt = client.put("a", "1").await.unwrap();
    assert_eq!(receipt.attempts, 2);
    assert_eq!(fake.value("a").as_deref(), Some("1"));
    let commits = fake.asked("commit");
    let of = |request: &Request| match request {
        Request::Commit(commit) => (commit.attempt, commit.priority),
        _ => unreachable!(),
    };
    let (first, age) = of(&commits[0].1);
    let (second, same_age) = of(&commits[1].1);
    assert!(first.millis() > millis + 30_000);
    assert!((millis..=millis + 30_000).contains(&second.millis()));
    assert_eq!(age, same_age);
}

#[tokio::test]
async fn the_callers_own_error_rolls_back_and_is_returned() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let result: Result<(), Error> = client
        .transact(async |txn| {
            add(txn, "a", 1).await?;
            Err(Error::application("no"))
        })
        .await;
    assert!(matches!(result, Err(Error::Application(_))));
    eventually(|| fake.asked("release").len() == 1).await;
    assert!(fake.asked("commit").is_empty());
}

/// Not told to wait by the first answer either.
#[tokio::test]
async fn a_commit_that_nobody_waits_for_goes_on() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let overloaded = Refusal::Overloaded {
        retry_after_millis: 200,
    };
    fake.fault("commit", Fault::Refuse(overloaded));
    let put = client.put("a", "1");
    let refused = eventually(|| fake.asked("commit").len() == 1);
    tokio::select! {
        done = put => panic!("it waits: {done:?}"),
        () = refused => {}
    }
    assert_eq!(fake.value("a"), None);
    eventually(|| fake.value("a").is_some()).await;
    assert_eq!((fake.asked("commit").len(), fake.applied()), (2, 1));
    // One that was answered is not sent once more.
    client.put("b", "1").await.unwrap();
    assert_eq!((fake.asked("commit").len(), fake.applied()), (3, 2));
}

#[tokio::test]
async fn a_lost_answer_ends_in_the_status_and_nothing_happens_twice() {
    let fake = Fake::new();
    let client = client(&fake).await;
    fake.fault("commit", Fault::LoseAnswer);
    let receipt = client.put("a", "1").await.unwrap();
    assert_eq!(receipt.attempts, 1);
    assert_eq!((fake.asked("status").len(), fake.applied()), (1, 1));
}

#[tokio::test]
async fn a_lost_request_is_sent_again() {
    let fake = Fake::new();
    let client = client(&fake).await;
    fake.fault("commit", Fault::LoseRequest);
    client.put("a", "1").await.unwrap();
    assert_eq!((fake.asked("commit").len(), fake.applied()), (2, 1));
}

#[tokio::test]
async fn an_unknown_outcome_can_be_asked_for_later() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let short = client.with_timeout(Duration::from_millis(200));
    fake.fault("commit", Fault::LoseAnswer);
    for _ in 0..8 {
        fake.fault("status", Fault::Refuse(Refusal::Clock));
    }
    let error = short.put("a", "1").await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert!(!error.is_retry_safe());
    let Error::Unknown { attempt } = error else {
        panic!("{error}");
    };
    let status = client.status(&attempt).await.unwrap();
    assert!(matches!(status, Status::Committed(_)));
}

#[tokio::test]
async fn a_dropped_transaction_frees_its_locks() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let mut txn = client.begin();
    txn.get("a").await.unwrap();
    txn.get("z").await.unwrap();
    drop(txn);
    eventually(|| fake.asked("release").len() == 2).await;
}

#[tokio::test]
async fn a_read_only_transaction_is_validated_and_writes_nothing() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let both = async |txn: &mut Transaction| Ok((txn.get("a").await?, txn.get("z").await?));
    client.read_only(both).await.unwrap();
    assert_eq!(fake.asked("validate").len(), 2);
    eventually(|| fake.asked("release").len() == 2).await;
    let error = client.read_only(async |txn| txn.put("a", "1").await).await;
    assert!(matches!(error, Err(Error::ReadOnly)));
    // The only shard is freed by its validation.
    client
        .read_only(async |txn| txn.get("a").await)
        .await
        .unwrap();
    assert_eq!(fake.asked("validate").len(), 3);
    assert!(fake.asked("commit").is_empty());
}

#[tokio::test]
async fn explicit_transactions_with_savepoints() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let mut txn = client.begin();
    txn.put("a", "1").await.unwrap();
    txn.savepoint("s").unwrap();
    txn.put("a", "2").await.unwrap();
    txn.put("z", "2").await.unwrap();
    assert_eq!(txn.get("a").await.unwrap().as_deref(), Some(&b"2"[..]));
    txn.rollback_to("s").unwrap();
    let error = txn.rollback_to("t").unwrap_err();
    assert!(matches!(error, Error::NoSavepoint(_)));
    txn.commit().await.unwrap();
    assert_eq!(
        (fake.value("a").as_deref(), fake.value("z")),
        (Some("1"), None)
    );
    let again = client.begin_again(client.begin().age());
    again.rollback();
}

#[tokio::test]
async fn a_term_that_ends_between_read_and_commit_aborts_and_retries() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let mut txn = client.begin();
    add(&mut txn, "a", 1).await.unwrap();
    fake.lead(A, 2);
    let age = txn.age();
    let error = txn.commit().await.unwrap_err();
    let ended = AbortReason::TermEnded;
    assert!(matches!(error, Error::Aborted { reason, .. } if reason == ended));
    assert!(error.is_retry_safe());
    let mut txn = client.begin_again(age);
    assert_eq!(txn.age(), age);
    add(&mut txn, "a", 1).await.unwrap();
    txn.commit().await.unwrap();
    let _ = B;
}

#[tokio::test]
async fn leaders_that_change_together_cost_one_attempt() {
    let fake = Fake::new();
    let client = client(&fake).await;
    let write_both = async |txn: &mut Transaction| {
        txn.put("a", "1").await?;
        txn.put("z", "1").await
    };
    let (_, first) = client.transact_with_receipt(write_both).await.unwrap();
    assert_eq!(first.attempts, 1);
    fake.lead(A, 3);
    fake.lead(B, 3);
    let (_, second) = client.transact_with_receipt(write_both).await.unwrap();
    assert_eq!(second.attempts, 2);
}

#[tokio::test]
async fn what_a_dropped_call_did_not_send_goes_without_it() {
    let fake = Fake::new();
    let client = client(&fake).await;
    // Now it knows who leads them.
    client.put("a", "1").await.unwrap();
    client.put("z", "1").await.unwrap();
    let before = fake.asked("locate").len();
    let outgoing = |shard| Outgoing {
        token: 0,
        shard,
        after_nanos: 0,
        hashing: None,
        request: Request::Locate,
        answered: false,
    };
    let mut outgoing: Vec<_> = [A, B].into_iter().cycle().map(outgoing).take(18).collect();
    outgoing.rotate_left(1);
    let mut rest = Rest::new(&client.core, outgoing);
    // B's go first, as the first one does.
    for _ in 0..9 {
        assert!(!rest.turns_to_another_node());
        assert_eq!(rest.next().map(|next| next.shard), Some(B));
    }
    assert!(rest.turns_to_another_node());
    drop(rest);
    eventually(|| fake.asked("locate").len() == before + 9).await;
}
