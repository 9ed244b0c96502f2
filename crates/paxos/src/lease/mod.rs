//! Support that nodes grant each other; leader leases rest on it.
//!
//! One small exchange per ordered node pair, however many groups they share
//! (the idea of leases between nodes instead of groups: CockroachDB's store
//! liveness, 2024; the lease argument itself: Gray and Cheriton, "Leases",
//! 1989). The machine is [`NodeLease`]; its rules are L2, L4, L5, L6 and K1 of
//! the design.
//!
//! # Who promises what
//!
//! A *holder* sends `Renew` to every peer, itself included, each L/4 (idle: nearly
//! L/2, see `turns`). A *supporter* answers `Support`, and asks for itself in the same breath. The supporter counts its promise from when
//! it **received** the Renew, lengthened by the rate error; the holder counts
//! from when it **sent** it, shortened by the rate error. Receiving comes
//! after sending, so at every instant at which the holder still counts on an
//! epoch, its supporter still supports it under that very epoch:
//!
//! ```text
//! holder      sent |------------- L - e -------------|            (believes)
//! supporter           received |------------- L + e -------------| (supports)
//! ```
//!
//! The one exception is a supporter that restarted and has forgotten: it
//! *abstains* ([`NodeLease::abstains`]) until everything it may have granted
//! before is over (L5), so nobody gets a promise from it in that time either.
//!
//! # Epochs and gaps
//!
//! A [`SupportEpoch`](crate::SupportEpoch) names a stretch of support without
//! a gap *as the supporter counts*. Once the supporter's count ran out, the
//! next Renew starts a new epoch; counters are shared by all holders of a
//! supporter and never reused within an incarnation. The holder may see its own
//! count run out and then receive more of the same epoch: its Renew reached
//! the supporter before the supporter's longer count ended. That is still no
//! gap. All the while the supporter refused others for the holder's sake (L3),
//! so nobody else can have gathered a majority through it, and what the holder
//! knew of the group before its own pause is still true after it.
//!
//! # Limits
//!
//! A Support also discloses a limit on timestamps (L4). The supporter makes it
//! durable first: one [`LeaseRecord`] per holder, never lowered. At most one
//! record per holder is on its way to the disk; Renews that arrive meanwhile
//! are answered with what that record says, once it is durable.
//! Because the record holds the highest limit of all epochs, and a Promise
//! returns it, a limit told before a gap is never above what a new leader's
//! floor covers; a Support that was held up until its time was over counts
//! for nothing, whatever limit it names.
//!
//! Messages may be lost, repeated, delayed and reordered at will.

mod holder;
pub mod message;
mod node;
mod settings;
mod supporter;
mod suspicion;
#[cfg(test)]
mod tests;
mod turns;

pub use holder::{Held, PeerWall};
pub use message::{LeaseMessage, LeaseRecord};
pub use node::{LeaseEffect, LeaseIgnored, NodeLease};
pub use settings::LeaseSettings;
pub use suspicion::{Hearing, Suspicion};
