//! What a shard remembers of the transactions that it alone took part in.

use crate::chunks::{self, Chunks};
use crate::settings::ONE_SHARD_MEMORY;
use crate::types::AttemptId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use synod_paxos::Timestamp;

/// Outcomes of one-shard transactions, bounded. The newest by slot are all kept, so
/// that whoever lost an answer can ask. Of those before them the lowest ids go
/// first: ids ahead of the others' time leave a floor only where their own time is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OneShards {
    /// In the order of their slots.
    newest: Chunks<Timestamp>,
    /// In the order of their ids.
    #[serde(deserialize_with = "chunks::sorted")]
    older: Chunks<Timestamp>,
    /// Attempts with an earlier millisecond may have been dropped.
    floor_millis: u64,
    /// Of `newest`.
    #[serde(skip)]
    index: BTreeMap<AttemptId, Timestamp>,
}

impl OneShards {
    pub(crate) fn insert(&mut self, attempt: AttemptId, timestamp: Timestamp) {
        self.newest.push_back((attempt, timestamp));
        self.index.insert(attempt, timestamp);
        if self.newest.len() > ONE_SHARD_MEMORY / 2
            && let Some((attempt, timestamp)) = self.newest.pop_front()
        {
            self.index.remove(&attempt);
            self.older.insert((attempt, timestamp));
        }
        // No more than one: a merge puts in two shards' worth before it drops the rest (P7).
        self.drop_lowest();
    }

    /// Drops the lowest of the older ones if there are too many; whether there were.
    fn drop_lowest(&mut self) -> bool {
        let lowest = if self.older.len() > ONE_SHARD_MEMORY / 2 {
            self.older.pop_front()
        } else {
            None
        };
        lowest.map(|(lowest, _)| self.dropped(lowest)).is_some()
    }

    fn dropped(&mut self, attempt: AttemptId) {
        self.floor_millis = self.floor_millis.max(attempt.millis() + 1);
    }

    /// Drops what lies below the forget floor, of the newest from their old end.
    pub(crate) fn forget(&mut self, floor: AttemptId) {
        if let Some(highest) = self.older.drop_below(floor) {
            self.dropped(highest);
        }
        while let Some((attempt, _)) = self.newest.front().copied().filter(|(a, _)| *a < floor) {
            self.newest.pop_front();
            self.index.remove(&attempt);
            self.dropped(attempt);
        }
    }

    pub(crate) fn has_below(&self, floor: AttemptId) -> bool {
        let first = [self.older.front(), self.newest.front()];
        first.iter().flatten().any(|(a, _)| *a < floor)
    }

    /// Attempts with an earlier millisecond may have been dropped.
    pub(crate) fn floor_millis(&self) -> u64 {
        self.floor_millis
    }

    /// How many are remembered; at most [`ONE_SHARD_MEMORY`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.newest.len() + self.older.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When `attempt` committed here, if it is remembered.
    #[must_use]
    pub fn get(&self, attempt: AttemptId) -> Option<Timestamp> {
        let newest = self.index.get(&attempt).copied();
        newest.or_else(|| self.older.get(attempt).copied())
    }

    /// Takes in those of another shard: its newest count as the last.
    pub(crate) fn absorb(&mut self, other: &OneShards) {
        self.floor_millis = self.floor_millis.max(other.floor_millis);
        // Both halves of a split keep all that was before it.
        for &(attempt, timestamp) in other.older.iter() {
            if self.get(attempt).is_none() {
                self.older.insert((attempt, timestamp));
            }
        }
        for &(attempt, timestamp) in other.newest.iter() {
            if self.get(attempt).is_none() {
                self.insert(attempt, timestamp);
            }
        }
        while self.drop_lowest() {}
    }

    /// A copy that is good for encoding, and for nothing else. It shares nearly all with this one.
    pub(crate) fn to_encode(&self) -> OneShards {
        OneShards {
            newest: self.newest.clone(),
            older: self.older.clone(),
            floor_millis: self.floor_millis,
            index: BTreeMap::new(),
        }
    }

