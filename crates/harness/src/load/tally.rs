//! What is counted.

use hdrhistogram::Histogram;
use std::fmt::Display;
use std::time::Duration;

/// The longest latency told apart: ten minutes, in nanoseconds.
const LONGEST: u64 = 600_000_000_000;

/// Operations and how long they took.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Latencies of those that succeeded, nanoseconds.
    pub latency: Histogram<u64>,
    /// Those that failed.
    pub failed: u64,
    /// Attempts beyond the first of those that succeeded.
    pub retries: u64,
    /// What the first failure said.
    pub first_failure: Option<String>,
}

impl Default for Tally {
    fn default() -> Tally {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3);
        Tally {
            latency: latency.expect("constant bounds are good"),
            failed: 0,
            retries: 0,
            first_failure: None,
        }
    }
}

impl Tally {
    /// Counts one operation: its attempts, or why it failed.
    pub fn count<E: Display>(&mut self, took: Duration, done: Result<u32, E>) {
        match done {
            Ok(attempts) => {
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                self.latency.saturating_record(nanos.max(1));
                self.retries += u64::from(attempts.saturating_sub(1));
            }
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// A tally, over how long, and what the caller sampled at both its ends.
#[derive(Clone, Debug)]
pub struct Measured<S> {
    /// What was counted.
    pub tally: Tally,
    /// Over how long.
    pub elapsed: Duration,
    /// Sampled when counting began.
    pub before: S,
    /// Sampled when it ended.
    pub after: S,
}

impl<S> Measured<S> {
    /// Operations that succeeded, per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.tally.latency.len() as f64 / self.elapsed.as_secs_f64()
    }
}
