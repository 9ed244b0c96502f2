//! `synod lab sim`: one seed, a saved run, or a sweep over many seeds.

use super::failure::{self, Show};
use super::progress::Progress;
use super::{read_text, status_of, summary};
use crate::exit::{Failure, Status};
use clap::builder::PossibleValuesParser;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use synod_harness::edn::{write_edn, write_json};
use synod_harness::sim::{
    MAX_RECIPE, Recipe, Report, RunOptions, Scenario, Sweep, SweepOptions, Violation, Wrong,
    shrink, sweep,
};

/// Seeds of a sweep that is bounded neither by number nor by time.
const SEEDS: u64 = 100;

/// `synod lab sim …`
#[derive(Debug, clap::Args)]
#[command(after_help = format!(
    "Example:
  synod lab sim --seeds 500
  synod lab sim --minutes 10 --first 1000
  synod lab sim --scenario router-loss --seeds 20
  synod lab sim --seed 42 --trace --lines 200
  synod lab sim --seed 42 --shrink --save failure.json
  synod lab sim --replay failure.json
  synod lab sim --seed 42 --export history.edn

Each seed is a whole cluster in one thread, clients included: real nodes, log, recovery and
transactions on a simulated network, disks and clocks. The seed decides everything: sizes,
timings, workload, faults. First things go wrong; then the faults stop, and everything must come
to rest. Equal seeds of one build do exactly the same; one seed in twenty runs twice to prove it.

What is checked: the numbered rules of the design after every step, and the clients' histories at
the end (strict serializability, bank, ring, exactly-once, sessions). Of the first seed that fails
everything is told: configuration, faults, what happened last, and how to run it again.

{}",
    super::STATUSES
))]
pub struct Args {
    /// Run this seed only, and tell more about it
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "first", "minutes", "replay"])]
    seed: Option<u64>,
    /// Run so many seeds [default: 100, or as many as --minutes allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "replay")]
    seeds: Option<u64>,
    /// The first of them
    #[arg(long, value_name = "F", default_value_t = 1, conflicts_with = "replay")]
    first: u64,
    /// Begin no seed after so many minutes
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=100_000), conflicts_with = "replay")]
    minutes: Option<u64>,
    /// Run a named scenario instead of what the seed makes up; see `synod lab scenarios`
    #[arg(long, value_name = "NAME", hide_possible_values = true, conflicts_with = "replay",
        value_parser = PossibleValuesParser::new(Scenario::ALL.iter().map(|s| s.name)))]
    scenario: Option<String>,
    /// Run what --save wrote
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Seeds side by side [default: one per processor]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// End the sweep after so many failing seeds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    failures: u16,
    /// Tell what happened last even if nothing is wrong (one seed only)
    #[arg(long)]
    trace: bool,
    /// Lines of what happened last
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    lines: u32,
    /// Print whole lines, however long
    #[arg(long)]
    wide: bool,
    /// Tell of renewals of leases and of syncs too; without this only where the broken rule is one
    /// of leases or clocks
    #[arg(long)]
    all: bool,
    /// Cut the first failing run down to what it needs to fail
    #[arg(long)]
    shrink: bool,
    /// Runs that --shrink may try
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    shrink_runs: u64,
    /// Write the failing run (as shrunk, if it is) to a file for --replay
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Write the history of list-append transactions in Jepsen's EDN form, or as JSON lines if the
    /// name ends in .json (one seed only)
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// List all rare paths with how often they were passed (sweeps only)
    #[arg(long)]
    marks: bool,
    /// Fail with status 13 if a rare path was never passed, save those that only
    /// thousands of seeds reach (sweeps only)
    #[arg(long)]
    strict_marks: bool,
}

