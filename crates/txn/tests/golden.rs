//! Golden scripts: one scenario per file in `tests/golden`, the file's name is
//! its claim. `UPDATE_GOLDEN=1` writes the output anew; read it before it is kept.
//!
//! | line | meaning |
//! |---|---|
//! | `txn t1 AB coord A a1=1 b1=2 -a3 [timeout 500]` | says what t1 will commit, and fixes its terms |
//! | `read t1 A a1 a2 [x]`, `scan t1 A LIMIT [reverse]` | locked reads; `x` locks exclusively |
//! | `latest A a1 …`, `latest A scan LIMIT` | lock-free read |
//! | `commit t1 A …`, `status t1 A`, `validate t1 A [keep]`, `release t1 A` | requests; each may be repeated |
//! | `deliver [n…]`, `drop n…`, `dup n` | messages between shards, by number; `deliver` alone: all, and what follows |
//! | `decide A [n]` | the next entries of A's log are decided and applied |
//! | `takeover A [keep n]` | another replica of A leads, with n undecided entries |
//! | `tick ms` | time passes, every timer is served |
//! | `lease A on/off`, `limit A ms/off`, `confirm A`, `slow A`, `engine A` | the world around a shard |
//! | `clock A MS` | the wall clock of A's leader is that far off |
//! | `id t1 MS`, `locate A` | t1's id names that time after the start; which term, and what time for ids? |
//! | `gone N` | client N (that of tN) is gone; `show A` prints the state |
//!
//! Transaction t1 is older than t2, and so on. Times are milliseconds since the start.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use synod_paxos::{GroupId, Mono, Term, Timestamp};
use synod_txn::request::{LockMode, ScanRange};
use synod_txn::show;
use synod_txn::*;
use world::{EPOCH, Out, Shard};

#[derive(Clone)]
struct Plan {
    terms: BTreeMap<usize, Term>,
    coordinator: usize,
    writes: Vec<Write>,
    timeout: u32,
}

struct Script {
    shards: Vec<Shard>,
    now: Mono,
    plans: BTreeMap<u64, Plan>,
    sessions: BTreeMap<(u64, usize), (Term, SessionId)>,
    net: BTreeMap<u32, PeerMessage>,
    messages: u32,
    requests: u64,
    asked: BTreeMap<u64, String>,
    slow: BTreeSet<usize>,
    /// When transactions began, where not at the start; milliseconds.
    begun: BTreeMap<u64, i64>,
    out: String,
}

fn shard_named(name: &str) -> usize {
    usize::from(name.as_bytes()[0] - b'A')
}

fn txn_named(name: &str) -> u64 {
    let number = name.strip_prefix('t').and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("no transaction is named {name}"))
}

/// The id of a transaction that began so many milliseconds after the start.
fn attempt_at(millis: i64, txn: u64) -> AttemptId {
    let millis = (EPOCH / 1_000_000).saturating_add_signed(millis);
    AttemptId((u128::from(millis) << 80) | u128::from(txn))
}

fn shard_of(key: &[u8]) -> usize {
    usize::from(key[0] - b'a')
}

fn letter(shard: usize) -> char {
    char::from(b'A' + shard as u8)
}

impl Script {
    fn new() -> Script {
        let settings = GroupSettings {
            entry_bytes: 80,
            window_millis: 10_000,
            ..GroupSettings::default()
        };
        let mut shards: Vec<Shard> = (1..=3).map(|id| Shard::new(id, settings.clone())).collect();
        for shard in &mut shards {
            shard.take_over(Mono(0), 0, usize::MAX);
        }
        Script {
            shards,
            now: Mono(0),
            plans: BTreeMap::new(),
            sessions: BTreeMap::new(),
            net: BTreeMap::new(),
            messages: 0,
            requests: 0,
            asked: BTreeMap::new(),
            slow: BTreeSet::new(),
            begun: BTreeMap::new(),
            out: String::new(),
        }
    }

    fn attempt(&self, txn: u64) -> AttemptId {
        attempt_at(self.begun.get(&txn).copied().unwrap_or(0), txn)
    }

    fn priority(&self, txn: u64) -> Priority {
        Priority {
            start: Timestamp(txn),
            first: self.attempt(txn),
        }
    }

    fn print(&mut self, line: &str) {
        let mut line = line.to_string();
        for txn in 1..20 {
            line = line.replace(&self.attempt(txn).to_string(), &format!("t{txn}"));
        }
        let _ = writeln!(self.out, "  {}", relative(&line));
    }

