//! Counts, latencies and gaps of a workload while it runs.

use super::Run;
use crate::history::{Nanos, Outcome};
use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::time::Duration;

/// Shared by all clients of a workload.
#[derive(Debug)]
pub struct Meter {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    latency_micros: Histogram<u64>,
    snapshot: Snapshot,
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Acknowledged commits.
    pub committed: u64,
    /// Transactions given up.
    pub aborted: u64,
    /// Transactions of unknown outcome.
    pub unknown: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// When the first commit was acknowledged.
    pub first_commit: Option<Nanos>,
}

impl Default for Meter {
    fn default() -> Meter {
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3);
        Meter {
            state: Mutex::new(State {
                latency_micros: latency.expect("constant bounds are good"),
                snapshot: Snapshot::default(),
            }),
        }
    }
}

impl Meter {
    fn with<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        // A client that panicked while counting has at worst not counted.
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        use_it(&mut state)
    }

    /// Counts one transaction that began at `invoked` and ended now.
    pub fn count(&self, run: &Run, invoked: Nanos, outcome: Outcome, attempts: u32) {
        let now = run.now();
        self.with(|state| {
            let counts = &mut state.snapshot;
            counts.retries += u64::from(attempts.saturating_sub(1));
            match outcome {
                Outcome::Committed(_) => {
                    counts.committed += 1;
                    counts.first_commit.get_or_insert(now);
                    let micros = now.saturating_sub(invoked) / 1000;
                    state.latency_micros.saturating_record(micros.max(1));
                }
                Outcome::Aborted => counts.aborted += 1,
                Outcome::Unknown => counts.unknown += 1,
            }
        });
    }

    /// The counts so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.with(|state| state.snapshot)
    }

    /// The latency of committed transactions at a quantile (0.5, 0.99 …), in microseconds.
    #[must_use]
    pub fn latency_micros(&self, quantile: f64) -> u64 {
        self.with(|state| state.latency_micros.value_at_quantile(quantile))
    }

    /// Forgets everything counted so far (after a warm-up).
    pub fn reset(&self) {
        self.with(|state| {
            state.latency_micros.reset();
            state.snapshot = Snapshot::default();
        });
    }
}

/// The longest time between two acknowledged writes of one writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// When it began: the acknowledgement before it.
    pub from: Nanos,
    /// How long it lasted.
    pub length: Duration,
}

impl Gap {
    /// The longest gap among acknowledgement times (ascending) that ends after `since`.
    /// The last acknowledgement opens one that ends at `until`.
    #[must_use]
    pub fn longest(acks: &[Nanos], since: Nanos, until: Nanos) -> Gap {
        let ends = acks.iter().skip(1).copied().chain([until]);
        acks.iter()
            .zip(ends)
            .filter(|(_, end)| *end >= since)
            .map(|(from, end)| Gap {
                from: *from,
                length: Duration::from_nanos(end.saturating_sub(*from)),
            })
            .max_by_key(|gap| gap.length)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_after_an_event_is_found() {
        let acks = [0, 50, 60, 90, 95];
        assert_eq!(Gap::longest(&acks, 0, 96).length.as_nanos(), 50);
        let later = Gap::longest(&acks, 55, 96);
        assert_eq!((later.from, later.length.as_nanos()), (60, 30));
        // A writer that never came back.
        assert_eq!(Gap::longest(&acks, 55, 1000).from, 95);
    }

    #[test]
    fn outcomes_are_counted_apart() {
        let (meter, run) = (Meter::default(), Run::default());
        meter.count(&run, 0, Outcome::Committed(None), 3);
        meter.count(&run, 0, Outcome::Unknown, 1);
        let counts = meter.snapshot();
        assert_eq!((counts.committed, counts.unknown), (1, 1));
        assert_eq!(counts.retries, 2);
        assert!(counts.first_commit.is_some());
        meter.reset();
        assert_eq!(meter.snapshot(), Snapshot::default());
    }
}
