//! How much log a node holds of replicas that can trim nothing of it.
//!
//! They wait for their data, or their program does not know what comes next. A copy that is long in coming,
//! because it is large, or has no room, or many shards' are wanted at once, would let memory and log grow
//! without end, and so would a program that is too old. From a bound on such replicas take no more entries
//! until some have what they wait for (decision 28).

use super::Worker;
use crate::shard::Now;
use serde::Serialize;
use synod_paxos::Mono;

/// Between two looks; nanoseconds.
const LOOK_NANOS: u64 = 100_000_000;

/// What the last look found.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Unfilled {
    next: Mono,
    bytes: usize,
    full: bool,
}

impl Worker {
    /// Bytes of log entries that replicas hold here which can trim nothing, as of some 100 ms ago, if those
    /// are so many that such replicas take no more.
    #[must_use]
    pub fn unfilled_log_is_full(&self) -> Option<usize> {
        self.unfilled.full.then_some(self.unfilled.bytes)
    }

    /// Sums up once in a while. It ends at three quarters of where it begins, as each change costs leaders some
    /// messages for nothing.
    pub(super) fn review_unfilled(&mut self, now: Now) {
        if now.mono < self.unfilled.next {
            return;
        }
        let replicas = self.shards.values().map(|shard| &shard.replica);
        let bytes = replicas
            .filter(|r| r.trims_nothing())
            .map(|r| r.log_bytes());
        let bytes = bytes.sum();
        let bound = self.making.paxos.unfilled_bytes;
        let full = if self.unfilled.full {
            bytes > bound - bound / 4
        } else {
            bytes > bound
        };
        if full != self.unfilled.full {
            for shard in self.shards.values_mut() {
                shard.replica.set_full(full);
            }
        }
        self.unfilled = Unfilled {
            next: now.mono.plus(LOOK_NANOS),
            bytes,
            full,
        };
    }
}
