//! The node's two clocks, read once a step.

use rustix::time::{ClockId, clock_gettime};
use synod_paxos::{Mono, Timestamp};
use synod_shard::Now;
use synod_txn::Interval;

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Both clocks now. In unbounded mode the interval is the reading alone.
pub(super) fn now() -> Now {
    let wall = Timestamp(nanos(ClockId::Realtime));
    Now {
        mono: Mono(nanos(ClockId::Boottime)),
        clock: Interval {
            earliest: wall,
            latest: wall,
        },
    }
}
