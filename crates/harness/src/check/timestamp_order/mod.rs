//! The order of commit timestamps is a legal serialization: replaying what
//! committed in that order, every transaction reads what it had read.
//!
//! Cheap and strong, as no order has to be inferred, but only for histories that
//! carry timestamps. What has a timestamp reads and writes at it (one that writes
//! nothing may read a version of the same timestamp). Of the others:
//!
//! * a transaction of unknown outcome has a timestamp that nobody knows: those
//!   that saw its writes and those that did not must leave it one;
//! * a committed transaction without timestamp wrote nothing. Whether all it read
//!   must be of one moment depends on how it read, see [`Untimed`].
//!
//! Real time plays no part: without synchronised clocks timestamps of
//! transactions that touch nothing in common need not agree with it.

mod lists;
mod registers;

pub use lists::check as check_lists;
pub use registers::check as check_registers;

use super::{Anomaly, Findings};
use crate::history::{Outcome, Transaction};

/// What transactions without a timestamp may have read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untimed {
    /// Each key at a moment of its own: reads under locks, where another shard's
    /// later write may get a lower timestamp.
    AnyMoment,
    /// All keys at one moment: snapshots.
    OneMoment,
}

/// The timestamp, if it is known.
fn timestamp<Op>(transaction: &Transaction<Op>) -> Option<u64> {
    match transaction.outcome {
        Outcome::Committed(timestamp) => timestamp,
        _ => None,
    }
}

/// Those with timestamps, ascending, in groups of equal ones.
fn groups<Op>(history: &[Transaction<Op>]) -> Vec<(u64, Vec<usize>)> {
    let mut timed: Vec<(u64, usize)> = history
        .iter()
        .enumerate()
        .filter_map(|(index, t)| Some((timestamp(t)?, index)))
        .collect();
    timed.sort_unstable();
    let same = timed.chunk_by(|a, b| a.0 == b.0);
    same.map(|group| (group[0].0, group.iter().map(|(_, index)| *index).collect()))
        .collect()
}

/// The timestamps that a transaction may have: above `low`, below `high`.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// The bound, and the transaction that sets it.
    low: Option<(u64, usize)>,
    high: Option<(u64, usize)>,
}

impl Window {
    const ALL: Window = Window {
        low: None,
        high: None,
    };

    fn raise(&mut self, low: u64, by: usize) {
        if self.low.is_none_or(|(known, _)| low > known) {
            self.low = Some((low, by));
        }
    }

    fn lower(&mut self, high: u64, by: usize) {
        if self.high.is_none_or(|(known, _)| high < known) {
            self.high = Some((high, by));
        }
    }

    /// The bounds that leave nothing between them, if so.
    fn contradiction(&self) -> Option<((u64, usize), (u64, usize))> {
        let (low, high) = (self.low?, self.high?);
        (low.0.saturating_add(1) >= high.0).then_some((low, high))
    }

    /// Reports a transaction whose window is empty.
    fn report(&self, of: usize, findings: &mut Findings, told: &dyn Fn(usize) -> String) {
        if let Some(((low, below), (high, above))) = self.contradiction() {
            findings.add(Anomaly::TimestampOrder, || {
                format!(
                    "no timestamp fits {}: it would have to lie above {low}, because of {}, and \
                     below {high}, because of {}",
                    told(of),
                    told(below),
                    told(above)
                )
            });
        }
    }
}

/// Reports two transactions that share a timestamp and a key that one wrote.
fn report_tie(
    at: u64,
    key: u64,
    (one, other): (usize, usize),
    findings: &mut Findings,
    told: &dyn Fn(usize) -> String,
) {
    findings.add(Anomaly::TimestampOrder, || {
        format!(
            "{} and {} conflict on key {key}, and both have the timestamp {at}",
            told(one),
            told(other)
        )
    });
}

/// Two transactions of one group of which one wrote and the other read or wrote
/// the same key. `touches` gives `(key, wrote)` of one transaction; what wrote
/// nothing at all conflicts with nobody.
fn tie(
    group: &[usize],
    touches: &dyn Fn(usize) -> Vec<(u64, bool)>,
) -> Option<(u64, (usize, usize))> {
    if group.len() < 2 {
        return None;
    }
    let mut all: Vec<(u64, bool, usize)> = Vec::new();
    for &index in group {
        let touched = touches(index);
        if touched.iter().any(|(_, wrote)| *wrote) {
            all.extend(touched.into_iter().map(|(key, wrote)| (key, !wrote, index)));
        }
    }
    // Per key, writes come first.
    all.sort_unstable();
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        let (key, is_read, one) = same[0];
        let other = same.iter().find(|(_, _, index)| *index != one);
        if let Some((_, _, other)) = other.filter(|_| !is_read) {
            return Some((key, (one, *other)));
        }
    }
    None
}
