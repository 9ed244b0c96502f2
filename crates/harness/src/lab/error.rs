//! Why a lab cannot be had or go on.

use crate::cluster::ClusterError;

/// The lab failed, which says nothing about the cluster under test.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The cluster could not be started, or one of its processes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// What was declared makes no sense.
    #[error("{0}")]
    Declared(String),
    /// The clients' first data could not be written.
    #[error("the cluster is ready, but {what} failed: {source}")]
    Client {
        /// What was tried.
        what: &'static str,
        /// What the SDK said.
        source: synod_client::Error,
    },
    /// The cluster did not come to rest.
    #[error("the cluster was not ready in time: {0}")]
    NotReady(String),
    /// Files of a node could not be removed, or a program not be started.
    #[error("{what} failed: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}
