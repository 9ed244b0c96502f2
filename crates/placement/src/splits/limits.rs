//! The cluster's settings about splits.

use crate::settings::Range;
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
        self.range().default
    }

    pub(crate) const fn range(self) -> Range {
        let (default, low, high) = match self {
            // A copy of it to another node takes seconds.
            SplitLimit::Size => (256 << 20, 1 << 20, 1 << 40),
            // About half of what one node's thread serves: leaders are moved whole, and two
            // smaller ones can always be told apart (`docs/benchmarks.md`).
            SplitLimit::Load => (20_000, 10, 10_000_000),
            SplitLimit::Shards => (10_000, 1, crate::MAX_SHARDS as u64),
        };
        Range {
            name: self.name(),
            default,
            never: true,
            low,
            high,
        }
    }
}

impl SplitLimits {
    /// As rows say. Those that no setting may have are left alone: a later version's.
    #[must_use]
    pub fn of(rows: &BTreeMap<String, u64>) -> SplitLimits {
        let value = |limit: SplitLimit| limit.range().of(rows);
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