/// Runs what was asked for.
pub fn run(args: &Args) -> Result<Status, Failure> {
    let scenario = args.scenario.as_deref().and_then(Scenario::find);
    if let Some(path) = &args.replay {
        let text = read_text(path, MAX_RECIPE)?;
        let recipe = Recipe::read(&text)
            .map_err(|e| Failure::input(format!("{} is no saved run: {e}", path.display())))?;
        return one(args, &recipe, Some(path));
    }
    if let Some(seed) = args.seed {
        return one(args, &Recipe::new(scenario, seed), None);
    }
    for (given, name) in [(args.trace, "--trace"), (args.export.is_some(), "--export")] {
        if given {
            return Err(Failure::input(format!(
                "{name} is for one run: add --seed S or --replay FILE"
            )));
        }
    }
    many(args, scenario)
}

/// One run.
fn one(args: &Args, recipe: &Recipe, file: Option<&Path>) -> Result<Status, Failure> {
    let mut report = recipe.run(RunOptions {
        lines: if args.trace { args.show().kept() } else { 0 },
        histories: args.export.is_some(),
    });
    if let Some(path) = &args.export {
        export(path, &report)?;
    }
    let show = args.show();
    if report.violations.is_empty() {
        println!("{}", failure::recipe(recipe));
        if args.trace {
            println!("{}", failure::trace(&report.lines, show));
        }
        print!("{}", summary::of_run(&report));
        return Ok(Status::Done);
    }
    let name = match file {
        Some(path) => path.display().to_string(),
        None => format!("seed {}", recipe.config.seed),
    };
    let again = match file {
        Some(path) => format!("--replay {}", path.display()),
        None => recipe.arguments(),
    };
    report = explain(args, &name, &again, recipe, &report);
    print!("{}", summary::of_run(&report));
    let status = status_of(&report.violations);
    Err(Failure::new(status, format!("{name} failed; see above")))
}

/// Many seeds.
fn many(args: &Args, scenario: Option<&'static Scenario>) -> Result<Status, Failure> {
    let seeds = match (args.seeds, args.minutes) {
        (Some(seeds), _) => Some(seeds),
        (None, None) => Some(SEEDS),
        (None, Some(_)) => None,
    };
    let mut options = SweepOptions {
        first: args.first,
        seeds: seeds.unwrap_or(u64::MAX).min(u64::MAX - args.first),
        time: args.minutes.map(|m| Duration::from_secs(60 * m)),
        failures: usize::from(args.failures),
        scenario,
        ..SweepOptions::default()
    };
    if let Some(threads) = args.threads {
        options.threads = usize::from(threads);
    }
    let progress = Progress::new();
    let found = sweep(&options, &|sweep| progress.sweep(sweep, seeds));
    progress.finish();
    if let Some(first) = found.failures.first() {
        let recipe = Recipe::new(scenario, first.seed);
        let report = Report {
            violations: first.violations.clone(),
            ..Report::default()
        };
        let name = format!("seed {}", first.seed);
        explain(args, &name, &recipe.arguments(), &recipe, &report);
    }
    print!("{}", summary::of_sweep(&found, args.marks));
    let verdict = verdict(&found, scenario)?;
    let never = found.never_hit();
    let tame: Vec<&str> = never
        .iter()
        .filter(|mark| !mark.is_rarest())
        .map(|mark| mark.name())
        .collect();
    if args.strict_marks && !tame.is_empty() {
        let tame = tame.join(", ");
        return Err(Failure::new(
            Status::Harness,
            format!("the sweep is too tame, it never passed: {tame}"),
        ));
    }
    Ok(verdict)
}

fn verdict(found: &Sweep, scenario: Option<&Scenario>) -> Result<Status, Failure> {
    if found.failures.is_empty() {
        return Ok(Status::Done);
    }
    println!("\nfailed");
    for failure in &found.failures {
        let mut rules: Vec<String> = failure
            .violations
            .iter()
            .map(|v| format!("{} {}", v.wrong, v.rule))
            .collect();
        rules.dedup();
        let arguments = Recipe::new(scenario, failure.seed).arguments();
        println!("  synod lab sim {arguments:<40} {}", rules.join(", "));
    }
    let all = found.failures.iter().flat_map(|f| &f.violations);
    let message = format!(
        "{} of {} seeds failed; see above",
        found.failures.len(),
        found.seeds
    );
    Err(Failure::new(status_of(all), message))
}

