//! Versions that are decided or resolved but not yet in the engine.
//!
//! A shard's readable state is the engine's snapshot plus this. A version
//! enters when its entry is applied, or, on the leader, already when a
//! participant learns a commit (*provisional*: the resolution has its slot but
//! is not decided). It leaves once the engine holds it.

use crate::types::{AttemptId, Key, Span, Value, Version};
use serde::Serialize;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use synod_paxos::{Slot, Timestamp};

#[derive(Clone, Debug, Serialize)]
struct Entry {
    timestamp: Timestamp,
    attempt: AttemptId,
    value: Option<Value>,
    /// None while provisional.
    slot: Option<Slot>,
}

/// Versions of one key, oldest first. The engine takes what is here after milliseconds, so there is
/// nearly always one.
type Entries = SmallVec<[Entry; 1]>;

/// See the module.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Overlay {
    /// Versions per key; never empty.
    keys: BTreeMap<Key, Entries>,
    /// The keys that applied slots wrote, oldest slot first.
    slots: VecDeque<(Slot, Key)>,
    provisional: BTreeMap<AttemptId, SmallVec<[Key; 1]>>,
    bytes: usize,
}

fn weight(key: &Key, value: Option<&Value>) -> usize {
    const OVERHEAD: usize = 96;
    OVERHEAD + key.len() + value.map_or(0, |v| v.len())
}

impl Overlay {
    /// Adds the versions of an applied slot.
    pub fn insert(&mut self, slot: Slot, versions: &[(Key, Timestamp, AttemptId, Option<Value>)]) {
        for (key, timestamp, attempt, value) in versions {
            self.put(key, *timestamp, *attempt, value.clone(), Some(slot));
            self.slots.push_back((slot, key.clone()));
        }
        if let Some((_, _, attempt, _)) = versions.first() {
            self.provisional.remove(attempt);
        }
    }

    /// Adds a version of a commit whose entry is proposed, not decided.
    pub fn insert_provisional(
        &mut self,
        key: &Key,
        timestamp: Timestamp,
        attempt: AttemptId,
        value: Option<Value>,
    ) {
        self.put(key, timestamp, attempt, value, None);
        self.provisional
            .entry(attempt)
            .or_default()
            .push(key.clone());
    }

    fn put(
        &mut self,
        key: &Key,
        timestamp: Timestamp,
        attempt: AttemptId,
        value: Option<Value>,
        slot: Option<Slot>,
    ) {
        let entries = self.keys.entry(key.clone()).or_default();
        let at = entries.partition_point(|e| e.timestamp < timestamp);
        if let Some(entry) = entries.get_mut(at)
            && entry.timestamp == timestamp
            && entry.attempt == attempt
        {
            entry.slot = slot.or(entry.slot);
            return;
        }
        self.bytes += weight(key, value.as_ref());
        entries.insert(
            at,
            Entry {
                timestamp,
                attempt,
                value,
                slot,
            },
        );
    }

    fn retain(&mut self, key: &Key, keep: impl Fn(&Entry) -> bool) {
        let Some(entries) = self.keys.get_mut(key) else {
            return;
        };
        let bytes = &mut self.bytes;
        entries.retain(|entry| {
            let stays = keep(entry);
            if !stays {
                *bytes = bytes.saturating_sub(weight(key, entry.value.as_ref()));
            }
            stays
        });
        if entries.is_empty() {
            self.keys.remove(key);
        }
    }

    /// The engine holds everything up to `slot`.
    pub fn engine_applied(&mut self, slot: Slot) {
        while let Some((first, _)) = self.slots.front()
            && *first <= slot
        {
            let Some((_, key)) = self.slots.pop_front() else {
                return;
            };
            self.retain(&key, |entry| entry.slot.is_none_or(|s| s > slot));
        }
    }

    /// Forgets what only this leader knew.
    pub fn drop_provisional(&mut self) {
        for keys in std::mem::take(&mut self.provisional).into_values() {
            for key in &keys {
                self.retain(key, |entry| entry.slot.is_some());
            }
        }
    }

    /// The newest version of `key`, if it is here.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Version> {
        self.keys.get(key)?.last().map(version)
    }

    /// The newest version of each key of `span` that is here, in scan order,
    /// up to and including the `live`-th that is no tombstone. The flag says
    /// whether that bound cut it off.
    #[must_use]
    pub fn scan(&self, span: &Span, reverse: bool, live: usize) -> (Vec<(Key, Version)>, bool) {
        if span.is_empty() {
            return (Vec::new(), false);
        }
        let range = self.keys.range::<[u8], _>(span.bounds());
        if reverse {
            take(range.rev(), live)
        } else {
            take(range, live)
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn version(entry: &Entry) -> Version {
    Version {
        value: entry.value.clone(),
        timestamp: entry.timestamp,
        attempt: entry.attempt,
    }
}

fn take<'a>(
    entries: impl Iterator<Item = (&'a Key, &'a Entries)>,
    live: usize,
) -> (Vec<(Key, Version)>, bool) {
    let mut found = Vec::new();
    let mut alive = 0;
    for (key, versions) in entries {
        let Some(newest) = versions.last() else {
            continue;
        };
        alive += usize::from(newest.value.is_some());
        found.push((key.clone(), version(newest)));
        if alive >= live {
            return (found, true);
        }
    }
    (found, false)
}
