//! `synod start`: one node, in the foreground.

use crate::config::{self, File, Given};
use crate::exit::{Failure, Status};
use std::path::{Path, PathBuf};
use synod_kv::StartError;
use synod_paxos::{ClusterVersion, VersionRange};
use synod_rpc::cert::CertFiles;
use synod_rpc::{CertRole, RpcError, Subject};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLE: &str = "Example:
  synod start --name n1 --listen 127.0.0.1:7001 --data data/n1 --certs certs

  synod config sample > n1.toml     # then say name, address, directory and certificates
  synod start --config n1.toml

The node runs until it is told to end (Ctrl-C or SIGTERM) or cannot go on; kill -9 loses nothing
that was acknowledged. A new cluster waits for `synod init`. What it reports goes to standard
error; SYNOD_LOG sets how much (error, warn, info, debug).";

/// `synod start …`
#[derive(Debug, clap::Args)]
#[command(
    after_help = format!("{EXAMPLE} --help lists all settings."),
    after_long_help = format!("{EXAMPLE}\n\n{}", config::help())
)]
pub struct Args {
    /// The node's configuration file; the options below go before what it says
    #[arg(long, value_name = "FILE", env = "SYNOD_CONFIG")]
    config: Option<PathBuf>,
    /// The node's name, the one in its certificate
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// UDP address to listen on
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Address at which nodes and clients reach it, if another than --listen
    #[arg(long, value_name = "IP:PORT")]
    advertise: Option<String>,
    /// Where the node is, widest tier first, for instance region=eu,dc=eu-1
    #[arg(long, value_name = "TIER=VALUE,…")]
    locality: Option<String>,
    /// Directory of the node's identity, log and data; made if it is not there
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Directory with ca.crt and node-NAME.crt/.key, as `synod cert` wrote them
    #[arg(long, value_name = "DIR")]
    certs: Option<String>,
}

impl Args {
    /// What the options say, checked only for being there if there is no file.
    fn given(&self, file: Option<&File>) -> Result<Vec<Given>, Failure> {
        let options = [
            ("--name", "name", &self.name),
            ("--listen", "listen", &self.listen),
            ("--advertise", "advertise", &self.advertise),
            ("--locality", "locality", &self.locality),
            ("--data", "data_dir", &self.data),
        ];
        let needed = [
            ("--name", &self.name),
            ("--listen", &self.listen),
            ("--data", &self.data),
            ("--certs", &self.certs),
        ];
        let missing: Vec<&str> = needed
            .iter()
            .filter(|(_, value)| file.is_none() && value.is_none())
            .map(|(option, _)| *option)
            .collect();
        if !missing.is_empty() {
            return Err(Failure::input(format!(
                "missing: {}; say them, or name a configuration file with --config FILE \
                 (`synod config sample` prints one)",
                missing.join(", ")
            )));
        }
        let mut given = Vec::new();
        for (option, key, value) in options {
            given.extend(value.clone().map(|value| Given { option, key, value }));
        }
        if let Some(dir) = &self.certs {
            let name = match (&self.name, file) {
                (Some(name), _) => name.clone(),
                (None, Some(file)) => file.node(&given)?.name,
                (None, None) => String::new(),
            };
            let role = CertRole::Node;
            let own = CertFiles::of(Path::new(dir), &Subject { role, name });
            let ca = CertFiles::ca(Path::new(dir)).certificate;
            for (key, path) in [("ca", ca), ("cert", own.certificate), ("key", own.key)] {
                given.push(Given {
                    option: "--certs",
                    key,
                    value: path.display().to_string(),
                });
            }
        }
        Ok(given)
    }
}

/// In a test build this makes a node act as one of a program that knows cluster versions up
/// to another one: an older program, or the next.
const CLAIM: &str = "SYNOD_TEST_CLAIM_VERSION";

/// The cluster versions that the node knows. Only a test build may claim others: a node that
/// does not really know a version would take part in what it cannot read.
fn supports() -> Result<VersionRange, Failure> {
    let Ok(text) = std::env::var(CLAIM) else {
        return Ok(VersionRange::OWN);
    };
    if !cfg!(any(debug_assertions, feature = "claim-version")) {
        return Err(Failure::input(format!(
            "{CLAIM} is set, and this program was not built for tests: unset it"
        )));
    }
    let next = ClusterVersion::NEWEST.0 + 1;
    let newest = text.parse().ok().map(ClusterVersion);
    let newest = newest.filter(|v| (ClusterVersion::OLDEST.0..=next).contains(&v.0));
    let newest = newest.ok_or_else(|| {
        Failure::input(format!(
            "{CLAIM} is `{text}`: it may be a number from {} to {next}",
            ClusterVersion::OLDEST.0
        ))
    })?;
    let oldest = ClusterVersion::OLDEST;
    Ok(VersionRange { oldest, newest })
}

/// Bad certificates are bad input; the rest is a node that cannot run.
fn cannot_start(name: &str, error: &StartError) -> Failure {
    let message = format!("node {name} cannot start: {error}");
    match error {
        StartError::Identity(_)
        | StartError::Certificate { .. }
        | StartError::Rpc(RpcError::Identity(_)) => Failure::input(message),
        _ => Failure::cluster(message),
    }
}

/// A heap that grows would get pages of 2 MiB, for which the allocator asks, and whoever touches one
/// first waits until all of it is cleared: with 256 clients p99 was twice as high (docs/performance.md).
fn do_without_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "the system does not turn huge pages off for one program");
    }
}

/// Runs the node until it ends.
pub fn run(args: &Args) -> Result<Status, Failure> {
    let file = args.config.as_deref().map(File::read).transpose()?;
    let given = args.given(file.as_ref())?;
    let mut config = file.unwrap_or_default().node(&given)?;
    config.supports = supports()?;
    if config.listen.ip().is_unspecified() && config.advertise.is_none() {
        return Err(Failure::input(format!(
            "node {} listens on {}, an address at which nobody else reaches it: say where it is reached \
             with --advertise HOST:PORT, or node.advertise in its file",
            config.name, config.listen
        )));
    }
    do_without_huge_pages();
    let name = config.name.clone();
    let stops =
        |error: &dyn std::fmt::Display| Failure::cluster(format!("node {name} stops: {error}"));
    let node = synod_kv::start(config).map_err(|e| cannot_start(&name, &e))?;
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
