//! A transaction's own writes: buffered, undone to savepoints, and merged over
//! what the shards answer.

use crate::client::TransactionError;
use crate::hashing::SLOT_BYTES;
use crate::types::{
    Key, MAX_KEY_BYTES, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES, Row, Span, Value, Write,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Savepoints of one transaction, at most.
const MAX_SAVEPOINTS: usize = 1024;

/// What the buffer held for a key before a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Before {
    Nothing,
    Write(Option<Value>),
}

/// The writes of one transaction so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Buffer {
    writes: BTreeMap<Key, Option<Value>>,
    bytes: usize,
    /// How to undo the writes since the first savepoint, oldest first.
    undo: Vec<(Key, Before)>,
    /// Names and the length of `undo` when they were set, oldest first.
    savepoints: Vec<(String, usize)>,
}

/// Refuse keys out of bounds.
pub(super) fn check_key(key: &Key) -> Result<(), TransactionError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(TransactionError::Invalid(format!(
            "a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}",
            key.len()
        )));
    }
    Ok(())
}

/// Refuse keys of a hashed directory that leave no room for the slot.
///
/// # Errors
/// `Invalid`, for a key that is stored under a name that is too long.
pub fn check_stored(stored: &Key) -> Result<(), TransactionError> {
    if stored.len() > MAX_KEY_BYTES {
        return Err(TransactionError::Invalid(format!(
            "a key in a hashed directory has at most {} bytes, this one has {}",
            MAX_KEY_BYTES - SLOT_BYTES,
            stored.len() - SLOT_BYTES
        )));
    }
    Ok(())
}

impl Buffer {
    pub(super) const fn new() -> Buffer {
        Buffer {
            writes: BTreeMap::new(),
            bytes: 0,
            undo: Vec::new(),
            savepoints: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) fn writes(&self) -> &BTreeMap<Key, Option<Value>> {
        &self.writes
    }

    /// Take a write in, or refuse it and change nothing.
    pub(super) fn write(&mut self, key: Key, value: Option<Value>) -> Result<(), TransactionError> {
        check_key(&key)?;
        if let Some(value) = &value
            && value.len() > MAX_VALUE_BYTES
        {
            return Err(TransactionError::Invalid(format!(
                "a value has at most {MAX_VALUE_BYTES} bytes, this one has {}",
                value.len()
            )));
        }
        let old = self.writes.get(&key);
        let freed = old.map_or(0, |old| Write::weight_with(&key, old.as_ref()));
        let bytes = self.bytes - freed + Write::weight_with(&key, value.as_ref());
        if bytes > MAX_TRANSACTION_BYTES {
            return Err(TransactionError::Invalid(format!(
                "the writes of one transaction have at most {MAX_TRANSACTION_BYTES} bytes; \
                 this write would make it {bytes}: split the transaction"
            )));
        }
        self.bytes = bytes;
        let before = self.writes.insert(key.clone(), value);
        if !self.savepoints.is_empty() {
            self.undo
                .push((key, before.map_or(Before::Nothing, Before::Write)));
        }
        Ok(())
    }

    /// The buffered write of `key`: none = not written, `Some(None)` = deleted.
    pub(super) fn get(&self, key: &Key) -> Option<&Option<Value>> {
        self.writes.get(key)
    }

    pub(super) fn savepoint(&mut self, name: &str) -> Result<(), TransactionError> {
        if self.savepoints.len() >= MAX_SAVEPOINTS {
            return Err(TransactionError::Invalid(format!(
                "a transaction has at most {MAX_SAVEPOINTS} savepoints"
            )));
        }
        self.savepoints.push((name.to_owned(), self.undo.len()));
        Ok(())
    }

    /// Undo everything written since the newest savepoint of that name; it stays set.
    pub(super) fn rollback_to(&mut self, name: &str) -> Result<(), TransactionError> {
        let at = self
            .savepoints
            .iter()
            .rposition(|(n, _)| n == name)
            .ok_or_else(|| TransactionError::NoSavepoint(name.to_owned()))?;
        let length = self.savepoints[at].1;
        self.savepoints.truncate(at + 1);
        while self.undo.len() > length {
            let Some((key, before)) = self.undo.pop() else {
                break;
            };
            let now = self.writes.get(&key);
            self.bytes -= now.map_or(0, |now| Write::weight_with(&key, now.as_ref()));
            match before {
                Before::Nothing => {
                    self.writes.remove(&key);
                }
                Before::Write(value) => {
                    self.bytes += Write::weight_with(&key, value.as_ref());
                    self.writes.insert(key, value);
                }
            }
        }
        Ok(())
    }

    fn range(&self, span: &Span) -> impl DoubleEndedIterator<Item = (&Key, &Option<Value>)> {
        // An empty span would make `range` panic: begin above its end.
        let span = (!span.is_empty()).then_some(span);
        span.into_iter().flat_map(|span| {
            let end = if span.end.is_empty() {
                Bound::Unbounded
            } else {
                Bound::Excluded(&span.end)
            };
            self.writes
                .range::<Key, _>((Bound::Included(&span.start), end))
        })
    }

    /// How many rows of `span` the buffer may hide, counted up to `most`.
    pub(super) fn deletes_in(&self, span: &Span, most: usize) -> usize {
        let deletes = self.range(span).filter(|(_, value)| value.is_none());
        deletes.take(most).count()
    }

    /// The rows of a visited span, in scan order, with the buffer's writes in
    /// place of what the shard answered.
    pub(super) fn merge(&self, visited: &Span, rows: Vec<Row>, reverse: bool) -> Vec<(Key, Value)> {
        let mut merged = Vec::with_capacity(rows.len());
        let mut own: Box<dyn Iterator<Item = (&Key, &Option<Value>)>> = if reverse {
            Box::new(self.range(visited).rev())
        } else {
            Box::new(self.range(visited))
        };
        let mut theirs = rows.into_iter().peekable();
        let mut next_own = own.next();
        while let Some((key, value)) = next_own {
            let comes_first = |row: &Row| {
                if reverse {
                    row.key > *key
                } else {
                    row.key < *key
                }
            };
            while let Some(row) = theirs.next_if(comes_first) {
                merged.push((row.key, row.value));
            }
            theirs.next_if(|row| row.key == *key);
            if let Some(value) = value {
                merged.push((key.clone(), value.clone()));
            }
            next_own = own.next();
        }
        merged.extend(theirs.map(|row| (row.key, row.value)));
        merged
    }
}
