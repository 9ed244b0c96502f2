//! Shows that the simulator's checks bite: runs it with each named breach of a
//! rule compiled in, until a seed finds it, and prints a table.
//!
//! ```sh
//! cargo run --release -p synod-harness --no-default-features --features mutations --bin mutations
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};
use synod_harness::sim::{Sweep, SweepOptions, sweep};
use synod_probe::Mutation;

const HELP: &str = "\
mutations: shows that the simulator catches each named breach of a rule

  mutations [--seeds N] [--first F] [--threads T] [--quick] [NAME ...]

  NAME ...      only these breaches; all if none is named
  --seeds N     give a breach up after so many seeds (default 2000)
  --first F     begin with this seed (default 1)
  --threads T   seeds side by side (default: all cores)
  --quick       no more than 20 seconds for each breach

Prints a table in Markdown. Exit status: 0 if all were caught, 1 if one was not,
2 for wrong arguments.
";

struct Arguments {
    options: SweepOptions,
    only: Vec<Mutation>,
}

fn number(value: Option<String>, name: &str) -> Result<u64, String> {
    let value = value.ok_or_else(|| format!("{name} needs a number"))?;
    let number = value.parse();
    number.map_err(|_| format!("{name} needs a number, not `{value}`"))
}

fn arguments() -> Result<Option<Arguments>, String> {
    let mut options = SweepOptions {
        seeds: 2000,
        twice_every: 0,
        failures: 1,
        ..SweepOptions::default()
    };
    let mut only = Vec::new();
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--seeds" => options.seeds = number(rest.next(), "--seeds")?,
            "--first" => options.first = number(rest.next(), "--first")?,
            "--threads" => {
                let threads = number(rest.next(), "--threads")?;
                options.threads = usize::try_from(threads).unwrap_or(1).clamp(1, 256);
            }
            "--quick" => options.time = Some(Duration::from_secs(20)),
            name => only
                .push(Mutation::named(name).ok_or_else(|| format!("there is no breach `{name}`"))?),
        }
    }
    if only.is_empty() {
        only = Mutation::ALL.to_vec();
    }
    Ok(Some(Arguments { options, only }))
}

/// One line of the table, and whether the breach was caught.
fn line(mutation: Mutation, found: &Sweep, took: Duration) -> (String, bool) {
    let caught = found.failures.first();
    let by = caught.and_then(|f| f.violations.first());
    let (seeds, by) = match by {
        Some(violation) => (
            found.seeds.to_string(),
            format!("{}: {}", violation.wrong, violation.rule),
        ),
        None => ("–".to_owned(), format!("not in {} seeds", found.seeds)),
    };
    let line = format!(
        "| {} | {} | {} | {seeds} | {by} | {:.1} s |",
        mutation.name(),
        mutation.rule(),
        mutation.what(),
        took.as_secs_f64()
    );
    (line, caught.is_some())
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("mutations: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    println!("| breach | rule | what it does wrong | seeds | seen by | time |");
    println!("|---|---|---|---|---|---|");
    let mut missed = Vec::new();
    let all = arguments.only.len();
    for mutation in arguments.only {
        let started = Instant::now();
        let options = SweepOptions {
            mutation: Some(mutation),
            ..arguments.options.clone()
        };
        let found = sweep(&options, &|_| {});
        let (line, caught) = line(mutation, &found, started.elapsed());
        println!("{line}");
        if !caught {
            missed.push(mutation.name());
        }
    }
    println!();
    println!("{} of {all} caught", all - missed.len());
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("missed: {}", missed.join(", "));
    ExitCode::from(1)
}
