//! Connections of the threads that ask other nodes on this node's behalf.

use crate::config::NodeConfig;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use synod_rpc::{Pool, PoolOptions, TlsIdentity};

/// Connections are made anew after this long, so that new certificates come into use.
const POOL_AGE: Duration = Duration::from_secs(900);

/// A pool under the node's certificate, made when it is needed.
pub(super) struct Connections {
    /// CA, certificate, key.
    files: [PathBuf; 3],
    pool: Option<(Pool, Instant)>,
}

impl Connections {
    pub(super) fn new(config: &NodeConfig) -> Connections {
        Connections {
            files: [&config.ca, &config.cert, &config.key].map(Clone::clone),
            pool: None,
        }
    }

    /// The pool; the error is in words.
    pub(super) fn pool(&mut self) -> Result<Pool, String> {
        if let Some((pool, made)) = &self.pool
            && made.elapsed() < POOL_AGE
        {
            return Ok(pool.clone());
        }
        let [ca, cert, key] = &self.files;
        let tls = TlsIdentity::from_files(ca, cert, key).map_err(|e| e.to_string())?;
        let pool = Pool::new(&tls, PoolOptions::default()).map_err(|e| e.to_string())?;
        self.pool = Some((pool.clone(), Instant::now()));
        Ok(pool)
    }

    /// Nobody is asked for now.
    pub(super) fn close(&mut self) {
        self.pool = None;
    }
}
