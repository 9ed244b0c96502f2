//! Workloads: clients that do something recognisable for as long as they are
//! told to, and write down what they asked and what they were answered.

pub mod bank;
pub mod list_append;
mod meter;
pub mod probe;

pub use meter::{Gap, Meter, Snapshot};

use crate::history::{Nanos, Outcome};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What all clients of a run share: one clock, one end.
#[derive(Clone, Debug)]
pub struct Run {
    origin: Instant,
    stopped: Arc<AtomicBool>,
}

impl Default for Run {
    fn default() -> Run {
        Run {
            origin: Instant::now(),
            stopped: Arc::default(),
        }
    }
}

impl Run {
    /// Nanoseconds since the run began.
    #[must_use]
    pub fn now(&self) -> Nanos {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Tells all clients to end after what they are doing.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether clients should begin nothing more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// How the history tells the outcome of a failed call.
pub(crate) fn failed(error: &synod_client::Error) -> Outcome {
    match error.effect() {
        synod_client::Effect::Unknown => Outcome::Unknown,
        synod_client::Effect::None => Outcome::Aborted,
    }
}

/// A generator for one client of a run.
pub(crate) fn random(seed: u64, client: u32) -> StdRng {
    StdRng::seed_from_u64(seed ^ (u64::from(client) << 32))
}

/// After a failed call: a little pause, so that a cluster without leaders is
/// not asked in a tight loop.
pub(crate) async fn back_off(random: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(random.random_range(5..25))).await;
}
