//! Connections of the tasks that ask other nodes on this node's behalf.

use crate::config::NodeConfig;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use synod_rpc::{Pool, PoolOptions, TlsIdentity, TransportOptions};

/// Connections are made anew after this long, so that new certificates come into use.
const POOL_AGE: Duration = Duration::from_secs(900);
/// One that rests is pinged this often. They rest nearly always, and the node's
/// links tell sooner who is gone; but QUIC ends one that is silent for three seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// The pool that all share.
#[derive(Default)]
struct Shared {
    pool: Option<(Pool, Instant)>,
    /// How many have use for it now.
    users: usize,
}

/// A share of a pool under the node's certificate, which is made when it is needed and
/// closed once nobody has use for it.
pub(super) struct Connections {
    /// CA, certificate, key.
    files: [PathBuf; 3],
    shared: Arc<Mutex<Shared>>,
    in_use: bool,
}

impl Connections {
    pub(super) fn new(config: &NodeConfig) -> Connections {
        Connections {
            files: [&config.ca, &config.cert, &config.key].map(Clone::clone),
            shared: Arc::default(),
            in_use: false,
        }
    }

    /// Another share of the same.
    pub(super) fn share(&self) -> Connections {
        Connections {
            files: self.files.clone(),
            shared: self.shared.clone(),
            in_use: false,
        }
    }

    /// The pool; the error is in words.
    pub(super) fn pool(&mut self) -> Result<Pool, String> {
        let mut shared = lock(&self.shared);
        if !self.in_use {
            self.in_use = true;
            shared.users += 1;
        }
        if let Some((pool, made)) = &shared.pool
            && made.elapsed() < POOL_AGE
        {
            return Ok(pool.clone());
        }
        let [ca, cert, key] = &self.files;
        let tls = TlsIdentity::from_files(ca, cert, key).map_err(|e| e.to_string())?;
        let options = PoolOptions {
            transport: TransportOptions {
                keep_alive: KEEP_ALIVE,
                ..TransportOptions::default()
            },
            silence: 2 * KEEP_ALIVE,
            ..PoolOptions::default()
        };
        let pool = Pool::new(&tls, options).map_err(|e| e.to_string())?;
        shared.pool = Some((pool.clone(), Instant::now()));
        Ok(pool)
    }

    /// Nobody is asked through this share for now.
    pub(super) fn close(&mut self) {
        if std::mem::take(&mut self.in_use) {
            let mut shared = lock(&self.shared);
            shared.users -= 1;
            if shared.users == 0 {
                shared.pool = None;
            }
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.close();
    }
}

/// Nobody panics while holding it.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
