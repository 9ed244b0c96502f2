//! Fast, seedless hashing: maps by attempt and by key are looked up many times
//! a step, and a run must not depend on a random seed.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use synod_paxos::Entry;
use xxhash_rust::xxh3::xxh3_64;

/// A map whose order is never looked at.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// Multiplies and rotates; the keys come from the simulation, not from an enemy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mix(u64);

impl Mix {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.add(xxh3_64(bytes));
    }

    fn write_u8(&mut self, n: u8) {
        self.add(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.add(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.add(n);
    }

    fn write_u128(&mut self, n: u128) {
        self.add(n as u64);
        self.add((n >> 64) as u64);
    }

    fn write_usize(&mut self, n: usize) {
        self.add(n as u64);
    }
}

/// A digest of an entry; never 0, which stands for *not known*.
pub(super) fn entry(entry: &Entry) -> u64 {
    let digest = match entry {
        Entry::Command(bytes) => xxh3_64(bytes),
        Entry::Noop => 1,
        Entry::TermStart(start) => {
            let mut mix = Mix(2);
            let ballot = start.ballot;
            mix.add(u64::from(ballot.epoch.0));
            mix.add(ballot.round);
            mix.add(u64::from(ballot.priority));
            mix.add(ballot.node.0);
            mix.add(start.floor.0);
            mix.finish()
        }
        Entry::StopSign(sign) => postcard::to_stdvec(sign).map_or(3, |bytes| xxh3_64(&bytes)),
    };
    digest.max(1)
}
