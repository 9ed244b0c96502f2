//! Transfers, audits, list appends and reads under lease through whatever happens, checked at
//! the end.

use crate::{connect, program, start};
use std::time::Duration;
use synod_harness::check::{bank, list_append, register};
use synod_harness::cluster::{Cluster, Options};
use synod_harness::history::History;
use synod_harness::workload::bank::Bank;
use synod_harness::workload::list_append::Lists;
use synod_harness::workload::probe::Probe;
use synod_harness::workload::{Meter, Run};

/// Accounts of the bank.
pub const ACCOUNTS: u32 = 24;
const CLIENTS: u32 = 6;
/// Shards that the bank is spread over.
const SHARDS: u32 = 4;
/// Between two audits.
const AUDIT_PAUSE: Duration = Duration::from_millis(250);

fn bank() -> Bank {
    Bank {
        accounts: ACCOUNTS,
        initial: 1_000,
        seed: 7,
    }
}

/// A register in each shard, among the accounts.
fn probes() -> impl Iterator<Item = Probe> {
    (0..SHARDS).map(|shard| Probe {
        key: format!("bank/{:05}/probe", shard * ACCOUNTS / SHARDS),
    })
}

/// Options of a cluster whose shards the bank is spread over.
#[must_use]
pub fn options() -> Options {
    let mut options = Options::new(program());
    options.splits = Bank::splits(ACCOUNTS, SHARDS);
    options
}

/// Such a cluster, with more lines for its configuration.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn cluster(extra: &str) -> Cluster {
    let mut options = options();
    options.extra_config = extra.to_owned();
    start(options)
}

/// Runs transfers, audits, list-append transactions and a writer and a reader of a register in
/// each shard while `disturb` does its worst, then checks all histories against what is left.
///
/// # Panics
/// When a promise was broken, or the cluster serves no more.
pub async fn survive(cluster: &mut Cluster, disturb: impl AsyncFnOnce(&mut Cluster, &Meter)) {
    let client = connect(cluster).await;
    let bank = bank();
    bank.open(&client)
        .await
        .expect("the accounts can be opened");
    let lists = std::sync::Arc::new(Lists::new(ACCOUNTS, 11));
    let meter = std::sync::Arc::new(Meter::default());
    let run = Run::default();

    let mut transfers = tokio::task::JoinSet::new();
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (bank, meter) = (bank.clone(), meter.clone());
        let (client, run) = (client.clone(), run.clone());
        transfers.spawn(async move { bank.transfer(client, run, &meter, number).await });
    }
    for number in 0..CLIENTS {
        let (lists, meter) = (lists.clone(), meter.clone());
        let (client, run) = (client.clone(), run.clone());
        appends.spawn(async move { lists.client(client, run, &meter, 100 + number).await });
    }
    let auditor = (bank.clone(), client.clone(), run.clone());
    transfers.spawn(async move {
        let (bank, client, run) = auditor;
        bank.audit(client, run, AUDIT_PAUSE, CLIENTS).await
    });
    // Who reads learns nothing from who writes: it asks the leader of old until that one refuses.
    let reader = connect(cluster).await;
    let mut registers = Vec::new();
    for probe in probes() {
        let (writes, client, writing) = (probe.clone(), client.clone(), run.clone());
        let (reads, reader, reading) = (probe.clone(), reader.clone(), run.clone());
        let writer = tokio::spawn(async move { writes.write(client, writing).await });
        let reader = tokio::spawn(async move { reads.read(reader, reading).await });
        registers.push((probe, writer, reader));
    }
    disturb(cluster, &meter).await;
    run.stop();

    let mut history = History::default();
    while let Some(part) = transfers.join_next().await {
        let part = part.expect("a client ends in order");
        history.transactions.extend(part.transactions);
    }
    let mut list_history = History::default();
    while let Some(part) = appends.join_next().await {
        let part = part.expect("a client ends in order");
        list_history.transactions.extend(part.transactions);
    }
    let last = bank
        .final_state(&client)
        .await
        .expect("the cluster serves again");
    let findings = bank::check(&history, &bank.initial_balances(), &last);
    assert!(findings.is_clean(), "{findings}");
    let rest = lists
        .read_all(&client, &run, 999)
        .await
        .expect("the cluster serves again");
    list_history.transactions.extend(rest.transactions);
    let findings = list_append::check(&list_history);
    assert!(findings.is_clean(), "{findings}");
    for (probe, writer, reader) in registers {
        let mut history = writer.await.expect("a writer ends in order").history;
        let read = reader.await.expect("a reader ends in order");
        let reads = read.transactions.len();
        assert!(reads > 0, "{} was never read", probe.key);
        history.transactions.extend(read.transactions);
        let last = probe.read_into(&client, &run, &mut history).await;
        last.expect("the cluster serves again");
        let findings = register::check(&history);
        assert!(findings.is_clean(), "{}: {findings}", probe.key);
    }
}

/// Waits until `more` further transactions have committed.
///
/// # Panics
/// When that takes more than a minute.
pub async fn progress(meter: &Meter, more: u64) {
    let goal = meter.snapshot().committed + more;
    let wait = async {
        while meter.snapshot().committed < goal {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap_or_else(|_| panic!("{:?} after a minute, wanted {goal}", meter.snapshot()));
}
