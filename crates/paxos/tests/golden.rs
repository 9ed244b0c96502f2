//! Golden scripts: one scenario per file in `tests/golden`, the file's name is
//! its claim. A line `> command` is followed by what it did; the language is
//! documented in [`Script::command`]. `UPDATE_GOLDEN=1` rewrites the answers;
//! read them before keeping them.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is no machine: it reads and rewrites its scripts"
)]

mod common;

use common::{Body, EPOCH, Sim};
use std::fmt::Write as _;
use synod_paxos::{
    Configuration, Cx, Message, NackReason, NodeId, Role, Seal, Settings, Slot, Timestamp, Urgency,
};

const MS: u64 = 1_000_000;
/// A script that needs more rounds of messages than this never becomes quiet.
const MAX_ROUNDS: usize = 1_000;

struct Script {
    sim: Option<Sim>,
    settings: Settings,
    priorities: Vec<(NodeId, u16)>,
    witnesses: Vec<NodeId>,
    learners: Vec<NodeId>,
    spares: Vec<NodeId>,
    quiet: bool,
}

fn node(word: &str) -> NodeId {
    let digits = word.strip_prefix('n').unwrap_or(word);
    NodeId(
        digits
            .parse()
            .unwrap_or_else(|_| panic!("`{word}` is no node")),
    )
}

fn link(word: &str) -> (NodeId, NodeId) {
    let (from, to) = word
        .split_once("->")
        .unwrap_or_else(|| panic!("`{word}` is no link"));
    (node(from), node(to))
}

fn nanos(word: &str) -> u64 {
    let ms = word
        .strip_suffix("ms")
        .unwrap_or_else(|| panic!("`{word}` is no duration in ms"));
    ms.parse::<u64>().unwrap() * MS
}

impl Script {
    fn new() -> Script {
        let settings = Settings {
            // Without jitter worth the name, scripts stay readable.
            election_nanos: 60 * MS,
            ..Settings::default()
        };
        Script {
            sim: None,
            settings,
            priorities: Vec::new(),
            witnesses: Vec::new(),
            learners: Vec::new(),
            spares: Vec::new(),
            quiet: false,
        }
    }

    fn sim(&mut self) -> &mut Sim {
        self.sim.as_mut().expect("`cluster` comes first")
    }

    /// The language:
    /// `set window|message|undecided BYTES` · `set election MS` · `priority nX P` · `witness nX` ·
    /// `learner nX` · `spare nX` (before) `cluster N`; `members nX nA wnB lnC` (voters,
    /// witnesses, learners of the next configuration); `tick Tms` (timers fire, nothing is
    /// delivered) · `run Tms` (timers, and everything delivered) · `deliver
    /// [nX->nY] [K]` · `drop nX->nY [K]` or `drop all` · `repeat nX->nY` ·
    /// `reorder nX->nY` · `stabilize` · `partition nX | nY nZ` · `cut nX->nY` ·
    /// `heal` · `hold nX` (syncs wait) · `persist nX [K]` · `free nX` · `crash nX
    /// [ahead]` · `lose-data nX` · `restart nX` · `propose nX text [lazy]` ·
    /// `confirm nX` · `relinquish nX` · `transfer nX nY` · `trim nX SLOT` · `sick
    /// nX` · `well nX` · `status` · `leases` · `log nX` · `disk nX` · `quiet` · `loud` ·
    /// `inject nX->nY gap SLOT` · `recover nX [behind]` (it goes on alone; as planned when
    /// its log was shorter) · `overrule nX nY` (nX's map has nY's configuration).
    fn command(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut answer = String::new();
        match words[..] {
            ["set", name, value] => self.set(name, value.parse().unwrap()),
            ["priority", id, value] => self.priorities.push((node(id), value.parse().unwrap())),
            ["witness", id] => self.witnesses.push(node(id)),
            ["learner", id] => self.learners.push(node(id)),
            ["spare", id] => self.spares.push(node(id)),
            ["cluster", count] => self.cluster(count.parse().unwrap()),
            ["tick", time] => self.advance(nanos(time), false),
            ["run", time] => self.advance(nanos(time), true),
            ["stabilize"] => self.stabilize(),
            ["quiet"] => self.quiet = true,
            ["loud"] => self.quiet = false,
            ["status"] => answer = self.status(),
            ["leases"] => answer = self.leases(),
            ["log", id] => answer = self.log(node(id)),
            ["disk", id] => answer = self.disk(node(id)),
            ["deliver" | "drop" | "repeat" | "reorder", ..] => self.traffic(&words),
            ["partition" | "cut" | "heal", ..] => self.topology(&words),
            [
                "hold" | "persist" | "free" | "crash" | "restart" | "lose-data" | "sick" | "well",
                id,
                ..,
            ] => {
                self.node_command(words[0], node(id), words.get(2).copied());
            }
            _ => answer = self.replica_command(&words),
        }
        let mut out = String::new();
        if let Some(sim) = &mut self.sim {
            for line in sim.trace.drain(..) {
                if !self.quiet {
                    writeln!(out, "{line}").unwrap();
                }
            }
        }
        out + &answer
    }

