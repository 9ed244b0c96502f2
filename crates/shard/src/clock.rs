//! Watches the node's wall clock (K2): against its own monotonic clock, and
//! against the other nodes' clocks as the lease exchange brings them.
//!
//! A clock that jumped, or that misses the one a majority agrees on, is not
//! used: the node hands its leaderships over and says so. In unbounded mode it
//! is trusted again once it agrees with a majority, or after a fixed while:
//! clocks may cost latency there, never correctness (U2).
//!
//! After that while the majority's word counts no more, until the clock has agreed
//! with one or jumps anew: all voters of a shard may be among those whose clocks
//! are wrong, as in a site with a bad time server, and the shard would never have a
//! leader again. The node still says that its clock is doubted, so that those lead
//! who are not, where there are any.
//!
//! Where no majority agrees there is nothing to miss, and every clock is as good as
//! any other: all nodes would quarantine themselves, again and again if their clocks
//! run at different rates, and no leader would last.

use crate::shard::Now;
use serde::Serialize;
use std::collections::BTreeMap;
use synod_paxos::lease::LeaseMessage;
use synod_paxos::{NodeId, Timestamp};
use synod_probe::{Mark, mark};

/// How far the wall clock may move against the monotonic one between two
/// checks, beyond the rate error; nanoseconds. Covers slewing and the reading itself.
const STEP_TOLERANCE_NANOS: u64 = 250_000_000;
/// Rate error allowed between the two clocks of one node: 1 in 1,000.
const RATE_DIVISOR: u64 = 1_000;
/// How far another node's clock may be away before the two disagree; nanoseconds.
const PEER_TOLERANCE_NANOS: u64 = 1_000_000_000;
/// A quarantine lasts this long at most in unbounded mode; nanoseconds.
const QUARANTINE_NANOS: u64 = 5_000_000_000;
/// A peer's reading older than this says nothing; nanoseconds.
const READING_NANOS: u64 = 2_000_000_000;

/// What a change of the clock's state means for the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ClockVerdict {
    /// Use it.
    Usable,
    /// Do not lead, do not pick timestamps.
    Quarantined,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Reading {
    /// Their wall clock minus ours, nanoseconds.
    offset: i128,
    at: synod_paxos::Mono,
}

/// The watch.
#[derive(Clone, Debug, Serialize)]
pub struct ClockMonitor {
    /// Monotonic and wall time that belonged together at the last check.
    base: Now,
    peers: BTreeMap<NodeId, Reading>,
    quarantined: Option<(synod_paxos::Mono, String)>,
    /// A quarantine lasted its while and the clock has not agreed with a majority since:
    /// others' clocks begin no further one.
    outlasted: bool,
    /// What the majority's clocks say against one that is used all the same.
    doubted: Option<String>,
    /// Times it was quarantined.
    quarantines: u64,
}

impl ClockMonitor {
    /// Starts with the clock trusted.
    #[must_use]
    pub fn new(now: Now) -> ClockMonitor {
        ClockMonitor {
            base: now,
            peers: BTreeMap::new(),
            quarantined: None,
            outlasted: false,
            doubted: None,
            quarantines: 0,
        }
    }

    /// Why the clock is not used, if so.
    #[must_use]
    pub fn quarantine(&self) -> Option<&str> {
        self.quarantined.as_ref().map(|(_, why)| why.as_str())
    }

    /// Why the clock is not believed, if so: that of the quarantine, or, where that has lasted its
    /// while and the clock is used again, what the majority's clocks still say against it.
    #[must_use]
    pub fn doubt(&self) -> Option<&str> {
        self.quarantine().or(self.doubted.as_deref())
    }

    /// How often the clock was quarantined, for who looks only now and then: it may be
    /// used again in the same step, where others' clocks made the same jump.
    #[must_use]
    pub fn quarantines(&self) -> u64 {
        self.quarantines
    }

