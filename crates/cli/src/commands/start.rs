//! `synod start`: one node, in the foreground.

use crate::config::{self, File};
use crate::exit::{Failure, Status};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// `synod start …`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:
  synod config sample > n1.toml     # then say name, address, directory and certificates
  synod start --config n1.toml

The node runs until it is told to end (Ctrl-C or SIGTERM) or cannot go on; kill -9 loses nothing
that was acknowledged. A new cluster waits for `synod init`. What it reports goes to standard
error; SYNOD_LOG sets how much (error, warn, info, debug). --help lists all settings.",
    after_long_help = config::help()
)]
pub struct Args {
    /// The node's configuration file
    #[arg(long, value_name = "FILE", env = "SYNOD_CONFIG")]
    config: PathBuf,
}

/// Runs the node until it ends.
pub fn run(args: &Args) -> Result<Status, Failure> {
    let config = File::read(&args.config)?.node()?;
    let name = config.name.clone();
    let stops =
        |error: &dyn std::fmt::Display| Failure::cluster(format!("node {name} stops: {error}"));
    let node = synod_kv::start(config)
        .map_err(|e| Failure::cluster(format!("node {name} cannot start: {e}")))?;
    tracing::info!(node = name, address = %node.address(), "listening");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| stops(&e))?;
    let stopper = node.stopper();
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| stops(&e))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| stops(&e))?;
        let ended = node.ended();
        tokio::pin!(ended);
        tokio::select! {
            ended = &mut ended => return ended.map_err(|e| stops(&e)),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!(node = name, "told to end: handing over and stopping");
        stopper.stop();
        ended.await.map_err(|e| stops(&e))
    })?;
    Ok(Status::Done)
}
