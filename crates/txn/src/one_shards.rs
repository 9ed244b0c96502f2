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
    newest: Chunks,
    /// In the order of their ids.
    #[serde(deserialize_with = "chunks::sorted")]
    older: Chunks,
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
        self.drop_oldest();
    }

    fn drop_oldest(&mut self) {
        while self.older.len() > ONE_SHARD_MEMORY / 2
            && let Some((lowest, _)) = self.older.pop_front()
        {
            self.dropped(lowest);
        }
    }

    fn dropped(&mut self, attempt: AttemptId) {
        self.floor_millis = self.floor_millis.max(attempt.millis() + 1);
    }

    /// Drops what lies below the forget floor, of the newest from their old end.
    pub(crate) fn forget(&mut self, floor: AttemptId) {
        if let Some(highest) = self.older.drop_below(floor) {
            self.dropped(highest);
        }
        while let Some((attempt, _)) = self.newest.front().filter(|(a, _)| *a < floor) {
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
        newest.or_else(|| self.older.get(attempt))
    }

    /// Takes in those of another shard: its newest count as the last.
    pub(crate) fn absorb(&mut self, other: &OneShards) {
        self.floor_millis = self.floor_millis.max(other.floor_millis);
        // Both halves of a split keep all that was before it.
        for (attempt, timestamp) in other.older.iter() {
            if self.get(attempt).is_none() {
                self.older.insert((attempt, timestamp));
            }
        }
        for (attempt, timestamp) in other.newest.iter() {
            if self.get(attempt).is_none() {
                self.insert(attempt, timestamp);
            }
        }
        self.drop_oldest();
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
        self.index = self.newest.iter().collect();
    }
}
