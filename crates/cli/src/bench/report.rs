//! Measurements as lines of a table or as JSON objects, as soon as they are there.

use super::measure::Measured;
use serde_json::{Map, json};

/// Prints one line per measurement.
pub struct Table {
    json: bool,
    empty: bool,
}

impl Table {
    /// Nothing is printed yet.
    pub fn new(json: bool) -> Table {
        Table { json, empty: true }
    }

    /// Prints a measurement.
    pub fn add(&mut self, measured: &Measured) {
        if self.json {
            println!("{}", object(measured));
            return;
        }
        if self.empty {
            self.empty = false;
            println!(
                "{:<9}{:>8}{:>11}{:>11}{:>11}{:>11}{:>11}{:>8}{:>9}{:>8}  CPU µs/op: client, nodes",
                "WORKLOAD",
                "CLIENTS",
                "OPS/S",
                "P50 ms",
                "P99 ms",
                "P99.9 ms",
                "MAX ms",
                "FAILED",
                "RETRIES",
                "SYNCS"
            );
        }
        let at = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e6;
        let nodes: Vec<String> = measured
            .node_cpu
            .iter()
            .map(|(name, cpu)| match cpu {
                Some(cpu) => format!("{name} {cpu:.0}"),
                None => format!("{name} ?"),
            })
            .collect();
        println!(
            "{:<9}{:>8}{:>11.0}{:>11.3}{:>11.3}{:>11.3}{:>11.3}{:>8}{:>9}{:>8.2}  {:.0}, {}",
            measured.workload,
            measured.clients,
            measured.rate,
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            measured.failed,
            measured.retries,
            measured.syncs,
            measured.client_cpu,
            nodes.join(" ")
        );
    }
}

fn object(measured: &Measured) -> serde_json::Value {
    let at = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    let nodes = measured.node_cpu.iter();
    let nodes: Map<String, serde_json::Value> = nodes
        .map(|(name, cpu)| (name.clone(), json!(cpu)))
        .collect();
    json!({
        "workload": measured.workload,
        "clients": measured.clients,
        "ops": measured.latency.len(),
        "throughput": measured.rate,
        "p50_us": at(0.5),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "max_us": at(1.0),
        "failed": measured.failed,
        "retries": measured.retries,
        "client_cpu_us": measured.client_cpu,
        "node_cpu_us": nodes,
        "syncs_per_op": measured.syncs,
    })
}
