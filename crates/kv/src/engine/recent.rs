//! Newest versions of keys read lately, kept in memory in front of an engine.
//!
//! A point read of a log-structured engine looks into every table; a key that is
//! read again is found here instead. What is kept of a key is its *newest*
//! version in the engine, so it answers every read at or above its timestamp.
//!
//! # Why an answer is never old
//!
//! Only reads put keys in, only the engine's one writer changes what is there:
//!
//! 1. A batch makes the turn odd, goes into the engine, replaces what is kept of
//!    its keys, and makes the turn even. So once [`Engine::apply`] has returned,
//!    nothing older than the batch is kept of its keys. Before that its versions
//!    are read from the shard's overlay (§7).
//! 2. A read that found nothing looks into the engine, and keeps what it found
//!    only if the turn was even before and is the same after, seen under the lock
//!    that a batch needs to replace the key. So either no batch came in between, or
//!    the batch is yet to replace what this read puts in.
//!
//! Whatever else changes an engine (a range cleared for a snapshot) empties it.
//! Collection of garbage does not: it leaves the newest version, or takes a
//! tombstone that reads like nothing at all.

use super::{Cursor, Engine, EngineBatch, EngineError, EngineSnapshot, StoredVersion, Weights};
use bytes::Bytes;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use synod_paxos::{GroupId, Slot, Timestamp};
use synod_txn::request::ScanRange;
use synod_txn::{Key, Row, Span, Version};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Parts with a lock each; a power of two.
const PARTS: usize = 16;
/// Versions larger than this are not kept.
const LARGEST_BYTES: usize = 16 << 10;
/// What a kept version costs beside its key and value, about.
const OVERHEAD_BYTES: usize = 160;

/// Hashes keys; seeded, so that nobody can choose keys that meet.
#[derive(Clone, Copy, Debug)]
struct Seeded(u64);

struct KeyHasher(u64);

impl BuildHasher for Seeded {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(self.0)
    }
}

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The length in front of a key; the hash of its bytes covers that.
    fn write_usize(&mut self, _: usize) {}
}

#[derive(Debug)]
struct Kept {
    key: Key,
    version: Version,
    /// Read since the hand passed.
    read: bool,
}

impl Kept {
    fn bytes(&self) -> usize {
        weight(&self.key, &self.version)
    }
}

fn weight(key: &[u8], version: &Version) -> usize {
    let value = version.value.as_ref().map_or(0, Bytes::len);
    OVERHEAD_BYTES + key.len() + value
}

/// One part: a clock over slots, found by key.
#[derive(Debug)]
struct Part {
    index: HashMap<Key, u32, Seeded>,
    slots: Vec<Kept>,
    hand: usize,
    bytes: usize,
}

impl Part {
    fn new(seed: u64) -> Part {
        Part {
            index: HashMap::with_hasher(Seeded(seed)),
            slots: Vec::new(),
            hand: 0,
            bytes: 0,
        }
    }

    fn kept(&mut self, key: &[u8]) -> Option<&mut Kept> {
        let at = *self.index.get(key)?;
        self.slots.get_mut(at as usize)
    }

    /// Keeps a version, unless a newer one is kept; lets others go for it.
    fn insert(&mut self, key: &Key, version: &Version, bound: usize) {
        let version = owned(version);
        let added = weight(key, &version);
        if let Some(slot) = self.kept(key) {
            if slot.version.timestamp <= version.timestamp {
                let before = slot.bytes();
                slot.version = version;
                self.bytes = self.bytes - before + added;
            }
        } else {
            // A copy: what was read may be a small part of a large block.
            let key = Key::copy_from_slice(key);
            let at = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
            self.index.insert(key.clone(), at);
            self.slots.push(Kept {
                key,
                version,
                read: false,
            });
            self.bytes += added;
        }
        while self.bytes > bound && self.slots.len() > 1 {
            self.evict();
        }
    }

    /// Lets go of the next one that was not read since the hand passed it.
    fn evict(&mut self) {
        loop {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = &mut self.slots[self.hand];
            if !std::mem::take(&mut slot.read) {
                return self.remove(self.hand);
            }
            self.hand += 1;
        }
    }

    fn remove(&mut self, at: usize) {
        let gone = self.slots.swap_remove(at);
        self.bytes -= gone.bytes();
        self.index.remove(&gone.key);
        if let Some(moved) = self.slots.get(at)
            && let Some(index) = self.index.get_mut(&moved.key)
        {
            *index = u32::try_from(at).unwrap_or(u32::MAX);
        }
    }
}

/// A version whose value is memory of its own.
fn owned(version: &Version) -> Version {
    Version {
        value: version.value.as_deref().map(Bytes::copy_from_slice),
        ..*version
    }
}

