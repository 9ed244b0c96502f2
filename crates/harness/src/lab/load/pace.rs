//! When requests begin: at a fixed rate, or one after the other.

use crate::history::Nanos;
use crate::workload::Run;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The next request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It begins now, and should have begun then: what had to wait for clients that
    /// were busy counts from there ("coordinated omission").
    Begin(Nanos),
    /// It should have begun so long ago that whoever wanted it has given up.
    Late(Nanos),
}

/// The pace of a site's clients.
#[derive(Debug)]
pub(super) struct Pace {
    run: Run,
    /// How long whoever wants a request waits for it to begin.
    patience: u64,
    /// Nanoseconds between two requests; none = one after the other.
    every: Option<u64>,
    next: AtomicU64,
}

impl Pace {
    pub(super) fn new(rate: Option<u32>, patience: Duration, run: Run) -> Pace {
        Pace {
            run,
            patience: u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX),
            every: rate.map(interval),
            next: AtomicU64::new(0),
        }
    }

    /// Waits until the next request is to begin; `None` at the end of the run.
    pub(super) async fn next(&self) -> Option<Turn> {
        let turn = match self.every {
            None => Turn::Begin(self.run.now()),
            Some(every) => {
                let intended = self.next.fetch_add(1, Ordering::Relaxed) * every;
                let now = self.run.now();
                if intended > now {
                    tokio::time::sleep(Duration::from_nanos(intended - now)).await;
                }
                if now.saturating_sub(intended) > self.patience {
                    Turn::Late(intended)
                } else {
                    Turn::Begin(intended)
                }
            }
        };
        (!self.run.is_stopped()).then_some(turn)
    }

    /// Requests that begin at this rate within a time.
    pub(super) fn due(rate: u32, length: Duration) -> u64 {
        u64::from(rate) * u64::try_from(length.as_millis()).unwrap_or(u64::MAX) / 1_000
    }
}

fn interval(rate: u32) -> u64 {
    1_000_000_000 / u64::from(rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_due_at_their_rate_and_no_more_after_the_end() {
        let run = Run::default();
        let patience = Duration::from_millis(20);
        let pace = Pace::new(Some(1000), patience, run.clone());
        for n in 0..5 {
            assert_eq!(pace.next().await, Some(Turn::Begin(n * 1_000_000)));
        }
        assert!(run.now() >= 4_000_000);
        tokio::time::sleep(patience * 2).await;
        assert_eq!(pace.next().await, Some(Turn::Late(5_000_000)));
        run.stop();
        assert_eq!(pace.next().await, None);
        assert_eq!(Pace::due(1000, Duration::from_millis(5)), 5);
        let run = Run::default();
        let closed = Pace::new(None, patience, run.clone());
        assert!(matches!(closed.next().await, Some(Turn::Begin(_))));
        run.stop();
        assert_eq!(closed.next().await, None);
    }
}
