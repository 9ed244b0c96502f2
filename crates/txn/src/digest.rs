//! The hash of a state as it would be encoded, without the encoding ever being in memory:
//! states are compared far more often than they are stored.

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

/// Bytes that are hashed at a time.
const PIECE: usize = 4 << 10;

/// Hashes what is encoded instead of keeping it.
struct Hashing {
    hash: Xxh3,
    waiting: Vec<u8>,
}

impl Hashing {
    fn take_waiting(&mut self) {
        self.hash.update(&self.waiting);
        self.waiting.clear();
    }
}

impl Flavor for Hashing {
    type Output = u64;

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.try_extend(&[data])
    }

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        if self.waiting.len() + data.len() > PIECE {
            self.take_waiting();
        }
        self.waiting.extend_from_slice(data);
        Ok(())
    }

    fn finalize(mut self) -> postcard::Result<u64> {
        self.take_waiting();
        Ok(self.hash.digest())
    }
}

/// The hash of `format` and, behind it, the encoded `state`.
pub(crate) fn of(format: u8, state: &impl Serialize) -> u64 {
    let mut hashing = Hashing {
        hash: Xxh3::new(),
        waiting: Vec::with_capacity(PIECE),
    };
    hashing.waiting.push(format);
    // Plain data in memory: encoding it cannot fail.
    postcard::serialize_with_flavor(state, hashing).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hash_of_what_would_be_encoded() {
        for length in [0, 1, PIECE - 3, PIECE, 3 * PIECE] {
            let state = (vec![7_u8; length], "and more", u64::MAX);
            let encoded = postcard::to_extend(&state, vec![9]).expect("it is encoded");
            assert_eq!(of(9, &state), xxhash_rust::xxh3::xxh3_64(&encoded));
        }
    }
}
