//! From a file's shape to a scenario that makes sense, or to its mistakes.

use super::faults::MAX_FAULTS;
use super::file::{self, File};
use super::values::Time;
use super::{BadScenario, MAX_MISTAKES, Mistake, Planned, Scenario, Settings};
use super::{expect, faults, workload};
use crate::lab::load::Kind;
use crate::lab::topology::{Dc, Path as Wire, Topology};
use std::path::Path;
use std::time::Duration;
use toml::{Spanned, Value};

/// Data centres, at most.
const MAX_DCS: usize = 16;
/// Nodes in all, at most: each is a process.
const MAX_NODES: usize = 64;
/// Clients of one site, at most.
const MAX_CLIENTS: usize = 1_000;
/// Shards, at most.
const MAX_SHARDS: usize = 200;
/// Replicas of a shard, at most.
const MAX_REPLICAS: usize = 7;
/// The shortest and the longest load.
const LENGTHS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// The shortest and the longest bucket.
const BUCKETS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// The longest round trip.
const MAX_RTT: Duration = Duration::from_secs(5);
/// What is not said.
const BUCKET: Duration = Duration::from_millis(500);
const SHARDS: usize = 4;
const CLIENTS: usize = 2;

/// The mistakes found so far, and the text they are in.
pub(super) struct Mistakes<'a> {
    text: &'a str,
    list: Vec<Mistake>,
}

impl Mistakes<'_> {
    /// One at a byte of the text.
    pub(super) fn at(&mut self, byte: usize, text: impl Into<String>) {
        let line = Some(file::line_of(self.text, byte));
        self.push(line, text.into());
    }

    /// One of the whole file.
    pub(super) fn whole(&mut self, text: impl Into<String>) {
        self.push(None, text.into());
    }

    fn push(&mut self, line: Option<usize>, text: String) {
        if self.list.len() < MAX_MISTAKES {
            self.list.push(Mistake { line, text });
        }
    }

    /// A number within bounds, or the mistake and the lower bound.
    fn number(&mut self, key: &str, value: Option<&Spanned<usize>>, most: usize) -> Option<usize> {
        let value = value?;
        let number = *value.get_ref();
        if !(1..=most).contains(&number) {
            let text = format!("`{key}` is {number}; 1 to {most} are possible");
            self.at(value.span().start, text);
        }
        Some(number)
    }
}

/// Checks everything.
pub(super) fn check(
    name: &str,
    text: &str,
    file: File,
    directory: &Path,
) -> Result<Scenario, BadScenario> {
    let mut mistakes = Mistakes {
        text,
        list: Vec::new(),
    };
    let length = bounded(&mut mistakes, "length", &file.length, LENGTHS);
    let bucket = file.bucket.as_ref();
    let bucket = bucket.map_or(BUCKET, |b| bounded(&mut mistakes, "bucket", b, BUCKETS));
    let default_clients = file.workload.get_ref().clients.unwrap_or(CLIENTS);
    let topology = topology(&mut mistakes, &file, default_clients);
    let nodes = topology.nodes().len();
    let replicas = mistakes.number("replicas", file.replicas.as_ref(), MAX_REPLICAS);
    let replicas = replicas.unwrap_or(if nodes >= 3 { 3 } else { 1 });
    if replicas > nodes {
        let at = file.replicas.as_ref().map_or(0, |r| r.span().start);
        let text = format!("`replicas` is {replicas}, and there are only {nodes} nodes");
        mistakes.at(at, text);
    }
    let shards = mistakes.number("shards", file.shards.as_ref(), MAX_SHARDS);
    let workload = workload::check(&mut mistakes, &file.workload, directory);
    let splits = splits(
        &mut mistakes,
        &file,
        shards,
        workload.as_ref().map(|w| &w.kind),
    );
    // With a workload that is wrong nobody knows how many there are.
    let shards = match &workload {
        Some(_) => splits.len() + 1,
        None => shards.unwrap_or(MAX_SHARDS),
    };
    let faults = faults::check(&mut mistakes, &file.fault, &topology, shards);
    let recorded = workload.as_ref().is_none_or(|w| w.kind.records());
    let expect = expect::check(&mut mistakes, file.expect.as_ref(), &topology, recorded);
    let settings = settings(&mut mistakes, file.settings.as_ref());
    let (Some(workload), true) = (workload, mistakes.list.is_empty()) else {
        return Err(BadScenario {
            mistakes: mistakes.list,
        });
    };
    let scenario = Scenario {
        name: name.to_owned(),
        about: file.about,
        length,
        seed: file.seed.unwrap_or(1),
        bucket,
        topology,
        shards,
        splits,
        replicas,
        settings,
        workload,
        faults,
        expect,
    };
    match self::length(&scenario) {
        None => Ok(scenario),
        Some(mistake) => Err(BadScenario {
            mistakes: vec![mistake],
        }),
    }
}

