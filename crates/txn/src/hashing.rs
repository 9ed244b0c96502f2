//! Hashed directories: where a key is stored that begins with the prefix of one (decision 22).
//!
//! The key `P ∥ rest` is stored as `P ∥ slot ∥ rest`. The slot is a hash of the rest, so keys that
//! grow at one end spread evenly over all slots. Applications see plain keys only. Bigtable's
//! users salt their keys in this way by hand; hash-sharded indexes of other databases do
//! it for them.

use crate::command::Hash;
use crate::state::State;
use crate::types::{Key, MAX_KEY_BYTES, Span};
use serde::{Deserialize, Serialize};
use synod_probe::{Mark, mark};
use xxhash_rust::xxh3::xxh3_64;

/// Slots of a hashed directory, at least.
pub const MIN_SLOTS: u16 = 2;
/// Slots of a hashed directory, at most: a scan asks all of them.
pub const MAX_SLOTS: u16 = 4096;
/// Bytes that a stored key is longer than the plain one.
pub const SLOT_BYTES: usize = size_of::<u16>();

/// How the keys of a hashed directory are stored. Two that are equal store every key at
/// the same place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hashing {
    /// What all keys of the directory begin with.
    pub prefix: Key,
    /// How many slots they are spread over: a power of two.
    pub slots: u16,
}

/// Why a directory cannot be hashed like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashingError {
    /// Not a number of slots.
    #[error(
        "a hashed directory has a power of two from {MIN_SLOTS} to {MAX_SLOTS} slots, not {slots}"
    )]
    Slots {
        /// What was wanted.
        slots: u64,
    },
    /// Not a prefix.
    #[error(
        "the prefix of a hashed directory has 1 to {most} bytes and is not x'ff', below which the \
         cluster's own keys lie; this one has {bytes} bytes", most = Hashing::MAX_PREFIX_BYTES
    )]
    Prefix {
        /// Its length.
        bytes: usize,
    },
}

impl Hashing {
    /// Bytes of a prefix, at most: what is left of a key is for the keys' own names.
    pub const MAX_PREFIX_BYTES: usize = MAX_KEY_BYTES / 2;

    /// The keys that begin with `prefix`, over so many slots.
    ///
    /// # Errors
    /// When one of both is out of bounds.
    pub fn new(prefix: Key, slots: u64) -> Result<Hashing, HashingError> {
        let count = u16::try_from(slots).unwrap_or_default();
        let hashing = Hashing {
            prefix,
            slots: count,
        };
        if !hashing.has_sound_slots() {
            return Err(HashingError::Slots { slots });
        }
        if !hashing.has_sound_prefix() {
            let bytes = hashing.prefix.len();
            return Err(HashingError::Prefix { bytes });
        }
        Ok(hashing)
    }

    fn has_sound_slots(&self) -> bool {
        self.slots.is_power_of_two() && (MIN_SLOTS..=MAX_SLOTS).contains(&self.slots)
    }

    fn has_sound_prefix(&self) -> bool {
        // Of x'ff' alone the range would reach into the reserved keys at the very end.
        let sized = (1..=Hashing::MAX_PREFIX_BYTES).contains(&self.prefix.len());
        sized && self.prefix.iter().any(|byte| *byte != 0xff)
    }

