//! How to reach a cluster, and the SDK's own bounds.

use std::path::PathBuf;
use std::time::Duration;
use synod_rpc::PoolOptions;
use synod_txn::client::RetrySettings;

/// Who we are: the cluster's CA, our certificate, and its key, all PEM.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Files, as `synod cert` writes them.
    Files {
        /// The CA's certificate.
        ca: PathBuf,
        /// Our certificate.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// The texts themselves.
    Pem {
        /// The CA's certificate.
        ca: Vec<u8>,
        /// Our certificate.
        cert: Vec<u8>,
        /// Its private key.
        key: Vec<u8>,
    },
}

/// What a [`Client`](crate::Client) is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port` of some nodes, in any order; the others are learned from them.
    pub endpoints: Vec<String>,
    /// Who we are.
    pub identity: Identity,
    /// How long one call may take, retries included, unless told otherwise
    /// with [`Client::with_timeout`](crate::Client::with_timeout).
    pub timeout: Duration,
    /// A silent leader is left waiting this long before the other replicas are
    /// asked whether they lead now; then again, three times as often.
    pub probe_after: Duration,
    /// One request waits at most this long for its answer before it is sent again; a large one
    /// a second longer per MiB, as it has to get there.
    pub attempt_timeout: Duration,
    /// How often sessions (held locks) are kept alive; well below the nodes'
    /// session time-out (default 10 s).
    pub keep_alive: Duration,
    /// Pauses between the attempts of one transaction.
    pub retry: RetrySettings,
    /// Our own place (`region=…,dc=…`): nearer shards are preferred as
    /// coordinators, nearer replicas are asked first. Empty = nowhere special.
    pub locality: String,
    /// The transport's settings and bounds.
    pub pool: PoolOptions,
}

impl Config {
    /// The defaults, for a cluster reached at `endpoints`.
    #[must_use]
    pub fn new<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        identity: Identity,
    ) -> Config {
        Config {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            identity,
            timeout: Duration::from_secs(10),
            probe_after: Duration::from_millis(150),
            attempt_timeout: Duration::from_secs(3),
            keep_alive: Duration::from_secs(2),
            retry: RetrySettings::default(),
            locality: String::new(),
            pool: PoolOptions::default(),
        }
    }
}