/// An engine with newest versions in front. See the module.
#[derive(Debug)]
pub struct Recent<E> {
    engine: E,
    parts: Vec<Mutex<Part>>,
    seed: u64,
    /// Bytes of one part, at most.
    part_bytes: usize,
    /// Odd while a batch goes in.
    turn: AtomicU64,
    /// Whether anything was ever kept; if not, a batch has nothing to replace.
    /// Replicas that serve no reads stay so.
    used: AtomicBool,
}

impl<E: Engine> Recent<E> {
    /// In front of `engine`, with about `bytes` of memory. `seed` decides which
    /// keys share a part, and should be known to nobody.
    #[must_use]
    pub fn new(engine: E, bytes: usize, seed: u64) -> Recent<E> {
        Recent {
            engine,
            parts: (0..PARTS).map(|_| Mutex::new(Part::new(seed))).collect(),
            seed,
            part_bytes: bytes / PARTS,
            turn: AtomicU64::new(0),
            used: AtomicBool::new(false),
        }
    }

    /// The engine behind.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    fn part(&self, key: &[u8]) -> MutexGuard<'_, Part> {
        // Other bits than those the part's own map goes by.
        let hash = xxh3_64_with_seed(key, !self.seed);
        let part = &self.parts[(hash >> 32) as usize % PARTS];
        // No code panics with half a change made.
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, key: &Key, version: &Version, turn: u64) {
        if weight(key, version) > LARGEST_BYTES {
            return;
        }
        let mut part = self.part(key);
        // Before the look at the turn: a batch that this read does not see sees this.
        self.used.store(true, Ordering::SeqCst);
        if turn.is_multiple_of(2) && self.turn.load(Ordering::SeqCst) == turn {
            part.insert(key, version, self.part_bytes);
        }
    }

    fn clear(&self) {
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            *part = Part::new(self.seed);
        }
    }

    fn replace(&self, (key, timestamp, attempt, value): StoredVersion) {
        let mut part = self.part(&key);
        let Some(slot) = part.kept(&key) else {
            return;
        };
        let version = Version {
            value,
            timestamp,
            attempt,
        };
        if slot.version.timestamp > timestamp {
            return;
        }
        if weight(&key, &version) <= LARGEST_BYTES {
            part.insert(&key, &version, self.part_bytes);
        } else if let Some(at) = part.index.get(&key).copied() {
            part.remove(at as usize);
        }
    }
}

impl<E: Engine> Engine for Recent<E> {
    fn apply(&self, batch: EngineBatch) -> Result<(), EngineError> {
        self.turn.fetch_add(1, Ordering::SeqCst);
        let versions = if self.used.load(Ordering::SeqCst) {
            batch.versions.clone()
        } else {
            Vec::new()
        };
        let applied = self.engine.apply(batch);
        match &applied {
            Ok(()) => versions.into_iter().for_each(|v| self.replace(v)),
            Err(_) => self.clear(),
        }
        self.turn.fetch_add(1, Ordering::SeqCst);
        applied
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.engine.sync()
    }

    fn begin_sync(&self) -> Result<(), EngineError> {
        self.engine.begin_sync()
    }

    fn is_synced(&self) -> Result<bool, EngineError> {
        self.engine.is_synced()
    }

    fn get(&self, key: &[u8], at: Timestamp) -> Result<Option<Version>, EngineError> {
        if let Some(slot) = self.part(key).kept(key)
            && slot.version.timestamp <= at
        {
            slot.read = true;
            return Ok(Some(slot.version.clone()));
        }
        let turn = self.turn.load(Ordering::SeqCst);
        let newest = self.engine.get(key, Timestamp(u64::MAX))?;
        let Some(newest) = newest else {
            return Ok(None);
        };
        self.keep(&Key::copy_from_slice(key), &newest, turn);
        if newest.timestamp <= at {
            return Ok(Some(newest));
        }
        self.engine.get(key, at)
    }

    fn scan(&self, scan: &ScanRange, at: Timestamp) -> Result<(Vec<Row>, bool), EngineError> {
        self.engine.scan(scan, at)
    }

    fn snapshot(&self) -> Result<Box<dyn EngineSnapshot>, EngineError> {
        self.engine.snapshot()
    }

    fn applied(&self, group: GroupId) -> Result<Option<Slot>, EngineError> {
        self.engine.applied(group)
    }

    fn checkpoint(&self, group: GroupId) -> Result<Option<(Slot, Bytes)>, EngineError> {
        self.engine.checkpoint(group)
    }

    fn set_installing(&self, group: GroupId, slot: Option<Slot>) -> Result<(), EngineError> {
        self.engine.set_installing(group, slot)
    }

    fn installing(&self, group: GroupId) -> Result<Option<Slot>, EngineError> {
        self.engine.installing(group)
    }

