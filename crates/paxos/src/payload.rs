//! The bytes of a command, as replicas hold them.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Bytes that copies share. A log holds a million entries between two checkpoints, most of them
/// some hundred bytes: each is one piece of memory with its count of copies in front, and not more of
/// it than its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Arc<[u8]>);

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Payload {
        Payload(bytes.into())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        struct Whole;

        impl Visitor<'_> for Whole {
            type Value = Payload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Payload, E> {
                Ok(bytes.into())
            }
        }

        deserializer.deserialize_bytes(Whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;

    #[test]
    fn it_is_encoded_as_bytes_are() {
        for length in [0, 1, 127, 128, 70_000] {
            let bytes = vec![7; length];
            let payload = Payload::from(&bytes[..]);
            let encoded = postcard::to_allocvec(&payload).unwrap();
            let plain = bytes::Bytes::from(bytes.clone());
            assert_eq!(encoded, postcard::to_allocvec(&plain).unwrap());
            let again: Payload = postcard::from_bytes(&encoded).unwrap();
            assert_eq!(*again, *bytes);
            postcard::from_bytes::<Payload>(&encoded[..length / 2]).unwrap_err();
        }
    }

    #[test]
    fn an_entry_of_a_log_is_small() {
        assert!(size_of::<Entry>() <= 24, "{}", size_of::<Entry>());
    }
}
