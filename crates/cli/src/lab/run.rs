//! `synod lab run`: a scenario on real processes.

use super::progress::Progress;
use super::read_text;
use crate::config::File;
use crate::exit::{Failure, Status};
use crate::signals::Signals;
use std::path::{Path, PathBuf};
use std::time::Duration;
use synod_harness::lab::{self, FaultMark, MAX_SCENARIO, Outcome, Scenario, Shipped, report};
use synod_harness::sim::Wrong;

/// `synod lab run …`
#[derive(Debug, clap::Args)]
#[command(after_help = format!(
    "Example:
  synod lab run router-loss
  synod lab run my-scenario.toml --seed 7 --html report.html
  synod lab scenarios --print router-loss > my-scenario.toml

A scenario declares data centres with their nodes, clients and links, a load, a timeline of faults,
and what must hold at the end. It is run on real `synod` processes on loopback, in a temporary
directory; nothing is left of them. docs/testing.md tells all keys of the file. What makes no sense
in it is refused with its line before anything is started.

{}",
    super::STATUSES
))]
pub struct Args {
    /// A file, or the name of a scenario that comes with the program
    #[arg(value_name = "FILE|NAME")]
    scenario: String,
    /// What chance is drawn from, instead of what the scenario says
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Let the load run so long, instead of what the scenario says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
    /// Write the report as a page for a browser, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Leave the nodes' logs and data, and say where
    #[arg(long)]
    keep: bool,
}

/// Reads, checks, runs, reports.
pub fn run(args: &Args) -> Result<Status, Failure> {
    let scenario = read(args)?;
    check_settings(&scenario)?;
    if let Some(path) = &args.html {
        // An hour's run should not end at a directory that is not there.
        std::fs::write(path, "").map_err(|e| unwritable(path, &e))?;
    }
    let program = std::env::current_exe()
        .map_err(|e| Failure::new(Status::Harness, format!("cannot find this program: {e}")))?;
    let options = lab::Options {
        program,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        seed: args.seed,
        keep: args.keep,
    };
    let progress = Progress::new();
    let outcome = crate::block_on(async {
        let mut signals = Signals::listen()?;
        let mut tell = |event: lab::Progress<'_>| show(&progress, &scenario, &event);
        tokio::select! {
            ran = lab::run(&scenario, &options, &mut tell) => {
                ran.map_err(|error| Failure::new(Status::Harness, format!("the lab failed: {error}")))
            }
            _ = signals.next() => {
                Err(Failure::new(Status::Harness, "interrupted; nothing is left running"))
            }
        }
    });
    progress.finish();
    let Outcome { report, wrong, .. } = outcome?;
    if let Some(path) = &args.html {
        std::fs::write(path, report::html(&report)).map_err(|e| unwritable(path, &e))?;
    }
    if args.json {
        let text = serde_json::to_string_pretty(&report);
        println!("{}", text.map_err(|e| Failure::new(Status::Harness, e))?);
    } else {
        print!("{}", report::text(&report));
    }
    let status = match wrong {
        None => return Ok(Status::Done),
        Some(Wrong::Safety) => Status::Safety,
        Some(Wrong::Liveness) => Status::Liveness,
        Some(Wrong::Crash) => Status::Crash,
        Some(Wrong::Harness) => Status::Harness,
    };
    let missed: Vec<&str> = report
        .verdicts
        .iter()
        .filter(|verdict| !verdict.held)
        .map(|verdict| verdict.name.as_str())
        .collect();
    let message = format!(
        "{}: {} did not hold; see above",
        scenario.name,
        missed.join(", ")
    );
    Err(Failure::new(status, message))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::input(format!("cannot write {}: {error}", path.display()))
}