    /// Whether it is within the bounds: it may have come from outside.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.has_sound_slots() && self.has_sound_prefix()
    }

    /// All keys of the directory, plain and stored ones alike.
    #[must_use]
    pub fn span(&self) -> Span {
        Span::of_prefix(&self.prefix)
    }

    /// Whether a key, plain or stored, is the directory's.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
    }

    /// The slot of what follows the prefix: the first bits of its XXH3-64 with seed 0. It is
    /// for ever: keys stored by another function are not found.
    fn slot_of(&self, rest: &[u8]) -> u16 {
        let bits = self.slots.trailing_zeros();
        xxh3_64(rest)
            .checked_shr(u64::BITS - bits)
            .and_then(|slot| u16::try_from(slot).ok())
            .unwrap_or_default()
    }

    fn join(&self, slot: u16, rest: &[u8]) -> Key {
        let mut stored = Vec::with_capacity(self.prefix.len() + SLOT_BYTES + rest.len());
        stored.extend_from_slice(&self.prefix);
        stored.extend_from_slice(&slot.to_be_bytes());
        stored.extend_from_slice(rest);
        stored.into()
    }

    /// Where a plain key of the directory is stored; one of elsewhere is stored as it is.
    #[must_use]
    pub fn store(&self, key: &Key) -> Key {
        match key.strip_prefix(&self.prefix[..]) {
            Some(rest) => self.join(self.slot_of(rest), rest),
            None => key.clone(),
        }
    }

    /// The plain key that is stored there; none if no key is.
    #[must_use]
    pub fn load(&self, stored: &Key) -> Option<Key> {
        let (slot, rest) = stored
            .strip_prefix(&self.prefix[..])?
            .split_first_chunk::<SLOT_BYTES>()?;
        (u16::from_be_bytes(*slot) == self.slot_of(rest)).then(|| {
            let mut key = Vec::with_capacity(self.prefix.len() + rest.len());
            key.extend_from_slice(&self.prefix);
            key.extend_from_slice(rest);
            key.into()
        })
    }

    /// The first stored key of a slot, and of none before it.
    #[must_use]
    pub fn border(&self, slot: u16) -> Key {
        self.join(slot, &[])
    }

    /// Where the plain keys of a span are stored in one slot, as far as they are the directory's.
    #[must_use]
    pub fn slot_span(&self, slot: u16, plain: &Span) -> Span {
        let whole = self.span();
        let start = match plain.start.strip_prefix(&self.prefix[..]) {
            Some(rest) => self.join(slot, rest),
            None if plain.start <= whole.start => self.border(slot),
            // Behind the directory: an empty span.
            None => Span::of_prefix(&self.border(slot)).end,
        };
        let end = match plain.end.strip_prefix(&self.prefix[..]) {
            Some(rest) => self.join(slot, rest),
            None if plain.end.is_empty() || plain.end > whole.start => {
                Span::of_prefix(&self.border(slot)).end
            }
            None => self.border(slot),
        };
        Span { start, end }
    }

    /// Keys at which the directory is cut into `parts` of equal size, or as many as there are
    /// slots if that is less.
    #[must_use]
    pub fn cuts(&self, parts: u16) -> Vec<Key> {
        let parts = u32::from(parts.min(self.slots));
        let slots = u32::from(self.slots);
        (1..parts)
            .filter_map(|part| u16::try_from(part * slots / parts).ok())
            .map(|slot| self.border(slot))
            .collect()
    }
}

impl State {
    /// How the shard's keys are stored: none is as they are.
    #[must_use]
    pub fn hashing(&self) -> Option<&Hashing> {
        self.tail.hashing.as_ref()
    }

