//! When and how a transaction is tried again.

use crate::types::{AbortReason, AttemptId, Priority};
use serde::{Deserialize, Serialize};
use synod_paxos::Timestamp;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Whether a new attempt may succeed after an abort for this reason.
#[must_use]
pub const fn is_retryable(reason: AbortReason) -> bool {
    match reason {
        AbortReason::Wounded
        | AbortReason::SessionEnded
        | AbortReason::TermEnded
        | AbortReason::Deadline
        | AbortReason::NeverStaged
        | AbortReason::Moved
        | AbortReason::Untimely => true,
        AbortReason::RolledBack
        | AbortReason::TooLarge
        | AbortReason::Malformed
        | AbortReason::DiskFull => false,
    }
}

/// A UUIDv7 from the cluster's time and 74 random bits (the others are ignored).
#[must_use]
pub const fn attempt_id(now: Timestamp, random: u128) -> AttemptId {
    let millis = (now.0 / 1_000_000) as u128 & 0xffff_ffff_ffff;
    let high = (random >> 64) & 0xfff;
    let low = random & 0x3fff_ffff_ffff_ffff;
    AttemptId((millis << 80) | (7 << 76) | (high << 64) | (2 << 62) | low)
}

/// The times that a shard takes an attempt's id with, as it refused one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdWindow {
    /// The lowest, in milliseconds since 1970.
    pub least_millis: u64,
    /// The highest.
    pub most_millis: u64,
}

impl IdWindow {
    /// What fits both; the newer one where nothing does.
    fn and(self, newer: IdWindow) -> IdWindow {
        let both = IdWindow {
            least_millis: self.least_millis.max(newer.least_millis),
            most_millis: self.most_millis.min(newer.most_millis),
        };
        if both.least_millis <= both.most_millis {
            both
        } else {
            newer
        }
    }

    /// The time within that is nearest to `time`.
    fn nearest(self, time: Timestamp) -> Timestamp {
        let of_millis = |millis: u64| Timestamp(millis.saturating_mul(NANOS_PER_MILLI));
        if time.0 / NANOS_PER_MILLI > self.most_millis {
            return of_millis(self.most_millis);
        }
        time.max(of_millis(self.least_millis))
    }
}

/// Bounds of the back-off between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrySettings {
    /// Pause before the second attempt, at most; doubles with every further one; nanoseconds.
    pub first_nanos: u64,
    /// No pause is longer; nanoseconds.
    pub longest_nanos: u64,
    /// Attempts, at most.
    pub attempts: u32,
}

impl Default for RetrySettings {
    /// Wound-wait favours the old, and the age is kept: short pauses suffice.
    fn default() -> RetrySettings {
        RetrySettings {
            first_nanos: 1_000_000,
            longest_nanos: 100_000_000,
            attempts: 1_000,
        }
    }
}

/// The attempts of one transaction: each has a new id, all have the age of the
/// first (so that a transaction that keeps losing grows old and wins).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    settings: RetrySettings,
    priority: Option<Priority>,
    attempts: u32,
    random: u64,
    /// What its shards said of ids' times.
    window: Option<IdWindow>,
}

impl Retry {
    /// A transaction that was never tried. The seed decides the jitter.
    #[must_use]
    pub const fn new(settings: RetrySettings, seed: u64) -> Retry {
        Retry {
            settings,
            priority: None,
            attempts: 0,
            random: seed,
            window: None,
        }
    }

    /// One that goes on with the age of an earlier attempt.
    #[must_use]
    pub const fn with_age(settings: RetrySettings, seed: u64, age: Priority) -> Retry {
        let mut retry = Retry::new(settings, seed);
        retry.priority = Some(age);
        retry
    }

    /// How many attempts there were.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// An attempt was refused for the time in its id: the next ones take
    /// theirs from within what all its shards said.
    pub fn within(&mut self, window: IdWindow) {
        self.window = Some(self.window.map_or(window, |known| known.and(window)));
    }

    /// Id and age of the next attempt, from the cluster's time and random bits.
    pub fn next_attempt(&mut self, now: Timestamp, random: u128) -> (AttemptId, Priority) {
        let now = self.window.map_or(now, |window| window.nearest(now));
        let attempt = attempt_id(now, random);
        self.attempts += 1;
        let priority = *self.priority.get_or_insert(Priority {
            start: now,
            first: attempt,
        });
        (attempt, priority)
    }

    /// How long to wait before the next attempt, in nanoseconds; none = give up.
    pub fn pause(&mut self, reason: AbortReason) -> Option<u64> {
        if !is_retryable(reason) || self.attempts >= self.settings.attempts {
            return None;
        }
        let doublings = self.attempts.saturating_sub(1).min(30);
        let most = self
            .settings
            .first_nanos
            .saturating_mul(1 << doublings)
            .min(self.settings.longest_nanos);
        // Between half and all of it, so that losers do not meet again.
        let half = most / 2;
        Some(half + self.random() % (most - half + 1))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
