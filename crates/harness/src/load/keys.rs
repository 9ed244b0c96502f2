//! The keys of a benchmark.

/// So many keys of one length, in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// How many.
    pub count: u64,
    /// Bytes of each.
    pub key_bytes: usize,
}

impl Keys {
    /// The part of a key that differs, a split point.
    #[must_use]
    pub fn prefix(&self, number: u64) -> String {
        format!("bench/{number:010}")
    }

    /// A key.
    #[must_use]
    pub fn key(&self, number: u64) -> String {
        let mut key = self.prefix(number);
        // Padding behind the number keeps the keys in order.
        while key.len() < self.key_bytes {
            key.push('.');
        }
        key
    }

    /// Where to cut the keys into that many parts of one size.
    #[must_use]
    pub fn splits(&self, parts: u64) -> Vec<String> {
        (1..parts).map(|i| self.first_of(i, parts)).collect()
    }

    /// The first key's prefix in one of so many parts, from 0.
    #[must_use]
    pub fn first_of(&self, part: u64, parts: u64) -> String {
        self.prefix(self.count * part / parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_length_and_order() {
        let keys = Keys {
            count: 100,
            key_bytes: 32,
        };
        assert_eq!(keys.key(7).len(), 32);
        assert!(keys.key(9) < keys.key(10));
        assert!(keys.prefix(10) < keys.key(10) && keys.key(9) < keys.prefix(10));
        assert_eq!(keys.splits(3), [keys.prefix(33), keys.prefix(66)]);
    }
}
