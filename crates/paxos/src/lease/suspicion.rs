//! How much a peer's silence says that it is gone.
//!
//! A fixed limit is too long for a quiet link and too short for one that jitters. So
//! silence is measured by what the link usually does: the φ accrual failure detector of
//! Hayashibara, Défago, Yared and Katayama (2004), as Akka and Cassandra have it. From the
//! last intervals between signs of life come their mean and standard deviation, and from
//! those how unlikely it is that the next sign comes this late: at φ = 1 that happens
//! once in ten times, at φ = 3 once in a thousand. Counted in thousandths, and in integers
//! only, so that the same signs give the same number everywhere.
//!
//! Nothing safe rests on it: leases, promises and elections go by support alone (L1 to
//! L6). It serves to choose whom to turn to, to decide when to look again, and to tell people.

use crate::ids::{Mono, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Intervals that count.
const WINDOW: usize = 32;
/// A link's deviation is taken for at least this part of its mean: one that was
/// regular so far is not dead when it is late once, or its peer asks less often from now on.
const LEAST_DEVIATION: u64 = 2;

/// How suspect a peer is: φ, in thousandths.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Suspicion(pub u32);

impl Suspicion {
    /// From here on a peer counts as gone, until it is heard again (φ = 8, Cassandra's).
    /// On a quiet link that is after less than four of the usual intervals.
    pub const GONE: Suspicion = Suspicion(8_000);

    /// Whether it counts as gone.
    #[must_use]
    pub fn is_gone(self) -> bool {
        self >= Suspicion::GONE
    }
}

/// What is heard of all peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hearing {
    lease_nanos: u64,
    peers: BTreeMap<NodeId, Heartbeats>,
}

impl Hearing {
    /// Nothing yet. Peers are asked for support each L/4 to L/2 of this lease (nanoseconds).
    #[must_use]
    pub fn new(lease_nanos: u64) -> Hearing {
        Hearing {
            lease_nanos,
            peers: BTreeMap::new(),
        }
    }

    /// A sign of life: support that the peer grants. That it was asked for shows that it hears
    /// this node too. Other messages come as there is work, and their absence says nothing.
    pub fn heard(&mut self, peer: NodeId, now: Mono) {
        let lease = self.lease_nanos;
        self.peers
            .entry(peer)
            .and_modify(|beats| beats.heard(lease, now))
            .or_insert_with(|| Heartbeats::begin(now));
    }

    /// Forgets all that `keep` refuses.
    pub fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.peers.retain(|peer, _| keep(*peer));
    }

    /// When the peer was heard last; none if it never was.
    #[must_use]
    pub fn last(&self, peer: NodeId) -> Option<Mono> {
        self.peers.get(&peer).map(|beats| beats.last)
    }

    /// How suspect the peer is at `now`; none if it was never heard.
    #[must_use]
    pub fn suspicion(&self, peer: NodeId, now: Mono) -> Option<Suspicion> {
        let beats = self.peers.get(&peer)?;
        Some(beats.suspicion(self.lease_nanos, now))
    }

    /// Whether the peer was heard, and does not count as gone.
    #[must_use]
    pub fn is_there(&self, peer: NodeId, now: Mono) -> bool {
        let suspicion = self.suspicion(peer, now);
        suspicion.is_some_and(|suspicion| !suspicion.is_gone())
    }
}

/// The signs of life of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Heartbeats {
    /// The first of those that came together last.
    first: Mono,
    last: Mono,
    /// Nanoseconds.
    intervals: VecDeque<u64>,
}

impl Heartbeats {
    fn begin(now: Mono) -> Heartbeats {
        Heartbeats {
            first: now,
            last: now,
            intervals: VecDeque::new(),
        }
    }

    fn heard(&mut self, lease: u64, now: Mono) {
        let now = now.max(self.last);
        self.last = now;
        let interval = now.since(self.first);
        // Two answers may come at once, after both were held up.
        if interval < lease / 12 {
            return;
        }
        self.first = now;
        if self.intervals.len() == WINDOW {
            self.intervals.pop_front();
        }
        // What lasts longer was an absence, not the link. So however long those were, a
        // peer that dies is found gone within eleven leases.
        self.intervals
            .push_back(interval.min(lease.saturating_mul(3)));
    }

    /// Mean and standard deviation of the intervals, nanoseconds; before any was
    /// measured, one of half a lease.
    fn usual(&self, lease: u64) -> (u64, u64) {
        let count = self.intervals.len() as u128 + 1;
        let all = || self.intervals.iter().copied().chain([lease / 2]);
        let mean = all().map(u128::from).sum::<u128>() / count;
        let squares = all().map(|x| u128::from(x).abs_diff(mean).saturating_pow(2));
        let variance = squares.fold(0, u128::saturating_add) / count;
        let deviation = variance
            .isqrt()
            .max(mean / u128::from(LEAST_DEVIATION))
            .max(1);
        let nanos = |x: u128| u64::try_from(x).unwrap_or(u64::MAX);
        (nanos(mean), nanos(deviation))
    }

    /// For intervals spread normally about their mean: the tail of that is close to
    /// 1 / (1 + exp(1.5976 y + 0.070566 y³)), with y the lateness in deviations. φ is that
    /// exponent in powers of ten, which is right but for the first tenths.
    fn suspicion(&self, lease: u64, now: Mono) -> Suspicion {
        let (mean, deviation) = self.usual(lease);
        let late = now.since(self.last).saturating_sub(mean);
        // In thousandths; a hundred deviations are as good as more.
        let y = (u128::from(late) * 1_000 / u128::from(deviation)).min(100_000);
        // 1.5976 and 0.070566 over the natural logarithm of ten.
        let phi = (y * 694 + y.pow(3) * 31 / 1_000_000) / 1_000;
        Suspicion(u32::try_from(phi).unwrap_or(u32::MAX))
    }
}
