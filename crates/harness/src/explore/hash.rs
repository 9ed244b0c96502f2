//! Canonical encodings and their hashes.

use super::canonical::Canonical;
use serde::Serialize;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The canonical encoding. Plain data in memory: it cannot fail.
pub(super) fn encoded(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap_or_default()
}

/// The encoding of `value` without these fields, wherever they occur. With
/// `timeless`, instants count as equal: for machines whose timers are all due.
pub(super) fn encoded_without(
    value: &impl Serialize,
    skip: &'static [&'static str],
    timeless: bool,
) -> Vec<u8> {
    let mut canonical = Canonical {
        bytes: Vec::with_capacity(1024),
        skip,
        timeless,
    };
    // Plain data in memory: it cannot fail.
    let _done = value.serialize(&mut canonical);
    canonical.bytes
}

/// The hash of one value.
pub(super) fn hash_of(value: &impl Serialize) -> u128 {
    xxh3_128(&encoded(value))
}

/// The hash of several hashes and numbers.
#[derive(Default)]
pub(super) struct Digest(Xxh3);

impl Digest {
    pub(super) fn add(&mut self, hash: u128) {
        self.0.update(&hash.to_le_bytes());
    }

    pub(super) fn add_bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn end(&self) -> u128 {
        self.0.digest128()
    }
}