    pub(crate) fn rebuild(&mut self) {
        self.index = self.newest.iter().copied().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// As it was before its rows were shared: what both make of the same inputs is the same, or replicas
    /// of two versions come apart (P7).
    #[derive(Default, Serialize)]
    struct Plain {
        newest: VecDeque<(AttemptId, Timestamp)>,
        older: BTreeMap<AttemptId, Timestamp>,
        floor_millis: u64,
        #[serde(skip)]
        index: BTreeMap<AttemptId, Timestamp>,
    }

    impl Plain {
        fn insert(&mut self, attempt: AttemptId, timestamp: Timestamp) {
            self.newest.push_back((attempt, timestamp));
            self.index.insert(attempt, timestamp);
            if self.newest.len() > ONE_SHARD_MEMORY / 2
                && let Some((attempt, timestamp)) = self.newest.pop_front()
            {
                self.index.remove(&attempt);
                self.older.insert(attempt, timestamp);
            }
            if self.older.len() > ONE_SHARD_MEMORY / 2 {
                self.drop_lowest();
            }
        }

        fn drop_lowest(&mut self) {
            if let Some((lowest, _)) = self.older.pop_first() {
                self.floor_millis = self.floor_millis.max(lowest.millis() + 1);
            }
        }

        fn knows(&self, attempt: AttemptId) -> bool {
            self.index.contains_key(&attempt) || self.older.contains_key(&attempt)
        }

        fn absorb(&mut self, other: &Plain) {
            self.floor_millis = self.floor_millis.max(other.floor_millis);
            for (attempt, timestamp) in &other.older {
                if !self.knows(*attempt) {
                    self.older.insert(*attempt, *timestamp);
                }
            }
            for (attempt, timestamp) in &other.newest {
                if !self.knows(*attempt) {
                    self.insert(*attempt, *timestamp);
                }
            }
            while self.older.len() > ONE_SHARD_MEMORY / 2 {
                self.drop_lowest();
            }
        }
    }

    #[derive(Default)]
    struct Both(OneShards, Plain);

    impl Both {
        /// `disorder`: neighbours change places.
        fn insert(&mut self, ids: std::ops::Range<u128>, disorder: u128) {
            for id in ids {
                let attempt = AttemptId((id ^ disorder) << 80 | id);
                assert_eq!(self.0.get(attempt).is_some(), self.1.knows(attempt));
                self.0.insert(attempt, Timestamp(id as u64));
                self.1.insert(attempt, Timestamp(id as u64));
            }
        }

        fn check(&self) {
            let encoded = postcard::to_allocvec(&self.0).unwrap();
            assert!(encoded == postcard::to_allocvec(&self.1).unwrap());
            let mut read: OneShards = postcard::from_bytes(&encoded).unwrap();
            read.rebuild();
            assert_eq!(read.index, self.0.index);
            assert_eq!(read.len(), self.0.len());
        }
    }

    #[test]
    fn shards_that_were_split_and_are_merged_remember_what_they_did_before() {
        let half = ONE_SHARD_MEMORY as u128 / 2;
        for disorder in [0, 3] {
            let (mut left, mut right) = (Both::default(), Both::default());
            for side in [&mut left, &mut right] {
                side.insert(0..2 * half + 1000, disorder);
            }
            // One more than the newest: the first of the other's newest is unknown by then, and the
            // second is not unless what came in before it is dropped too early.
            left.insert(3 * half..4 * half + 1, disorder);
            left.check();
            let before = left.0.to_encode();
            left.0.absorb(&right.0);
            left.1.absorb(&right.1);
            left.check();
            assert!(before.len() <= ONE_SHARD_MEMORY, "a copy stays as it was");
            let floor = AttemptId((3 * half) << 80);
            left.0.forget(floor);
            assert!(!left.0.has_below(floor));
        }
    }
}
