//! Lists from outside that are decoded up to a bound only.
//!
//! A list of the smallest elements takes a byte or two for each on the wire and 32 to 64 in memory:
//! without a bound a frame as large as the largest transaction would need gigabytes once it is
//! decoded, before anybody could look whether it asks for too much.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

struct AtMost<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for AtMost<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MOST} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        // What it says it has must have come, too.
        const CAUTIOUS: usize = 1024;
        let said = seq.size_hint().unwrap_or_default();
        let mut all = Vec::with_capacity(said.min(CAUTIOUS).min(MOST));
        while let Some(element) = seq.next_element()? {
            if all.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            all.push(element);
        }
        Ok(all)
    }
}

/// For `#[serde(deserialize_with)]`: a list of at most `MOST` elements.
///
/// # Errors
/// If it has more, as soon as that is known.
pub fn list<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(AtMost::<T, MOST>(PhantomData))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Few {
        #[serde(deserialize_with = "super::list::<_, _, 3>")]
        list: Vec<u8>,
        after: u8,
    }

    #[test]
    fn a_list_within_its_bound_is_read_and_a_longer_one_is_not() {
        for length in 0..=5 {
            let list = vec![7; length];
            let few = Few { list, after: 9 };
            let encoded = postcard::to_allocvec(&few).unwrap();
            let read = postcard::from_bytes::<Few>(&encoded);
            assert_eq!(read.ok(), (length <= 3).then_some(few));
        }
    }
}
