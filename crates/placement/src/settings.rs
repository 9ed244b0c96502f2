//! The cluster's settings that are numbers: rows of its records, by name.

use crate::copies::CopyRate;
use crate::merges::MergeLimit;
use crate::splits::SplitLimit;
use std::collections::BTreeMap;

/// Why a setting does not take a value. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such setting.
    #[error("there is no setting `{name}`; there are {}", names().join(", "))]
    Unknown {
        /// What was named.
        name: String,
    },
    /// Out of bounds.
    #[error(
        "{name} is {never}from {low} to {high}; {value} was asked for",
        never = if *.never { "0 (never), or " } else { "" }
    )]
    Bounds {
        /// Which.
        name: &'static str,
        /// Whether it may be 0 besides.
        never: bool,
        /// The lowest value but that.
        low: u64,
        /// The highest.
        high: u64,
        /// What was asked for.
        value: u64,
    },
}

/// A setting and the values that it may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) name: &'static str,
    /// What holds without a row.
    pub(crate) default: u64,
    /// It may be 0 besides.
    pub(crate) never: bool,
    pub(crate) low: u64,
    pub(crate) high: u64,
}

impl Range {
    /// Whether the setting may have this value.
    pub(crate) fn check(self, value: u64) -> Result<(), SettingError> {
        let Range {
            name,
            never,
            low,
            high,
            ..
        } = self;
        if (never && value == 0) || (low..=high).contains(&value) {
            return Ok(());
        }
        Err(SettingError::Bounds {
            name,
            never,
            low,
            high,
            value,
        })
    }

    /// As rows say. What the setting may not have is left alone: a later version's.
    pub(crate) fn of(self, rows: &BTreeMap<String, u64>) -> u64 {
        let row = rows.get(self.name).copied();
        let row = row.filter(|value| self.check(*value).is_ok());
        row.unwrap_or(self.default)
    }
}

fn all() -> impl Iterator<Item = Range> {
    let splits = SplitLimit::ALL.into_iter().map(SplitLimit::range);
    let merges = MergeLimit::ALL.into_iter().map(MergeLimit::range);
    splits.chain(merges).chain([CopyRate::RANGE])
}

fn names() -> Vec<&'static str> {
    all().map(|range| range.name).collect()
}

/// Whether a setting of this name may have this value; none is its default. The name, as it
/// stands in the row.
///
/// # Errors
/// When there is no such setting, or it may not.
pub fn check_setting(name: &str, value: Option<u64>) -> Result<&'static str, SettingError> {
    let range = all().find(|range| range.name == name);
    let range = range.ok_or_else(|| SettingError::Unknown {
        name: name.chars().take(100).collect(),
    })?;
    value.map_or(Ok(()), |value| range.check(value))?;
    Ok(range.name)
}

/// What a setting of this name is without a row; none if there is no such setting.
#[must_use]
pub fn default_setting(name: &str) -> Option<u64> {
    let range = all().find(|range| range.name == name);
    range.map(|range| range.default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_known_by_name_and_bounds() {
        for range in all() {
            let Range {
                name,
                default,
                low,
                high,
                ..
            } = range;
            for value in [None, Some(default), Some(low), Some(high)] {
                assert_eq!(check_setting(name, value), Ok(name));
            }
            assert_eq!(default_setting(name), Some(default));
            assert_eq!(check_setting(name, Some(0)).is_ok(), range.never, "{name}");
            let rows = BTreeMap::from([(name.to_owned(), low)]);
            assert_eq!(range.of(&rows), low);
            for bad in [u64::MAX, high + 1] {
                let refused = check_setting(name, Some(bad)).expect_err("too much");
                assert!(refused.to_string().contains(name), "{refused}");
                let rows = BTreeMap::from([(name.to_owned(), bad)]);
                assert_eq!(range.of(&rows), default);
            }
        }
        let refused = check_setting("shard.split", None).expect_err("no setting");
        for name in names() {
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }
}
