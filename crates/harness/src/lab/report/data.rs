//! What a run of the lab found, as plain data.

use serde::{Deserialize, Serialize};

/// Everything that is told of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name: that of a shipped one, or its file's.
    pub scenario: String,
    /// What happens in it, in a sentence.
    pub about: String,
    /// What chance was drawn from.
    pub seed: u64,
    /// When the load began, milliseconds since 1970.
    pub began_unix_millis: u64,
    /// How long the load ran, milliseconds.
    pub run_millis: u64,
    /// The version of the program.
    pub version: String,
    /// Shards of the users' keys.
    pub shards: usize,
    /// Replicas of each.
    pub replicas: usize,
    /// What the clients did, in words.
    pub workload: String,
    /// The data centres, as the scenario orders them.
    pub sites: Vec<Site>,
    /// The links between data centres, each once.
    pub links: Vec<LinkInfo>,
    /// What was done to the cluster, by time.
    pub faults: Vec<FaultMark>,
    /// What the scenario expects, and whether it held.
    pub verdicts: Vec<Verdict>,
    /// What the checkers say; none if the workload records no history.
    pub history: Option<HistoryResult>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// A data centre: its nodes, and what its clients saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Names of its nodes.
    pub nodes: Vec<String>,
    /// How many clients it has.
    pub clients: usize,
    /// Length of a bucket, milliseconds.
    pub bucket_millis: u64,
    /// What its clients saw in each stretch of time, without holes from the beginning
    /// of the load. A request counts where it ended.
    pub buckets: Vec<Bucket>,
    /// The same over the whole run.
    pub total: Totals,
    /// The longest time without any success, milliseconds.
    pub longest_gap_millis: u64,
    /// When that began, milliseconds from the beginning of the load.
    pub longest_gap_began_millis: u64,
}

/// One stretch of time. Latencies are of requests that succeeded; zeros when none did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Requests that succeeded.
    pub ok: u64,
    /// Requests that had no effect.
    pub failed: u64,
    /// Requests whose effect nobody knows.
    pub unknown: u64,
    /// Half took at most this long.
    pub p50_micros: u64,
    /// 99 of 100 took at most this long.
    pub p99_micros: u64,
    /// The longest.
    pub max_micros: u64,
}

/// A whole run. Latencies are of requests that succeeded; zeros when none did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests that succeeded.
    pub ok: u64,
    /// Requests that had no effect.
    pub failed: u64,
    /// Requests whose effect nobody knows.
    pub unknown: u64,
    /// Half took at most this long.
    pub p50_micros: u64,
    /// 99 of 100 took at most this long.
    pub p99_micros: u64,
    /// 999 of 1,000 took at most this long.
    pub p999_micros: u64,
    /// The longest.
    pub max_micros: u64,
}

/// A link between two data centres without faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// One end.
    pub a: String,
    /// The other end.
    pub b: String,
    /// There and back, microseconds.
    pub rtt_micros: u64,
    /// Share of packets lost, each way, 0 to 1.
    pub loss: f64,
}

/// Something that was done to the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultMark {
    /// When it began, milliseconds from the beginning of the load.
    pub at_millis: u64,
    /// When it ended; none if it was of one moment, or held to the end of the load.
    pub until_millis: Option<u64>,
    /// What it was, in words.
    pub what: String,
    /// Names of nodes, or of data centres for their clients.
    pub on: Vec<String>,
}

/// Something that was expected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What it is about.
    pub name: String,
    /// What was wanted.
    pub wanted: String,
    /// What was seen.
    pub seen: String,
    /// Whether that is as wanted.
    pub held: bool,
}

/// What the checkers say of the clients' histories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryResult {
    /// Of what kind: `bank`, `list-append`.
    pub kind: String,
    /// Transactions that were looked at.
    pub operations: u64,
    /// Whether every promise was kept.
    pub ok: bool,
    /// What was found, or that nothing was.
    pub words: String,
}
