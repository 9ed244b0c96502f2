//! Where the middle of a range is, found in one pass without knowing its end.

use synod_placement::{Cut, halve};
use synod_txn::Key;

/// Parts that are kept apart, at most. They grow with the whole, each to a quarter of this
/// part of it.
const PARTS: usize = 128;

/// The weight of a range, as parts of about the same weight that begin at keys.
#[derive(Debug, Default)]
pub(super) struct Marks {
    parts: Vec<(Key, u64)>,
    /// The last key: more of it belongs to the same part.
    last: Key,
    /// What a part of several keys weighs, at most.
    step: u64,
    total: u64,
}

impl Marks {
    /// The next key, or more of the last one.
    pub(super) fn add(&mut self, key: Key, bytes: u64) {
        self.total += bytes;
        let fits = |part: &(Key, u64)| part.1 + bytes <= self.step;
        match self.parts.last_mut() {
            Some(part) if self.last == key || fits(part) => part.1 += bytes,
            _ => self.parts.push((key.clone(), bytes)),
        }
        self.last = key;
        if self.parts.len() > PARTS {
            self.join();
        }
    }

    /// Makes fewer and larger parts.
    fn join(&mut self) {
        self.step = self.total / (PARTS as u64 / 4);
        let mut joined: Vec<(Key, u64)> = Vec::with_capacity(PARTS);
        for (key, bytes) in self.parts.drain(..) {
            match joined.last_mut() {
                Some(part) if part.1 + bytes <= self.step => part.1 += bytes,
                _ => joined.push((key, bytes)),
            }
        }
        self.parts = joined;
    }

    /// Everything.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Where a range that begins with `start` is cut in two.
    pub(super) fn halve(&self, start: &[u8]) -> Cut {
        halve(start, self.parts.iter().map(|(key, bytes)| (key, *bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key::copy_from_slice(&n.to_be_bytes())
    }

    fn middle(marks: &Marks) -> u32 {
        match marks.halve(b"") {
            Cut::At(key) => u32::from_be_bytes(key.try_into().expect("a key")),
            Cut::Nowhere => panic!("it can be cut"),
        }
    }

    #[test]
    fn the_middle_is_found_with_bounded_memory() {
        for (keys, weight) in [
            (2_u32, (|_| 10) as fn(u32) -> u64),
            (100_000, |_| 10),
            (100_000, |n| u64::from(n % 1_000)),
            (100_000, u64::from),
            (5_000, |n| if n % 100 == 0 { 1 << 23 } else { 100 }),
        ] {
            let mut marks = Marks::default();
            for n in 0..keys {
                // In two portions, as versions come.
                marks.add(key(n), weight(n) / 3);
                marks.add(key(n), weight(n) - weight(n) / 3);
                assert!(marks.parts.len() <= PARTS);
            }
            let total: u64 = (0..keys).map(weight).sum();
            assert_eq!(marks.total(), total);
            let at = middle(&marks);
            let before: u64 = (0..at).map(weight).sum();
            assert!(
                before.abs_diff(total / 2) * 20 <= total,
                "{at}: {before} of {total}"
            );
        }
    }

    #[test]
    fn a_key_of_many_versions_is_not_cut() {
        let mut marks = Marks::default();
        for _ in 0..10_000 {
            marks.add(key(5), 100);
        }
        marks.add(key(6), 100);
        assert_eq!(marks.halve(b""), Cut::Nowhere);
        assert_eq!(marks.parts.len(), 2);
    }
}
