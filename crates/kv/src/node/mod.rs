//! The node: one thread owns the sockets and steps the shards; only log syncs
//! and the engine's applies leave it (§8 Threads).

mod admin;
mod certificates;
mod chores;
mod clients;
mod connections;
mod copies;
mod driver;
mod engine_thread;
mod farewell;
mod gauge;
mod gossip;
mod hash;
mod intake;
mod join;
mod keeper;
mod lanes;
mod members;
mod merger;
mod own;
mod pacer;
mod records;
mod recovery;
mod remains;
mod rows;
mod space;
mod split;
mod splitter;
mod time;
mod versions;

use crate::config::NodeConfig;
use crate::identity::{Directory, DirectoryError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use synod_paxos::{ClusterVersion, VersionRange};
use tokio::sync::{oneshot, watch};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its certificates cannot be used.
    #[error(transparent)]
    Identity(#[from] synod_rpc::error::IdentityError),
    /// Its socket cannot be used.
    #[error(transparent)]
    Rpc(#[from] synod_rpc::RpcError),
    /// Its certificate is not that of this node.
    #[error(
        "the certificate is for {found}, this node is `{wanted}`: name the right files in \
         `cert` and `key`, or issue one with `synod cert node {wanted}`"
    )]
    Certificate {
        /// Whose it is.
        found: String,
        /// Which node this is.
        wanted: String,
    },
    /// Its log cannot be used.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    /// Its engine cannot be used.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// There is no way from log and engine to a running state.
    #[error(transparent)]
    Recovery(#[from] crate::machine::RecoveryError),
    /// Its cluster is at a version that this program does not know.
    #[error(
        "{path} belongs to a cluster at cluster version {found}, this program knows {known}: start \
         a program that knows that version (a cluster's version is never lowered)"
    )]
    ClusterVersion {
        /// The directory.
        path: PathBuf,
        /// The cluster's.
        found: u32,
        /// Those of this program.
        known: VersionRange,
    },
    /// A small file cannot be used.
    #[error(transparent)]
    File(#[from] crate::files::FileError),
    /// The operating system said no.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The answer.
        source: std::io::Error,
    },
}

/// Why a running node stopped by itself.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// A running node.
#[derive(Debug)]
pub struct NodeHandle {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<(), Fatal>>,
    ended: oneshot::Receiver<()>,
}

impl NodeHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks it to hand over its leaderships and stop. May be called from
    /// anywhere, more than once.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Waits until it has stopped, without blocking the runtime.
    ///
    /// # Errors
    /// When it stopped by itself: a storage error, most likely.
    pub async fn ended(mut self) -> Result<(), Fatal> {
        let _ = (&mut self.ended).await;
        self.wait()
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// As [`NodeHandle::ended`].
    pub fn wait(self) -> Result<(), Fatal> {
        self.thread.join().unwrap_or_else(|_| {
            Err(Fatal(
                "the node's thread panicked; see the log above".into(),
            ))
        })
    }
}

/// Asks a node to stop.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Hands over leaderships, then stops.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Starts a node on a thread of its own. Returns once it listens; whether it is
/// part of a cluster yet shows its [`synod_rpc::wire::NodeRequest::Info`].
///
/// # Errors
/// When the directory, the certificates, the socket, the log or the engine
/// cannot be used.
pub fn start(config: NodeConfig) -> Result<NodeHandle, StartError> {
    let (stop, stopping) = watch::channel(false);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (end, ended) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("synod-node".into())
        .spawn(move || {
            let _end = end;
            let runtime = match tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .event_interval(31)
                .build()
            {
                Ok(runtime) => runtime,
                Err(source) => {
                    let action = "start the node's runtime";
                    let _ = ready.send(Err(StartError::Io { action, source }));
                    return Ok(());
                }
            };
            runtime.block_on(async move {
                let driver = match driver::Driver::start(config).await {
                    Ok(driver) => driver,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return Ok(());
                    }
                };
                let _ = ready.send(Ok(driver.address()));
                // A task like those that read and write: tokio asks the system for
                // news before each turn of the future it blocks on.
                match tokio::spawn(driver.run(stopping)).await {
                    Ok(ended) => ended,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            })
        })
        .map_err(|source| StartError::Io {
            action: "start the node's thread",
            source,
        })?;
    let address = is_ready.recv().map_err(|_| StartError::Io {
        action: "start the node",
        source: std::io::Error::other("its thread ended at once"),
    })??;
    Ok(NodeHandle {
        address,
        stop,
        thread,
        ended,
    })
}

/// Refuses to serve a cluster whose entries may be of kinds not known here (P8), or whose
/// nodes count on what is gone.
fn check_version(
    path: &Path,
    found: ClusterVersion,
    supports: VersionRange,
) -> Result<(), StartError> {
    if supports.includes(found) {
        return Ok(());
    }
    Err(StartError::ClusterVersion {
        path: path.to_owned(),
        found: found.0,
        known: supports,
    })
}

/// Opens the node's directory under the name and cluster of its certificate.
fn open_directory(
    config: &NodeConfig,
    tls: &synod_rpc::TlsIdentity,
) -> Result<Directory, StartError> {
    let found = tls.subject();
    if found.role != synod_rpc::CertRole::Node || found.name != config.name {
        return Err(StartError::Certificate {
            found: found.to_string(),
            wanted: config.name.clone(),
        });
    }
    Ok(Directory::open(
        &config.data_dir,
        &config.name,
        tls.cluster(),
    )?)
}
