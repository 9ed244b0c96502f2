//! Clusters of real `synod` processes on one machine, in a layout of several
//! data centres.
//!
//! Everything lives in one directory: certificates, a configuration, a data
//! directory and a log per node. Dropping the cluster kills its processes (by
//! their ids, and nothing else) and removes the directory, unless it is kept.

pub mod ask;
mod faults;
mod layout;
mod process;

pub use faults::{DiskError, Faults, Part};
pub use layout::{Options, Place};
pub use process::{Node, cpu_micros, may_mount};

use crate::relay::Relay;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use synod_rpc::cert::{self, CertFiles, Validity};
use synod_rpc::{CertRole, Pool, PoolOptions, Subject, TlsIdentity};

/// The user whose certificate the harness makes.
pub const USER: &str = "admin";
/// Between two looks at a condition that is waited for.
const POLL: Duration = Duration::from_millis(10);
/// How often a port that someone else took is chosen anew.
const PORT_ATTEMPTS: usize = 3;

/// Why a test cluster cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file or process operation failed.
    #[error("{what} failed: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificates could not be made.
    #[error("making certificates in {dir} failed: {reason}")]
    Certificates {
        /// Where.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// A node ended before it was ready.
    #[error("node {name} ended while the cluster was starting ({status}); its last words:\n{log}")]
    NodeEnded {
        /// Which.
        name: String,
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// `synod init` failed.
    #[error("initialising the cluster failed: {0}")]
    Init(String),
    /// A condition did not come true in time.
    #[error("waited {waited:?} for {what}, in vain")]
    Timeout {
        /// The condition.
        what: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It was given up while it was starting.
    #[error("the start of the cluster was given up; nothing of it is left")]
    GivenUp,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    dir: PathBuf,
    nodes: Vec<Node>,
    relay: Option<Relay>,
    /// Removes the directory on drop.
    temporary: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Makes certificates and configurations, starts all nodes, initialises the
    /// cluster and returns once every shard has a leader.
    ///
    /// # Errors
    /// See [`ClusterError`]; nothing is left running.
    pub fn start(options: Options) -> Result<Cluster, ClusterError> {
        Cluster::start_unless(options, &AtomicBool::new(false))
    }

    /// The same, given up soon after `given_up` has become true.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_unless(options: Options, given_up: &AtomicBool) -> Result<Cluster, ClusterError> {
        let mut cluster = Cluster::prepare(options)?;
        let mut attempt = 1;
        loop {
            cluster.start_all()?;
            match cluster.init(given_up) {
                Ok(()) => return Ok(cluster),
                Err(ClusterError::NodeEnded { log, .. })
                    if attempt < PORT_ATTEMPTS && log.contains("in use") =>
                {
                    // Between choosing a port and its use someone else took it.
                    attempt += 1;
                    for node in &mut cluster.nodes {
                        node.kill();
                    }
                    cluster.choose_addresses()?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Everything on disk, nothing started.
    ///
    /// # Errors
    /// When the directory or the certificates cannot be made.
    pub fn prepare(options: Options) -> Result<Cluster, ClusterError> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| ClusterError::Io { what, source }
        };
        let (dir, temporary) = match &options.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let temporary = tempfile::Builder::new()
                    .prefix("synod-")
                    .tempdir()
                    .map_err(io("making a temporary directory"))?;
                (temporary.path().to_path_buf(), Some(temporary))
            }
        };
        let certs = dir.join("certs");
        std::fs::create_dir_all(&certs).map_err(io("making the directory of certificates"))?;
        let places = layout::places(&options);
        let made = || -> Result<(), synod_rpc::error::CertError> {
            let validity = Validity::default();
            cert::create_ca(&certs, "local")?;
            for place in &places {
                cert::issue_node(&certs, &place.name, &validity)?;
            }
            cert::issue_user(&certs, USER, &validity)?;
            Ok(())
        };
        made().map_err(|error| ClusterError::Certificates {
            dir: certs.clone(),
            reason: error.to_string(),
        })?;
        let unset = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut nodes: Vec<Node> = places
            .into_iter()
            .map(|place| Node::new(place.name, place.locality, unset, &dir))
            .collect();
        if options.faults {
            let shim = faults::compile(&dir)?;
            for node in &mut nodes {
                let faults = Faults::make(&dir.join(format!("{}.faults", node.name)))?;
                node.environment = faults.environment(&shim, &node.data_dir);
                node.faults = Some(faults);
            }
        }
        for node in &mut nodes {
            node.disk_bytes = options.disk_bytes;
        }
        let relay = options.relay.map(|seed| Relay::start(nodes.len(), seed));
        let relay = relay.transpose().map_err(io("starting the relay"))?;
        let mut cluster = Cluster {
            options,
            dir,
            nodes,
            relay,
            temporary,
        };
        cluster.choose_addresses()?;
        Ok(cluster)
    }

    /// Chooses free ports and writes the configurations.
    fn choose_addresses(&mut self) -> Result<(), ClusterError> {
        // All are held at once, so that they differ, and released before use.
        let mut sockets = Vec::new();
        for _ in &self.nodes {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|s| {
                let address = s.local_addr()?;
                Ok((s, address))
            });
            sockets.push(socket.map_err(|source| ClusterError::Io {
                what: "choosing a free UDP port".to_owned(),
                source,
            })?);
        }
        let certs = self.certs();
        for (number, (node, (_, listens))) in self.nodes.iter_mut().zip(&sockets).enumerate() {
            node.listens = *listens;
            node.address = match &self.relay {
                Some(relay) => {
                    relay.listens(number, *listens);
                    relay.front(number)
                }
                None => *listens,
            };
            write_config(&self.options, &certs, node)?;
        }
        Ok(())
    }

    fn start_all(&mut self) -> Result<(), ClusterError> {
        for index in 0..self.nodes.len() {
            self.start_node(index)?;
        }
        Ok(())
    }

    /// Makes and starts one more node, in this place; it belongs to no cluster until it joins
    /// (`synod node join`). Returns its index.
    ///
    /// # Errors
    /// When its files cannot be made or its process cannot be started. A cluster with a relay
    /// cannot grow.
    pub fn add_node(&mut self, locality: &str) -> Result<usize, ClusterError> {
        if self.relay.is_some() {
            return Err(ClusterError::Init(
                "a cluster with a relay cannot get more nodes".to_owned(),
            ));
        }
        let certs = self.certs();
        let name = format!("n{}", self.nodes.len() + 1);
        cert::issue_node(&certs, &name, &Validity::default()).map_err(|error| {
            ClusterError::Certificates {
                dir: certs.clone(),
                reason: error.to_string(),
            }
        })?;
        let listens = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|s| s.local_addr());
        let listens = listens.map_err(|source| ClusterError::Io {
            what: "choosing a free UDP port".to_owned(),
            source,
        })?;
        let node = Node::new(name, locality.to_owned(), listens, &self.dir);
        write_config(&self.options, &certs, &node)?;
        self.nodes.push(node);
        let index = self.nodes.len() - 1;
        self.start_node(index)?;
        Ok(index)
    }

    /// Runs `synod init`, which waits for all nodes and then for leaders.
    fn init(&mut self, given_up: &AtomicBool) -> Result<(), ClusterError> {
        let certs = self.certs();
        let mut command = Command::new(&self.options.program);
        command
            .arg("init")
            .arg("--certs")
            .arg(&certs)
            .args(["--user", USER])
            .arg("--replicas")
            .arg(self.options.replicas.to_string())
            .arg("--timeout-seconds")
            .arg(self.options.ready_timeout.as_secs().max(1).to_string());
        for node in &self.nodes {
            command.arg("--endpoint").arg(node.address.to_string());
        }
        for split in &self.options.splits {
            command.arg("--split").arg(split);
        }
        if let Some(version) = self.options.version {
            command.arg("--cluster-version").arg(version.to_string());
        }
        let log = self.dir.join("init.log");
        let io = |source| ClusterError::Io {
            what: "running synod init".to_owned(),
            source,
        };
        let out = std::fs::File::create(&log).map_err(io)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(io)?)
            .stderr(out)
            .spawn()
            .map_err(io)?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(io)? {
                break status;
            }
            let error = match given_up.load(Ordering::Relaxed) {
                true => Some(ClusterError::GivenUp),
                false => self.ended_node(),
            };
            if let Some(error) = error {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
            std::thread::sleep(POLL);
        };
        if status.success() {
            return Ok(());
        }
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        Err(self
            .ended_node()
            .unwrap_or(ClusterError::Init(text.trim().to_owned())))
    }

    fn ended_node(&mut self) -> Option<ClusterError> {
        self.nodes.iter_mut().find_map(|node| {
            let status = node.exit_status()?;
            Some(ClusterError::NodeEnded {
                name: node.name.clone(),
                status: status.to_string(),
                log: node.log_tail(10),
            })
        })
    }

    /// Starts a node again (or for the first time).
    ///
    /// # Errors
    /// When its process cannot be started.
    pub fn start_node(&mut self, index: usize) -> Result<(), ClusterError> {
        self.nodes[index].start(&self.options.program, &self.options.log_filter)
    }

    /// The network between its processes, if one was asked for.
    #[must_use]
    pub fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// The nodes, in order of their names.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node, to kill or pause it.
    pub fn node_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// The index of the node with this name.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|n| n.name == name)
    }

    /// All addresses.
    #[must_use]
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|n| n.address).collect()
    }

    /// The directory with the certificates.
    #[must_use]
    pub fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    /// The directory with everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How to reach it with the SDK.
    #[must_use]
    pub fn client_config(&self) -> synod_client::Config {
        let files = CertFiles::of(
            &self.certs(),
            &Subject {
                role: CertRole::User,
                name: USER.to_owned(),
            },
        );
        let identity = synod_client::Identity::Files {
            ca: CertFiles::ca(&self.certs()).certificate,
            cert: files.certificate,
            key: files.key,
        };
        let endpoints = self.endpoints();
        synod_client::Config::new(endpoints.iter().map(ToString::to_string), identity)
    }

    /// A pool for questions to single nodes ([`ask`]).
    ///
    /// # Errors
    /// When the certificates are of no use.
    pub fn pool(&self) -> Result<Pool, ClusterError> {
        let certificates = |reason: String| ClusterError::Certificates {
            dir: self.certs(),
            reason,
        };
        let identity = TlsIdentity::from_dir(&self.certs(), CertRole::User, USER)
            .map_err(|e| certificates(e.to_string()))?;
        Pool::new(&identity, PoolOptions::default()).map_err(|e| certificates(e.to_string()))
    }

    /// Ends all processes and lets the files live on; returns the directory.
    pub fn keep_files(mut self) -> PathBuf {
        for node in &mut self.nodes {
            node.kill();
        }
        if let Some(temporary) = self.temporary.take() {
            return temporary.keep();
        }
        self.dir.clone()
    }

    /// Lets processes and files live on after this value; returns the directory.
    pub fn leave(mut self) -> PathBuf {
        for node in &mut self.nodes {
            node.forget();
        }
        if let Some(temporary) = self.temporary.take() {
            return temporary.keep();
        }
        self.dir.clone()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.options.keep {
            for node in &mut self.nodes {
                node.forget();
            }
            if let Some(temporary) = self.temporary.take() {
                let _ = temporary.keep();
            }
            return;
        }
        // Before the directory goes, the processes must.
        for node in &mut self.nodes {
            node.kill();
        }
    }
}

/// Writes a node's configuration.
fn write_config(options: &Options, certs: &Path, node: &Node) -> Result<(), ClusterError> {
    let text = layout::node_config(
        options,
        &node.name,
        &node.locality,
        node.listens,
        node.address,
        certs,
        &node.data_dir,
    );
    std::fs::write(&node.config, text).map_err(|source| ClusterError::Io {
        what: format!("writing {}", node.config.display()),
        source,
    })
}

/// Looks at a condition every 10 ms until it is true; `what` names it when it
/// does not come true within `limit`.
///
/// # Errors
/// [`ClusterError::Timeout`].
pub fn wait_for(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), ClusterError> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return Err(ClusterError::Timeout {
                what: what.to_owned(),
                waited: start.elapsed(),
            });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
