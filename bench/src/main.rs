//! `synod-bench`: Synod and etcd, measured by one driver, alternately, in one go.
//!
//! Each group of workloads runs on a fresh cluster of three processes on
//! loopback, first Synod's, then etcd's, and all of that again and again: what
//! disturbs the machine meets both. See `docs/benchmarks.md` for what came out.

mod error;
mod etcd;
mod failover;
mod fanout;
mod ledger;
mod measure;
mod memory;
mod plan;
mod record;
mod report;
mod synod;
mod system;
mod tails;
mod usage;
mod workload;

use clap::Parser;
use error::Error;
use plan::{Group, Scale};
use record::Record;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use system::{Layout, System};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure Synod and etcd side by side.
#[derive(Debug, Parser)]
#[command(
    name = "synod-bench",
    after_help = "Example:
  bench/run                                    # everything, into docs/benchmarks.md and .svg
  bench/run --quick                            # that everything works
  bench/run put get --clients 1,256            # only told here
  bench/run put --systems synod --seconds 10 --rounds 1
  bench/run tails --rounds 1 --results bench/results.jsonl
  bench/run --rounds 0 --results bench/results.jsonl --docs docs    # only tables and picture"
)]
struct Args {
    /// What to measure; without names, everything
    #[arg(value_enum)]
    groups: Vec<Group>,
    /// Whom to measure, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["synod", "etcd"])]
    systems: Vec<System>,
    /// How often everything is repeated [default: 3, or 1 if quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1000))]
    rounds: Option<u32>,
    /// A fraction of a second for each workload, with few keys: shows that everything works
    #[arg(long)]
    quick: bool,
    /// Seconds that are counted, for each workload
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds before that
    #[arg(long)]
    warmup: Option<f64>,
    /// Different keys
    #[arg(long, value_parser = clap::value_parser!(u64).range(300..=100_000_000))]
    keys: Option<u64>,
    /// Numbers of clients of put, get and txn2
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: Option<Vec<u32>>,
    /// Seconds of `tails`
    #[arg(long)]
    tails_seconds: Option<f64>,
    /// A ledger to replay: CSV, as `examples/ledger` reads it
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Add the figures to this file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Then write benchmarks.md (between its markers) and benchmarks.svg in this directory, from
    /// all that is in the file of results
    #[arg(long, value_name = "DIR", requires = "results")]
    docs: Option<PathBuf>,
    /// The program that is measured
    #[arg(long, value_name = "FILE", default_value = "target/release/synod")]
    synod: PathBuf,
    /// The program it is compared with
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/etcd")]
    etcd: PathBuf,
    /// Connections to etcd's leader
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    etcd_connections: u16,
    /// End Synod's nodes in order: a program built to write a profile does so as it ends
    #[arg(long)]
    in_order: bool,
}

impl Args {
    fn scale(&self) -> Scale {
        let mut scale = if self.quick {
            Scale::quick()
        } else {
            Scale::full()
        };
        let seconds = |given: Option<f64>, or: Duration| match given {
            Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(or),
            None => or,
        };
        scale.measured = seconds(self.seconds, scale.measured);
        scale.warmup = seconds(self.warmup, scale.warmup);
        scale.keys = self.keys.unwrap_or(scale.keys);
        scale.tails = seconds(self.tails_seconds, scale.tails);
        if let Some(clients) = &self.clients {
            scale.clients.clone_from(clients);
        }
        if let Some(ledger) = &self.ledger {
            scale.ledger.clone_from(ledger);
        }
        scale
    }

    /// Where figures go, and where the document is; a run of everything has its own places.
    fn places(&self) -> Result<(Option<PathBuf>, Option<PathBuf>), Error> {
        if self.results.is_some() || !self.groups.is_empty() {
            return Ok((self.results.clone(), self.docs.clone()));
        }
        let (results, docs) = if self.quick {
            let dir = PathBuf::from("target/bench-quick");
            std::fs::create_dir_all(&dir).map_err(Error::io("making target/bench-quick"))?;
            let copied = std::fs::copy("docs/benchmarks.md", dir.join("benchmarks.md"));
            copied.map_err(Error::io("copying docs/benchmarks.md"))?;
            (dir.join("results.jsonl"), dir)
        } else {
            (PathBuf::from("bench/results.jsonl"), PathBuf::from("docs"))
        };
        std::fs::write(&results, "")
            .map_err(Error::io(format!("writing {}", results.display())))?;
        Ok((Some(results), Some(docs)))
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // One thread for the clients, whoever is measured: there a call costs no hop
    // between threads, and the other core is the servers'.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    match tokio::task::LocalSet::new().block_on(&runtime, until_signal(run(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("synod-bench: {message}");
    ExitCode::FAILURE
}

/// Ends with a signal, too; then what is dropped stops its processes.
async fn until_signal(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let listen = |kind| signal(kind).map_err(Error::io("listening for signals"));
    let (mut term, mut int) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    tokio::select! {
        done = work => done,
        _ = term.recv() => Err(Error::Interrupted),
        _ = int.recv() => Err(Error::Interrupted),
    }
}

async fn run(args: &Args) -> Result<(), Error> {
    let scale = args.scale();
    let layout = Layout {
        synod: args.synod.clone(),
        etcd: args.etcd.clone(),
        splits: Vec::new(),
        etcd_connections: args.etcd_connections.into(),
        in_order: args.in_order,
    };
    let groups = match &args.groups[..] {
        [] => &Group::ALL[..],
        named => named,
    };
    let (results, docs) = args.places()?;
    let mut tell = |record: Record| {
        println!("{}", record.line());
        let failed = record.figure("failed").unwrap_or(0.0);
        if args.quick && failed > 0.0 {
            return Err(Error::Wrong(format!("{failed} operations failed")));
        }
        match &results {
            Some(path) => record::append(path, &record),
            None => Ok(()),
        }
    };
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 3 });
    for _ in 0..rounds {
        for &group in groups {
            for &system in &args.systems {
                one(group, system, &layout, &scale, &mut tell).await?;
            }
        }
    }
    if let (Some(results), Some(docs)) = (&results, &docs) {
        report::write(results, docs)?;
        println!("written: {}", docs.join("benchmarks.md").display());
    }
    Ok(())
}

/// One group on one system.
async fn one(
    group: Group,
    system: System,
    layout: &Layout,
    scale: &Scale,
    tell: &mut impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    match group {
        Group::Fanout if system == System::Etcd => Ok(()),
        Group::Fanout => fanout::run(layout, scale, tell).await,
        Group::Failover => failover::run(system, layout, scale, tell).await,
        Group::Ledger => ledger::run(system, layout, scale, tell).await,
        Group::Memory => memory::run(system, layout, scale, tell).await,
        Group::Tails => tails::run(system, layout, scale, tell).await,
        _ => measure::group(group, system, layout, scale, tell).await,
    }
}