/// Whether all faults begin and end within the load.
pub(super) fn length(scenario: &Scenario) -> Option<Mistake> {
    let end = scenario.length;
    let late = |fault: &&Planned| fault.at + fault.lasts.unwrap_or_default() > end;
    let mut repeated = { scenario.faults.iter() }.filter_map(|f| Some((f.at, f.every?)));
    let most = u128::try_from(MAX_FAULTS).unwrap_or(u128::MAX);
    let often = |(at, every): &(Duration, Duration)| {
        end.saturating_sub(*at).as_nanos() / every.as_nanos().max(1) > most
    };
    if let Some((_, every)) = repeated.find(often) {
        let text = format!("a fault every {every:?} for {end:?} is more than {MAX_FAULTS} times");
        return Some(Mistake { line: None, text });
    }
    let fault = scenario.faults.iter().find(late)?;
    let text = format!(
        "a fault begins at {:?}{}, and the load ends at {end:?}: make `length` longer",
        fault.at,
        fault
            .lasts
            .map_or_else(String::new, |lasts| format!(" and holds for {lasts:?}")),
    );
    Some(Mistake { line: None, text })
}

fn bounded(
    mistakes: &mut Mistakes<'_>,
    key: &str,
    value: &Spanned<Time>,
    (least, most): (Duration, Duration),
) -> Duration {
    let time = value.get_ref().0;
    if time < least || time > most {
        let text = format!("`{key}` is {time:?}; {least:?} to {most:?} are possible");
        mistakes.at(value.span().start, text);
    }
    time
}

fn topology(mistakes: &mut Mistakes<'_>, file: &File, clients: usize) -> Topology {
    let network = &file.network;
    let between = Wire {
        rtt: network.rtt.0,
        jitter: network.jitter.0,
        loss: network.loss.map_or(0.0, |share| share.0),
        bandwidth: network.bandwidth.map(|rate| rate.0),
    };
    let within = Wire {
        rtt: network.rtt_within.0,
        ..Wire::default()
    };
    for (key, rtt) in [("rtt", between.rtt), ("rtt_within", within.rtt)] {
        if rtt > MAX_RTT {
            mistakes.whole(format!(
                "[network] `{key}` is {rtt:?}; at most {MAX_RTT:?} are possible"
            ));
        }
    }
    let mut topology = Topology {
        between,
        within,
        ..Topology::default()
    };
    // More are counted, and not made.
    for entry in file.dc.iter().take(MAX_DCS + 1) {
        dc(mistakes, entry, clients, &mut topology);
    }
    let nodes = topology.nodes().len();
    if topology.dcs.is_empty() || topology.dcs.len() > MAX_DCS || nodes > MAX_NODES {
        mistakes.whole(format!(
            "{} data centres with {nodes} nodes; 1 to {MAX_DCS} with at most {MAX_NODES} are possible",
            topology.dcs.len()
        ));
    }
    if topology.dcs.iter().all(|dc| dc.clients == 0) {
        mistakes.whole("no site has any clients; set `clients` in [workload] or in a [[dc]]");
    }
    for entry in &file.link {
        link(mistakes, entry, &mut topology);
    }
    topology
}

fn dc(
    mistakes: &mut Mistakes<'_>,
    entry: &Spanned<file::Dc>,
    clients: usize,
    topology: &mut Topology,
) {
    let (at, dc) = (entry.span().start, entry.get_ref());
    let region = dc.region.clone().unwrap_or_else(|| "lab".to_owned());
    let place = format!("region={region},dc={}", dc.name);
    if let Err(error) = place.parse::<synod_placement::Locality>() {
        mistakes.at(at, format!("[[dc]] `{}`: {error}", dc.name));
        return;
    }
    if topology.dc(&dc.name).is_some() {
        mistakes.at(at, format!("[[dc]] `{}` is there twice", dc.name));
        return;
    }
    let made = Dc {
        name: dc.name.clone(),
        region,
        racks: dc.racks.unwrap_or(1),
        nodes_per_rack: dc.nodes_per_rack.unwrap_or(1),
        clients: dc.clients.unwrap_or(clients),
    };
    let numbers = [
        ("racks", made.racks, MAX_NODES),
        ("nodes_per_rack", made.nodes_per_rack, MAX_NODES),
        ("clients", made.clients, MAX_CLIENTS),
    ];
    for (key, number, most) in numbers {
        if number > most {
            let name = &made.name;
            let text = format!("[[dc]] `{name}`: `{key}` is {number}; 0 to {most} are possible");
            mistakes.at(at, text);
            return;
        }
    }
    topology.dcs.push(made);
}