    /// Compares wall against monotonic time since the last check. Returns a
    /// verdict only when it changes.
    pub fn check(&mut self, now: Now) -> Option<ClockVerdict> {
        let passed = now.mono.since(self.base.mono);
        let moved = i128::from(now.clock.latest.0) - i128::from(self.base.clock.latest.0);
        let off = (moved - i128::from(passed)).unsigned_abs();
        let allowed = u128::from(STEP_TOLERANCE_NANOS + passed / RATE_DIVISOR);
        self.base = now;
        if off > allowed {
            mark(Mark::QuarantinedByJump);
            // Readings taken against the old clock say nothing about the new one.
            self.peers.clear();
            let why = format!(
                "the wall clock moved by {} ms against the monotonic clock",
                (moved - i128::from(passed)) / 1_000_000
            );
            return self.enter(now, why);
        }
        let (since, _) = self.quarantined.as_ref()?;
        if now.mono.since(*since) >= QUARANTINE_NANOS {
            mark(Mark::QuarantineExpired);
            self.quarantined = None;
            self.outlasted = true;
            return Some(ClockVerdict::Usable);
        }
        None
    }

    /// Takes another node's clock from a lease message.
    pub fn compare(
        &mut self,
        now: Now,
        from: NodeId,
        message: &LeaseMessage,
    ) -> Option<ClockVerdict> {
        let theirs: Timestamp = match message {
            LeaseMessage::Renew { latest, .. } | LeaseMessage::Support { latest, .. } => *latest,
        };
        let offset = i128::from(theirs.0) - i128::from(now.clock.latest.0);
        self.peers.insert(
            from,
            Reading {
                offset,
                at: now.mono,
            },
        );
        let fresh: Vec<i128> = self
            .peers
            .values()
            .filter(|r| now.mono.since(r.at) <= READING_NANOS)
            .map(|r| r.offset)
            .collect();
        // Among those heard of lately, this node included.
        let heard = fresh.len() + 1;
        let near = |one: i128| {
            let is_near = |offset: &&i128| offset.abs_diff(one) <= PEER_TOLERANCE_NANOS.into();
            fresh.iter().filter(is_near).count()
        };
        let agree = near(0) + 1;
        let differ = heard - agree;
        if differ > agree && self.quarantined.is_none() {
            let against = fresh.iter().map(|offset| near(*offset)).max();
            if 2 * against.unwrap_or(0) <= heard {
                mark(Mark::ClocksAllDisagree);
                self.doubted = None;
                return None;
            }
            let why = format!("{differ} other nodes' clocks are over 1 s away");
            if self.outlasted {
                mark(Mark::QuarantineOutlasted);
                self.doubted = Some(why);
                return None;
            }
            mark(Mark::QuarantinedByPeers);
            return self.enter(now, why);
        }
        if agree > differ && agree > 1 {
            self.outlasted = false;
            self.doubted = None;
            if self.quarantined.take().is_some() {
                mark(Mark::QuarantineAgreed);
                return Some(ClockVerdict::Usable);
            }
        }
        None
    }

