//! A node's two clocks, as functions of true time.

use synod_paxos::{Mono, Timestamp};
use synod_shard::Now;
use synod_txn::Interval;

/// Wall time at the start of every run.
pub(super) const BIRTH: u64 = 1_700_000_000_000_000_000;
/// What monotonic clocks show at the start, so that nothing is before them.
const EARLIER: u64 = 1_000_000_000;

/// Clocks that run at a rate of their own, from where they last changed it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    ppm: i64,
    since: u64,
    mono: u64,
    /// Wall time minus monotonic time.
    offset: i64,
}

impl Clock {
    pub(super) fn new(offset: i64, ppm: i64) -> Clock {
        Clock {
            ppm,
            since: 0,
            mono: EARLIER,
            offset: (BIRTH - EARLIER) as i64 + offset,
        }
    }

    fn mono(&self, t: u64) -> u64 {
        let passed = t - self.since;
        let drift = i128::from(passed) * i128::from(self.ppm) / 1_000_000;
        self.mono + (i128::from(passed) + drift) as u64
    }

    pub(super) fn now(&self, t: u64) -> Now {
        let mono = self.mono(t);
        let wall = Timestamp((mono as i64 + self.offset).max(0) as u64);
        Now {
            mono: Mono(mono),
            clock: Interval {
                earliest: wall,
                latest: wall,
            },
        }
    }

    pub(super) fn jump(&mut self, by: i64) {
        self.offset += by;
    }

    pub(super) fn set_rate(&mut self, t: u64, ppm: i64) {
        self.mono = self.mono(t);
        self.since = t;
        self.ppm = ppm;
    }
}