    fn set(&mut self, name: &str, value: usize) {
        match name {
            "window" => self.settings.window_bytes = value,
            "message" => self.settings.message_bytes = value,
            "undecided" => self.settings.undecided_bytes = value,
            "election" => self.settings.election_nanos = value as u64 * MS,
            _ => panic!("unknown setting {name}"),
        }
    }

    fn cluster(&mut self, count: u64) {
        let mut configuration = Configuration::of_voters((1..=count).map(NodeId).collect());
        configuration
            .voters
            .retain(|n| !self.witnesses.contains(n) && !self.learners.contains(n));
        configuration.witnesses.clone_from(&self.witnesses);
        configuration.learners.clone_from(&self.learners);
        configuration.voters.retain(|n| !self.spares.contains(n));
        let mut sim = Sim::new(configuration, &self.spares, &self.settings, 42);
        for (id, priority) in &self.priorities {
            sim.nodes.get_mut(id).unwrap().settings.priority = *priority;
        }
        for id in sim.ids() {
            sim.start(id);
        }
        self.sim = Some(sim);
    }

    /// Lets time pass, timer by timer.
    fn advance(&mut self, nanos: u64, deliver: bool) {
        let end = self.sim().now + nanos;
        for _ in 0..100_000 {
            if deliver {
                self.stabilize();
            }
            let sim = self.sim();
            let next = sim.next_timeout().filter(|t| *t <= end);
            sim.now = next.unwrap_or(end).max(sim.now);
            for id in sim.ids() {
                sim.fire(id);
            }
            if next.is_none() {
                return;
            }
        }
        panic!("time does not pass");
    }

    fn stabilize(&mut self) {
        let sim = self.sim();
        for _ in 0..MAX_ROUNDS {
            if sim.net.is_empty() {
                return;
            }
            for packet in std::mem::take(&mut sim.net) {
                sim.deliver(packet);
            }
        }
        panic!("the cluster never becomes quiet");
    }

    fn traffic(&mut self, words: &[&str]) {
        let sim = self.sim();
        let chosen = words.get(1).filter(|w| w.contains("->")).map(|w| link(w));
        let count = words
            .last()
            .and_then(|w| w.parse().ok())
            .unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        let mut rest = std::collections::VecDeque::new();
        for packet in std::mem::take(&mut sim.net) {
            let fits = chosen.is_none_or(|l| l == (packet.from, packet.to));
            if fits && taken.len() < count {
                taken.push(packet);
            } else {
                rest.push_back(packet);
            }
        }
        if taken.is_empty() {
            sim.trace.push("nothing is on the way there".to_owned());
        }
        match words[0] {
            "deliver" => {
                sim.net = rest;
                for packet in taken {
                    sim.deliver(packet);
                }
                return;
            }
            "drop" => {
                for packet in taken {
                    if let Body::Paxos(message) = packet.body {
                        sim.trace
                            .push(format!("lost: {}→{} {message}", packet.from, packet.to));
                    }
                }
            }
            "repeat" => {
                rest.extend(taken.iter().cloned());
                rest.extend(taken);
            }
            _ => rest.extend(taken.into_iter().rev()),
        }
        sim.net = rest;
    }