    fn take(&mut self, at: usize, out: Out) {
        let name = letter(at);
        for (slot, command, lazy) in out.proposed {
            let lazy = if lazy { " (lazy)" } else { "" };
            self.print(&format!("{name} slot {slot}: {command}{lazy}"));
        }
        for (to, response) in out.responses {
            if let Response::Read {
                term,
                session: Some(session),
                ..
            } = &response
            {
                self.sessions.insert((to.connection, at), (*term, *session));
            }
            let what = self.asked.get(&to.request).cloned().unwrap_or_default();
            self.print(&format!("{name} answers {what}: {response}"));
        }
        for (_, message) in out.peers {
            self.messages += 1;
            let number = self.messages;
            self.print(&format!("#{number} {message}"));
            self.net.insert(number, message);
        }
        for token in out.rounds {
            self.print(&format!("{name} asks a majority (round {token})"));
        }
        if !self.slow.contains(&at) {
            self.answer_reads(at);
        }
    }

    fn answer_reads(&mut self, at: usize) {
        while let Some((token, rows)) = self.shards[at].read_one() {
            self.step(at, |g, cx| g.handle_read(cx, token, rows));
        }
    }

    fn step(&mut self, at: usize, step: impl FnOnce(&mut Group, &Cx)) {
        let cx = self.shards[at].cx(self.now);
        step(&mut self.shards[at].leader, &cx);
        let out = self.shards[at].drain();
        self.take(at, out);
    }

    fn request(&mut self, txn: u64, at: usize, what: &str, request: Request) {
        self.requests += 1;
        self.asked.insert(self.requests, what.to_string());
        let from = Caller {
            connection: txn,
            request: self.requests,
        };
        self.step(at, |g, cx| g.handle_request(cx, from, request));
    }

    fn deliver(&mut self, message: PeerMessage) {
        let at = shard_of(&message.anchor);
        self.step(at, |g, cx| g.handle_peer(cx, message));
    }

    fn define(&mut self, words: &[&str]) {
        let txn = txn_named(words[0]);
        let mut plan = Plan {
            terms: BTreeMap::new(),
            coordinator: 0,
            writes: Vec::new(),
            timeout: 5_000,
        };
        for name in words[1].chars() {
            let at = shard_named(&name.to_string());
            let term = self
                .sessions
                .get(&(txn, at))
                .map_or(self.shards[at].term(), |s| s.0);
            plan.terms.insert(at, term);
        }
        let mut words = words[2..].iter();
        while let Some(word) = words.next() {
            match *word {
                "coord" => plan.coordinator = shard_named(words.next().expect("a shard")),
                "timeout" => {
                    plan.timeout = words.next().and_then(|w| w.parse().ok()).expect("a number");
                }
                write => {
                    let (key, value) = match write.split_once('=') {
                        Some((key, value)) => (key, Some(Value::copy_from_slice(value.as_bytes()))),
                        None => (write.trim_start_matches('-'), None),
                    };
                    let key = Key::copy_from_slice(key.as_bytes());
                    plan.writes.push(Write { key, value });
                }
            }
        }
        self.plans.insert(txn, plan);
    }

    fn anchor(&self, txn: u64, at: usize) -> Key {
        let written = self.plans[&txn]
            .writes
            .iter()
            .find(|w| shard_of(&w.key) == at);
        written.map_or_else(
            || Key::copy_from_slice(&[b'a' + at as u8, b'0']),
            |w| w.key.clone(),
        )
    }

    fn commit(&mut self, txn: u64, at: usize, what: &str) {
        let plan = self.plans[&txn].clone();
        let participants: Vec<Participant> = plan
            .terms
            .iter()
            .map(|(shard, term)| Participant {
                anchor: self.anchor(txn, *shard),
                shard: GroupId(*shard as u64 + 1),
                term: *term,
            })
            .collect();
        let index = |shard: usize| plan.terms.keys().position(|s| *s == shard).unwrap();
        let (participants, here, coordinator) =
            CommitRequest::participants_for(&participants, index(at), index(plan.coordinator));
        let request = CommitRequest {
            attempt: self.attempt(txn),
            priority: self.priority(txn),
            client: ClientId(txn),
            session: self.sessions.get(&(txn, at)).map(|s| s.1),
            writes: plan
                .writes
                .iter()
                .filter(|w| shard_of(&w.key) == at)
                .cloned()
                .collect(),
            reads: Vec::new(),
            participants,
            here,
            coordinator,
            timeout_millis: plan.timeout,
            snapshot: None,
        };
        self.request(txn, at, what, Request::Commit(Box::new(request)));
    }

