//! The numbers that leases run by.

use serde::{Deserialize, Serialize};

const MILLISECOND: u64 = 1_000_000;
const MILLION: u128 = 1_000_000;

/// Numbers of a node's leases. Safety needs `rate_error_per_million` to be true
/// of the clocks, and `longest_lease_nanos` not to be below any `lease_nanos`
/// ever in use; the others cost only time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseSettings {
    /// How long one Renew asks for (L); nanoseconds (default 600 ms). Stretched to
    /// four round trips of a slow pair, as far as `longest_lease_nanos` allows.
    pub lease_nanos: u64,
    /// How much faster or slower than true time a monotonic clock may run;
    /// millionths (default 1,000, which is 1 in 1,000).
    pub rate_error_per_million: u32,
    /// No limit is granted further ahead of the supporter's own wall clock (K1);
    /// nanoseconds (default 1 s).
    pub max_offset_nanos: u64,
    /// The longest lease any setting ever allowed. No longer one is granted, and a
    /// restarted node abstains for this long (L5); nanoseconds (default 600 ms).
    pub longest_lease_nanos: u64,
    /// How far ahead of the own wall clock a holder asks for its limit;
    /// nanoseconds, at most half a lease (L4; default 300 ms).
    pub limit_ahead_nanos: u64,
    /// How far above the highest replicated timestamp of any group a limit may
    /// always reach, whatever the wall clocks say (K1's logical increment);
    /// nanoseconds (default 1 ms, a million timestamps for each renewal).
    pub logical_increment_nanos: u64,
}

impl Default for LeaseSettings {
    fn default() -> LeaseSettings {
        LeaseSettings {
            lease_nanos: 600 * MILLISECOND,
            rate_error_per_million: 1_000,
            max_offset_nanos: 1_000 * MILLISECOND,
            longest_lease_nanos: 600 * MILLISECOND,
            limit_ahead_nanos: 300 * MILLISECOND,
            logical_increment_nanos: MILLISECOND,
        }
    }
}

impl LeaseSettings {
    /// The defaults around a lease of this length; nanoseconds.
    #[must_use]
    pub fn of_lease(lease_nanos: u64) -> LeaseSettings {
        LeaseSettings {
            lease_nanos,
            longest_lease_nanos: lease_nanos,
            limit_ahead_nanos: lease_nanos / 2,
            ..LeaseSettings::default()
        }
    }

    /// The longest lease to grant or to count on; nanoseconds.
    #[must_use]
    pub fn longest(&self) -> u64 {
        self.longest_lease_nanos.max(self.lease_nanos)
    }

    /// The time from one Renew to the next while timestamps are used: L/4, but at
    /// least 1 ms; nanoseconds.
    #[must_use]
    pub fn renew_period(&self) -> u64 {
        (self.lease_nanos / 4).max(MILLISECOND)
    }

    /// The same while none are used, to a peer so far away: the answer comes before the
    /// limit granted last has run out (L/2 less the round trip), and not after less than
    /// [`LeaseSettings::renew_period`]; nanoseconds.
    #[must_use]
    pub fn idle_period(&self, round_trip: u64) -> u64 {
        (self.lease_nanos / 2)
            .saturating_sub(round_trip)
            .max(self.renew_period())
    }

    /// How far ahead of the own wall clock to ask; nanoseconds, at most L/2.
    #[must_use]
    pub fn limit_ahead(&self) -> u64 {
        self.limit_ahead_nanos.min(self.lease_nanos / 2)
    }

    /// What a supporter counts for a promise of `nanos`: more, by the rate error.
    #[must_use]
    pub fn stretched(&self, nanos: u64) -> u64 {
        nanos.saturating_add(self.rate_error(nanos))
    }

    /// What a holder counts on for a promise of `nanos`: less, by the rate error.
    #[must_use]
    pub fn shortened(&self, nanos: u64) -> u64 {
        nanos.saturating_sub(self.rate_error(nanos))
    }

    /// By how much a clock may be off after `nanos`; rounded up.
    fn rate_error(&self, nanos: u64) -> u64 {
        let error = (u128::from(nanos) * u128::from(self.rate_error_per_million)).div_ceil(MILLION);
        u64::try_from(error).unwrap_or(u64::MAX)
    }
}
