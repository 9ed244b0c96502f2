//! Shows that the simulator's checks bite: runs it with each named breach of a
//! rule compiled in, until a seed finds it, and prints a table.
//!
//! ```sh
//! cargo run --release -p synod-harness --no-default-features --features mutations --bin mutations
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use synod_harness::sim::{Recipe, RunOptions, SimConfig, SweepOptions, Theme, Violation, sweep};
use synod_probe::{Mutation, mutate};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
mutations: shows that the simulator catches each named breach of a rule

  mutations [--seeds N] [--first F] [--seconds S] [--threads T] [--write FILE] [--words] [NAME ...]

  NAME ...      only these breaches; all if none is named
  --seeds N     give a breach up after so many seeds (default 2000)
  --first F     begin with this seed (default 1)
  --seconds S   give a breach up after so long; its row then tells how many seeds were run
  --threads T   seeds side by side (default: all cores)
  --write FILE  put the rows into the table of this Markdown file (docs/mutations.md), too;
                rows of breaches that are not run stay as they are
  --theme NAME  only seeds that draw this theme (for who writes one)
  --words       tell what each seed saw, too
  --none        run without any breach: nothing may be found in all N seeds;
                tells the rare paths that were never passed

Each breach is tried first with the seeds that caught those before it. Prints a table
in Markdown as it goes. Exit status: 0 if all were caught, 1 if one was not (with --none:
if anything was found), 2 for wrong arguments.
";

/// The lines around the table in the file to write.
const BEGIN: &str = "<!-- the table -->";
const END: &str = "<!-- end of the table -->";

struct Arguments {
    seeds: u64,
    first: u64,
    seconds: Option<Duration>,
    threads: usize,
    write: Option<PathBuf>,
    none: bool,
    words: bool,
    theme: Option<Theme>,
    only: Vec<Mutation>,
}

fn number(value: Option<String>, name: &str) -> Result<u64, String> {
    let value = value.ok_or_else(|| format!("{name} needs a number"))?;
    let number = value.parse();
    number.map_err(|_| format!("{name} needs a number, not `{value}`"))
}

fn arguments() -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        seeds: 2000,
        first: 1,
        seconds: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        write: None,
        none: false,
        words: false,
        theme: None,
        only: Vec::new(),
    };
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--seeds" => arguments.seeds = number(rest.next(), "--seeds")?,
            "--first" => arguments.first = number(rest.next(), "--first")?,
            "--seconds" => {
                let seconds = number(rest.next(), "--seconds")?;
                arguments.seconds = Some(Duration::from_secs(seconds));
            }
            "--threads" => {
                let threads = number(rest.next(), "--threads")?;
                arguments.threads = usize::try_from(threads).unwrap_or(1).clamp(1, 256);
            }
            "--write" => {
                let path = rest.next().ok_or("--write needs a file")?;
                arguments.write = Some(path.into());
            }
            "--none" => arguments.none = true,
            "--theme" => {
                let name = rest.next().ok_or("--theme needs a name")?;
                let known = |t: &&Theme| format!("{t:?}") == name;
                let theme = Theme::ALL.iter().find(known);
                arguments.theme = Some(*theme.ok_or(format!("there is no theme `{name}`"))?);
            }
            "--words" => arguments.words = true,
            name => arguments
                .only
                .push(Mutation::named(name).ok_or_else(|| format!("there is no breach `{name}`"))?),
        }
    }
    if arguments.only.is_empty() {
        arguments.only = Mutation::ALL.to_vec();
    }
    Ok(Some(arguments))
}

/// What became of one breach.
struct Hunt {
    /// Seeds run, the one that caught it included.
    seeds: u64,
    caught: Option<(u64, Violation)>,
    took: Duration,
}

/// Runs seeds with a breach until one finds something.
fn hunt(
    mutation: Mutation,
    seeds: impl Iterator<Item = u64> + Send,
    arguments: &Arguments,
) -> Hunt {
    let began = Instant::now();
    let themed = |seed: &u64| {
        let themes = || SimConfig::from_seed(*seed).themes;
        arguments
            .theme
            .is_none_or(|theme| themes().contains(&theme))
    };
    let seeds = seeds.filter(themed);
    let seeds = Mutex::new(seeds.take(usize::try_from(arguments.seeds).unwrap_or(usize::MAX)));
    let found = Mutex::new((0, None));
    let work = || {
        mutate(Some(mutation));
        loop {
            let late = arguments.seconds.is_some_and(|most| began.elapsed() > most);
            let over = late
                || found
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .1
                    .is_some();
            let next = || seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(seed) = (!over).then(next).flatten() else {
                break;
            };
            let report = Recipe::of_seed(seed).run(RunOptions::default());
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            // What still runs when one has caught it does not count.
            if found.1.is_none() {
                found.0 += 1;
                found.1 = report.violations.into_iter().next().map(|v| (seed, v));
            }
        }
        mutate(None);
    };
    std::thread::scope(|scope| {
        for _ in 1..arguments.threads {
            scope.spawn(work);
        }
        work();
    });
    let (seeds, caught) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Hunt {
        seeds,
        caught,
        took: began.elapsed(),
    }
}

