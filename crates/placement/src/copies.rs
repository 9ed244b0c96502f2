//! The cluster's setting about copies of shards to other nodes.

use crate::splits::{LimitError, SplitLimit};
use std::collections::BTreeMap;

/// Bytes of copies of shards that each node sends in a second, at most. A row of the cluster's
/// records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRate(pub u64);

impl Default for CopyRate {
    fn default() -> CopyRate {
        // A shard of the usual size takes four seconds.
        CopyRate(64 << 20)
    }
}

/// Why a rate is none. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} is from {low} to {high}; {value} was asked for", name = CopyRate::NAME,
    low = CopyRate::LOWEST, high = CopyRate::HIGHEST
)]
pub struct RateError {
    /// What was asked for.
    pub value: u64,
}

impl CopyRate {
    /// The name of the row.
    pub const NAME: &'static str = "shard.copy_rate";
    /// The lowest rate: below, copies of several shards would take their turns too seldom.
    pub const LOWEST: u64 = 4 << 20;
    /// The highest rate: no limit, in effect.
    pub const HIGHEST: u64 = 1 << 40;

    /// Whether it may have this value.
    ///
    /// # Errors
    /// When it may not; says what it may have.
    pub fn check(value: u64) -> Result<(), RateError> {
        let within = (CopyRate::LOWEST..=CopyRate::HIGHEST).contains(&value);
        within.then_some(()).ok_or(RateError { value })
    }

    /// As rows say. One that no rate may be is left alone: a later version's.
    #[must_use]
    pub fn of(rows: &BTreeMap<String, u64>) -> CopyRate {
        let row = rows.get(CopyRate::NAME).copied();
        let row = row.filter(|value| CopyRate::check(*value).is_ok());
        row.map_or_else(CopyRate::default, CopyRate)
    }
}

/// Why a setting that is a number does not take a value. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// It is about splits, or there is none of this name.
    #[error(transparent)]
    Split(#[from] LimitError),
    /// It is about copies.
    #[error(transparent)]
    Rate(#[from] RateError),
}

/// Whether a setting of this name may have this value; none is its default. The name, as it
/// stands in the row.
///
/// # Errors
/// When there is no such setting, or it may not.
pub fn check_setting(name: &str, value: Option<u64>) -> Result<&'static str, SettingError> {
    if name == CopyRate::NAME {
        value.map_or(Ok(()), CopyRate::check)?;
        return Ok(CopyRate::NAME);
    }
    let limit = SplitLimit::named(name)?;
    value.map_or(Ok(()), |value| limit.check(value))?;
    Ok(limit.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_known_by_name_and_bounds() {
        assert_eq!(check_setting("shard.copy_rate", None), Ok(CopyRate::NAME));
        assert_eq!(
            check_setting("shard.copy_rate", Some(4 << 20)),
            Ok(CopyRate::NAME)
        );
        for bad in [0, 1, CopyRate::LOWEST - 1, u64::MAX] {
            assert!(
                check_setting("shard.copy_rate", Some(bad)).is_err(),
                "{bad}"
            );
            let rows = BTreeMap::from([(CopyRate::NAME.to_owned(), bad)]);
            assert_eq!(CopyRate::of(&rows), CopyRate::default());
        }
        assert!(check_setting("shard.split_size", Some(0)).is_ok());
        assert!(check_setting("shard.copies", None).is_err());
    }
}
