//! Certificates that change on disk are taken over while the node runs: files
//! are looked at every so often, and a new set is used for all connections made
//! from then on. One that is of no use changes nothing but the log.

use crate::config::NodeConfig;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use synod_rpc::{Endpoint, TlsIdentity};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// When the files were written, and their sizes.
type Stamp = Vec<Option<(SystemTime, u64)>>;

/// The node's certificate files.
#[derive(Debug)]
pub(super) struct Certificates {
    name: String,
    /// CA, certificate, key.
    files: [PathBuf; 3],
    seen: Stamp,
    next: Instant,
}

impl Certificates {
    /// The files as they are now, which the caller is about to load.
    pub(super) fn of(config: &NodeConfig) -> Certificates {
        let files = [&config.ca, &config.cert, &config.key].map(Clone::clone);
        Certificates {
            name: config.name.clone(),
            seen: stamp(&files),
            files,
            next: Instant::now() + INTERVAL,
        }
    }

    /// Looks if it is time to, and takes over what has changed.
    pub(super) fn look(&mut self, now: Instant, endpoint: &Endpoint) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        let stamp = stamp(&self.files);
        if stamp == self.seen {
            return;
        }
        self.seen = stamp;
        match self.reload(endpoint) {
            Ok(()) => tracing::info!("new certificates are in use for new connections"),
            Err(reason) => tracing::warn!(
                %reason,
                "the certificate files have changed and are of no use; the old ones stay in use"
            ),
        }
    }

    fn reload(&self, endpoint: &Endpoint) -> Result<(), String> {
        let [ca, cert, key] = &self.files;
        let tls = TlsIdentity::from_files(ca, cert, key).map_err(|e| e.to_string())?;
        let subject = tls.subject();
        if subject.name != self.name {
            return Err(format!(
                "the certificate is for {subject}, this node is `{}`",
                self.name
            ));
        }
        endpoint.reload(&tls).map_err(|e| e.to_string())
    }
}

fn stamp(files: &[PathBuf]) -> Stamp {
    let of = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(of).collect()
}
