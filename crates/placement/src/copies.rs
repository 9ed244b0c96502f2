//! The cluster's setting about copies of shards to other nodes.

use crate::settings::{Range, SettingError};
use std::collections::BTreeMap;

/// Bytes of copies of shards that each node sends in a second, at most. A row of the cluster's
/// records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRate(pub u64);

impl Default for CopyRate {
    fn default() -> CopyRate {
        CopyRate(CopyRate::RANGE.default)
    }
}

impl CopyRate {
    /// The name of the row.
    pub const NAME: &'static str = "shard.copy_rate";
    /// The lowest rate: below, copies of several shards would take their turns too seldom.
    pub const LOWEST: u64 = 4 << 20;
    /// The highest rate: no limit, in effect.
    pub const HIGHEST: u64 = 1 << 40;

    pub(crate) const RANGE: Range = Range {
        name: CopyRate::NAME,
        // A shard of the usual size takes four seconds.
        default: 64 << 20,
        never: false,
        low: CopyRate::LOWEST,
        high: CopyRate::HIGHEST,
    };

    /// Whether it may have this value.
    ///
    /// # Errors
    /// When it may not; says what it may have.
    pub fn check(value: u64) -> Result<(), SettingError> {
        CopyRate::RANGE.check(value)
    }

    /// As rows say. One that no rate may be is left alone: a later version's.
    #[must_use]
    pub fn of(rows: &BTreeMap<String, u64>) -> CopyRate {
        CopyRate(CopyRate::RANGE.of(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rate_may_be_is_left_alone() {
        for bad in [0, 1, CopyRate::LOWEST - 1, u64::MAX] {
            assert!(CopyRate::check(bad).is_err(), "{bad}");
            let rows = BTreeMap::from([(CopyRate::NAME.to_owned(), bad)]);
            assert_eq!(CopyRate::of(&rows), CopyRate::default());
        }
        let rows = BTreeMap::from([(CopyRate::NAME.to_owned(), CopyRate::LOWEST)]);
        assert_eq!(CopyRate::of(&rows), CopyRate(CopyRate::LOWEST));
    }
}
