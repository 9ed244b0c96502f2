//! The program: see the library for what it does.

use clap::Parser;
use ledger::replay::{self, Counts};
use ledger::{row, verify};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};
use synod_client::{Client, Config, Identity};

/// Replay a ledger on a Synod cluster and verify the result.
#[derive(Debug, Parser)]
#[command(
    name = "ledger",
    after_help = "Example:
  synod init --endpoint 127.0.0.1:7001 --endpoint 127.0.0.1:7002 --endpoint 127.0.0.1:7003 \\
             --certs certs --split ledger/movements/ --split ledger/parties/
  ledger --file ledger.csv --clients 32 --endpoint 127.0.0.1:7001 --certs certs

Repeating it is harmless: rows that were booked already are skipped, and everything is verified
again. Exit status: 0 all booked and verified, 1 something is wrong, 2 bad arguments or file
(nothing was sent), 4 no cluster."
)]
struct Args {
    /// The ledger: CSV with trans_id,date,account,counterparty,kind,amount_cents,balance_cents
    #[arg(long)]
    file: PathBuf,
    /// Rows that are booked at the same time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// Address of a node, host:port; repeat for more
    #[arg(
        short,
        long = "endpoint",
        required = true,
        env = "SYNOD_ENDPOINTS",
        value_delimiter = ','
    )]
    endpoints: Vec<String>,
    /// Directory with ca.crt and user-NAME.crt/.key
    #[arg(long, env = "SYNOD_CERTS", default_value = "certs")]
    certs: PathBuf,
    /// The user whose certificate is used
    #[arg(long, env = "SYNOD_USER", default_value = "admin")]
    user: String,
    /// Seconds that one row may take, failovers included
    #[arg(long, default_value_t = 60)]
    timeout_seconds: u64,
}

/// Why the program ends early, with its exit status.
struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    fn new(status: u8, message: impl std::fmt::Display) -> Failure {
        Failure {
            status,
            message: message.to_string(),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ledger: {}", failure.message);
            ExitCode::from(failure.status)
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let rows = load(&args.file)?;
    // One thread: there a call costs no hop between threads.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(4, format!("cannot start the runtime: {e}")))?;
    tokio::task::LocalSet::new().block_on(&runtime, book_and_verify(args, rows))
}

fn load(path: &Path) -> Result<Vec<row::Row>, Failure> {
    let refuse = |why: String| Failure::new(2, format!("{}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| refuse(format!("cannot open it: {e}")))?;
    row::read(std::io::BufReader::new(file)).map_err(|e| refuse(e.to_string()))
}

async fn connect(args: &Args) -> Result<Client, Failure> {
    let identity = Identity::Files {
        ca: args.certs.join("ca.crt"),
        cert: args.certs.join(format!("user-{}.crt", args.user)),
        key: args.certs.join(format!("user-{}.key", args.user)),
    };
    let mut config = Config::new(args.endpoints.iter().cloned(), identity);
    config.timeout = Duration::from_secs(args.timeout_seconds);
    Client::connect(config).await.map_err(|e| match e {
        synod_client::Error::Config(_) => Failure::new(2, e),
        _ => Failure::new(4, e),
    })
}

async fn book_and_verify(args: &Args, rows: Vec<row::Row>) -> Result<(), Failure> {
    let client = connect(args).await?;
    let expected = row::expected(&rows);
    let total = rows.len();
    let counts = Rc::new(Counts::default());
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for part in row::partition(rows, usize::from(args.clients)) {
        let (client, counts) = (client.clone(), Rc::clone(&counts));
        tasks.push(tokio::task::spawn_local(async move {
            replay::worker(&client, &part, &counts).await
        }));
    }
    let watched = Rc::clone(&counts);
    let watcher = tokio::task::spawn_local(async move { watched.tell(total, begun).await });
    let mut failed = None;
    for task in tasks {
        match task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                counts.stop();
                failed.get_or_insert(error.to_string());
            }
            Err(panic) => {
                counts.stop();
                failed.get_or_insert(panic.to_string());
            }
        }
    }
    watcher.abort();
    let seconds = begun.elapsed().as_secs_f64();
    let booked = counts.booked.get();
    println!(
        "{booked} rows booked, {} were there already; {:.1} s, {:.0} rows/s, {} retries",
        counts.skipped.get(),
        seconds,
        booked as f64 / seconds,
        counts.retries.get()
    );
    if let Some(reason) = failed {
        return Err(Failure::new(
            1,
            format!("{reason}\nnot all rows are booked; the same command continues"),
        ));
    }
    let wrong = verify::verify(&client, &expected)
        .await
        .map_err(|e| Failure::new(4, format!("cannot read the result back: {e}")))?;
    for line in wrong.iter().take(20) {
        eprintln!("WRONG: {line}");
    }
    if wrong.is_empty() {
        println!(
            "verified: {} balances, {} movements, everything sums to zero",
            expected.balances.len(),
            expected.movements.len()
        );
        Ok(())
    } else {
        Err(Failure::new(1, format!("{} things are wrong", wrong.len())))
    }
}
