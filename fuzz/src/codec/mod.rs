//! What must hold of everything that is decoded with postcard.

pub mod corpus;
pub mod memory;
pub mod values;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Memory that decoding may take whatever its input: a list's claimed length is
/// believed up to 1 MiB of elements, once per level of nesting.
const FIXED_BYTES: usize = 4 << 20;
/// Memory that decoding may take per byte of input. The worst is a list of empty
/// keys: one byte each on the wire, 32 in memory, and while the list grows both the
/// old and the new one exist.
const BYTES_PER_BYTE: usize = 80;

/// Runs a decoder over bytes from outside and checks what memory it took.
pub fn bounded<'b, T>(bytes: &'b [u8], decode: impl FnOnce(&'b [u8]) -> T) -> T {
    let (decoded, peak) = memory::peak(|| decode(bytes));
    let most = FIXED_BYTES + BYTES_PER_BYTE * bytes.len();
    assert!(
        peak <= most,
        "decoding {} bytes took {peak} bytes of memory",
        bytes.len()
    );
    decoded
}

/// The encoding of a value.
pub fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data encodes")
}

/// Whatever the bytes: decoding ends in a value or an error, takes memory in
/// proportion, and a value encodes to no more bytes than it came from, which
/// decode to the same value.
pub fn any_bytes<T: Serialize + DeserializeOwned + Debug + PartialEq>(bytes: &[u8]) {
    let decoded = bounded(bytes, |bytes| postcard::take_from_bytes::<T>(bytes));
    if let Ok((value, rest)) = decoded {
        let again = encoded(&value);
        assert!(again.len() <= bytes.len() - rest.len(), "{value:?} grew");
        round_trip(&value, &again);
    }
}

/// A value of any shape comes back as it was, from exactly its own bytes.
pub fn any_value<T: Serialize + DeserializeOwned + Debug + PartialEq>(choices: &[u8]) {
    if let Some(value) = values::value::<T>(choices) {
        let bytes = encoded(&value);
        round_trip(&value, &bytes);
        let cut = choices.first().map_or(0, |c| usize::from(*c)) % bytes.len().max(1);
        if let Some(short) = bytes.get(..cut).filter(|_| !bytes.is_empty()) {
            let short = postcard::from_bytes::<T>(short);
            assert!(short.is_err(), "{value:?} is also {short:?}");
        }
    }
}

fn round_trip<T: Serialize + DeserializeOwned + Debug + PartialEq>(value: &T, bytes: &[u8]) {
    let (back, rest) = postcard::take_from_bytes::<T>(bytes).expect("what was encoded decodes");
    assert!(rest.is_empty(), "{value:?} has bytes to spare");
    assert_eq!(&back, value);
    assert_eq!(encoded(&back), bytes, "one value has one encoding");
}

/// The encoding of a value of any shape, damaged in a few places.
pub fn damaged<T: Serialize + DeserializeOwned>(choices: &[u8]) -> Vec<u8> {
    let (shape, harm) = choices.split_at(choices.len() * 3 / 4);
    let value = values::value::<T>(shape);
    let mut bytes = value.map(|value| encoded(&value)).unwrap_or_default();
    for step in harm.chunks_exact(3).take(4) {
        let at = usize::from(step[1]) % (bytes.len() + 1);
        match step[0] % 5 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, step[2]),
            2 => bytes.extend_from_within(at..),
            _ if at < bytes.len() => bytes[at] = step[2],
            _ => bytes.push(step[2]),
        }
    }
    bytes
}

/// Puts a list's claim to have more than two million elements, with as many zeros as
/// `bytes` behind it, at every place of values of every shape.
pub fn long_lists<T: Serialize + DeserializeOwned>(bytes: usize) {
    for seed in seeds::<T>(24) {
        for at in 0..=seed.len().min(60) {
            let mut input = seed[..at].to_vec();
            input.extend_from_slice(&[0xff, 0xff, 0xff, 1]);
            input.resize(input.len() + bytes, 0);
            let _ = bounded(&input, |input| postcard::from_bytes::<T>(input).is_ok());
        }
    }
}

/// Encodings of values of every shape that `T` has, for a seed corpus.
pub fn seeds<T: Serialize + DeserializeOwned>(count: u64) -> Vec<Vec<u8>> {
    let values = (0..count).filter_map(|seed| values::value::<T>(&values::choices(seed, 400)));
    values.map(|value| encoded(&value)).collect()
}