fn link(mistakes: &mut Mistakes<'_>, entry: &Spanned<file::Link>, topology: &mut Topology) {
    let (at, link) = (entry.span().start, entry.get_ref());
    let mut ends = [0; 2];
    for (end, name) in ends.iter_mut().zip(&link.between) {
        match topology.dc(name) {
            Some(dc) => *end = dc,
            None => {
                let names: Vec<&str> = topology.dcs.iter().map(|d| d.name.as_str()).collect();
                let text = format!(
                    "[[link]] `between`: there is no data centre `{name}`, only {}",
                    names.join(", ")
                );
                mistakes.at(at, text);
                return;
            }
        }
    }
    let pair = (ends[0].min(ends[1]), ends[0].max(ends[1]));
    if pair.0 == pair.1 || topology.paths.contains_key(&pair) {
        let [a, b] = &link.between;
        let text = format!(
            "[[link]] `between` {a} and {b}: a link joins two data centres, and is there once; \
             `rtt_within` in [network] is of paths within one"
        );
        mistakes.at(at, text);
        return;
    }
    let mut path = topology.between.clone();
    if let Some(rtt) = link.rtt {
        path.rtt = rtt.0;
    }
    if let Some(jitter) = link.jitter {
        path.jitter = jitter.0;
    }
    if let Some(loss) = link.loss {
        path.loss = loss.0;
    }
    if let Some(rate) = link.bandwidth {
        path.bandwidth = Some(rate.0);
    }
    if path.rtt > MAX_RTT {
        let text = format!(
            "[[link]] `rtt` is {:?}; at most {MAX_RTT:?} are possible",
            path.rtt
        );
        mistakes.at(at, text);
    }
    topology.paths.insert(pair, path);
}

/// Where the keys are cut: by the workload, which knows its keys, or for a script as given.
fn splits(
    mistakes: &mut Mistakes<'_>,
    file: &File,
    shards: Option<usize>,
    kind: Option<&Kind>,
) -> Vec<String> {
    let given = file.splits.as_ref();
    match kind {
        Some(Kind::Script(_)) | None => {
            let splits = given.map(|s| s.get_ref().clone()).unwrap_or_default();
            if !splits.is_sorted_by(|a, b| a < b) || splits.iter().any(String::is_empty) {
                let at = given.map_or(0, |s| s.span().start);
                mistakes.at(
                    at,
                    "`splits` are keys in ascending order, none of them empty",
                );
            }
            if let Some(shards) = shards.filter(|shards| *shards != splits.len() + 1) {
                let at = file.shards.as_ref().map_or(0, |s| s.span().start);
                let text = format!(
                    "`shards` is {shards}, but {} `splits` make {}: for a script the keys are cut \
                     where `splits` says",
                    splits.len(),
                    splits.len() + 1
                );
                if kind.is_some() {
                    mistakes.at(at, text);
                }
            }
            splits
        }
        Some(kind) => {
            if let Some(given) = given {
                let text =
                    "`splits` are for scripts; this workload cuts its own keys, into `shards`";
                mistakes.at(given.span().start, text);
            }
            let shards = shards.unwrap_or(SHARDS);
            let splits = kind.splits(shards);
            if splits.len() + 1 != shards {
                let at = file.shards.as_ref().map_or(0, |s| s.span().start);
                let text = format!("`shards` is {shards}, more than the workload has keys for");
                mistakes.at(at, text);
            }
            splits
        }
    }
}

/// Keys of `[node]` that may be set; the lab itself sets the others.
const NODE_KEYS: [&str; 2] = ["engine", "disk_reserve_bytes"];

/// Settings of the nodes: a table of sections, or the same as a text.
fn settings(mistakes: &mut Mistakes<'_>, given: Option<&Spanned<Value>>) -> Settings {
    let Some(given) = given else {
        return Settings::default();
    };
    let at = given.span().start;
    let mut table = match given.get_ref() {
        Value::Table(table) => table.clone(),
        Value::String(text) => match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                mistakes.at(at, format!("`settings` is no TOML: {}", error.message()));
                return Settings::default();
            }
        },
        _ => {
            mistakes.at(
                at,
                "`settings` are sections, [settings.log] for instance, or a text",
            );
            return Settings::default();
        }
    };
    let mut node = String::new();
    if let Some(Value::Table(lines)) = table.remove("node") {
        for (key, value) in &lines {
            if NODE_KEYS.contains(&key.as_str()) {
                node.push_str(&format!("{key} = {value}\n"));
            } else {
                let keys = NODE_KEYS.join(", ");
                let text = format!("[settings.node] `{key}` is set by the lab; only {keys} may be");
                mistakes.at(at, text);
            }
        }
    }
    if table.contains_key("testing") {
        mistakes.at(
            at,
            "[settings.testing]: delays are those of [network] here; leave it out",
        );
    }
    if let Some((name, _)) = table.iter().find(|(_, value)| !value.is_table()) {
        mistakes.at(
            at,
            format!("`settings.{name}` must be a section: write [settings.{name}]"),
        );
    }
    Settings {
        node,
        sections: table.to_string(),
    }
}
