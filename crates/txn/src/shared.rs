//! Keys and values that lie in the log entry they were read from.
//!
//! Each replica decodes each command. The keys and values that it writes need not be copied for that: they
//! stay where they are, as the log keeps the entry anyway until the engine has what it did, and the engine
//! makes copies. Keys that name participants are copied: records keep them for minutes, and would keep
//! entries of megabytes for them. So would a key that is written all the time, in the overlay, but for
//! [`MOST_FOR_KEYS`].

use bytes::Bytes;
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::cell::RefCell;
use std::fmt;
use synod_paxos::Payload;

/// Keys of larger payloads are copied; bytes.
const MOST_FOR_KEYS: usize = 4 << 10;

thread_local! {
    /// What is decoded right now, if its parts may be shared.
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

enum Source {
    /// Nothing of it is shared yet.
    Payload(Payload),
    Shared(Bytes),
}

impl Source {
    fn bytes(&self) -> &[u8] {
        match self {
            Source::Payload(payload) => payload,
            Source::Shared(whole) => whole,
        }
    }

    /// The part of it that these bytes are; none if they lie elsewhere.
    fn part(&mut self, bytes: &[u8]) -> Option<Bytes> {
        let (outer, inner) = (self.bytes().as_ptr_range(), bytes.as_ptr_range());
        if inner.start < outer.start || inner.end > outer.end {
            return None;
        }
        if let Source::Payload(payload) = self {
            *self = Source::Shared(Bytes::from_owner(payload.clone()));
        }
        match self {
            Source::Shared(whole) => Some(whole.slice_ref(bytes)),
            Source::Payload(_) => None,
        }
    }
}

/// Reads what a payload encodes; what [`key`] and [`value`] read may share its memory.
pub(crate) fn decode<T: DeserializeOwned>(payload: &Payload) -> Result<T, postcard::Error> {
    /// Also if decoding panics, the next one begins with nothing.
    struct Done;

    impl Drop for Done {
        fn drop(&mut self) {
            SOURCE.set(None);
        }
    }

    SOURCE.set(Some(Source::Payload(payload.clone())));
    let _done = Done;
    postcard::from_bytes(payload)
}

/// Reads a key: a part of what is decoded, if that is small, or else a copy.
pub(crate) fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let most = MOST_FOR_KEYS;
    deserializer.deserialize_bytes(Part { most })
}

/// Reads a value that may be missing: a part of what is decoded, or else a copy.
pub(crate) fn value<'de, D>(deserializer: D) -> Result<Option<Bytes>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Value(Bytes);

    impl<'de> Deserialize<'de> for Value {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
            let most = usize::MAX;
            deserializer.deserialize_bytes(Part { most }).map(Value)
        }
    }

    Ok(Option::<Value>::deserialize(deserializer)?.map(|value| value.0))
}

/// Reads bytes, and shares them with payloads of so many bytes at most.
struct Part {
    most: usize,
}

impl Visitor<'_> for Part {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        let part = SOURCE.with_borrow_mut(|source| {
            let source = source.as_mut()?;
            let shares = source.bytes().len() <= self.most;
            shares.then(|| source.part(bytes)).flatten()
        });
        Ok(part.unwrap_or_else(|| Bytes::copy_from_slice(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Write;

    fn writes() -> Vec<Write> {
        let write = |n: u8, value: Option<usize>| Write {
            key: vec![n; 3].into(),
            value: value.map(|length| vec![n; length].into()),
        };
        vec![write(1, Some(300)), write(2, None), write(3, Some(0))]
    }

    fn lies_in(part: &[u8], whole: &[u8]) -> bool {
        part.is_empty() || whole.as_ptr_range().contains(&part.as_ptr())
    }

    #[test]
    fn parts_of_a_payload_are_not_copied() {
        let encoded = postcard::to_allocvec(&writes()).unwrap();
        let payload = Payload::from(&encoded[..]);
        let read: Vec<Write> = decode(&payload).unwrap();
        assert_eq!(read, writes());
        for write in &read {
            assert!(lies_in(&write.key, &payload));
            assert!(write.value.iter().all(|value| lies_in(value, &payload)));
        }
        // They stay when all else of it is gone.
        drop(payload);
        assert_eq!(read, writes());
    }

    #[test]
    fn a_key_does_not_keep_a_large_payload() {
        let mut writes = writes();
        writes[0].value = Some(vec![9; MOST_FOR_KEYS].into());
        let encoded = postcard::to_allocvec(&writes).unwrap();
        let payload = Payload::from(&encoded[..]);
        let read: Vec<Write> = decode(&payload).unwrap();
        assert_eq!(read, writes);
        assert!(!read.iter().any(|write| lies_in(&write.key, &payload)));
        assert!(lies_in(read[0].value.as_ref().unwrap(), &payload));
    }

    #[test]
    fn what_is_decoded_otherwise_is_copied() {
        let encoded = postcard::to_allocvec(&writes()).unwrap();
        let damaged = Payload::from(&encoded[..encoded.len() - 1]);
        decode::<Vec<Write>>(&damaged).unwrap_err();
        let read: Vec<Write> = postcard::from_bytes(&encoded).unwrap();
        assert_eq!(read, writes());
        assert!(!lies_in(&read[0].key, &encoded));
        assert!(!lies_in(&read[0].key, &damaged));
    }
}
