//! Small writes beside whatever else goes on: how long may one of them take?

use crate::connect;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use synod_harness::cluster::Cluster;

/// How long one of them is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Small writes of a client of its own, one after the other.
pub struct Small {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    writes: tokio::task::JoinHandle<Duration>,
}

impl Small {
    /// Begins them.
    ///
    /// # Panics
    /// When the client cannot connect.
    pub async fn begin(cluster: &Cluster) -> Small {
        let client = connect(cluster).await.with_timeout(PATIENCE);
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, counted): (_, Arc<AtomicU64>) = (stop.clone(), Arc::clone(&count));
        let writes = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let number = counted.fetch_add(1, Ordering::Relaxed);
                let put = client.put("b", number.to_string()).await;
                put.expect("it is served");
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        Small {
            stop,
            count,
            writes,
        }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends them; the longest one.
    ///
    /// # Panics
    /// When one of them failed.
    pub async fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.writes.await.expect("it ends in order");
        let count = self.count.load(Ordering::Relaxed);
        eprintln!("{count} small writes beside it, the longest took {longest:?}");
        longest
    }
}