    fn topology(&mut self, words: &[&str]) {
        let sim = self.sim();
        match words[0] {
            "heal" => sim.cut.clear(),
            "cut" => {
                sim.cut.insert(link(words[1]));
            }
            _ => {
                let text = words[1..].join(" ");
                let sides: Vec<Vec<NodeId>> = text
                    .split('|')
                    .map(|side| side.split_whitespace().map(node).collect())
                    .collect();
                for (i, a) in sides.iter().enumerate() {
                    for b in sides.iter().skip(i + 1) {
                        for (x, y) in a.iter().flat_map(|x| b.iter().map(move |y| (*x, *y))) {
                            sim.cut.extend([(x, y), (y, x)]);
                        }
                    }
                }
            }
        }
    }

    fn node_command(&mut self, name: &str, id: NodeId, argument: Option<&str>) {
        let sim = self.sim();
        match name {
            "hold" => sim.nodes.get_mut(&id).unwrap().auto = false,
            "persist" => {
                let count = argument.map_or(usize::MAX, |n| n.parse().unwrap());
                if sim.up(id).is_none_or(|r| r.pending.is_empty()) {
                    sim.trace.push(format!("{id} has no sync running"));
                }
                sim.persist(id, count);
            }
            "free" => {
                sim.nodes.get_mut(&id).unwrap().auto = true;
                sim.persist(id, usize::MAX);
            }
            "crash" => sim.crash(id, argument == Some("ahead")),
            "lose-data" => {
                let disk = &mut sim.nodes.get_mut(&id).unwrap().disk;
                disk.engine_lost = true;
                disk.engine.clear();
            }
            "restart" => sim.start(id),
            "sick" | "well" => {
                let healthy = name == "well";
                sim.with_leases(id, |l, now, _| l.set_healthy(now, healthy));
            }
            _ => panic!("unknown command {name}"),
        }
    }

    fn replica_command(&mut self, words: &[&str]) -> String {
        let sim = self.sim();
        let at = Timestamp(EPOCH + sim.now);
        match *words {
            ["propose", id, text] => said(sim.propose(node(id), text, Urgency::Now)),
            ["propose", id, text, "lazy"] => said(sim.propose(node(id), text, Urgency::Lazy)),
            ["confirm", id] => match sim.confirm(node(id)) {
                Ok(round) => format!("asks in round {round}\n"),
                Err(error) => format!("refused: {error}\n"),
            },
            ["members", id, ref members @ ..] => {
                let of = |prefix: &str| -> Vec<NodeId> {
                    let mine = members.iter().filter_map(|m| m.strip_prefix(prefix));
                    mine.filter(|m| m.starts_with(|c: char| c.is_ascii_digit()))
                        .map(node)
                        .collect()
                };
                let seal = Seal {
                    limit: at,
                    last: at,
                    horizon: Timestamp(0),
                };
                let change = sim.with(node(id), |r, cx| {
                    let now = r.configuration();
                    let successor = now.successor(of("n"), of("wn"), of("ln"));
                    r.reconfigure(cx, successor, seal)
                });
                match change.unwrap() {
                    Ok(_) => String::new(),
                    Err(error) => format!("refused: {error}\n"),
                }
            }
            ["recover", id, ref what @ ..] => {
                let seal = Seal {
                    limit: at,
                    last: at,
                    horizon: Timestamp(0),
                };
                let done = sim.recover(node(id), seal, what.contains(&"behind"));
                match done {
                    Ok(_) => String::new(),
                    Err(error) => format!("refused: {error}\n"),
                }
            }
            ["overrule", id, by] => {
                let configuration = sim.replica(node(by)).configuration().clone();
                sim.with(node(id), |r, cx| r.overrule(cx, &configuration));
                String::new()
            }
            ["relinquish", id] => {
                sim.with(node(id), |r, cx| r.relinquish(cx, at));
                String::new()
            }
            ["transfer", id, to] => {
                match sim
                    .with(node(id), |r, cx| r.transfer(cx, node(to), at))
                    .unwrap()
                {
                    Ok(()) => String::new(),
                    Err(error) => format!("refused: {error}\n"),
                }
            }
            ["trim", id, slot] => {
                let through = Slot(slot.parse().unwrap());
                let trimmed = sim.trim(node(id), through).unwrap();
                format!("{id} keeps its log from {} on\n", trimmed.next())
            }
            ["inject", along, ref what @ ..] => {
                let (from, to) = link(along);
                let ballot = sim.replica(to).ballot();
                let reason = match *what {
                    ["gap", slot] => NackReason::Gap(Slot(slot.parse().unwrap())),
                    _ => panic!("cannot inject that"),
                };
                let message = Message::Nack { ballot, reason };
                sim.deliver(common::Packet {
                    from,
                    to,
                    body: Body::Paxos(message),
                });
                String::new()
            }
            _ => panic!("unknown command `{}`", words.join(" ")),
        }
    }

