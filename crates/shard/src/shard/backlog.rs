//! Since when proposals have been waiting for their decision.

use serde::Serialize;
use std::collections::VecDeque;
use synod_paxos::{Mono, Slot};

/// Proposals nearer to each other than this count as one; nanoseconds.
const GRAIN_NANOS: u64 = 10_000_000;
/// Moments remembered, at most; more are only needed by a shard that refuses
/// commits anyway.
const MOST: usize = 256;

/// Some of the proposals under way, oldest first, and when they were made.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Backlog {
    proposed: VecDeque<(Slot, Mono)>,
}

impl Backlog {
    /// A proposal took this slot now.
    pub(super) fn add(&mut self, slot: Slot, now: Mono) {
        let near = self
            .proposed
            .back()
            .is_some_and(|(_, at)| now.since(*at) < GRAIN_NANOS);
        if !near && self.proposed.len() < MOST {
            self.proposed.push_back((slot, now));
        }
    }

    /// How long the oldest proposal that is not decided has been waiting, about;
    /// nanoseconds.
    pub(super) fn age(&mut self, decided: Slot, now: Mono) -> u64 {
        while self
            .proposed
            .front()
            .is_some_and(|(slot, _)| *slot <= decided)
        {
            self.proposed.pop_front();
        }
        self.proposed.front().map_or(0, |(_, at)| now.since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_oldest_undecided_proposal_counts() {
        let mut backlog = Backlog::default();
        for slot in 1..=100 {
            backlog.add(Slot(slot), Mono(slot * MS));
        }
        assert_eq!(backlog.age(Slot(0), Mono(200 * MS)), 199 * MS);
        // 51 stands for 51 to 60, so 57 is known to be waiting only from 61 on.
        assert_eq!(backlog.age(Slot(56), Mono(200 * MS)), 139 * MS);
        assert_eq!(backlog.age(Slot(100), Mono(200 * MS)), 0);
    }

    #[test]
    fn it_stays_small() {
        let mut backlog = Backlog::default();
        for slot in 1..=10_000 {
            backlog.add(Slot(slot), Mono(slot * 20 * MS));
        }
        assert_eq!(backlog.proposed.len(), MOST);
        assert_eq!(backlog.age(Slot(0), Mono(20 * MS)), 0);
    }
}