/// Tells everything about a run that failed: runs it again with its trace, and
/// shrinks it if asked to. Gives back the second run.
fn explain(args: &Args, name: &str, again: &str, recipe: &Recipe, report: &Report) -> Report {
    let show = args.show().about(&report.violations);
    let traced = recipe.run(RunOptions {
        lines: show.kept(),
        histories: false,
    });
    println!("{name} failed\n\nviolations");
    println!("{}", failure::violations(&report.violations, show));
    println!("{}", failure::recipe(recipe));
    println!("{}", failure::trace(&traced.lines, show));
    println!("run it again\n  synod lab sim {again}\n");
    let mut last = recipe.clone();
    if args.shrink {
        match report.violations.iter().find(|v| v.wrong != Wrong::Harness) {
            Some(violation) => last = shrunk(args, recipe, violation),
            None => println!("not shrunk: the lab itself failed, not what it runs\n"),
        }
    }
    if let Some(path) = &args.save {
        match save(path, &last) {
            Ok(()) => println!(
                "saved; run it again\n  synod lab sim --replay {}\n",
                path.display()
            ),
            // The failure itself matters more than the file.
            Err(failure) => eprintln!("synod: {failure}"),
        }
    }
    // What the first run found counts.
    let mut told = traced;
    if told.violations != report.violations {
        println!(
            "the second run, for the trace, found {} violations",
            told.violations.len()
        );
        println!("{}", failure::violations(&told.violations, show));
        told.violations.clone_from(&report.violations);
    }
    told
}

fn shrunk(args: &Args, recipe: &Recipe, violation: &Violation) -> Recipe {
    let progress = Progress::new();
    let shrunk = shrink(recipe, violation, args.shrink_runs, &mut |shrunk| {
        progress.shrink(shrunk);
    });
    progress.finish();
    println!("shrunk by {} runs\n", shrunk.runs);
    println!("{}", failure::recipe(&shrunk.recipe));
    let show = args.show().about(std::slice::from_ref(violation));
    let traced = shrunk.recipe.run(RunOptions {
        lines: show.kept(),
        histories: false,
    });
    println!("violations");
    println!("{}", failure::violations(&traced.violations, show));
    println!("{}", failure::trace(&traced.lines, show));
    shrunk.recipe
}

impl Args {
    fn show(&self) -> Show {
        Show {
            lines: self.lines as usize,
            wide: self.wide,
            all: self.all,
        }
    }
}

fn save(path: &Path, recipe: &Recipe) -> Result<(), Failure> {
    let refuse =
        |e: &dyn std::fmt::Display| Failure::input(format!("cannot write {}: {e}", path.display()));
    let text = recipe.write().map_err(|e| refuse(&e))?;
    std::fs::write(path, text + "\n").map_err(|e| refuse(&e))
}

fn export(path: &Path, report: &Report) -> Result<(), Failure> {
    let refuse =
        |e: std::io::Error| Failure::input(format!("cannot write {}: {e}", path.display()));
    let history = report.lists.clone().unwrap_or_default();
    let mut out = BufWriter::new(File::create(path).map_err(refuse)?);
    if path
        .extension()
        .is_some_and(|e| e == "json" || e == "jsonl")
    {
        write_json(&history, &mut out).map_err(refuse)?;
    } else {
        write_edn(&history, &mut out).map_err(refuse)?;
    }
    out.flush().map_err(refuse)?;
    eprintln!(
        "{} transactions written to {}",
        history.transactions.len(),
        path.display()
    );
    Ok(())
}