    /// From here on keys are stored in another way, unless something undecided stands in the
    /// way or the entry is about another range than the shard has. That none
    /// exists was made sure of before it was proposed. Returns whether it counts.
    pub(crate) fn apply_hash(&mut self, hash: Hash) -> bool {
        let Hash { span, hashing } = hash;
        let known = self.lineage.span.as_ref();
        let other = known.is_some_and(|known| *known != span);
        let outside = |hashing: &Hashing| !hashing.is_sound() || hashing.span() != span;
        let partial = [&hashing, &self.tail.hashing]
            .into_iter()
            .flatten()
            .any(outside);
        if other || partial || self.has_undecided() {
            mark(Mark::HashVoid);
            return false;
        }
        mark(Mark::HashApplied);
        self.tail.hashing = hashing;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hashing(prefix: &'static [u8], slots: u64) -> Hashing {
        Hashing::new(Key::from_static(prefix), slots).expect("within bounds")
    }

    #[test]
    fn slots_are_what_they_were_when_the_first_data_was_written() {
        let hashing = hashing(b"t/", 4096);
        let slot = |rest: &[u8]| hashing.slot_of(rest);
        // XXH3-64 of nothing is 2d06800538d394c2: known from its reference.
        assert_eq!(slot(b""), 0x2d0);
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
        let stored = hashing.store(&Key::from_static(b"t/"));
        assert_eq!(stored[..], *b"t/\x02\xd0");
    }

    #[test]
    fn bounds_are_kept() {
        let at = |prefix: &[u8], slots| Hashing::new(Key::copy_from_slice(prefix), slots);
        for slots in [0, 1, 3, 63, 4097, 8192, 1 << 16, u64::MAX] {
            assert_eq!(at(b"p", slots), Err(HashingError::Slots { slots }));
        }
        for prefix in [&b""[..], b"\xff", b"\xff\xff", &[1; MAX_KEY_BYTES]] {
            let bytes = prefix.len();
            assert_eq!(at(prefix, 4), Err(HashingError::Prefix { bytes }));
        }
        assert!(at(b"\xff\x01", 2).is_ok());
    }

    #[test]
    fn slots_fill_evenly_with_keys_that_only_grow() {
        let hashing = hashing(b"events/", 64);
        let mut counts = [0_u32; 64];
        for n in 0..64_000_u64 {
            counts[usize::from(hashing.slot_of(format!("{n:020}").as_bytes()))] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    }

    #[test]
    fn cuts_lie_at_borders_of_slots_and_in_order() {
        let hashing = hashing(b"p", 8);
        let all: Vec<Key> = (1..8).map(|slot| hashing.border(slot)).collect();
        assert_eq!(hashing.cuts(8), all);
        assert_eq!(hashing.cuts(100), all);
        assert_eq!(hashing.cuts(2), [hashing.border(4)]);
        assert!(hashing.cuts(1).is_empty() && hashing.cuts(0).is_empty());
    }

    fn hashings() -> impl Strategy<Value = Hashing> {
        let prefixes = [&b"p"[..], b"p\x00", b"p\xff", b"\x00"];
        (0..prefixes.len(), 1_u32..=12).prop_map(move |(at, bits)| hashing(prefixes[at], 1 << bits))
    }

    /// Keys around and in all of these directories.
    fn keys() -> impl Strategy<Value = Key> {
        let byte = prop_oneof![Just(0_u8), Just(1), Just(b'p'), Just(0xff), any::<u8>()];
        proptest::collection::vec(byte, 1..6).prop_map(Key::from)
    }

    proptest! {
        #[test]
        fn no_two_keys_are_stored_at_one_place(hashing in hashings(), rest in keys(), other in keys()) {
            let plain = |rest: &Key| Key::from([&hashing.prefix[..], rest].concat());
            let (key, other) = (plain(&rest), plain(&other));
            let stored = hashing.store(&key);
            prop_assert_eq!(hashing.load(&stored), Some(key.clone()));
            prop_assert_eq!(stored == hashing.store(&other), key == other);
            // Of everything that is stored somewhere, only that is.
            if let Some(loaded) = hashing.load(&key) {
                prop_assert_eq!(hashing.store(&loaded), key);
            }
        }

        #[test]
        fn a_span_is_where_its_keys_are(
            hashing in hashings(), key in keys(), start in keys(), end in keys(), open in any::<bool>(),
        ) {
            let end = if open { Key::new() } else { end };
            let span = Span { start, end };
            let stored = hashing.store(&key);
            let slots = (0..hashing.slots).filter(|slot| {
                let there = hashing.slot_span(*slot, &span);
                !there.is_empty() && there.contains(&stored)
            });
            let wanted = hashing.contains(&key) && !span.is_empty() && span.contains(&key);
            prop_assert_eq!(slots.count(), usize::from(wanted));
        }
    }
}
