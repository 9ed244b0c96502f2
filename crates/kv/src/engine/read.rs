//! Reads over any view: newest versions, scans, exports, garbage.

use super::codec::{self, Meta};
use super::store::View;
use super::{Cursor, EngineError, EngineSnapshot, StoredVersion, Weights};
use bytes::{BufMut, Bytes, BytesMut};
use synod_paxos::{GroupId, Slot, Timestamp};
use synod_txn::request::ScanRange;
use synod_txn::{Key, MAX_SCAN_BYTES, Row, Span, Version};

/// Versions of one key that are stepped over before a new search for where to
/// go on is cheaper.
const STEPS: usize = 8;

/// A snapshot of any backend.
pub(super) struct Reading<V>(pub(super) V);

impl<V: View + Send> EngineSnapshot for Reading<V> {
    fn get(&self, key: &[u8], at: Timestamp) -> Result<Option<Version>, EngineError> {
        get(&self.0, key, at)
    }

    fn scan(&self, range: &ScanRange, at: Timestamp) -> Result<(Vec<Row>, bool), EngineError> {
        scan(&self.0, range, at)
    }

    fn export(
        &self,
        span: &Span,
        after: Option<&Cursor>,
        max_bytes: usize,
    ) -> Result<(Vec<StoredVersion>, Option<Cursor>), EngineError> {
        export(&self.0, span, after, max_bytes)
    }

    fn applied(&self, group: GroupId) -> Result<Option<Slot>, EngineError> {
        Ok(meta(&self.0, Meta::Applied, group)?.map(|(slot, _)| slot))
    }

    fn checkpoint(&self, group: GroupId) -> Result<Option<(Slot, Bytes)>, EngineError> {
        meta(&self.0, Meta::Checkpoint, group)
    }
}

/// The first position after `key`.
pub(super) fn just_after(key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(key.len() + 1);
    out.put_slice(key);
    out.put_u8(0);
    out.freeze()
}

pub(super) fn meta(
    view: &dyn View,
    kind: Meta,
    group: GroupId,
) -> Result<Option<(Slot, Bytes)>, EngineError> {
    let key = codec::meta_key(kind, group);
    let value = view.item(&key)?;
    value
        .map(|value| codec::decode_meta(&key, &value))
        .transpose()
}

pub(super) fn get(
    view: &dyn View,
    key: &[u8],
    at: Timestamp,
) -> Result<Option<Version>, EngineError> {
    let start = codec::version_key(key, at);
    let end = codec::after_key(key);
    match view.range(&start, &end)?.next() {
        Some(item) => {
            let (stored, value) = item?;
            codec::read_version(&stored, &value).map(Some)
        }
        None => Ok(None),
    }
}

/// Rows within the bounds of one answer.
struct Rows {
    rows: Vec<Row>,
    limit: usize,
    bytes: usize,
}

impl Rows {
    /// Adds a row, or returns false if it does not fit any more.
    fn add(&mut self, key: Key, version: Version) -> bool {
        let Some(value) = version.value else {
            return true;
        };
        let bytes = self.bytes + key.len() + value.len();
        let full = bytes > MAX_SCAN_BYTES && !self.rows.is_empty();
        if full || self.rows.len() >= self.limit {
            return false;
        }
        self.bytes = bytes;
        self.rows.push(Row {
            key,
            value,
            timestamp: version.timestamp,
        });
        true
    }
}

pub(super) fn scan(
    view: &dyn View,
    scan: &ScanRange,
    at: Timestamp,
) -> Result<(Vec<Row>, bool), EngineError> {
    if scan.span.is_empty() {
        return Ok((Vec::new(), false));
    }
    let mut rows = Rows {
        rows: Vec::new(),
        limit: usize::try_from(scan.limit).unwrap_or(usize::MAX),
        bytes: 0,
    };
    let more = if scan.reverse {
        backward(view, &scan.span, at, &mut rows)?
    } else {
        forward(view, &scan.span, at, &mut rows)?
    };
    Ok((rows.rows, more))
}

/// Newest versions come first. Returns whether it stopped at a bound.
fn forward(
    view: &dyn View,
    span: &Span,
    at: Timestamp,
    rows: &mut Rows,
) -> Result<bool, EngineError> {
    let (mut start, end) = codec::bounds(span);
    'search: loop {
        let mut items = view.range(&start, &end)?;
        let mut next = items.next();
        while let Some(item) = next {
            let (stored, value) = item?;
            let (key, timestamp) = codec::split_key(&stored)?;
            let part = codec::key_part(&stored);
            let visible = timestamp <= at;
            if visible && !rows.add(key.clone(), codec::read_version(&stored, &value)?) {
                return Ok(true);
            }
            // On to the next key, or to the first version that is old enough.
            let mut steps = 0;
            next = loop {
                match items.next() {
                    Some(Ok((other, value))) if codec::key_part(&other) == part => {
                        if !visible && codec::timestamp_part(&other) <= at {
                            break Some(Ok((other, value)));
                        }
                    }
                    other => break other,
                }
                steps += 1;
                if steps == STEPS {
                    start = if visible {
                        codec::after_key(&key)
                    } else {
                        codec::version_key(&key, at)
                    };
                    continue 'search;
                }
            };
        }
        return Ok(false);
    }
}