/// One row of the table.
fn row(mutation: Mutation, hunt: &Hunt) -> String {
    let (seeds, by) = match &hunt.caught {
        Some((seed, violation)) => (
            hunt.seeds.to_string(),
            format!("{}: {} (seed {seed})", violation.wrong, violation.rule),
        ),
        None => ("–".to_owned(), format!("not in {} seeds", hunt.seeds)),
    };
    format!(
        "| {} | {} | {} | {seeds} | {by} |",
        mutation.name(),
        mutation.rule(),
        mutation.what(),
    )
}

const HEAD: &str =
    "| breach | rule | what it does wrong | seeds | seen by |\n|---|---|---|---:|---|";

/// Puts rows into the file's table, in the order of the breaches.
fn write(path: &PathBuf, rows: &BTreeMap<Mutation, String>) -> Result<(), String> {
    let say = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(say)?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (table, after) = rest.split_once(END)?;
        Some((before, table, after))
    });
    let (before, table, after) = parts.ok_or_else(|| {
        format!(
            "{}: no lines `{BEGIN}` and `{END}` around a table",
            path.display()
        )
    })?;
    let mut out = format!("{before}{BEGIN}\n{HEAD}\n");
    let mut caught = 0;
    for mutation in Mutation::ALL {
        let start = format!("| {} |", mutation.name());
        let old = || table.lines().find(|line| line.starts_with(&start));
        let row = rows.get(mutation).map(String::as_str).or_else(old);
        let unknown = format!(
            "| {} | {} | {} | – | not run |",
            mutation.name(),
            mutation.rule(),
            mutation.what()
        );
        let row = row.unwrap_or(&unknown);
        caught += usize::from(!row.contains("| – |"));
        let _ = writeln!(out, "{row}");
    }
    let all = Mutation::ALL.len();
    let _ = write!(out, "\n{caught} of {all} caught.\n{END}{after}");
    std::fs::write(path, out).map_err(say)
}

/// Runs all seeds without a breach.
fn none(arguments: &Arguments) -> ExitCode {
    let options = SweepOptions {
        first: arguments.first,
        seeds: arguments.seeds,
        threads: arguments.threads,
        time: arguments.seconds,
        twice_every: 0,
        ..SweepOptions::default()
    };
    let clean = sweep(&options, &|_| {});
    for failure in &clean.failures {
        for violation in &failure.violations {
            println!("seed {}: {violation}", failure.seed);
        }
    }
    println!(
        "{} of {} seeds failed; {:.2} s of work for each, {:.0} commits a second; never passed: {:?}",
        clean.failures.len(),
        clean.seeds,
        clean.busy.as_secs_f64() / clean.seeds.max(1) as f64,
        clean.rate(),
        clean.never_hit()
    );
    match clean.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    }
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
    if arguments.none {
        return none(&arguments);
    }
    println!("{HEAD}");
    let mut missed = Vec::new();
    let mut rows = BTreeMap::new();
    // Seeds that caught something, the latest first.
    let mut sharp: Vec<u64> = Vec::new();
    for mutation in &arguments.only {
        let known = sharp.clone();
        let others = (arguments.first..).filter(|seed| !known.contains(seed));
        let seeds = known.iter().copied().chain(others);
        let found = hunt(*mutation, seeds, &arguments);
        let row = row(*mutation, &found);
        println!("{row}  {:.1} s", found.took.as_secs_f64());
        if let (true, Some((_, violation))) = (arguments.words, &found.caught) {
            println!("    {violation}");
        }
        rows.insert(*mutation, row);
        match found.caught {
            Some((seed, _)) => {
                sharp.retain(|known| *known != seed);
                sharp.insert(0, seed);
            }
            None => missed.push(mutation.name()),
        }
        if let Some(path) = &arguments.write
            && let Err(error) = write(path, &rows)
        {
            eprintln!("mutations: {error}");
            return ExitCode::from(2);
        }
    }
    let all = arguments.only.len();
    println!("\n{} of {all} caught", all - missed.len());
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("missed: {}", missed.join(", "));
    ExitCode::from(1)
}