    fn clear_range(&self, span: &Span) -> Result<(), EngineError> {
        self.turn.fetch_add(1, Ordering::SeqCst);
        let cleared = self.engine.clear_range(span);
        self.clear();
        self.turn.fetch_add(1, Ordering::SeqCst);
        cleared
    }

    fn collect(
        &self,
        span: &Span,
        horizon: Timestamp,
        after: Option<&Cursor>,
        max_items: usize,
    ) -> Result<(u64, Option<Cursor>), EngineError> {
        self.engine.collect(span, horizon, after, max_items)
    }

    fn weigh(
        &self,
        span: &Span,
        after: Option<&Cursor>,
        max_bytes: u64,
    ) -> Result<(Weights, Option<Cursor>), EngineError> {
        self.engine.weigh(span, after, max_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryEngine;
    use super::*;
    use synod_txn::{AttemptId, Value};

    fn put(key: &Key, at: u64) -> EngineBatch {
        let value = Value::copy_from_slice(&at.to_le_bytes());
        EngineBatch {
            versions: vec![(key.clone(), Timestamp(at), AttemptId(1), Some(value))],
            ..EngineBatch::default()
        }
    }

    fn timestamp(engine: &impl Engine, key: &Key, at: u64) -> Option<u64> {
        let version = engine.get(key, Timestamp(at)).unwrap();
        version.map(|version| version.timestamp.0)
    }

    #[test]
    fn the_newest_version_is_kept_and_older_ones_are_read() {
        let (key, behind) = (Key::from_static(b"k"), MemoryEngine::new());
        let engine = Recent::new(behind.clone(), 1 << 20, 1);
        engine.apply(put(&key, 10)).unwrap();
        engine.apply(put(&key, 20)).unwrap();
        assert_eq!(timestamp(&engine, &key, 15), Some(10));
        assert_eq!(timestamp(&engine, &key, 25), Some(20));
        assert_eq!(timestamp(&engine, &key, 5), None);
        // From here on the answer does not come from the engine.
        behind.clear_range(&Span::of_key(&key)).unwrap();
        assert_eq!(timestamp(&engine, &key, 25), Some(20));
        engine.apply(put(&key, 30)).unwrap();
        assert_eq!(timestamp(&engine, &key, 35), Some(30));
        engine.clear_range(&Span::of_key(&key)).unwrap();
        assert_eq!(timestamp(&engine, &key, 35), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_read_stays() {
        let engine = Recent::new(MemoryEngine::new(), PARTS * 1000, 1);
        let key = |n: u32| Key::copy_from_slice(&n.to_be_bytes());
        for n in 0..500 {
            engine.apply(put(&key(n), 1)).unwrap();
        }
        for n in 0..500 {
            assert_eq!(timestamp(&engine, &key(n), 9), Some(1));
            assert_eq!(timestamp(&engine, &key(0), 9), Some(1));
        }
        let parts = engine.parts.iter().map(|part| part.lock().unwrap());
        let (mut kept, mut found) = (0, false);
        for part in parts {
            assert!(part.bytes <= 1000, "{} bytes", part.bytes);
            let counted: usize = part.slots.iter().map(Kept::bytes).sum();
            assert_eq!((counted, part.slots.len()), (part.bytes, part.index.len()));
            kept += part.slots.len();
            found |= part.index.contains_key(&key(0));
        }
        assert!(kept >= PARTS && found, "{kept} kept");
        let large = EngineBatch {
            versions: vec![(
                key(0),
                Timestamp(2),
                AttemptId(1),
                Some(vec![0; LARGEST_BYTES].into()),
            )],
            ..EngineBatch::default()
        };
        engine.apply(large).unwrap();
        assert_eq!(timestamp(&engine, &key(0), 9), Some(2), "too large to keep");
    }

    #[test]
    fn no_read_that_begins_after_a_batch_misses_it() {
        let engine = Recent::new(MemoryEngine::new(), PARTS * 400, 1);
        let keys: Vec<Key> = (0..40u8).map(|n| Key::copy_from_slice(&[n])).collect();
        let applied: Vec<AtomicU64> = keys.iter().map(|_| AtomicU64::new(0)).collect();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in 0..2usize {
                let (engine, keys, applied, ended) = (&engine, &keys, &applied, &ended);
                scope.spawn(move || {
                    let mut n = reader;
                    while !ended.load(Ordering::Relaxed) {
                        n = (n + 7) % keys.len();
                        let least = applied[n].load(Ordering::SeqCst);
                        let found = timestamp(engine, &keys[n], u64::MAX).unwrap_or(0);
                        assert!(found >= least, "key {n}: {found} after {least}");
                    }
                });
            }
            for at in 1..30_000u64 {
                let n = (at * at) as usize % keys.len();
                engine.apply(put(&keys[n], at)).unwrap();
                applied[n].store(at, Ordering::SeqCst);
            }
            ended.store(true, Ordering::Relaxed);
        });
    }
}
