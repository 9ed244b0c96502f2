//! Clients that are gone from one moment to the next, as processes that are killed: what they were told is
//! there, the rest is whole or not there, and their locks are soon free.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use synod_client::{Client, Value};
use synod_tests::{cluster, command, connect};

/// Processes, each with a key in two shards of its own.
const PROCESSES: usize = 24;
/// Far more transactions than a process lives for.
const TRANSACTIONS: usize = 400;
/// A node forgets a client that it has not heard of for 10 s. Three times that, for a machine with much to do.
const FREE: Duration = Duration::from_secs(30);

fn keys(number: usize) -> [String; 2] {
    [format!("a/{number}"), format!("q/{number}")]
}

/// Adds one to both keys, again and again.
fn script(number: usize) -> String {
    let [here, there] = keys(number);
    let once = format!(
        "begin\n  let a = get {here} default 0\n  put {here} ${{a + 1}}\n  let b = get {there} default 0\n  \
         put {there} ${{b + 1}}\ncommit\n"
    );
    once.repeat(TRANSACTIONS)
}

/// Kills the process a moment after it was told of its nth commit. Returns of how many it was told.
fn kill_after(mut child: Child, commits: usize, moment: Duration) -> usize {
    let lines = child.stdout.take().expect("its output is a pipe");
    let mut told = 0;
    for line in BufReader::new(lines).lines() {
        let line = line.expect("it prints text");
        let line: serde_json::Value = serde_json::from_str(&line).expect("lines are JSON");
        told += usize::from(line["op"] == "commit" && line["outcome"] == "committed");
        if told == commits {
            let now = Instant::now();
            // Sleeping would take longer than a commit does.
            while now.elapsed() < moment {
                std::hint::spin_loop();
            }
            child.kill().expect("it runs");
        }
    }
    child.wait().expect("it is gone");
    told
}

/// Both values, read and written again in one transaction: nobody else holds a lock on them.
async fn next(client: &Client, number: usize) -> [u64; 2] {
    let keys = keys(number);
    let value = |value: Option<Value>| {
        let text = value.map(|value| String::from_utf8_lossy(&value).into_owned());
        text.map_or(0, |text| text.parse().expect("a number"))
    };
    let next = client.transact(async |txn| {
        let mut read = [0; 2];
        for (key, read) in keys.iter().zip(&mut read) {
            *read = value(txn.get(key.clone()).await?);
            txn.put(key.clone(), (*read + 1).to_string()).await?;
        }
        Ok(read)
    });
    next.await.expect("the cluster serves")
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_killed_at_any_moment_leave_whole_transactions_and_no_locks() {
    let cluster = cluster(&["m"]);
    let killed = (0..PROCESSES).map(|number| {
        let mut command = command(&cluster, &["txn", "-", "--json"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("its input is a pipe");
        stdin
            .write_all(script(number).as_bytes())
            .expect("it reads");
        // From just after a commit to the middle of the next ones.
        let moment = Duration::from_micros(150 * number as u64);
        std::thread::spawn(move || kill_after(child, 1 + number % 5, moment))
    });
    let killed: Vec<_> = killed.collect();
    let told: Vec<usize> = { killed.into_iter() }
        .map(|thread| thread.join().expect("it is killed"))
        .collect();
    let client = connect(&cluster).await;
    let all_gone = Instant::now();
    let mut unheard = 0;
    for (number, told) in told.into_iter().enumerate() {
        assert!((1..TRANSACTIONS).contains(&told), "killed in the midst");
        let [here, there] = next(&client, number).await;
        assert_eq!(here, there, "half a transaction of process {number}");
        let committed = usize::try_from(here).expect("few");
        assert!(
            committed == told || committed == told + 1,
            "process {number} was told of {told} commits, and {committed} are there"
        );
        unheard += committed - told;
    }
    let took = all_gone.elapsed();
    assert!(took < FREE, "locks were held for {took:?}");
    println!(
        "{unheard} of {PROCESSES} committed what they never heard of; all was free after {took:?}"
    );
}
