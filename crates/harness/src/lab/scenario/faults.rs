//! `[[fault]]`: what is done to the cluster, and when.

use super::Planned;
use super::check::Mistakes;
use super::file;
use crate::lab::action::{Action, Deed, Harm, Links, Worse};
use crate::lab::select::{Part, Select};
use crate::lab::topology::Topology;
use std::time::Duration;
use synod_placement::nearest;
use toml::Spanned;

/// Faults of one scenario, repeats counted, at most.
pub(super) const MAX_FAULTS: usize = 1_000;
/// Keys that every fault may have.
const COMMON: [&str; 5] = ["do", "at", "every", "times", "name"];
/// Keys that say which links.
const LINKS: [&str; 4] = ["on", "between", "from", "to"];
/// Keys that say how much worse links get.
const WORSE: [&str; 6] = [
    "delay",
    "jitter",
    "loss",
    "duplicate",
    "reorder",
    "bandwidth",
];
/// What operators do with a cluster that runs.
const COMMANDS: [&str; 4] = ["cluster", "node", "placement", "shard"];
/// Arguments of one command, at most.
const MAX_ARGUMENTS: usize = 64;
/// The kinds, with the keys of each besides the common ones.
const KINDS: [(&str, &[&[&str]]); 16] = [
    ("cut", &[&["for"], &LINKS]),
    ("slow", &[&["for"], &LINKS, &WORSE]),
    ("heal", &[&["name"]]),
    ("kill", &[&["for", "on"]]),
    ("pause", &[&["for", "on"]]),
    ("restart", &[&["for", "on", "how"]]),
    ("power-off", &[&["for", "on"]]),
    ("power-on", &[&["on"]]),
    ("wipe-disk", &[&["on"]]),
    ("wipe-engine", &[&["for", "on"]]),
    ("fill-disk", &[&["for", "on", "free_bytes"]]),
    ("stall-syncs", &[&["for", "on", "by"]]),
    ("fail-syncs", &[&["for", "on"]]),
    ("skew-clock", &[&["for", "on", "by"]]),
    ("drain", &[&["on"]]),
    ("command", &[&["args"]]),
];

/// Checks all, and spreads out those that repeat; ascending by time.
pub(super) fn check(
    mistakes: &mut Mistakes<'_>,
    faults: &[Spanned<file::Fault>],
    topology: &Topology,
    shards: usize,
) -> Vec<Planned> {
    let mut planned = Vec::new();
    for entry in faults {
        let fault = entry.get_ref();
        let made = one(fault).and_then(|action| {
            for part in action.parts() {
                part.check(topology, shards)?;
            }
            for at in times(fault)? {
                planned.push(Planned {
                    name: fault.name.clone(),
                    at,
                    lasts: lasts(fault),
                    every: fault
                        .every
                        .map(|time| time.0)
                        .filter(|_| fault.times.is_none()),
                    action: action.clone(),
                });
            }
            Ok(())
        });
        if let Err(text) = made {
            mistakes.at(
                entry.span().start,
                format!("[[fault]] `{}`: {text}", fault.what),
            );
        }
    }
    if planned.len() > MAX_FAULTS {
        let count = planned.len();
        mistakes.whole(format!(
            "{count} faults, repeats counted; at most {MAX_FAULTS} are possible"
        ));
        planned.truncate(MAX_FAULTS);
    }
    heals(mistakes, faults);
    planned.sort_by_key(|fault| fault.at);
    planned
}

/// A `heal` names a fault of links that is there.
fn heals(mistakes: &mut Mistakes<'_>, faults: &[Spanned<file::Fault>]) {
    let of_links = faults.iter().map(Spanned::get_ref);
    let of_links = of_links.filter(|fault| matches!(&*fault.what, "cut" | "slow"));
    let names: Vec<&str> = of_links.filter_map(|fault| fault.name.as_deref()).collect();
    for entry in faults.iter().filter(|entry| entry.get_ref().what == "heal") {
        if let Some(name) = &entry.get_ref().name
            && !names.contains(&name.as_str())
        {
            let text = format!(
                "[[fault]] `heal`: no fault of links is named `{name}`; there are {}",
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            );
            mistakes.at(entry.span().start, text);
        }
    }
}

/// How long it holds. A node that is restarted is down for as long as that takes.
fn lasts(fault: &file::Fault) -> Option<Duration> {
    let at_once = (fault.what == "restart").then_some(Duration::ZERO);
    fault.lasts.map(|time| time.0).or(at_once)
}

