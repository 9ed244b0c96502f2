//! The file's shape, as it is written; what makes sense is checked later.

use super::Mistake;
use super::values::{Rate, Share, Shift, Time};
use serde::Deserialize;
use synod_placement::nearest;
use toml::Spanned;

/// A whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) about: String,
    pub(super) length: Spanned<Time>,
    pub(super) seed: Option<u64>,
    pub(super) bucket: Option<Spanned<Time>>,
    pub(super) shards: Option<Spanned<usize>>,
    pub(super) splits: Option<Spanned<Vec<String>>>,
    pub(super) replicas: Option<Spanned<usize>>,
    #[serde(default)]
    pub(super) network: Network,
    pub(super) dc: Vec<Spanned<Dc>>,
    #[serde(default)]
    pub(super) link: Vec<Spanned<Link>>,
    pub(super) settings: Option<Spanned<toml::Value>>,
    pub(super) workload: Spanned<Workload>,
    #[serde(default)]
    pub(super) fault: Vec<Spanned<Fault>>,
    pub(super) expect: Option<Spanned<Expect>>,
}

/// `[network]`: the paths without faults.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    #[serde(default)]
    pub(super) rtt: Time,
    #[serde(default)]
    pub(super) rtt_within: Time,
    #[serde(default)]
    pub(super) jitter: Time,
    pub(super) loss: Option<Share>,
    pub(super) bandwidth: Option<Rate>,
}

/// `[[dc]]`: a data centre.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dc {
    pub(super) name: String,
    pub(super) region: Option<String>,
    pub(super) racks: Option<usize>,
    pub(super) nodes_per_rack: Option<usize>,
    pub(super) clients: Option<usize>,
}

/// `[[link]]`: one path that differs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    pub(super) between: [String; 2],
    pub(super) rtt: Option<Time>,
    pub(super) jitter: Option<Time>,
    pub(super) loss: Option<Share>,
    pub(super) bandwidth: Option<Rate>,
}

/// `[workload]`: what clients do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workload {
    pub(super) kind: String,
    pub(super) clients: Option<usize>,
    pub(super) rate: Option<u32>,
    pub(super) timeout: Option<Time>,
    pub(super) accounts: Option<u32>,
    pub(super) audit_every: Option<Time>,
    pub(super) mix: Option<Mix>,
    pub(super) records: Option<u64>,
    pub(super) value_bytes: Option<usize>,
    pub(super) scan_rows: Option<u64>,
    pub(super) script: Option<String>,
    pub(super) text: Option<String>,
}

/// `mix`: a letter of YCSB's, or shares.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Mix {
    Letter(String),
    Shares(Shares),
}

/// Shares of operations; they add up to 1.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shares {
    #[serde(default)]
    pub(super) read: f64,
    #[serde(default)]
    pub(super) update: f64,
    #[serde(default)]
    pub(super) insert: f64,
    #[serde(default)]
    pub(super) scan: f64,
    #[serde(default)]
    pub(super) rmw: f64,
}

/// A selector.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Select {
    pub(super) node: Option<String>,
    pub(super) nodes: Option<Vec<String>>,
    pub(super) dc: Option<String>,
    pub(super) region: Option<String>,
    pub(super) rack: Option<String>,
    pub(super) clients: Option<String>,
    pub(super) leaders_dc: Option<bool>,
    pub(super) leader_of: Option<u64>,
    pub(super) all: Option<bool>,
    pub(super) share: Option<f64>,
}

/// `[[fault]]`: what is done, and when.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    #[serde(rename = "do")]
    pub(super) what: String,
    pub(super) at: Time,
    #[serde(rename = "for")]
    pub(super) lasts: Option<Time>,
    pub(super) every: Option<Time>,
    pub(super) times: Option<u32>,
    pub(super) name: Option<String>,
    pub(super) on: Option<Select>,
    pub(super) between: Option<[Select; 2]>,
    pub(super) from: Option<Select>,
    pub(super) to: Option<Select>,
    pub(super) delay: Option<Time>,
    pub(super) jitter: Option<Time>,
    pub(super) loss: Option<Share>,
    pub(super) duplicate: Option<Share>,
    pub(super) reorder: Option<Share>,
    pub(super) bandwidth: Option<Rate>,
    pub(super) how: Option<String>,
    pub(super) by: Option<toml::Value>,
    pub(super) free_bytes: Option<u64>,
    pub(super) args: Option<Vec<String>>,
}

/// `[expect]`: what must hold at the end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) history: Option<String>,
    pub(super) lost: Option<u64>,
    pub(super) healthy: Option<bool>,
    pub(super) replicated_within: Option<Time>,
    #[serde(default)]
    pub(super) site: Vec<Spanned<ExpectSite>>,
}

/// `[[expect.site]]`: what clients of some sites must see.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectSite {
    pub(super) of: Names,
    pub(super) available_at_least: Option<Share>,
    pub(super) served_at_least: Option<Share>,
    pub(super) longest_gap_at_most: Option<Time>,
    pub(super) p99_at_most: Option<Time>,
    pub(super) failed_at_most: Option<u64>,
    pub(super) outside_faults: Option<bool>,
    pub(super) grace: Option<Time>,
}

/// One name or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Names {
    One(String),
    Many(Vec<String>),
}

/// Reads a shift of a clock out of `by`.
pub(super) fn shift(by: &toml::Value) -> Result<i64, String> {
    let shift: Result<Shift, _> = by.clone().try_into();
    shift
        .map(|shift| shift.0)
        .map_err(|e| e.message().to_owned())
}

/// Reads a length of time out of `by`.
pub(super) fn time(by: &toml::Value) -> Result<std::time::Duration, String> {
    let time: Result<Time, _> = by.clone().try_into();
    time.map(|time| time.0).map_err(|e| e.message().to_owned())
}

/// The line in which a byte of the text stands, from 1.
pub(super) fn line_of(text: &str, byte: usize) -> usize {
    let before = &text.as_bytes()[..byte.min(text.len())];
    1 + before.iter().filter(|b| **b == b'\n').count()
}

/// Reads the shape.
pub(super) fn read(text: &str) -> Result<File, Mistake> {
    toml::from_str(text).map_err(|error| {
        let message = error.message().replace('\n', " ");
        Mistake {
            line: error.span().map(|span| line_of(text, span.start)),
            text: format!("{message}{}", hint(&message)),
        }
    })
}

/// The known key that an unknown one may mean.
fn hint(message: &str) -> String {
    let mut words = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") {
        return String::new();
    }
    let meant = words.next().and_then(|wrong| nearest(wrong, words));
    meant.map_or_else(String::new, |right| format!("; did you mean `{right}`?"))
}
