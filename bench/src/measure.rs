//! Loops on a cluster, and the figures they come to.

use crate::error::Error;
use crate::plan::{Cell, Group, Scale};
use crate::record::{Figures, Record, Subject};
use crate::system::{Db, Layout, System, Target};
use crate::usage::Sample;
use crate::workload::{Load, SHARDS, Values, Workload};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cell::Cell as Shared;
use std::collections::BTreeMap;
use std::rc::Rc;
use synod_harness::load::{self, Closed, Keys, Measured, Open, Tally};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Transactions at a time while keys are filled in.
pub const FILL_CLIENTS: u32 = 8;
/// Bytes and rows of one of them: etcd takes no more rows.
const FILL_BYTES: usize = 256 << 10;
const FILL_ROWS: usize = crate::etcd::MAX_OPS;

/// Writes all keys once.
///
/// # Errors
/// The client's.
pub async fn fill(db: &Db, keys: &Keys, value_bytes: usize) -> Result<(), Error> {
    let rows = (FILL_BYTES / value_bytes.max(1)).clamp(1, FILL_ROWS) as u64;
    let next = Rc::new(Shared::new(0));
    let shared = Rc::new((keys.clone(), Values::new(value_bytes)));
    let mut writers = Vec::new();
    for number in 0..FILL_CLIENTS {
        let (next, shared, db) = (Rc::clone(&next), Rc::clone(&shared), db.clone());
        writers.push(tokio::task::spawn_local(async move {
            let (keys, values) = &*shared;
            let mut random = StdRng::seed_from_u64(number.into());
            while next.get() < keys.count {
                let from: u64 = next.get();
                let to = (from + rows).min(keys.count);
                next.set(to);
                let row = |key| (keys.key(key), values.pick(&mut random).to_vec());
                let rows: Vec<(String, Vec<u8>)> = (from..to).map(row).collect();
                db.put_all(&rows).await?;
            }
            Ok::<(), Error>(())
        }));
    }
    for writer in writers {
        writer.await.expect("writers do not panic")?;
    }
    Ok(())
}

/// Measures all loops of a group on a fresh cluster; `tell` gets each record
/// as soon as it is there.
///
/// # Errors
/// When the cluster does not come up or shows a wrong result.
pub async fn group(
    group: Group,
    system: System,
    layout: &Layout,
    scale: &Scale,
    tell: &mut impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let sets = group.sets(scale);
    let all = |keys| Keys {
        count: keys,
        key_bytes: KEY_BYTES,
    };
    let mut layout = layout.clone();
    let most = sets.iter().map(|set| set.keys).max().unwrap_or(1);
    layout.splits = all(most).splits(SHARDS);
    let target = Target::start(system, &layout).await?;
    for set in &sets {
        let keys = all(set.keys);
        fill(&target.db, &keys, set.value_bytes).await?;
        let load = Rc::new(Load::new(target.db.clone(), keys, set.value_bytes));
        for cell in &set.cells {
            let figures = cell_on(&target, &load, cell, scale).await?;
            tell(Record {
                subject: Subject {
                    group,
                    workload: cell.workload.name().to_owned(),
                    clients: cell.clients,
                    value_bytes: set.value_bytes,
                    offered: cell.offered,
                    participants: None,
                },
                system,
                figures,
            })?;
        }
    }
    Ok(())
}

/// One cell's figures.
async fn cell_on(
    target: &Target,
    load: &Rc<Load>,
    cell: &Cell,
    scale: &Scale,
) -> Result<BTreeMap<String, f64>, Error> {
    let measured = loop_on(target, load, cell, scale).await?;
    if let Some(failure) = &measured.tally.first_failure {
        let name = cell.workload.name();
        eprintln!("{name}, {} clients: a failure: {failure}", cell.clients);
    }
    if cell.workload == Workload::Counter && measured.tally.failed == 0 {
        load.verify().await?;
    }
    Ok(figures(&measured).done())
}

/// Runs one cell's loop.
///
/// # Errors
/// When the system gives no timer.
pub async fn loop_on(
    target: &Target,
    load: &Rc<Load>,
    cell: &Cell,
    scale: &Scale,
) -> Result<Measured<Sample>, Error> {
    let (load, workload) = (Rc::clone(load), cell.workload);
    let operation = async move |random: &mut StdRng| load.once(workload, random).await;
    let sample = async || target.sample().await;
    let Some(per_second) = cell.offered else {
        let plan = Closed {
            clients: cell.clients,
            warmup: scale.warmup,
            measured: scale.measured,
        };
        return Ok(load::closed(plan, operation, sample).await);
    };
    let plan = Open {
        per_second,
        clients: cell.clients,
        warmup: scale.warmup,
        measured: scale.measured,
    };
    let measured = load::open(plan, operation, sample).await;
    measured.map_err(Error::io("pacing the offered load"))
}

/// The figures of a loop.
pub fn figures(measured: &Measured<Sample>) -> Figures {
    let operations = measured.tally.latency.len();
    let per_operation = |of: fn(&Sample) -> u64| {
        let spent = of(&measured.after).saturating_sub(of(&measured.before));
        spent as f64 / operations.max(1) as f64
    };
    let mut figures = Figures::default();
    latencies(&mut figures, &measured.tally);
    figures
        .set("rate", measured.rate())
        .set("client_cpu_us", per_operation(|s| s.client_cpu))
        .set("server_cpu_us", per_operation(|s| s.server_cpu))
        .set("syncs", per_operation(|s| s.syncs))
        .set("packets", per_operation(|s| s.packets));
    figures
}

/// How long operations took, and how many failed.
pub fn latencies(figures: &mut Figures, tally: &Tally) {
    let latency = &tally.latency;
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    figures
        .set("p50_us", at(0.5))
        .set("p99_us", at(0.99))
        .set("p999_us", at(0.999))
        .set("max_us", latency.max() as f64 / 1e3)
        .set("mean_us", latency.mean() / 1e3)
        .set("failed", tally.failed as f64)
        .set(
            "retries",
            tally.retries as f64 / latency.len().max(1) as f64,
        );
}