    fn locked_read(&mut self, txn: u64, at: usize, what: &str, rest: &[&str], scan: bool) {
        let exclusive = rest.last() == Some(&"x");
        let rest = &rest[..rest.len() - usize::from(exclusive)];
        let keys = rest.iter().filter(|_| !scan);
        let request = Request::LockedRead {
            attempt: self.attempt(txn),
            priority: self.priority(txn),
            client: ClientId(txn),
            session: self.sessions.get(&(txn, at)).copied(),
            keys: keys.map(|k| Key::copy_from_slice(k.as_bytes())).collect(),
            scan: scan.then(|| scan_of(at, rest)),
            mode: if exclusive {
                LockMode::Exclusive
            } else {
                LockMode::Shared
            },
        };
        self.request(txn, at, what, request);
    }

    fn ask(&mut self, line: &str, words: &[&str]) {
        let (txn, at) = (txn_named(words[1]), shard_named(words[2]));
        let rest = &words[3..];
        match words[0] {
            "read" => self.locked_read(txn, at, line, rest, false),
            "scan" => self.locked_read(txn, at, line, rest, true),
            "status" => {
                let request = Request::Status {
                    attempt: self.attempt(txn),
                    anchor: self.anchor(txn, at),
                    term: self.plans[&txn].terms[&at],
                };
                self.request(txn, at, line, request);
            }
            "validate" => {
                let request = Request::Validate {
                    attempt: self.attempt(txn),
                    session: self.sessions[&(txn, at)],
                    keep: rest.first() == Some(&"keep"),
                };
                self.request(txn, at, line, request);
            }
            _ => {
                let request = Request::Release {
                    attempt: self.attempt(txn),
                    session: self.sessions.get(&(txn, at)).copied(),
                };
                self.request(txn, at, line, request);
            }
        }
    }

    fn network(&mut self, verb: &str, numbers: &[&str]) {
        let numbers: Vec<u32> = numbers
            .iter()
            .map(|n| n.parse().expect("a number"))
            .collect();
        if verb == "deliver" && numbers.is_empty() {
            for _ in 0..100 {
                let Some((_, message)) = self.net.pop_first() else {
                    return;
                };
                self.deliver(message);
            }
        }
        for number in numbers {
            let message = self.net.get(&number).cloned();
            let message = message.unwrap_or_else(|| panic!("no #{number} after:\n{}", self.out));
            if verb != "dup" {
                self.net.remove(&number);
            }
            if verb != "drop" {
                self.deliver(message);
            }
        }
    }

    fn show(&mut self, at: usize) {
        let group = &self.shards[at].leader;
        let intents: Vec<String> = group.open_intents().map(|a| a.to_string()).collect();
        let doubt: Vec<String> = group.in_doubt().map(|a| a.to_string()).collect();
        let line = format!(
            "{}: applied {} last {} intents [{}] in doubt [{}] sessions {} locks {} records {} resolutions {} resolved to {} strays {} contradictions {}",
            letter(at),
            group.applied(),
            group.last(),
            intents.join(" "),
            doubt.join(" "),
            group.sessions(),
            group.locks(),
            group.state().records.len(),
            group.state().resolutions.len(),
            group.resolved(),
            group.counters().strays,
            group.counters().contradictions,
        );
        self.print(&line);
    }

    fn world(&mut self, words: &[&str]) {
        let number = |at: usize| words.get(at).and_then(|w| w.parse::<u64>().ok());
        let at = words.get(1).map_or(0, |name| shard_named(name));
        match words[0] {
            "decide" => {
                let out = self.shards[at].decide(self.now, number(2).unwrap_or(100) as usize);
                self.take(at, out);
            }
            "takeover" => {
                let keep = number(3).unwrap_or(0) as usize;
                let (orphans, out) = self.shards[at].take_over(self.now, keep, usize::MAX);
                for orphan in orphans {
                    let what = self.asked.get(&orphan.request).cloned().unwrap_or_default();
                    self.print(&format!("orphaned: {what}"));
                }
                self.print(&format!(
                    "{} in office, term {}",
                    letter(at),
                    self.shards[at].round
                ));
                self.take(at, out);
            }
            "clock" => {
                let off = words[2].parse::<i64>().expect("milliseconds");
                self.shards[at].skew = off * 1_000_000;
            }
            "locate" => self.request(0, at, "locate", Request::Locate),
            "lease" => self.shards[at].lease = words[2] == "on",
            "limit" => {
                self.shards[at].limit = number(2).map(|ms| Timestamp(EPOCH + ms * 1_000_000));
            }
            "confirm" => {
                while let Some(token) = self.shards[at].confirms.pop_front() {
                    self.step(at, |g, cx| g.handle_confirmed(cx, token));
                }
            }
            "slow" => {
                self.slow.insert(at);
            }
            "engine" => {
                while self.shards[at].write_one() {}
                self.answer_reads(at);
            }
            "show" => self.show(at),
            other => panic!("no such command: {other}"),
        }
    }

