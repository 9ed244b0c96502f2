//! Many who commit as much as one may, at the same time: each is served in the end, the node
//! holds some of it, never all, and small writes go on.

use bytes::Bytes;
use std::time::{Duration, Instant};
use synod_client::Client;
use synod_tests::small::Small;
use synod_tests::{cluster, connect, peak_memory_mib, settled};
use tokio::task::JoinSet;

const VALUE: usize = 8 << 20;
/// Of one transaction: nearly 64 MiB.
const VALUES: usize = 7;
const CLIENTS: usize = 8;
/// How long all may take together. A debug build beside other tests is slow.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a small write beside them may take.
const LONGEST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 5 });
/// What a node may hold: what is taken in, proposed, kept in the log until its checkpoint, and on
/// its way to the engine.
const MOST_MIB: u64 = 2048;

fn key(client: usize, value: usize) -> String {
    format!("a{client:02}/{value}")
}

async fn write(client: Client, number: usize) {
    let value = Bytes::from(vec![number as u8; VALUE]);
    let written = client.transact(async |txn| {
        for at in 0..VALUES {
            txn.put(key(number, at), value.clone()).await?;
        }
        Ok(())
    });
    written.await.expect("it is served in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_of_the_largest_transactions_at_once_are_served_and_bounded() {
    let cluster = cluster(&["m"]);
    settled(&cluster).await;
    let small = Small::begin(&cluster).await;
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for number in 0..CLIENTS {
        let client = connect(&cluster).await.with_timeout(PATIENCE);
        writers.spawn(write(client, number));
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("no panic");
        let peak = peak_memory_mib(&cluster);
        eprintln!("one more after {:?}, {peak} MiB", begun.elapsed());
    }
    let longest = small.end().await;
    let client = connect(&cluster).await.with_timeout(PATIENCE);
    for number in 0..CLIENTS {
        let last = client.get(key(number, VALUES - 1)).await.expect("read");
        let value = last.expect("it is there");
        assert_eq!((value.len(), value[0]), (VALUE, number as u8));
    }
    let peak = peak_memory_mib(&cluster);
    assert!(peak < MOST_MIB, "{peak} MiB");
    assert!(longest < LONGEST, "{longest:?}");
}
