//! What a transaction's own operations tell about lists.

use crate::history::{ListOp, Transaction};
use std::collections::{BTreeMap, HashSet};

/// An answered read.
pub(in crate::check) struct View<'a> {
    pub(in crate::check) key: u64,
    pub(in crate::check) list: &'a [u64],
    /// The transaction had not touched the key before: all it saw is of others.
    pub(in crate::check) outside: bool,
}

/// The transaction's answered reads, in order.
pub(in crate::check) fn views(transaction: &Transaction<ListOp>) -> Vec<View<'_>> {
    let mut touched = HashSet::new();
    let mut reads = Vec::with_capacity(transaction.ops.len());
    for op in &transaction.ops {
        match op {
            ListOp::Append { key, .. } => {
                touched.insert(*key);
            }
            ListOp::Read {
                key,
                list: Some(list),
            } => reads.push(View {
                key: *key,
                list,
                outside: touched.insert(*key),
            }),
            ListOp::Read { list: None, .. } => {}
        }
    }
    reads
}

/// A key about which the transaction's own operations disagree: a second read
/// that is not the first one plus its own appends, or one without those.
pub(super) fn internal_contradiction(transaction: &Transaction<ListOp>) -> Option<u64> {
    // Per key: the list if known, and what was appended since (or ever).
    let mut known: BTreeMap<u64, (Option<&[u64]>, Vec<u64>)> = BTreeMap::new();
    for op in &transaction.ops {
        match op {
            ListOp::Append { key, value } => known.entry(*key).or_default().1.push(*value),
            ListOp::Read {
                key,
                list: Some(list),
            } => {
                let (before, own) = known.entry(*key).or_default();
                let base = before.unwrap_or_default();
                let is_whole = before.is_none() || list.len() == base.len() + own.len();
                if !(is_whole && list.starts_with(base) && list.ends_with(own)) {
                    return Some(*key);
                }
                *before = Some(list);
                own.clear();
            }
            ListOp::Read { list: None, .. } => {}
        }
    }
    None
}
