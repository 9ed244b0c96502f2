//! What can go wrong while measuring.

use std::path::PathBuf;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Synod's SDK.
    #[error("synod: {0}")]
    Synod(#[from] synod_client::Error),
    /// etcd's client.
    #[error("etcd: {0}")]
    Etcd(#[from] etcd_client::Error),
    /// A cluster of `synod` processes.
    #[error("the synod cluster: {0}")]
    Cluster(#[from] synod_harness::cluster::ClusterError),
    /// A cluster of `etcd` processes.
    #[error("the etcd cluster: {0}")]
    Members(String),
    /// A file or process operation.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A result that cannot be right.
    #[error("wrong result: {0}")]
    Wrong(String),
    /// A file with results that are none.
    #[error("{path}, line {line}: {reason}")]
    Results {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody wants this to end.
    #[error("ended by a signal")]
    Interrupted,
}

impl Error {
    /// For `map_err` on what the system refused.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}
