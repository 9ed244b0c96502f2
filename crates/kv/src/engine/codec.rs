//! Keys and values as they stand in the ordered map.
//!
//! ```text
//! version     'd' | escape(key) | 00 00 | !timestamp (8, big-endian)
//! of a group  'm' | 'a' applied, 'c' checkpoint, 'i' installing | group (8, big-endian)
//! ```
//!
//! `escape` turns 00 into 00 FF; with the terminator 00 00 the order of escaped
//! keys is the order of keys, no key is a prefix of another, and versions of
//! different keys never interleave. The timestamp is inverted, so the newest
//! version of a key comes first.
//!
//! ```text
//! value       checksum (4) | kind (1) | body
//! kind 0, 1   a tombstone, a value: body = attempt (16) | value
//! kind 2      slot of a group: body = slot (8) | bytes
//! ```
//!
//! Numbers in values are little-endian. The checksum is the low half of XXH3 of
//! the rest, seeded with XXH3 of the key: a value under another key does not pass.

use super::{EngineError, StoredVersion};
use bytes::{BufMut, Bytes, BytesMut};
use synod_paxos::{GroupId, Slot, Timestamp};
use synod_probe::{Mutation, mutated};
use synod_txn::{AttemptId, Key, Span, Value, Version};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes of a stored key, at most (what the backends take).
pub(super) const MAX_STORED_KEY: usize = 65_000;

const DATA: u8 = b'd';
const META: u8 = b'm';
const TOMBSTONE: u8 = 0;
const VALUE: u8 = 1;
const SLOT: u8 = 2;

/// What is kept per group.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meta {
    Applied = b'a' as isize,
    Checkpoint = b'c' as isize,
    Installing = b'i' as isize,
}

fn escape(key: &[u8], out: &mut BytesMut) {
    out.put_u8(DATA);
    if mutated(Mutation::InterleaveVersions) {
        return out.put_slice(key);
    }
    let mut rest = key;
    while let Some(zero) = rest.iter().position(|b| *b == 0) {
        out.put_slice(&rest[..=zero]);
        out.put_u8(0xff);
        rest = &rest[zero + 1..];
    }
    out.put_slice(rest);
}

fn escaped(key: &[u8], tail: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(key.len() + 16);
    escape(key, &mut out);
    out.put_slice(tail);
    out.freeze()
}

/// Where `key` at `timestamp` stands; older versions of the key follow.
pub(super) fn version_key(key: &[u8], timestamp: Timestamp) -> Bytes {
    let mut out = BytesMut::with_capacity(key.len() + 16);
    escape(key, &mut out);
    out.put_slice(&[0, 0]);
    out.put_u64(!timestamp.0);
    out.freeze()
}

/// The first position of `key`, at or after which all its versions are.
pub(super) fn before_key(key: &[u8]) -> Bytes {
    escaped(key, &[0, 0])
}

/// The first position after all versions of `key`, before those of any later key.
pub(super) fn after_key(key: &[u8]) -> Bytes {
    escaped(key, &[0, 1])
}

/// The positions of all versions of the keys in `span`.
pub(super) fn bounds(span: &Span) -> (Bytes, Bytes) {
    let end = if span.end.is_empty() {
        Bytes::from_static(&[DATA + 1])
    } else {
        before_key(&span.end)
    };
    (before_key(&span.start), end)
}

/// Takes a version's position apart.
pub(super) fn split_key(stored: &[u8]) -> Result<(Key, Timestamp), EngineError> {
    let damaged = || damaged(stored, "not the key of a version");
    let (rest, inverted) = stored.split_last_chunk::<8>().ok_or_else(damaged)?;
    let body = rest
        .strip_prefix(&[DATA])
        .and_then(|rest| rest.strip_suffix(&[0, 0]))
        .ok_or_else(damaged)?;
    let timestamp = Timestamp(!u64::from_be_bytes(*inverted));
    if !body.contains(&0) || mutated(Mutation::InterleaveVersions) {
        return Ok((Key::copy_from_slice(body), timestamp));
    }
    let mut key = BytesMut::with_capacity(body.len());
    let mut rest = body;
    while let Some(zero) = rest.iter().position(|b| *b == 0) {
        if rest.get(zero + 1) != Some(&0xff) {
            return Err(damaged());
        }
        key.put_slice(&rest[..=zero]);
        rest = &rest[zero + 2..];
    }
    key.put_slice(rest);
    Ok((key.freeze(), timestamp))
}

/// The part of a version's position that all versions of the key share.
pub(super) fn key_part(stored: &[u8]) -> &[u8] {
    &stored[..stored.len().saturating_sub(8)]
}

