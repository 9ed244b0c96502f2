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
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What all clients of a run share: one clock, one end.
#[derive(Clone, Debug)]
pub struct Run {
    origin: Instant,
    stopped: Arc<watch::Sender<bool>>,
}

impl Default for Run {
    fn default() -> Run {
        Run {
            origin: Instant::now(),
            stopped: Arc::new(watch::Sender::new(false)),
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
        self.stopped.send_replace(true);
    }

    /// Whether clients should begin nothing more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Waits for so long, or until clients should begin nothing more.
    pub async fn pause(&self, time: Duration) {
        let mut stopped = self.stopped.subscribe();
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = tokio::time::timeout(time, stopped.wait_for(|stopped| *stopped)).await;
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
