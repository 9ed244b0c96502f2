//! Checkers: pure functions from a history to the violations found in it.
//!
//! They do no IO and know nothing of the system under test. A violation is a
//! sentence for people, with the transactions that prove it. No checker reports
//! what an explanation without a broken promise exists for; `T12` in a finding is
//! the transaction at index 12 of the history.
//!
//! | checker | what must hold |
//! |---|---|
//! | [`list_append`] | strict serializability of appends to lists, and reads of them |
//! | [`registers`] | strict serializability of reads and writes of many registers |
//! | [`register`] | real-time order of one register with one writer |
//! | [`timestamp_order`] | replayed in the order of timestamps, reads see what they saw |
//! | [`sessions`] | no client sees a key go back, or misses its own writes |
//! | [`bank`] | money is neither made nor lost |
//! | [`ring`] | links that are swapped stay one ring |
//! | [`once`] | a commit's marker is there once, an abort's never |

mod any;
pub mod bank;
mod cycles;
mod graph;
pub mod list_append;
pub mod once;
pub mod register;
pub mod registers;
pub mod ring;
pub mod sessions;
pub mod timestamp_order;
mod words;

pub use any::check_any;

use serde::Serialize;
use std::fmt;

/// Violations reported of one kind, at most; the rest are counted.
pub const MAX_REPORTED: usize = 10;

/// What kind of promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anomaly {
    /// The history itself is unusable (a value appended twice by clients, say).
    BadHistory,
    /// A read saw a value that nobody wrote.
    Garbage,
    /// A list held an element twice: a write was applied more than once.
    Duplicate,
    /// Two reads of a key saw orders that cannot both be prefixes of one list.
    IncompatibleOrder,
    /// A transaction did not see its own writes, or one read changed under it.
    Internal,
    /// A read saw a write of an aborted transaction (Adya's G1a).
    AbortedRead,
    /// A read saw a state from the middle of another transaction (G1b).
    IntermediateRead,
    /// Several transactions read the same version of a key and overwrote it.
    LostUpdate,
    /// A cycle of write dependencies only (G0).
    WriteCycle,
    /// A cycle of write and read dependencies (G1c).
    CircularInformation,
    /// A cycle with one anti-dependency: lost update, read skew (G-single).
    SingleAntiDependency,
    /// A cycle with several anti-dependencies: write skew (G2).
    AntiDependency,
    /// A cycle that real-time order closes: serializable, but not strictly.
    RealTime,
    /// Timestamps do not rise along a dependency.
    TimestampOrder,
    /// Links do not form one ring.
    Ring,
    /// Money appeared or vanished.
    Total,
    /// An acknowledged effect is missing.
    Lost,
    /// An effect is there that its client was told did not happen.
    Undead,
    /// A read went back in time.
    Stale,
}

impl Anomaly {
    /// Its name, Adya's where there is one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Anomaly::BadHistory => "bad history",
            Anomaly::Garbage => "garbage read",
            Anomaly::Duplicate => "duplicate",
            Anomaly::IncompatibleOrder => "incompatible orders",
            Anomaly::Internal => "internal contradiction",
            Anomaly::AbortedRead => "G1a aborted read",
            Anomaly::IntermediateRead => "G1b intermediate read",
            Anomaly::LostUpdate => "lost update",
            Anomaly::WriteCycle => "G0 write cycle",
            Anomaly::CircularInformation => "G1c circular information flow",
            Anomaly::SingleAntiDependency => "G-single",
            Anomaly::AntiDependency => "G2",
            Anomaly::RealTime => "real-time violation",
            Anomaly::TimestampOrder => "timestamp order",
            Anomaly::Ring => "broken ring",
            Anomaly::Total => "wrong total",
            Anomaly::Lost => "lost effect",
            Anomaly::Undead => "effect of an abort",
            Anomaly::Stale => "stale read",
        }
    }
}

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its kind.
    pub anomaly: Anomaly,
    /// What was seen, and why it cannot be.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.anomaly.name(), self.text)
    }
}

/// Violations of one check, with a bound on how many of a kind are spelled out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// The first ones of each kind.
    pub violations: Vec<Violation>,
    /// How many there were in all.
    pub total: usize,
    /// Transactions that were looked at.
    pub checked: usize,
}

impl Findings {
    /// Adds one; `text` is only called if it will be reported.
    pub(crate) fn add(&mut self, anomaly: Anomaly, text: impl FnOnce() -> String) {
        self.total += 1;
        let same = self.violations.iter().filter(|v| v.anomaly == anomaly);
        if same.count() < MAX_REPORTED {
            self.violations.push(Violation {
                anomaly,
                text: text(),
            });
        }
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.total == 0
    }

    /// Whether a violation of this kind was found.
    #[must_use]
    pub fn has(&self, anomaly: Anomaly) -> bool {
        self.violations.iter().any(|v| v.anomaly == anomaly)
    }

    /// Adds everything another check of the same transactions found.
    pub fn absorb(&mut self, other: Findings) {
        self.violations.extend(other.violations);
        self.total += other.total;
    }

    /// Adds everything a check of other transactions found.
    pub fn merge(&mut self, other: Findings) {
        self.violations.extend(other.violations);
        self.total += other.total;
        self.checked += other.checked;
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} violations in {} transactions",
            self.total, self.checked
        )?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}
