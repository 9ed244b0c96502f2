//! The cluster's settings about splits.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A setting about splits. Each is a row of the cluster's records, a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitLimit {
    /// Bytes.
    Size,
    /// Requests each second.
    Load,
    /// Shards in the cluster.
    Shards,
}

/// What a shard may have before it is split, and how many shards there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitLimits {
    /// Bytes in one shard; 0: never split for that.
    pub size: u64,
    /// Requests each second to one shard; 0: never split for that.
    pub load: u64,
    /// Shards in the cluster, the meta shard included: beyond, none is split without
    /// being asked for.
    pub shards: u64,
}

impl Default for SplitLimits {
    fn default() -> SplitLimits {
        SplitLimits {
            size: SplitLimit::Size.default_value(),
            load: SplitLimit::Load.default_value(),
            shards: SplitLimit::Shards.default_value(),
        }
    }
}

/// Why a setting does not take a value. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No such setting.
    #[error(
        "there is no setting `{name}`; there are shard.split_size, shard.split_load, \
         shard.max_shards and shard.copy_rate"
    )]
    Unknown {
        /// What was named.
        name: String,
    },
    /// Out of bounds.
    #[error("{name} is 0 (never), or from {low} to {high}; {value} was asked for", name = .limit.name())]
    Bounds {
        /// Which.
        limit: SplitLimit,
        /// The lowest but 0.
        low: u64,
        /// The highest.
        high: u64,
        /// What was asked for.
        value: u64,
    },
}

impl SplitLimit {
    /// All of them.
    pub const ALL: [SplitLimit; 3] = [SplitLimit::Size, SplitLimit::Load, SplitLimit::Shards];

    /// The name of its row.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            SplitLimit::Size => "shard.split_size",
            SplitLimit::Load => "shard.split_load",
            SplitLimit::Shards => "shard.max_shards",
        }
    }

    /// What holds if there is no row.
    #[must_use]
    pub const fn default_value(self) -> u64 {
        match self {
            // A copy of it to another node takes seconds.
            SplitLimit::Size => 256 << 20,
            // About half of what one node's thread serves: leaders are moved whole, and two
            // smaller ones can always be told apart (`docs/benchmarks.md`).
            SplitLimit::Load => 20_000,
            SplitLimit::Shards => 10_000,
        }
    }

    /// The lowest value but 0, and the highest.
    const fn bounds(self) -> (u64, u64) {
        match self {
            SplitLimit::Size => (1 << 20, 1 << 40),
            SplitLimit::Load => (10, 10_000_000),
            SplitLimit::Shards => (1, crate::MAX_SHARDS as u64),
        }
    }

    /// The setting of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<SplitLimit, LimitError> {
        let limit = SplitLimit::ALL.into_iter().find(|l| l.name() == name);
        limit.ok_or_else(|| LimitError::Unknown {
            name: name.chars().take(100).collect(),
        })
    }

    /// Whether it may have this value.
    ///
    /// # Errors
    /// When it may not; says what it may have.
    pub fn check(self, value: u64) -> Result<(), LimitError> {
        let (low, high) = self.bounds();
        if value == 0 || (low..=high).contains(&value) {
            return Ok(());
        }
        Err(LimitError::Bounds {
            limit: self,
            low,
            high,
            value,
        })
    }
}

impl SplitLimits {
    /// As rows say. Those that no setting may have are left alone: a later version's.
    #[must_use]
    pub fn of(rows: &BTreeMap<String, u64>) -> SplitLimits {
        let value = |limit: SplitLimit| {
            let row = rows.get(limit.name()).copied();
            let row = row.filter(|value| limit.check(*value).is_ok());
            row.unwrap_or(limit.default_value())
        };
        SplitLimits {
            size: value(SplitLimit::Size),
            load: value(SplitLimit::Load),
            shards: value(SplitLimit::Shards),
        }
    }

    /// What holds for one of them.
    #[must_use]
    pub const fn get(&self, limit: SplitLimit) -> u64 {
        match limit {
            SplitLimit::Size => self.size,
            SplitLimit::Load => self.load,
            SplitLimit::Shards => self.shards,
        }
    }
}
