//! The fault model: what the promises cover, and what each fault beyond them
//! suspends. `docs/testing.md` says the same in words.
//!
//! Within the promises, and so never an excuse: any loss, delay, duplication and
//! reordering of messages; any cut of the network; crashes of any number of
//! nodes, with unsynced writes lost or torn; engines lost, and disks damaged
//! or failing, on less than a majority of each group; stalled and full disks;
//! pauses of any length; wall clocks that are off, jump and disagree;
//! monotonic clocks whose rates differ by less than the bound.

use serde::{Deserialize, Serialize};

/// How wrong clocks' rates become with [`Beyond::Rate`], either way; parts per million.
pub(super) const RATE_BEYOND: u64 = 300_000;

/// What is suspended where leases mean nothing: reads without effect are left out
/// of the histories, for a leader serves them on the word of its lease alone.
pub(super) const LEASE_READS: &str = "lease reads";

/// A fault that breaks an assumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Beyond {
    /// Monotonic clocks differ in rate by more than the bound.
    Rate,
}

impl Beyond {
    /// Every such fault.
    pub const ALL: &'static [Beyond] = &[Beyond::Rate];

    /// The checks it suspends: rule numbers, and names of histories' checks.
    /// Serializability and atomicity of read-write transactions are never among
    /// them.
    #[must_use]
    pub const fn suspends(self) -> &'static [&'static str] {
        match self {
            Beyond::Rate => &["K1", "L1", "L2", "L4", "L5", "R1", "U1", "S1", LEASE_READS],
        }
    }

    /// Which assumption it breaks.
    #[must_use]
    pub const fn assumption(self) -> &'static str {
        match self {
            Beyond::Rate => "the rates of two monotonic clocks differ by at most 1 in 1,000",
        }
    }
}
