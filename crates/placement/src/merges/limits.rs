//! The cluster's settings about merges.

use crate::settings::Range;
use crate::splits::{SplitLimit, SplitLimits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Two shards that become one hold at most this part of what a shard is split for ...
const PART_OF_SIZE: u64 = 4;
/// ... and are asked at most this part as often.
const PART_OF_LOAD: u64 = 20;

/// A setting about merges. Each is a row of the cluster's records, a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeLimit {
    /// Bytes.
    Size,
    /// Seconds.
    After,
}

/// Which neighbouring shards become one by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeLimits {
    /// Bytes that both may hold together; 0: none are merged.
    pub size: u64,
    /// Seconds that both must have been cold without interruption.
    pub after: u64,
}

impl Default for MergeLimits {
    fn default() -> MergeLimits {
        MergeLimits::of(&BTreeMap::new())
    }
}

impl MergeLimit {
    /// All of them.
    pub const ALL: [MergeLimit; 2] = [MergeLimit::Size, MergeLimit::After];

    /// The name of its row.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            MergeLimit::Size => "shard.merge_size",
            MergeLimit::After => "shard.merge_after",
        }
    }

    pub(crate) const fn range(self) -> Range {
        let (default, never, low, high) = match self {
            MergeLimit::Size => (
                SplitLimit::Size.default_value() / PART_OF_SIZE,
                true,
                1 << 20,
                1 << 40,
            ),
            // A merge costs an election, and the split that may follow it another one.
            MergeLimit::After => (60 * 60, false, 1, 365 * 24 * 60 * 60),
        };
        Range {
            name: self.name(),
            default,
            never,
            low,
            high,
        }
    }
}

impl MergeLimits {
    /// As rows say. Those that no setting may have are left alone: a later version's.
    #[must_use]
    pub fn of(rows: &BTreeMap<String, u64>) -> MergeLimits {
        MergeLimits {
            size: MergeLimit::Size.range().of(rows),
            after: MergeLimit::After.range().of(rows),
        }
    }

    /// What holds for one of them.
    #[must_use]
    pub const fn get(&self, limit: MergeLimit) -> u64 {
        match limit {
            MergeLimit::Size => self.size,
            MergeLimit::After => self.after,
        }
    }

    /// How long both must have been cold.
    pub(super) const fn patience(&self) -> Duration {
        Duration::from_secs(self.after)
    }

    /// The bytes and the requests each second that two shards may have together: so little
    /// of what a shard is split for that what was merged is not split again at once.
    pub(super) fn most(&self, splits: &SplitLimits) -> (u64, u64) {
        let size = match splits.size {
            0 => self.size,
            split => self.size.min(split / PART_OF_SIZE),
        };
        let load = match splits.load {
            0 => SplitLimit::Load.default_value(),
            split => split,
        };
        (size, load / PART_OF_LOAD)
    }
}
