//! The closing summary of the demo, for people and for programs.

use super::{Args, Load};
use serde_json::json;
use std::fmt::Write as _;
use std::time::Duration;
use synod_harness::check::Findings;
use synod_harness::workload::Snapshot;

/// What came out.
pub struct Report {
    nodes: usize,
    dcs: usize,
    shards: u32,
    rtt: Duration,
    counts: Snapshot,
    lists: Snapshot,
    transferring: Duration,
    p50_micros: u64,
    p99_micros: u64,
    /// From the start of the program to the first acknowledged transfer.
    pub first_transfer: Option<Duration>,
    /// The node that was killed.
    pub killed: Option<String>,
    /// The longest time for which one shard acknowledged no write, from the kill on.
    pub write_gap: Duration,
    /// The longest time for which no transfer was acknowledged, from the kill on.
    pub transfer_gap: Duration,
    /// Money before and after.
    pub total: (i64, i64),
    /// What the checkers found.
    pub findings: Findings,
    /// Bank transactions checked.
    pub bank_transactions: usize,
    /// List-append transactions checked.
    pub list_transactions: usize,
    /// Reads and writes of the probes checked.
    pub probe_operations: usize,
}

impl Report {
    /// From the meters at the moment the clients were told to stop.
    pub fn new(args: &Args, load: &Load, transferring: Duration) -> Report {
        Report {
            nodes: usize::from(args.dcs) * usize::from(args.nodes_per_dc),
            dcs: usize::from(args.dcs),
            shards: args.shards,
            rtt: args.rtt,
            counts: load.transfers.snapshot(),
            lists: load.list_meter.snapshot(),
            transferring,
            p50_micros: load.transfers.latency_micros(0.5),
            p99_micros: load.transfers.latency_micros(0.99),
            first_transfer: None,
            killed: None,
            write_gap: Duration::ZERO,
            transfer_gap: Duration::ZERO,
            total: (0, 0),
            findings: Findings::default(),
            bank_transactions: 0,
            list_transactions: 0,
            probe_operations: 0,
        }
    }

    /// Whether everything is as promised.
    pub fn is_good(&self) -> bool {
        self.conserved() && self.findings.is_clean() && self.counts.committed > 0
    }

    fn conserved(&self) -> bool {
        self.total.0 == self.total.1
    }

    fn throughput(&self) -> f64 {
        self.counts.committed as f64 / self.transferring.as_secs_f64()
    }

    /// One object.
    pub fn json(&self) -> serde_json::Value {
        json!({
            "nodes": self.nodes,
            "dcs": self.dcs,
            "shards": self.shards,
            "rtt_ms": self.rtt.as_millis() as u64,
            "committed": self.counts.committed,
            "aborted": self.counts.aborted,
            "unknown": self.counts.unknown,
            "retries": self.counts.retries,
            "throughput": self.throughput(),
            "p50_us": self.p50_micros,
            "p99_us": self.p99_micros,
            "first_transfer_ms": self.first_transfer.map(|d| d.as_millis() as u64),
            "killed": self.killed,
            "write_gap_ms": self.write_gap.max(self.transfer_gap).as_millis() as u64,
            "shard_write_gap_ms": self.write_gap.as_millis() as u64,
            "transfer_gap_ms": self.transfer_gap.as_millis() as u64,
            "money_before": self.total.0,
            "money_after": self.total.1,
            "conserved": self.conserved(),
            "checked": {
                "bank": self.bank_transactions,
                "list_append": self.list_transactions,
                "register": self.probe_operations,
            },
            "violations": self.findings.total,
            "violations_found": self.findings.violations,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<22}{value}");
        };
        let counts = &self.counts;
        line(
            "first transfer",
            match self.first_transfer {
                Some(at) => format!("{:.1} s after the start", at.as_secs_f64()),
                None => "never".to_owned(),
            },
        );
        line("transfers committed", counts.committed.to_string());
        line(
            "retried, aborted",
            format!("{}, {}", counts.retries, counts.aborted),
        );
        line("unknown outcomes", counts.unknown.to_string());
        line(
            "throughput",
            format!("{:.0} transfers/s", self.throughput()),
        );
        line(
            "latency",
            format!(
                "p50 {:.2} ms, p99 {:.2} ms",
                self.p50_micros as f64 / 1000.0,
                self.p99_micros as f64 / 1000.0
            ),
        );
        let gap = format!(
            "{} ms in any shard, {} ms in transfers",
            self.write_gap.as_millis(),
            self.transfer_gap.as_millis()
        );
        line(
            "longest write gap",
            match &self.killed {
                Some(node) => format!("{gap}, after kill -9 of {node}"),
                None => gap,
            },
        );
        line(
            "money",
            match self.conserved() {
                true => format!("{} before and after", self.total.0),
                false => format!("{} BEFORE, {} AFTER", self.total.0, self.total.1),
            },
        );
        line(
            "histories checked",
            format!(
                "{} bank, {} list-append ({} committed), {} register",
                self.bank_transactions,
                self.list_transactions,
                self.lists.committed,
                self.probe_operations
            ),
        );
        line("violations", self.findings.total.to_string());
        for violation in &self.findings.violations {
            let _ = writeln!(out, "  {violation}");
        }
        out
    }
}
