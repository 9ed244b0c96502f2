//! What the clients of a benchmark do.

use crate::exit::Failure;
use crate::sdk;
use clap::ValueEnum;
use rand::RngExt;
use rand::rngs::StdRng;
use std::cell::Cell;
use std::rc::Rc;
use synod_client::{Client, Error};
use synod_harness::load::Keys;

/// Writes per transaction while the keys are filled in, at most, and their bytes, about:
/// large values in long transactions would wait for each other longer than a call may.
const FILL_BATCH: u64 = 500;
const FILL_BYTES: u64 = 1 << 20;
/// Transactions at a time while the keys are filled in.
const FILL_CLIENTS: usize = 8;

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Write one key
    Put,
    /// Read one key at its leader
    Get,
    /// Read two keys and write two, in two different shards
    Txn2,
    /// Kill leaders under steady writes
    Failover,
}

impl Workload {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Put => "put",
            Workload::Get => "get",
            Workload::Txn2 => "txn2",
            Workload::Failover => "failover",
        }
    }
}

/// One operation; returns how many attempts it took.
pub async fn once(
    client: &Client,
    keys: &Keys,
    value: &[u8],
    workload: Workload,
    random: &mut StdRng,
) -> Result<u32, Error> {
    let first = random.random_range(0..keys.count);
    match workload {
        Workload::Put | Workload::Failover => {
            let receipt = client.put(keys.key(first), value).await?;
            Ok(receipt.attempts)
        }
        Workload::Get => client.get(keys.key(first)).await.map(|_| 1),
        Workload::Txn2 => {
            // Half of all keys away: another shard, if there are several.
            let second = (first + keys.count / 2) % keys.count;
            let both = [keys.key(first), keys.key(second)];
            let done = client.transact_with_receipt(async |txn| {
                txn.get_many_for_update(&both).await?;
                for key in &both {
                    txn.put(key, value).await?;
                }
                Ok(())
            });
            Ok(done.await?.1.attempts)
        }
    }
}

/// Writes all keys once.
pub async fn fill(client: &Client, keys: &Keys, value: &[u8]) -> Result<(), Failure> {
    let next = Rc::new(Cell::new(0));
    let batch = (FILL_BYTES / value.len().max(1) as u64).clamp(1, FILL_BATCH);
    let shared = Rc::new((keys.clone(), value.to_vec()));
    let mut tasks = Vec::new();
    for _ in 0..FILL_CLIENTS {
        let (next, shared, client) = (Rc::clone(&next), Rc::clone(&shared), client.clone());
        tasks.push(tokio::task::spawn_local(async move {
            let (keys, value) = &*shared;
            while next.get() < keys.count {
                let from = next.get();
                let to = (from + batch).min(keys.count);
                next.set(to);
                client
                    .transact(async |txn| {
                        for number in from..to {
                            txn.put(keys.key(number), value).await?;
                        }
                        Ok(())
                    })
                    .await?;
            }
            Ok::<(), Error>(())
        }));
    }
    for task in tasks {
        let filled = task.await.map_err(Failure::failed)?;
        filled.map_err(sdk::failure)?;
    }
    Ok(())
}
