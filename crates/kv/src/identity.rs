//! Who this node is: made at first start, lives in the node's directory, and
//! counts the node's starts. A wiped directory is a new node.

use crate::files::{self, FileError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use synod_paxos::{ClusterVersion, Incarnation, NodeId};
use synod_shard::{Bootstrap, NodeRow};

const IDENTITY_MAGIC: [u8; 8] = *b"SYNODIDE";
const BOOTSTRAP_MAGIC: [u8; 8] = *b"SYNODBOO";
const NODES_MAGIC: [u8; 8] = *b"SYNODNOD";
const VERSION_MAGIC: [u8; 8] = *b"SYNODVER";

/// A node's durable identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub node: NodeId,
    /// Which start this is, from 1.
    pub incarnation: Incarnation,
    /// Its name when it was made.
    pub name: String,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has it.
    #[error(
        "{path} is in use by another synod process; stop that one first, or give this node a \
         directory of its own"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to another node.
    #[error(
        "{path} belongs to node `{found}`, this one is `{wanted}`: give each node its own directory"
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wants it.
        wanted: String,
    },
    /// It belongs to another cluster.
    #[error(
        "{path} belongs to cluster {found:032x}, the certificates to {wanted:032x}: use the \
         certificates of that cluster, or an empty directory"
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: u128,
        /// Whose certificates these are.
        wanted: u128,
    },
    /// A file in it cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The operating system said no.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
}

/// A node's directory, held by this process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    cluster: u128,
    identity: Identity,
    /// Held as long as the process lives.
    _lock: File,
}

impl Directory {
    /// Takes the directory, making it and the identity at the first start, and
    /// counts this start durably.
    ///
    /// # Errors
    /// When it is in use, belongs to another node or cluster, or cannot be read.
    pub fn open(path: &Path, name: &str, cluster: u128) -> Result<Directory, DirectoryError> {
        let io = |action| {
            move |source| DirectoryError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        files::make_directory(path).map_err(io("create"))?;
        let lock = crate::repair::lock(path)?;
        let file = path.join("identity");
        let mut identity = match files::load::<Identity>(&file, IDENTITY_MAGIC)? {
            Some((found, _)) if found != cluster => {
                return Err(DirectoryError::OtherCluster {
                    path: path.to_owned(),
                    found,
                    wanted: cluster,
                });
            }
            Some((_, identity)) if identity.name != name => {
                return Err(DirectoryError::OtherNode {
                    path: path.to_owned(),
                    found: identity.name,
                    wanted: name.to_owned(),
                });
            }
            Some((_, identity)) => identity,
            None => Identity {
                node: fresh_id(),
                incarnation: Incarnation(0),
                name: name.to_owned(),
            },
        };
        identity.incarnation.0 += 1;
        files::store(&file, IDENTITY_MAGIC, cluster, &identity)?;
        Ok(Directory {
            path: path.to_owned(),
            cluster,
            identity,
            _lock: lock,
        })
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster it belongs to.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The map that this node began with: from `synod init`, or of the day it joined.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn bootstrap(&self) -> Result<Option<Bootstrap>, FileError> {
        let loaded = files::load::<Bootstrap>(&self.join("cluster"), BOOTSTRAP_MAGIC)?;
        Ok(loaded.map(|(_, bootstrap)| bootstrap))
    }

    /// What was heard of nodes since the cluster began. A file that cannot be read is no
    /// harm: the others tell it again.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeRow> {
        match files::load::<Vec<NodeRow>>(&self.join("nodes"), NODES_MAGIC) {
            Ok(loaded) => loaded.map(|(_, nodes)| nodes).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "what was heard of nodes is heard anew");
                Vec::new()
            }
        }
    }

    /// Keeps that.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store_nodes(&self, nodes: &[NodeRow]) -> Result<(), FileError> {
        files::store(&self.join("nodes"), NODES_MAGIC, self.cluster, &nodes)
    }

    /// The highest cluster version that was heard of since the cluster began. A file that
    /// cannot be read is no harm: logs and others tell it again.
    #[must_use]
    pub fn version(&self) -> ClusterVersion {
        match files::load::<ClusterVersion>(&self.join("version"), VERSION_MAGIC) {
            Ok(loaded) => loaded.map(|(_, version)| version).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "the cluster's version is heard anew");
                ClusterVersion::default()
            }
        }
    }

    /// Keeps that.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store_version(&self, version: ClusterVersion) -> Result<(), FileError> {
        files::store(&self.join("version"), VERSION_MAGIC, self.cluster, &version)
    }

    /// Keeps that map.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store_bootstrap(&self, bootstrap: &Bootstrap) -> Result<(), FileError> {
        files::store(
            &self.join("cluster"),
            BOOTSTRAP_MAGIC,
            self.cluster,
            bootstrap,
        )
    }
}

/// Ids are random, short enough to read out, and never 0; `synod init` refuses
/// two equal ones.
fn fresh_id() -> NodeId {
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    NodeId(u64::from(random.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_and_the_id_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path(), "a", 1).unwrap();
        let id = first.identity().clone();
        assert_eq!(id.incarnation, Incarnation(1));
        assert!(matches!(
            Directory::open(dir.path(), "a", 1),
            Err(DirectoryError::Locked { .. })
        ));
        drop(first);
        let second = Directory::open(dir.path(), "a", 1).unwrap();
        assert_eq!(second.identity().node, id.node);
        assert_eq!(second.identity().incarnation, Incarnation(2));
        drop(second);
        assert!(matches!(
            Directory::open(dir.path(), "b", 1),
            Err(DirectoryError::OtherNode { .. })
        ));
        assert!(matches!(
            Directory::open(dir.path(), "a", 2),
            Err(DirectoryError::OtherCluster { .. })
        ));
    }
}