    fn status(&mut self) -> String {
        let sim = self.sim();
        let mut out = String::new();
        for id in sim.ids() {
            let Some(run) = sim.up(id) else {
                writeln!(out, "{id} down").unwrap();
                continue;
            };
            let (r, leases) = (&run.replica, &run.leases);
            let cx = Cx {
                now: sim.nodes[&id].mono(sim.now),
                leases,
            };
            write!(
                out,
                "{id} {:?} promised={} has {}/{}",
                r.role(),
                r.ballot(),
                r.accepted(),
                r.last()
            )
            .unwrap();
            write!(out, " decided={} applied={}", r.decided(), r.applied()).unwrap();
            if r.trimmed() > Slot(0) {
                write!(out, " trimmed={}", r.trimmed()).unwrap();
            }
            if !r.holds_data() {
                write!(out, " no-data").unwrap();
            }
            if r.in_force().after > Slot(0) || r.configuration().epoch.0 == 0 {
                write!(out, " in {}", r.configuration().epoch).unwrap();
            }
            if r.role() == Role::Leader {
                let office = if r.in_office() { " in-office" } else { "" };
                let lease = if r.lease(&cx).is_some() { " lease" } else { "" };
                write!(out, "{office}{lease}").unwrap();
            } else if let Some(leader) = r.leader() {
                write!(out, " follows {leader}").unwrap();
            }
            writeln!(out).unwrap();
        }
        out
    }

    fn leases(&mut self) -> String {
        let sim = self.sim();
        let mut out = String::new();
        for id in sim.ids() {
            let Some(run) = sim.up(id) else { continue };
            let now = sim.nodes[&id].mono(sim.now);
            let supported: Vec<String> = sim
                .ids()
                .iter()
                .filter_map(|n| Some(format!("{n}:{}", run.leases.supports(*n, now)?)))
                .collect();
            let abstains = if run.leases.abstains(now) {
                " abstains"
            } else {
                ""
            };
            writeln!(out, "{id} supports {}{abstains}", supported.join(" ")).unwrap();
        }
        out
    }

    fn log(&mut self, id: NodeId) -> String {
        let entries = self.sim().replica(id).entries_from(Slot(0));
        let shown: Vec<String> = entries.map(|(slot, e)| format!("{slot}:{e}")).collect();
        format!("{id} log {}\n", shown.join(" "))
    }

    fn disk(&mut self, id: NodeId) -> String {
        let durable = &self.sim().nodes[&id].disk.durable;
        let staging = durable.staging.as_ref().map_or(String::new(), |s| {
            format!(
                " staging {} {}..{} holds {}",
                s.ballot,
                s.first,
                s.end,
                s.entries.len()
            )
        });
        format!(
            "{id} disk promised={} has {}/{} decided={}{staging}\n",
            durable.promised,
            durable.accepted,
            durable.last(),
            durable.decided
        )
    }
}

fn said(result: Result<Slot, String>) -> String {
    match result {
        Ok(_) => String::new(),
        Err(error) => format!("refused: {error}\n"),
    }
}

fn play(text: &str) -> String {
    let mut script = Script::new();
    let mut out = String::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(out, "{line}").unwrap();
            out += &script.command(command);
        } else if line.starts_with('#') || line.is_empty() {
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

#[test]
fn golden_scripts_do_what_their_names_claim() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 30, "there are at least 30 scripts");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for path in paths {
        let expected = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        println!("{name}");
        let actual = play(&expected);
        if update {
            std::fs::write(&path, &actual).unwrap();
        } else if actual != expected {
            let at = actual
                .lines()
                .zip(expected.lines())
                .position(|(a, e)| a != e);
            wrong.push(format!("{name} line {:?}", at.map(|n| n + 1)));
        }
    }
    assert!(wrong.is_empty(), "scripts that went otherwise: {wrong:#?}");
}