/// The timestamp in a version's position; `split_key` checks the rest.
pub(super) fn timestamp_part(stored: &[u8]) -> Timestamp {
    let inverted = stored.last_chunk::<8>().copied().unwrap_or([0xff; 8]);
    Timestamp(!u64::from_be_bytes(inverted))
}

/// Where a group's item stands.
pub(super) fn meta_key(kind: Meta, group: GroupId) -> Bytes {
    let mut out = BytesMut::with_capacity(10);
    out.put_slice(&[META, kind as u8]);
    out.put_u64(group.0);
    out.freeze()
}

fn checksum(key: &[u8], sealed: &[u8]) -> u32 {
    xxh3_64_with_seed(sealed, xxh3_64(key)) as u32
}

fn seal(key: &[u8], kind: u8, head: &[u8], body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + head.len() + body.len());
    out.put_u32_le(0);
    out.put_u8(kind);
    out.put_slice(head);
    out.put_slice(body);
    let sum = checksum(key, &out[4..]);
    out[..4].copy_from_slice(&sum.to_le_bytes());
    out.freeze()
}

/// Checks a value. Returns its kind.
fn unseal(key: &[u8], value: &[u8]) -> Result<u8, EngineError> {
    let (sum, sealed) = value
        .split_first_chunk::<4>()
        .ok_or_else(|| damaged(key, "too short"))?;
    if checksum(key, sealed) != u32::from_le_bytes(*sum) {
        return Err(damaged(key, "wrong checksum"));
    }
    sealed
        .first()
        .copied()
        .ok_or_else(|| damaged(key, "too short"))
}

/// What to store for a version.
pub(super) fn encode_version(version: StoredVersion) -> Result<(Bytes, Bytes), EngineError> {
    let (key, timestamp, attempt, value) = version;
    let stored = version_key(&key, timestamp);
    if stored.len() > MAX_STORED_KEY {
        return Err(EngineError::KeyTooLong {
            bytes: key.len(),
            limit: MAX_STORED_KEY / 2 - 16,
        });
    }
    let attempt = attempt.0.to_le_bytes();
    let sealed = match value {
        Some(value) => seal(&stored, VALUE, &attempt, &value),
        None => seal(&stored, TOMBSTONE, &attempt, &[]),
    };
    Ok((stored, sealed))
}

/// Attempt, and value or tombstone, of the version at `stored`.
pub(super) fn decode_version(
    stored: &[u8],
    value: &Bytes,
) -> Result<(AttemptId, Option<Value>), EngineError> {
    let kind = unseal(stored, value)?;
    let attempt = value
        .get(5..21)
        .and_then(|bytes| bytes.first_chunk::<16>())
        .ok_or_else(|| damaged(stored, "too short"))?;
    let attempt = AttemptId(u128::from_le_bytes(*attempt));
    match kind {
        VALUE => Ok((attempt, Some(value.slice(21..)))),
        TOMBSTONE => Ok((attempt, None)),
        _ => Err(damaged(stored, "not a version")),
    }
}

/// The version at `stored`.
pub(super) fn read_version(stored: &[u8], value: &Bytes) -> Result<Version, EngineError> {
    let (attempt, value) = decode_version(stored, value)?;
    Ok(Version {
        value,
        timestamp: timestamp_part(stored),
        attempt,
    })
}

/// What to store for a group.
pub(super) fn encode_meta(kind: Meta, group: GroupId, slot: Slot, body: &[u8]) -> (Bytes, Bytes) {
    let stored = meta_key(kind, group);
    let sealed = seal(&stored, SLOT, &slot.0.to_le_bytes(), body);
    (stored, sealed)
}

/// What was stored for a group.
pub(super) fn decode_meta(stored: &[u8], value: &Bytes) -> Result<(Slot, Bytes), EngineError> {
    if unseal(stored, value)? != SLOT {
        return Err(damaged(stored, "not a slot"));
    }
    let slot = value
        .get(5..13)
        .and_then(|bytes| bytes.first_chunk::<8>())
        .ok_or_else(|| damaged(stored, "too short"))?;
    Ok((Slot(u64::from_le_bytes(*slot)), value.slice(13..)))
}

/// The error that names `stored`, for people.
pub(super) fn damaged(stored: &[u8], what: &'static str) -> EngineError {
    let shown = stored
        .strip_suffix(stored.last_chunk::<8>().map_or(&[][..], |c| c))
        .filter(|rest| rest.first() == Some(&DATA))
        .map(|rest| {
            let key = &rest[1..rest.len().saturating_sub(2).max(1)];
            format!("{} {}", key.escape_ascii(), timestamp_part(stored))
        });
    EngineError::Damaged {
        key: shown.unwrap_or_else(|| stored.escape_ascii().to_string()),
        what,
    }
}
