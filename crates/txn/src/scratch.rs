//! Memory in which things are encoded one after the other.

use serde::Serialize;

/// What stays for the next encoding, at most; bytes.
const MOST_KEPT_BYTES: usize = 16 << 10;

/// How long an encoding will be is not known before, and of one that is kept nothing is to be left
/// over: it grows here, and a copy of exactly its length is made. Empty between two of them.
#[derive(Clone, Debug, Default)]
pub struct Scratch(Vec<u8>);

impl Scratch {
    /// The encoding of a value.
    ///
    /// # Errors
    /// When the value is of a kind that postcard cannot express.
    pub fn encode<T, B>(&mut self, value: &T) -> Result<B, postcard::Error>
    where
        T: Serialize,
        B: for<'a> From<&'a [u8]>,
    {
        let mut encoded = postcard::to_extend(value, std::mem::take(&mut self.0))?;
        let exact = B::from(&encoded[..]);
        if encoded.capacity() <= MOST_KEPT_BYTES {
            encoded.clear();
            self.0 = encoded;
        }
        Ok(exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_exact_and_large_ones_leave_nothing() {
        let mut scratch = Scratch::default();
        for length in [1, 300, 2, MOST_KEPT_BYTES * 2, 3] {
            let value = vec![7u8; length];
            let encoded: Box<[u8]> = scratch.encode(&value).unwrap();
            assert_eq!(*encoded, *postcard::to_allocvec(&value).unwrap());
            assert!(scratch.0.is_empty() && scratch.0.capacity() <= MOST_KEPT_BYTES);
        }
    }
}