/// When it begins, as often as it does; once, if it goes on to the end of the load.
fn times(fault: &file::Fault) -> Result<Vec<Duration>, String> {
    let (every, times) = match (fault.every, fault.times) {
        (None, None) => return Ok(vec![fault.at.0]),
        (Some(every), times) => (every.0, times.unwrap_or(1)),
        (None, Some(_)) => return Err("`times` comes with `every`".to_owned()),
    };
    if every.is_zero() || times == 0 || times as usize > MAX_FAULTS {
        return Err(format!(
            "`every` is above 0, and `times` is 1 to {MAX_FAULTS}"
        ));
    }
    Ok((0..times).map(|n| fault.at.0 + every * n).collect())
}

/// The keys that a fault has, beyond the common ones.
fn keys(fault: &file::Fault) -> Vec<&'static str> {
    let all = [
        ("for", fault.lasts.is_some()),
        ("on", fault.on.is_some()),
        ("between", fault.between.is_some()),
        ("from", fault.from.is_some()),
        ("to", fault.to.is_some()),
        ("delay", fault.delay.is_some()),
        ("jitter", fault.jitter.is_some()),
        ("loss", fault.loss.is_some()),
        ("duplicate", fault.duplicate.is_some()),
        ("reorder", fault.reorder.is_some()),
        ("bandwidth", fault.bandwidth.is_some()),
        ("how", fault.how.is_some()),
        ("by", fault.by.is_some()),
        ("free_bytes", fault.free_bytes.is_some()),
        ("args", fault.args.is_some()),
    ];
    all.iter()
        .filter(|(_, there)| *there)
        .map(|(key, _)| *key)
        .collect()
}

fn one(fault: &file::Fault) -> Result<Action, String> {
    let known = KINDS.iter().find(|(kind, _)| *kind == fault.what);
    let Some((kind, allowed)) = known else {
        let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        let meant = nearest(&fault.what, kinds.iter().copied());
        let meant = meant.map_or_else(String::new, |right| format!("; did you mean `{right}`?"));
        return Err(format!(
            "there is no such fault, only {}{meant}",
            kinds.join(", ")
        ));
    };
    let allowed = allowed.concat();
    for key in keys(fault) {
        if !allowed.contains(&key) {
            let all = [&COMMON[..], &allowed].concat();
            let mut text = format!("`{key}` is not for this; there are {}", all.join(", "));
            if key == "for" && *kind == "wipe-disk" {
                text.push_str(
                    ". The cluster does not take a node with an empty disk for the old one: it is \
                     gone for good, and `drain` makes the cluster do without it",
                );
            }
            return Err(text);
        }
    }
    if fault.lasts.is_some_and(|time| time.0.is_zero()) {
        return Err("`for` is above 0".to_owned());
    }
    match *kind {
        "cut" => Ok(Action::Links(links(fault)?, Worse::cut())),
        "slow" => Ok(Action::Links(links(fault)?, worse(fault)?)),
        "heal" => Ok(Action::Heal(fault.name.clone())),
        "power-on" => Ok(Action::Once(on(fault)?, Deed::PowerOn)),
        "wipe-disk" => Ok(Action::Once(on(fault)?, Deed::WipeDisk)),
        "drain" => Ok(Action::Once(on(fault)?, Deed::Drain)),
        "command" => Ok(Action::Command(command(fault)?)),
        _ => Ok(Action::Harm(on(fault)?, harm(fault, kind)?)),
    }
}

/// The arguments of a command.
fn command(fault: &file::Fault) -> Result<Vec<String>, String> {
    let args = fault.args.clone().unwrap_or_default();
    let first = args.first().map_or("", String::as_str);
    if !COMMANDS.contains(&first) {
        return Err(format!(
            "`args` is what an operator gives `synod`, for instance `args = [\"shard\", \"merge\", \
             \"2\"]`; it begins with one of {}",
            COMMANDS.join(", ")
        ));
    }
    if args.len() > MAX_ARGUMENTS {
        return Err(format!("`args` has at most {MAX_ARGUMENTS} parts"));
    }
    Ok(args)
}