    fn tick(&mut self, millis: u64) {
        let end = self.now.plus(millis * 1_000_000);
        loop {
            let next = self.shards.iter().filter_map(|s| s.leader.next_timeout());
            let Some(next) = next.min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            for at in 0..self.shards.len() {
                self.step(at, |g, cx| g.handle_timeout(cx));
            }
        }
        self.now = end;
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "txn" => self.define(&words[1..]),
            "commit" => {
                for name in &words[2..] {
                    let what = format!("commit {} {name}", words[1]);
                    self.commit(txn_named(words[1]), shard_named(name), &what);
                }
            }
            "latest" => {
                let at = shard_named(words[1]);
                let scan = words[2] == "scan";
                let keys = words[2..].iter().filter(|_| !scan);
                let request = Request::Latest {
                    keys: keys.map(|k| Key::copy_from_slice(k.as_bytes())).collect(),
                    scan: scan.then(|| scan_of(at, &words[3..])),
                };
                self.request(0, at, line, request);
            }
            "read" | "scan" | "status" | "validate" | "release" => self.ask(line, &words),
            "deliver" | "drop" | "dup" => self.network(words[0], &words[1..]),
            "id" => {
                let millis = words[2].parse().expect("milliseconds");
                self.begun.insert(txn_named(words[1]), millis);
            }
            "tick" => self.tick(words[1].parse().expect("milliseconds")),
            "gone" => {
                let client = ClientId(words[1].parse().expect("a number"));
                for at in 0..self.shards.len() {
                    self.step(at, |g, cx| g.handle_client_gone(cx, client));
                }
            }
            "seen" => {
                let (client, now) = (words[1].parse().expect("a number"), self.now);
                for shard in &mut self.shards {
                    shard.leader.handle_client_seen(now, ClientId(client), &[]);
                }
            }
            _ => self.world(&words),
        }
    }
}

fn scan_of(at: usize, rest: &[&str]) -> ScanRange {
    ScanRange {
        span: Span::of_prefix(&[b'a' + at as u8]),
        limit: rest[0].parse().expect("a limit"),
        reverse: rest.get(1) == Some(&"reverse"),
    }
}

/// Timestamps as milliseconds and nanoseconds since the start.
fn relative(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('@') {
        out.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        match number.parse::<u64>() {
            Ok(n) if n >= EPOCH => {
                let _ = write!(out, "{}", (n - EPOCH) / 1_000_000);
                if !(n - EPOCH).is_multiple_of(1_000_000) {
                    let _ = write!(out, "+{}", (n - EPOCH) % 1_000_000);
                }
            }
            _ => out.push_str(number),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn run(text: &str) -> String {
    let mut script = Script::new();
    for line in text.lines() {
        if line.starts_with("  ") {
            continue;
        }
        let _ = writeln!(script.out, "{line}");
        if !line.is_empty() && !line.starts_with('#') {
            script.line(line);
        }
    }
    script.out
}

/// Only for regeneration, at a developer's wish.
#[allow(clippy::disallowed_methods)]
fn update(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).expect("writing a script");
}

#[test]
fn golden_scripts() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("tests/golden")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 30, "scripts are missing");
    let mut wrong = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a script");
        let got = run(&text);
        if got != text && std::env::var_os("UPDATE_GOLDEN").is_some() {
            update(&path, &got);
        } else if got != text {
            wrong.push(format!("{}\n{got}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "differ:\n{}", wrong.join("\n"));
}

#[test]
fn the_text_form_escapes_bytes() {
    assert_eq!(show::bytes(b"a\0b"), "a\\x00b");
}
