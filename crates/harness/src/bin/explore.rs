//! Explores the small cases completely, within the bounds given.
//!
//! ```text
//! explore consensus [--campaigns N] [--proposals N] [--crashes N] [--timers N] [--repeats N]
//!                   [--times N] [--renews N] [--candidates N] [--slow-disks] [--parts] [--stale]
//! explore commit    [--older none|one-shard|over-read|two-shards] [--changes N] [--repeats N]
//!                   [--timers N] [--deadlines N] [--questions N] [--asks N] [--forgets N]
//!                   [--ahead 1|2] [--heal-every N]
//! explore all       larger bounds, minutes each, one after the other; prints a table
//! explore bite      every mutation in scope, until one of the small bounds catches it
//! ```
//!
//! Everywhere: `--states N` and `--seconds N` bound the search, `--quiet` prints no
//! progress, `--mutation NAME` breaks a rule (feature `mutations`). Exit status: 0
//! complete without a violation, 1 violated (or, with `bite`, something missed), 2 wrong
//! arguments, 3 not complete.

#![allow(
    clippy::disallowed_methods,
    reason = "a command reads its own arguments"
)]

use std::process::ExitCode;
use std::time::Duration;
use synod_harness::explore::{Case, Limits, Report, cases};

/// The arguments, taken one by one.
struct Args(Vec<String>);

impl Args {
    fn flag(&mut self, name: &str) -> bool {
        let place = self.0.iter().position(|a| a == name);
        place.map(|at| self.0.remove(at)).is_some()
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(at) = self.0.iter().position(|a| a == name) else {
            return Ok(None);
        };
        if at + 1 == self.0.len() {
            return Err(format!("{name} needs a value"));
        }
        self.0.remove(at);
        Ok(Some(self.0.remove(at)))
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.value(name)? else {
            return Ok(None);
        };
        let number = text.parse();
        number
            .map(Some)
            .map_err(|_| format!("{name} takes a number, not {text}"))
    }

    fn end(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some(other) => Err(format!("what is {other}? (see the top of this program)")),
        }
    }
}

fn limits(args: &mut Args) -> Result<Limits, String> {
    let mut limits = Limits {
        progress: if args.flag("--quiet") { 0 } else { 500_000 },
        ..Limits::default()
    };
    if let Some(states) = args.number("--states")? {
        limits.states = usize::try_from(states).unwrap_or(usize::MAX);
    }
    if let Some(seconds) = args.number("--seconds")? {
        limits.time = Duration::from_secs(seconds);
    }
    Ok(limits)
}

/// Reads the bounds of one case; what is not given is zero.
fn case(which: &str, args: &mut Args) -> Result<Case, String> {
    let mut case = Case::empty(which).ok_or_else(|| {
        format!("explore what? `consensus`, `commit`, `all` or `bite`, not `{which}`")
    })?;
    for name in case.names() {
        let flag = format!("--{name}");
        if case.is_switch(name) {
            if args.flag(&flag) {
                case.set(name, "1")?;
            }
        } else if let Some(value) = args.value(&flag)? {
            case.set(name, &value)?;
        }
    }
    Ok(case)
}

#[cfg(feature = "mutations")]
fn mutate(name: Option<&str>) -> Result<(), String> {
    let Some(name) = name else { return Ok(()) };
    let all = synod_probe::Mutation::ALL;
    let found = all.iter().copied().find(|m| m.name() == name);
    let mutation = found.ok_or_else(|| format!("no mutation is called {name}"))?;
    synod_probe::mutate(Some(mutation));
    Ok(())
}

#[cfg(not(feature = "mutations"))]
fn mutate(name: Option<&str>) -> Result<(), String> {
    match name {
        None => Ok(()),
        Some(_) => Err("build with --features mutations to break rules".to_owned()),
    }
}

fn verdict(report: &Report) -> u8 {
    match (&report.found, report.complete) {
        (Some(_), _) => 1,
        (None, true) => 0,
        (None, false) => 3,
    }
}

fn row(label: &str, report: &Report) {
    println!(
        "| {label} | {} | {} | {} | {:.0} s | {} |",
        report.states,
        report.transitions,
        report.depth,
        report.took.as_secs_f64(),
        ["none", "VIOLATED", "", "not complete"][usize::from(verdict(report))],
    );
}

/// The table of everything.
fn all(limits: &Limits) -> u8 {
    println!("| bounds | states | steps | depth | time | violations |\n|---|---|---|---|---|---|");
    let mut worst = 0;
    for case in cases::large() {
        let report = case.explore(limits);
        row(&case.label(), &report);
        if report.found.is_some() {
            println!("\n{report}");
        }
        worst = worst.max(verdict(&report));
    }
    worst
}

/// Each mutation in scope, and the first small case that catches it.
fn bite(limits: &Limits) -> Result<u8, String> {
    println!("| mutation | bounds | states | depth | found |\n|---|---|---|---|---|");
    let mut missed = 0;
    for (mutation, case) in cases::bites() {
        mutate(Some(mutation))?;
        let report = case.explore(limits);
        let found = report.found.as_ref();
        let words = found.map_or("MISSED", |f| f.rule.lines().next().unwrap_or(""));
        missed |= u8::from(found.is_none());
        let (states, depth) = (report.states, report.depth);
        println!(
            "| {mutation} | {} | {states} | {depth} | {words} |",
            case.label()
        );
    }
    Ok(missed)
}

fn run() -> Result<u8, String> {
    let mut args = Args(std::env::args().skip(1).collect());
    if args.0.is_empty() {
        return Err("explore what? `consensus`, `commit`, `all` or `bite`".to_owned());
    }
    let which = args.0.remove(0);
    let limits = limits(&mut args)?;
    mutate(args.value("--mutation")?.as_deref())?;
    match which.as_str() {
        "all" => {
            args.end()?;
            Ok(all(&limits))
        }
        "bite" => {
            args.end()?;
            bite(&limits)
        }
        _ => {
            let case = case(&which, &mut args)?;
            args.end()?;
            println!("{}", case.label());
            let report = case.explore(&limits);
            println!("{report}");
            Ok(verdict(&report))
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
