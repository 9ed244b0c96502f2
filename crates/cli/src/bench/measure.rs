//! One measurement: so many clients, so many seconds.

use super::Target;
use super::load::{self, Keys, Workload};
use crate::exit::Failure;
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use synod_harness::cluster::{ask, cpu_micros};
use synod_rpc::wire::Counters;

/// How long a node may take to tell its counters.
const ANSWER: Duration = Duration::from_secs(5);

/// What to measure.
pub struct Plan {
    /// The workload.
    pub workload: Workload,
    /// Clients, each with one operation at a time.
    pub clients: u32,
    /// How long it is measured.
    pub seconds: Duration,
    /// How long it runs before.
    pub warmup: Duration,
}

/// What came out.
pub struct Measured {
    /// The workload's name.
    pub workload: &'static str,
    /// Clients.
    pub clients: u32,
    /// Operations that succeeded, per second.
    pub rate: f64,
    /// Their latencies, nanoseconds.
    pub latency: Histogram<u64>,
    /// Operations that failed.
    pub failed: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Processor time of this process per operation, microseconds.
    pub client_cpu: f64,
    /// The same of each node, by name; none if it did not tell.
    pub node_cpu: Vec<(String, Option<f64>)>,
    /// Syncs of all nodes' logs per operation.
    pub syncs: f64,
}

#[derive(Debug)]
struct Tally {
    latency: Histogram<u64>,
    failed: u64,
    retries: u64,
    /// Operations are only counted between warm-up and end.
    counting: bool,
    stopped: bool,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("constant bounds are good")
}

async fn counters(target: &Target) -> Vec<Option<Counters>> {
    let mut all = Vec::new();
    for (_, node) in &target.nodes {
        all.push(ask::counters(&target.pool, *node, ANSWER).await.ok());
    }
    all
}

/// Runs the plan.
pub async fn run(target: &Target, keys: &Keys, plan: &Plan) -> Result<Measured, Failure> {
    let tally = Rc::new(RefCell::new(Tally {
        latency: histogram(),
        failed: 0,
        retries: 0,
        counting: false,
        stopped: false,
    }));
    let keys = Rc::new(keys.clone());
    let mut tasks = Vec::new();
    for number in 0..plan.clients {
        let (tally, keys, client) = (Rc::clone(&tally), Rc::clone(&keys), target.client.clone());
        let workload = plan.workload;
        tasks.push(tokio::task::spawn_local(async move {
            let mut random = StdRng::seed_from_u64(u64::from(number));
            while !tally.borrow().stopped {
                let begun = Instant::now();
                let done = load::once(&client, &keys, workload, &mut random).await;
                let mut tally = tally.borrow_mut();
                if !tally.counting {
                    continue;
                }
                match done {
                    Ok(attempts) => {
                        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                        tally.latency.saturating_record(nanos);
                        tally.retries += u64::from(attempts.saturating_sub(1));
                    }
                    Err(_) => tally.failed += 1,
                }
            }
        }));
    }
    tokio::time::sleep(plan.warmup).await;
    let own = || cpu_micros(std::process::id()).unwrap_or(0);
    let (before, own_before) = (counters(target).await, own());
    let begun = Instant::now();
    tally.borrow_mut().counting = true;
    tokio::time::sleep(plan.seconds).await;
    tally.borrow_mut().counting = false;
    let elapsed = begun.elapsed();
    let (own_after, after) = (own(), counters(target).await);
    tally.borrow_mut().stopped = true;
    for task in tasks {
        task.await.map_err(Failure::failed)?;
    }
    let tally = tally.borrow();
    let operations = tally.latency.len();
    let per_operation = |total: u64| total as f64 / operations.max(1) as f64;
    let mut syncs = 0;
    let mut node_cpu = Vec::new();
    for (((name, _), before), after) in target.nodes.iter().zip(&before).zip(&after) {
        let spent = before.as_ref().zip(after.as_ref()).map(|(before, after)| {
            syncs += after.syncs.saturating_sub(before.syncs);
            per_operation(after.cpu_micros.saturating_sub(before.cpu_micros))
        });
        node_cpu.push((name.clone(), spent));
    }
    Ok(Measured {
        workload: plan.workload.name(),
        clients: plan.clients,
        rate: operations as f64 / elapsed.as_secs_f64(),
        latency: tally.latency.clone(),
        failed: tally.failed,
        retries: tally.retries,
        client_cpu: per_operation(own_after.saturating_sub(own_before)),
        node_cpu,
        syncs: per_operation(syncs),
    })
}