fn harm(fault: &file::Fault, kind: &str) -> Result<Harm, String> {
    Ok(match kind {
        "kill" => Harm::Kill,
        "pause" => Harm::Pause,
        "power-off" => Harm::PowerOff,
        "wipe-engine" => Harm::WipeEngine,
        "fail-syncs" => Harm::FailSyncs,
        "restart" => match fault.how.as_deref() {
            None | Some("orderly") => Harm::Stop,
            Some("kill") => Harm::Kill,
            Some(other) => return Err(format!("`how` is `{other}`; there are orderly and kill")),
        },
        "fill-disk" => match fault.free_bytes {
            None => Harm::FillDisk,
            Some(bytes) => Harm::NearlyFull(bytes),
        },
        "stall-syncs" => match &fault.by {
            Some(by) => Harm::StallSyncs(file::time(by)?),
            None => return Err("`by` is missing: how much longer a sync takes".to_owned()),
        },
        _ => match &fault.by {
            Some(by) => Harm::SkewClock(file::shift(by)?),
            None => return Err("`by` is missing: how far the clock is off, +3s".to_owned()),
        },
    })
}

fn on(fault: &file::Fault) -> Result<Select, String> {
    let on = fault.on.as_ref().ok_or_else(|| {
        "`on` is missing: which nodes, for instance `on = { node = \"n1\" }`".to_owned()
    })?;
    let on = select("on", on)?;
    if matches!(on.part, Part::Clients(_)) {
        return Err("`on` must name nodes, not clients".to_owned());
    }
    Ok(on)
}

fn links(fault: &file::Fault) -> Result<Links, String> {
    match (&fault.on, &fault.between, &fault.from, &fault.to) {
        (Some(on), None, None, None) => Ok(Links::Around(select("on", on)?)),
        (None, Some([a, b]), None, None) => {
            Ok(Links::Between(select("between", a)?, select("between", b)?))
        }
        (None, None, from, to) if from.is_some() || to.is_some() => {
            let from = from.as_ref().map(|from| select("from", from)).transpose()?;
            let to = to.as_ref().map(|to| select("to", to)).transpose()?;
            Ok(Links::OneWay(from, to))
        }
        _ => Err(
            "say which links by `on` (all around it), `between` (two parts, both ways), or `from` \
             and `to` (one way; without one of them, everything else)"
                .to_owned(),
        ),
    }
}

fn worse(fault: &file::Fault) -> Result<Worse, String> {
    let share = |share: Option<super::values::Share>| share.map_or(0.0, |share| share.0);
    let worse = Worse {
        cut: false,
        delay: fault.delay.unwrap_or_default().0,
        jitter: fault.jitter.unwrap_or_default().0,
        loss: share(fault.loss),
        duplicate: share(fault.duplicate),
        reorder: share(fault.reorder),
        bandwidth: fault.bandwidth.map(|rate| rate.0),
    };
    if worse == Worse::default() {
        return Err(format!(
            "nothing gets worse; give one of {}",
            WORSE.join(", ")
        ));
    }
    Ok(worse)
}

/// A selector; `key` is for messages.
fn select(key: &str, given: &file::Select) -> Result<Select, String> {
    let mut parts = Vec::new();
    parts.extend(given.node.clone().map(|name| Part::Nodes(vec![name])));
    parts.extend(given.nodes.clone().map(Part::Nodes));
    parts.extend(given.dc.clone().map(Part::Dc));
    parts.extend(given.region.clone().map(Part::Region));
    parts.extend(given.clients.clone().map(Part::Clients));
    parts.extend(given.leader_of.map(Part::LeaderOf));
    if let Some(rack) = &given.rack {
        let place = rack.parse().map_err(|e| format!("`{key}.rack`: {e}"))?;
        parts.push(Part::Place(place));
    }
    for (word, there, part) in [
        ("all", given.all, Part::All),
        ("leaders_dc", given.leaders_dc, Part::LeadersDc),
    ] {
        match there {
            None => {}
            Some(true) => parts.push(part),
            Some(false) => return Err(format!("`{key}.{word}` is true, or not there")),
        }
    }
    if parts.is_empty() && given.share.is_some() {
        parts.push(Part::All);
    }
    match (parts.pop(), parts.is_empty()) {
        (Some(part), true) => Ok(Select {
            part,
            share: given.share,
        }),
        _ => Err(format!(
            "`{key}` names one part of the cluster: node, nodes, dc, region, rack, clients, \
             leaders_dc, leader_of or all; `share` may come with it, or alone"
        )),
    }
}