/// A shipped scenario, or a file.
fn read(args: &Args) -> Result<Scenario, Failure> {
    let name = &args.scenario;
    let path = Path::new(name);
    let read = if let Some(shipped) = Shipped::find(name) {
        shipped.scenario()
    } else if path.extension().is_none() && !path.exists() && !name.contains('/') {
        return Err(no_such(name));
    } else {
        let text = read_text(path, MAX_SCENARIO)?;
        if text.len() > MAX_SCENARIO {
            return Err(Failure::input(format!(
                "{name} is longer than {MAX_SCENARIO} bytes, the most a scenario may have"
            )));
        }
        let stem = path
            .file_stem()
            .map_or_else(|| name.clone().into(), |s| s.to_string_lossy());
        Scenario::read(&stem, &text, path.parent().unwrap_or(Path::new("")))
    };
    let read = read.and_then(|scenario| match args.seconds {
        Some(seconds) => scenario.with_length(Duration::from_secs(seconds)),
        None => Ok(scenario),
    });
    read.map_err(|bad| {
        let lines: Vec<String> = bad
            .mistakes
            .iter()
            .map(|mistake| format!("{name}: {mistake}"))
            .collect();
        Failure::input(format!("{}\nnothing was started", lines.join("\n")))
    })
}

fn no_such(name: &str) -> Failure {
    let names = lab::SHIPPED.iter().map(|shipped| shipped.name);
    let meant = match synod_placement::nearest(name, names) {
        Some(right) => format!("did you mean `{right}`?"),
        None => "`synod lab scenarios` lists them".to_owned(),
    };
    Failure::input(format!(
        "there is no file `{name}`, and no scenario of this name; {meant}"
    ))
}

/// Whether nodes would take the scenario's settings.
fn check_settings(scenario: &Scenario) -> Result<(), Failure> {
    let text = format!(
        "[node]\nname = \"n1\"\nlisten = \"127.0.0.1:1\"\ndata_dir = \"data\"\nca = \"ca.crt\"\n\
         cert = \"n1.crt\"\nkey = \"n1.key\"\nlocality = \"dc=a\"\n{}\n{}",
        scenario.settings.node, scenario.settings.sections
    );
    let checked = File::parse(Path::new("settings"), &text).and_then(|file| file.node(&[]));
    checked.map(|_| ()).map_err(|failure| {
        let name = &scenario.name;
        Failure::input(format!(
            "{name}: [settings]: {failure}\nnothing was started"
        ))
    })
}

/// One thing that happened.
fn show(progress: &Progress, scenario: &Scenario, event: &lab::Progress<'_>) {
    let at = |millis: u64| format!("{:>6.1} s", millis as f64 / 1000.0);
    let of = |mark: &FaultMark| match mark.on.as_slice() {
        [] => mark.what.clone(),
        on => format!("{}: {}", mark.what, on.join(", ")),
    };
    match event {
        lab::Progress::Starting => {
            let nodes = scenario.topology.nodes().len();
            let dcs = scenario.topology.dcs.len();
            let shards = scenario.shards;
            progress.say(&format!(
                "{}: starting {nodes} nodes in {dcs} data centres, {shards} shards",
                scenario.name
            ));
        }
        lab::Progress::Ready(took) => {
            let words = scenario.length.as_secs_f64();
            progress.say(&format!(
                "ready after {:.1} s; the load runs for {words} s",
                took.as_secs_f64()
            ));
        }
        lab::Progress::Begun(mark) => {
            progress.say(&format!("{}  {}", at(mark.at_millis), of(mark)));
        }
        lab::Progress::Ended(mark) => {
            let until = mark.until_millis.unwrap_or(mark.at_millis);
            progress.say(&format!("{}  over: {}", at(until), of(mark)));
        }
        lab::Progress::Running(now, counts) => {
            progress.show(|| {
                let counts: Vec<String> = counts
                    .iter()
                    .map(|(name, [ok, failed, unknown])| {
                        format!("{name} {ok} ok, {failed} failed, {unknown} unknown")
                    })
                    .collect();
                format!("{:>6.1} s  {}", now.as_secs_f64(), counts.join("; "))
            });
        }
        lab::Progress::Checking => {
            progress.say("the load is over; waiting for rest, and reading everything back");
        }
    }
}
