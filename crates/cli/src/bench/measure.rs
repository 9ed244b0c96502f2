//! One measurement: so many clients, so many seconds.

use super::Target;
use super::operation::{self, Workload};
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use std::time::Duration;
use synod_harness::cluster::{ask, cpu_micros};
use synod_harness::load::{self, Closed, Keys};
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

async fn counters(target: &Target) -> Vec<Option<Counters>> {
    let mut all = Vec::new();
    for (_, node) in &target.nodes {
        all.push(ask::counters(&target.pool, *node, ANSWER).await.ok());
    }
    all
}

/// Processor time of this process, microseconds, and the nodes' counters.
async fn sample(target: &Target) -> (u64, Vec<Option<Counters>>) {
    let own = cpu_micros(std::process::id()).unwrap_or(0);
    (own, counters(target).await)
}

/// Runs the plan.
pub async fn run(target: &Target, keys: &Keys, value: &[u8], plan: &Plan) -> Measured {
    let closed = Closed {
        clients: plan.clients,
        warmup: plan.warmup,
        measured: plan.seconds,
    };
    let (client, workload) = (target.client.clone(), plan.workload);
    let (keys, value) = (keys.clone(), value.to_vec());
    let operation = async move |random: &mut StdRng| {
        operation::once(&client, &keys, &value, workload, random).await
    };
    let measured = load::closed(closed, operation, async || sample(target).await).await;
    let rate = measured.rate();
    let ((own_before, before), (own_after, after)) = (measured.before, measured.after);
    let operations = measured.tally.latency.len();
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
    Measured {
        workload: plan.workload.name(),
        clients: plan.clients,
        rate,
        failed: measured.tally.failed,
        retries: measured.tally.retries,
        latency: measured.tally.latency,
        client_cpu: per_operation(own_after.saturating_sub(own_before)),
        node_cpu,
        syncs: per_operation(syncs),
    }
}
