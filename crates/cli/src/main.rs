//! `synod`: nodes, clusters and transactions from the command line.
//!
//! Every command prints its result on standard output, one message on standard
//! error if it fails (what happened, to what, what to do), and ends with the
//! same exit statuses ([`exit::Status`]).

// First, for its macros.
#[macro_use]
mod output;

mod bench;
mod bytes;
mod commands;
mod config;
mod connection;
#[cfg(test)]
mod decode;
mod demo;
mod duration;
mod exit;
mod lab;
mod sdk;
mod signals;

use clap::{Parser, Subcommand};
use exit::{Failure, Status};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A transactional key-value service: strictly serializable transactions over
/// sharded, replicated keys.
#[derive(Debug, Parser)]
#[command(
    name = "synod",
    version,
    after_help = format!(
        "Begin with `synod demo`: it starts a small cluster, moves money through it and kills a \
         node half-way.\n\n{}",
        exit::HELP
    )
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster on this machine, use it, kill a node, check that nothing is lost
    Demo(demo::Args),
    /// Make a cluster's CA, and certificates of nodes and users
    Cert(commands::cert::Args),
    /// Give a new cluster its first shards
    Init(commands::init::Args),
    /// Run a node
    Start(commands::start::Args),
    /// Read keys
    Get(commands::data::GetArgs),
    /// Write a key
    Put(commands::data::PutArgs),
    /// Delete keys
    Delete(commands::data::DeleteArgs),
    /// Read a range of keys
    Scan(commands::data::ScanArgs),
    /// Run a script of transactions
    Txn(commands::txn::Args),
    /// Run transactions interactively
    Shell(commands::shell::Args),
    /// Show nodes, shards, leaders and what is wrong
    Status(commands::status::Args),
    /// Let nodes join, empty them, take them out
    Node(commands::node::Args),
    /// Show where replicas are, why, and what a failure or a policy would do; move them
    Placement(commands::placement::Args),
    /// Split shards, and show how large they are
    Shard(commands::shard::Args),
    /// Go on with survivors of shards that have lost their majority for good
    Recover(commands::recover::Args),
    /// Raise the cluster's version once all nodes run a newer program
    Cluster(commands::cluster::Args),
    /// Measure throughput, latency and failover
    Bench(bench::Args),
    /// Break simulated clusters, and check histories
    Lab(lab::Args),
    /// Repair what can be repaired in a stopped node's directory
    Repair(commands::repair::Args),
    /// Print or check a configuration file
    Config(commands::config::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr(&args.command);
    match output::while_read(|| run(args.command)).unwrap_or(Ok(Status::Done)) {
        Ok(status) => status.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("synod: {failure}");
            }
            failure.status.into()
        }
    }
}

/// Nodes tell what they do; the other commands only what went wrong.
fn log_to_stderr(command: &Command) {
    let default = match command {
        Command::Start(_) => "info",
        _ => "off",
    };
    let filter = EnvFilter::try_from_env("SYNOD_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

fn run(command: Command) -> Result<Status, Failure> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Cert(args) => commands::cert::run(args),
        Command::Init(args) => block_on(commands::init::run(args)),
        Command::Start(args) => commands::start::run(&args),
        Command::Get(args) => block_on(commands::data::get(args)),
        Command::Put(args) => block_on(commands::data::put(args)),
        Command::Delete(args) => block_on(commands::data::delete(args)),
        Command::Scan(args) => block_on(commands::data::scan(args)),
        Command::Txn(args) => block_on(commands::txn::run(args)),
        Command::Shell(args) => block_on(commands::shell::run(args)),
        Command::Status(args) => block_on(commands::status::run(args)),
        Command::Node(args) => block_on(commands::node::run(args)),
        Command::Placement(args) => block_on(commands::placement::run(args)),
        Command::Shard(args) => block_on(commands::shard::run(args)),
        Command::Recover(args) => block_on(commands::recover::run(args)),
        Command::Cluster(args) => block_on(commands::cluster::run(args)),
        Command::Bench(args) => bench::run(args),
        Command::Lab(args) => lab::run(&args),
        Command::Repair(args) => commands::repair::run(&args),
        Command::Config(args) => commands::config::run(&args),
    }
}

/// Runs a command on one thread: there a call costs no hop between threads.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::cluster(format!("cannot start the runtime: {e}")))?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, name: &str) {
            for command in command.get_subcommands() {
                let name = format!("{name} {}", command.get_name());
                let help = command.get_after_help().map(ToString::to_string);
                let help = help.unwrap_or_default();
                assert!(help.contains("Example"), "{name}");
                assert!(help.contains(name.as_str()), "{name}");
                check(command, &name);
            }
        }
        check(&Args::command(), "synod");
    }
}
