//! What is told of a run. All times are since the run began, unless they say
//! otherwise.

use serde::{Deserialize, Serialize};

/// Everything that is told of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name: what `synod lab run` takes.
    pub scenario: String,
    /// What the scenario is about, in a sentence or two.
    pub about: String,
    /// The seed of all that is drawn.
    pub seed: u64,
    /// When the run began, in milliseconds since 1970.
    pub began_unix_millis: u64,
    /// How long the workload ran.
    pub run_millis: u64,
    /// The version of Synod.
    pub version: String,
    /// How many shards the keys are split into.
    pub shards: usize,
    /// How many replicas each shard has.
    pub replicas: usize,
    /// What the clients did, in words.
    pub workload: String,
    /// The data centres and what their clients saw.
    pub sites: Vec<Site>,
    /// The network between them, as it was without faults.
    pub links: Vec<LinkInfo>,
    /// What was broken, and when.
    pub faults: Vec<FaultMark>,
    /// What had to hold, and whether it did.
    pub verdicts: Vec<Verdict>,
    /// What the checker said of the history, if one was recorded.
    pub history: Option<HistoryResult>,
    /// Whatever else a reader should know.
    pub notes: Vec<String>,
}

/// One data centre: its nodes, and what the clients in it saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// The region it stands for.
    pub region: String,
    /// The names of its nodes.
    pub nodes: Vec<String>,
    /// How many clients ran in it.
    pub clients: usize,
    /// How long each bucket is.
    pub bucket_millis: u64,
    /// What ended in each stretch of time, from the beginning and without holes.
    pub buckets: Vec<Bucket>,
    /// The same over the whole run.
    pub total: Totals,
    /// The longest time without a success.
    pub longest_gap_millis: u64,
    /// When that began.
    pub longest_gap_began_millis: u64,
}

/// What ended in one stretch of time at one site. Latencies are of what succeeded,
/// and zero when nothing did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Operations that succeeded.
    pub ok: u64,
    /// Operations that certainly did nothing.
    pub failed: u64,
    /// Operations that may or may not have happened.
    pub unknown: u64,
    /// Half took at most this long.
    pub p50_micros: u64,
    /// 99 of 100 took at most this long.
    pub p99_micros: u64,
    /// The slowest.
    pub max_micros: u64,
}

/// What ended at one site in the whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Operations that succeeded.
    pub ok: u64,
    /// Operations that certainly did nothing.
    pub failed: u64,
    /// Operations that may or may not have happened.
    pub unknown: u64,
    /// Half took at most this long.
    pub p50_micros: u64,
    /// 99 of 100 took at most this long.
    pub p99_micros: u64,
    /// 999 of 1,000 took at most this long.
    pub p999_micros: u64,
    /// The slowest.
    pub max_micros: u64,
}

/// The network between two sites, as it was without faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// One end.
    pub a: String,
    /// The other.
    pub b: String,
    /// There and back.
    pub rtt_micros: u64,
    /// The share of packets that are lost, 0 to 1.
    pub loss: f64,
}

/// Something that was broken for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultMark {
    /// When it began.
    pub at_millis: u64,
    /// When it ended; `None`: it lasted to the end of the run.
    pub until_millis: Option<u64>,
    /// What was done.
    pub what: String,
    /// The sites and nodes it was done to; none means all.
    pub on: Vec<String>,
}

/// Something that had to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What is judged.
    pub name: String,
    /// What was asked for.
    pub wanted: String,
    /// What was seen.
    pub seen: String,
    /// Whether it held.
    pub held: bool,
}

/// What a checker said of the recorded history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryResult {
    /// Which promise was checked.
    pub kind: String,
    /// How many operations the history holds.
    pub operations: u64,
    /// Whether the promise was kept.
    pub ok: bool,
    /// What the checker said.
    pub words: String,
}
