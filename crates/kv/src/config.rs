//! What a node is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use synod_paxos::VersionRange;
use synod_placement::Locality;

/// Which engine keeps the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// A log-structured merge tree (the default).
    Fjall,
    /// A B+tree.
    Redb,
    /// Nothing on disk: after a restart the data comes from the log or from peers.
    Memory,
}

/// A node's settings. Durations and sizes carry their unit in the type or the name.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name; must be the one in its certificate.
    pub name: String,
    /// UDP address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Address others reach it at; none = the one it listens on.
    pub advertise: Option<SocketAddr>,
    /// Its place.
    pub locality: Locality,
    /// Where identity, log and engine live.
    pub data_dir: PathBuf,
    /// The cluster's CA certificate (PEM).
    pub ca: PathBuf,
    /// The node's certificate (PEM).
    pub cert: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The engine.
    pub engine: EngineKind,
    /// While less than this is free on the disk, bytes, only deletes are let in.
    pub disk_reserve_bytes: u64,
    /// Bytes of one log segment.
    pub log_segment_bytes: u64,
    /// The log is trimmed once it holds this many bytes, or up to a quarter more.
    pub log_trim_bytes: u64,
    /// How long nodes support each other (L).
    pub lease: Duration,
    /// After this long an unresolved intent asks its coordinator to end it.
    pub staged_timeout: Duration,
    /// A session without a sign of its client ends after this long.
    pub session: Duration,
    /// A log sync that takes longer than this is a stalled disk (L6), but for a second for each 8 MiB in it.
    pub stall: Duration,
    /// A node that is not heard for longer than this is replaced.
    pub keeper_down: Duration,
    /// Between two looks at the whole cluster while something happens in it.
    pub keeper_look: Duration,
    /// For tests and demos: round-trip time between nodes in different data
    /// centres, added in the transport. Zero = none.
    pub testing_rtt: Duration,
    /// The cluster versions it can serve in: the program's own, but in tests of upgrades.
    pub supports: VersionRange,
}

impl NodeConfig {
    /// The defaults, with what has none given.
    #[must_use]
    pub fn new(name: &str, listen: SocketAddr, data_dir: PathBuf) -> NodeConfig {
        NodeConfig {
            name: name.to_owned(),
            listen,
            advertise: None,
            locality: Locality(Vec::new()),
            data_dir,
            ca: PathBuf::from("ca.crt"),
            cert: PathBuf::from(format!("node-{name}.crt")),
            key: PathBuf::from(format!("node-{name}.key")),
            engine: EngineKind::Fjall,
            disk_reserve_bytes: 256 << 20,
            log_segment_bytes: 16 << 20,
            log_trim_bytes: 128 << 20,
            lease: Duration::from_millis(600),
            staged_timeout: Duration::from_secs(1),
            session: Duration::from_secs(10),
            stall: Duration::from_secs(1),
            keeper_down: Duration::from_secs(300),
            keeper_look: Duration::from_secs(5),
            testing_rtt: Duration::ZERO,
            supports: VersionRange::OWN,
        }
    }
}