    fn enter(&mut self, now: Now, why: String) -> Option<ClockVerdict> {
        let fresh = self.quarantined.is_none();
        self.quarantines += 1;
        // A further step starts the while anew, but is no new verdict.
        self.quarantined = Some((now.mono, why));
        self.doubted = None;
        fresh.then_some(ClockVerdict::Quarantined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::Mono;
    use synod_txn::Interval;

    const SECOND: u64 = 1_000_000_000;

    fn at(mono: u64, wall: u64) -> Now {
        Now {
            mono: Mono(mono * SECOND),
            clock: Interval {
                earliest: Timestamp(wall * SECOND),
                latest: Timestamp(wall * SECOND),
            },
        }
    }

    fn says(wall: u64) -> LeaseMessage {
        LeaseMessage::Renew {
            holder: synod_paxos::Incarnation(1),
            supporter: synod_paxos::Incarnation(1),
            sent: Mono(0),
            lease_nanos: SECOND,
            want: Timestamp(0),
            earliest: Timestamp(wall * SECOND),
            latest: Timestamp(wall * SECOND),
        }
    }

    #[test]
    fn a_step_quarantines_and_a_while_ends_it() {
        let mut clock = ClockMonitor::new(at(0, 100));
        assert_eq!(clock.check(at(1, 101)), None);
        assert_eq!(clock.check(at(2, 90)), Some(ClockVerdict::Quarantined));
        assert_eq!(clock.check(at(3, 91)), None);
        assert_eq!(clock.check(at(8, 96)), Some(ClockVerdict::Usable));
    }

    #[test]
    fn clocks_that_all_disagree_quarantine_nobody() {
        let mut clock = ClockMonitor::new(at(0, 100));
        assert_eq!(clock.compare(at(1, 101), NodeId(2), &says(500)), None);
        assert_eq!(clock.compare(at(1, 101), NodeId(3), &says(900)), None);
        // Nor while they move apart: their rates may differ.
        for passed in 2..100 {
            let now = at(passed, 100 + passed);
            assert_eq!(clock.compare(now, NodeId(2), &says(500 + 2 * passed)), None);
            assert_eq!(clock.compare(now, NodeId(3), &says(900 + 3 * passed)), None);
            assert_eq!(clock.check(now), None);
        }
        // Two that come to agree are a majority.
        let verdict = clock.compare(at(100, 200), NodeId(2), &says(1_197));
        assert_eq!(verdict, Some(ClockVerdict::Quarantined));
    }

    /// Hears two clocks that are `ahead` of this one by as much, each second of `during`.
    fn hears_both(clock: &mut ClockMonitor, during: std::ops::Range<u64>, ahead: u64) {
        for passed in during {
            let now = at(passed, 100 + passed);
            clock.check(now);
            for peer in [2, 3] {
                clock.compare(now, NodeId(peer), &says(100 + passed + ahead));
            }
        }
    }

    #[test]
    fn a_while_ends_what_a_majority_began_and_the_doubt_stays() {
        let mut clock = ClockMonitor::new(at(0, 100));
        hears_both(&mut clock, 1..6, 400);
        assert!(clock.quarantine().is_some() && clock.doubt().is_some());
        // The majority's clocks are heard of all the time, and the node may lead nevertheless:
        // a shard may have no voters but such.
        hears_both(&mut clock, 6..60, 400);
        assert_eq!(clock.quarantine(), None);
        assert_eq!(clock.quarantines(), 1);
        assert!(clock.doubt().is_some());
    }

    #[test]
    fn who_has_agreed_again_is_quarantined_anew() {
        let mut clock = ClockMonitor::new(at(0, 100));
        hears_both(&mut clock, 1..20, 400);
        assert_eq!(clock.quarantine(), None);
        hears_both(&mut clock, 20..25, 0);
        assert_eq!(clock.doubt(), None);
        hears_both(&mut clock, 25..27, 400);
        assert!(clock.quarantine().is_some());
        // And so is who jumps, however long it was used.
        hears_both(&mut clock, 27..60, 400);
        assert_eq!(clock.quarantine(), None);
        let jumped = at(61, 100);
        assert_eq!(clock.check(jumped), Some(ClockVerdict::Quarantined));
    }

    #[test]
    fn agreement_with_a_majority_ends_it_at_once() {
        let mut clock = ClockMonitor::new(at(0, 100));
        assert_eq!(clock.check(at(1, 150)), Some(ClockVerdict::Quarantined));
        let verdict = clock.compare(at(1, 150), NodeId(2), &says(150));
        assert_eq!(verdict, Some(ClockVerdict::Usable));
    }

    #[test]
    fn one_wild_peer_changes_nothing_and_a_majority_does() {
        let mut clock = ClockMonitor::new(at(0, 100));
        assert_eq!(clock.compare(at(0, 100), NodeId(2), &says(500)), None);
        let verdict = clock.compare(at(0, 100), NodeId(3), &says(501));
        assert_eq!(verdict, Some(ClockVerdict::Quarantined));
    }
}