/// From the end, oldest versions come first: the last one that is old enough
/// counts. Returns whether it stopped at a bound.
fn backward(
    view: &dyn View,
    span: &Span,
    at: Timestamp,
    rows: &mut Rows,
) -> Result<bool, EngineError> {
    let (start, mut end) = codec::bounds(span);
    'search: loop {
        let mut items = view.range(&start, &end)?;
        let mut next = items.next_back();
        while let Some(item) = next {
            let (stored, value) = item?;
            let (key, timestamp) = codec::split_key(&stored)?;
            let part = codec::key_part(&stored).to_vec();
            let mut newest = (timestamp <= at).then_some((stored, value));
            let mut steps = 0;
            next = loop {
                match items.next_back() {
                    Some(Ok((other, value))) if codec::key_part(&other) == part => {
                        if codec::timestamp_part(&other) <= at {
                            newest = Some((other, value));
                        }
                    }
                    other => break other,
                }
                steps += 1;
                if steps == STEPS {
                    if let Some(version) = get(view, &key, at)?
                        && !rows.add(key.clone(), version)
                    {
                        return Ok(true);
                    }
                    end = codec::before_key(&key);
                    continue 'search;
                }
            };
            if let Some((stored, value)) = newest
                && !rows.add(key, codec::read_version(&stored, &value)?)
            {
                return Ok(true);
            }
        }
        return Ok(false);
    }
}

fn export(
    view: &dyn View,
    span: &Span,
    after: Option<&Cursor>,
    max_bytes: usize,
) -> Result<(Vec<StoredVersion>, Option<Cursor>), EngineError> {
    let (start, end) = rest_of(span, after);
    let mut versions = Vec::new();
    let mut bytes = 0;
    let mut last = None;
    for item in view.range(&start, &end)? {
        if bytes >= max_bytes
            && let Some(last) = last
        {
            return Ok((versions, Some(Cursor(last))));
        }
        let (stored, value) = item?;
        let (key, timestamp) = codec::split_key(&stored)?;
        let (attempt, body) = codec::decode_version(&stored, &value)?;
        bytes += stored.len() + value.len();
        versions.push((key, timestamp, attempt, body));
        last = Some(stored);
    }
    Ok((versions, None))
}

/// As [`super::Engine::weigh`]. Values are not looked into.
pub(super) fn weigh(
    view: &dyn View,
    span: &Span,
    after: Option<&Cursor>,
    max_bytes: u64,
) -> Result<(Weights, Option<Cursor>), EngineError> {
    let (start, end) = rest_of(span, after);
    let mut weights = Weights::new();
    let mut bytes = 0;
    let mut last: Option<Bytes> = None;
    for item in view.range(&start, &end)? {
        if bytes >= max_bytes
            && let Some(last) = last
        {
            return Ok((weights, Some(Cursor(last))));
        }
        let (stored, value) = item?;
        let weight = (stored.len() + value.len()) as u64;
        bytes += weight;
        let same =
            { last.as_ref() }.is_some_and(|l| codec::key_part(l) == codec::key_part(&stored));
        match weights.last_mut() {
            Some((_, so_far)) if same => *so_far += weight,
            _ => weights.push((codec::split_key(&stored)?.0, weight)),
        }
        last = Some(stored);
    }
    Ok((weights, None))
}

/// The positions of `span` from after the cursor on.
fn rest_of(span: &Span, after: Option<&Cursor>) -> (Bytes, Bytes) {
    if span.is_empty() {
        return (Bytes::new(), Bytes::new());
    }
    let (start, end) = codec::bounds(span);
    match after {
        Some(Cursor(last)) => (just_after(last).max(start), end),
        None => (start, end),
    }
}

/// Versions that no read at or above `horizon` sees: all of a key but the
/// newest at or below it, and that one too if it is a tombstone. A tombstone goes
/// only in the batch that removes the last version below it, or an older value
/// would come back; a key with too many versions for one call loses it later.
pub(super) fn garbage(
    view: &dyn View,
    span: &Span,
    horizon: Timestamp,
    after: Option<&Cursor>,
    max_items: usize,
) -> Result<(Vec<Bytes>, Option<Cursor>), EngineError> {
    let (start, end) = rest_of(span, after);
    let mut found = Vec::new();
    // A call that goes on within a key knows the newest version at or below
    // the horizon by the cursor.
    let mut shadowing = after
        .map(|Cursor(last)| last.clone())
        .filter(|last| codec::timestamp_part(last) <= horizon);
    let mut tombstone: Option<Bytes> = None;
    let mut last = None;
    for (looked, item) in view.range(&start, &end)?.enumerate() {
        if looked >= max_items.max(1) {
            return Ok((found, last.map(Cursor)));
        }
        let (stored, value) = item?;
        let (_, timestamp) = codec::split_key(&stored)?;
        let same = |other: &Option<Bytes>| {
            other
                .as_ref()
                .is_some_and(|o| codec::key_part(o) == codec::key_part(&stored))
        };
        if tombstone.is_some() && !same(&tombstone) {
            found.extend(tombstone.take());
        }
        if same(&shadowing) {
            found.push(stored.clone());
        } else if timestamp <= horizon {
            shadowing = Some(stored.clone());
            if codec::decode_version(&stored, &value)?.1.is_none() {
                tombstone = Some(stored.clone());
            }
        }
        last = Some(stored);
    }
    found.extend(tombstone);
    Ok((found, None))
}
