//! A page of a hashed directory: the least rows of all slots (decision 22).
//!
//! Every slot is asked for some rows from where the page begins. What has answered may come in any order: a
//! slot that stopped early ends what is known, and so does a page that is full. Later slots
//! are asked only up to there, and rows beyond are dropped. So there is never
//! more in memory than one page.

use crate::client::Routes;
use crate::hashing::Hashing;
use crate::types::{Key, MAX_SCAN_BYTES, MAX_SCAN_ROWS, Row, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use synod_paxos::GroupId;

/// Slots that are asked at the same time, at most: what they answer comes on top of the page.
pub const SLOTS_AT_ONCE: usize = 32;
/// Rows asked of a slot, at least, unless the page has fewer.
const LEAST_ROWS: usize = 16;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    hashing: Hashing,
    reverse: bool,
    limit: usize,
    /// The plain keys of which everything will be known once all that was asked for is answered.
    known: Span,
    rows: BTreeMap<Key, Row>,
    bytes: usize,
    /// The first slot that was not asked for.
    next: u16,
    /// Stored keys of earlier slots that are still to be asked for.
    left: Vec<Span>,
}

/// A span of stored keys that one shard is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The shard.
    pub shard: GroupId,
    /// The stored keys.
    pub span: Span,
    /// Rows wanted at most.
    pub limit: u32,
}

impl Merge {
    /// A page of at most `limit` rows of these plain keys, which lie in the directory. It
    /// begins at their end if `reverse`.
    #[must_use]
    pub fn new(hashing: Hashing, plain: Span, limit: usize, reverse: bool) -> Merge {
        Merge {
            hashing,
            reverse,
            limit: limit.clamp(1, MAX_SCAN_ROWS as usize),
            known: plain,
            rows: BTreeMap::new(),
            bytes: 0,
            next: 0,
            left: Vec::new(),
        }
    }

    /// The directory.
    #[must_use]
    pub const fn hashing(&self) -> &Hashing {
        &self.hashing
    }

    /// Whether it begins at the end of the keys.
    #[must_use]
    pub const fn is_reverse(&self) -> bool {
        self.reverse
    }

    /// What to ask for next; none if everything was asked for.
    ///
    /// # Errors
    /// A stored key that no shard is known to own.
    pub fn next_piece(&mut self, routes: &Routes) -> Result<Option<Piece>, Key> {
        let span = loop {
            if let Some(span) = self.left.pop() {
                break span;
            }
            if self.next >= self.hashing.slots {
                return Ok(None);
            }
            let span = self.hashing.slot_span(self.next, &self.known);
            self.next += 1;
            if !span.is_empty() {
                break span;
            }
        };
        let Some(route) = routes.of_key(&span.start) else {
            return Err(span.start);
        };
        let asked = route.clip(&span);
        if asked.end != span.end {
            self.left.push(Span {
                start: asked.end.clone(),
                end: span.end,
            });
        }
        Ok(Some(Piece {
            shard: route.shard,
            span: asked,
            limit: self.rows_each(),
        }))
    }

    /// A slot's fair share twice over, so that mostly one round makes a page.
    fn rows_each(&self) -> u32 {
        let share = 2 * self.limit.div_ceil(usize::from(self.hashing.slots));
        let rows = share.max(LEAST_ROWS).min(self.limit);
        u32::try_from(rows).unwrap_or(MAX_SCAN_ROWS)
    }

    /// A piece is to be asked for once more: other shards have it by now.
    pub fn ask_again(&mut self, span: Span) {
        self.left.push(span);
    }

    /// What a piece brought: rows in scan order, and whether it has more. Returns false, and
    /// has taken nothing, if a row's key is none that is stored in the directory.
    #[must_use]
    pub fn add(&mut self, rows: Vec<Row>, more: bool) -> bool {
        let plain: Option<Vec<Row>> = { rows.into_iter() }
            .map(|row| {
                let key = self.hashing.load(&row.key)?;
                Some(Row { key, ..row })
            })
            .collect();
        let Some(plain) = plain else {
            return false;
        };
        if let Some(last) = plain.last().filter(|_| more) {
            let edge = last.key.clone();
            self.know_up_to(&edge);
        }
        for row in plain {
            if self.known.contains(&row.key) {
                self.bytes += weight(&row);
                self.rows.insert(row.key.clone(), row);
            }
        }
        self.trim();
        true
    }

    /// Nothing is known beyond this key.
    fn know_up_to(&mut self, edge: &Key) {
        if self.reverse {
            if *edge > self.known.start {
                self.known.start.clone_from(edge);
            }
        } else {
            let end = Span::of_key(edge).end;
            if end < self.known.end {
                self.known.end = end;
            }
        }
    }

    /// Drops what does not fit, or lies beyond what is known.
    fn trim(&mut self) {
        while let Some(farthest) = self.farthest() {
            let beyond = !self.known.contains(&farthest);
            let full = self.rows.len() > self.limit;
            let heavy = self.bytes > MAX_SCAN_BYTES && self.rows.len() > 1;
            if !beyond && !full && !heavy {
                return;
            }
            if let Some(row) = self.rows.remove(&farthest) {
                self.bytes -= weight(&row);
            }
            if !beyond && let Some(edge) = self.farthest() {
                self.know_up_to(&edge);
            }
        }
    }

    fn farthest(&self) -> Option<Key> {
        let row = if self.reverse {
            self.rows.first_key_value()
        } else {
            self.rows.last_key_value()
        };
        row.map(|(key, _)| key.clone())
    }

    /// Once everything is answered: the plain keys of which everything is known, from the near
    /// end on, and their rows in scan order.
    #[must_use]
    pub fn finish(self) -> (Span, Vec<Row>) {
        let mut rows: Vec<Row> = self.rows.into_values().collect();
        if self.reverse {
            rows.reverse();
        }
        (self.known, rows)
    }
}

fn weight(row: &Row) -> usize {
    row.key.len() + row.value.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Route;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use synod_paxos::Timestamp;

    /// Shards of the directory, cut at these stored keys.
    fn routes(hashing: &Hashing, cuts: &BTreeSet<Key>) -> Routes {
        let whole = hashing.span();
        let starts = { cuts.iter() }.filter(|cut| **cut > whole.start && whole.contains(cut));
        let starts: Vec<Key> = [whole.start.clone()]
            .into_iter()
            .chain(starts.cloned())
            .collect();
        let ends = starts.iter().skip(1).cloned().chain([whole.end.clone()]);
        let all = starts.iter().cloned().zip(ends).zip(1..);
        let route = |((start, end), id)| Route {
            shard: GroupId(id),
            span: Span { start, end },
            term: None,
        };
        Routes::new(all.map(route).collect())
    }

    fn answer(
        stored: &BTreeSet<Key>,
        piece: &Piece,
        reverse: bool,
        most: usize,
    ) -> (Vec<Row>, bool) {
        let there = stored
            .iter()
            .filter(|key| piece.span.contains(key))
            .cloned();
        let mut there: Vec<Key> = there.collect();
        if reverse {
            there.reverse();
        }
        let limit = most.max(1).min(piece.limit as usize);
        let more = there.len() > limit;
        let rows = { there.into_iter().take(limit) }.map(|key| Row {
            value: key.clone(),
            key,
            timestamp: Timestamp(1),
        });
        (rows.collect(), more)
    }

    fn keys() -> impl Strategy<Value = BTreeSet<Key>> {
        let byte = prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()];
        let rest = proptest::collection::vec(byte, 0..4);
        proptest::collection::btree_set(rest.prop_map(Key::from), 0..60)
    }

    proptest! {
        /// Pages of all slots, answered in any order and by shards that stop when they like,
        /// are the rows in order.
        #[test]
        fn pages_are_the_rows_in_order(
            rests in keys(), cuts in keys(), bits in 1_u32..=6, limit in 1_usize..50,
            reverse in any::<bool>(), from in 0_usize..4, picks in any::<u64>(),
        ) {
            let prefix = Key::from_static(b"d/");
            let hashing = Hashing::new(prefix.clone(), 1 << bits).expect("sound");
            let plain = |rest: &Key| Key::from([&prefix[..], rest].concat());
            let all: BTreeSet<Key> = rests.iter().map(plain).collect();
            let stored = all.iter().map(|key| hashing.store(key)).collect();
            let routes = routes(&hashing, &cuts.iter().map(plain).collect());
            let mut left = hashing.span();
            if let Some(start) = all.iter().nth(from) {
                left.start.clone_from(start);
            }
            let mut wanted: Vec<Key> = all.iter().filter(|k| left.contains(k)).cloned().collect();
            if reverse {
                wanted.reverse();
            }
            let (mut found, mut seed) = (Vec::new(), picks | 1);
            let mut pick = |n: usize| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) as usize % n.max(1)
            };
            while !left.is_empty() {
                let mut merge = Merge::new(hashing.clone(), left.clone(), limit, reverse);
                let mut asked = Vec::new();
                loop {
                    let piece = merge.next_piece(&routes).expect("an owner");
                    let done = piece.is_none();
                    asked.extend(piece);
                    // Some are answered before the next are asked.
                    while !asked.is_empty() && (done || pick(3) == 0) {
                        let piece = asked.swap_remove(pick(asked.len()));
                        if pick(8) == 0 {
                            merge.ask_again(piece.span);
                        } else {
                            let (rows, more) = answer(&stored, &piece, reverse, 1 + pick(20));
                            prop_assert!(merge.add(rows, more));
                        }
                    }
                    if done && merge.left.is_empty() {
                        break;
                    }
                }
                let (known, rows) = merge.finish();
                prop_assert!(rows.len() <= limit);
                prop_assert!(!known.is_empty(), "progress");
                found.extend(rows.into_iter().map(|row| row.key));
                if reverse {
                    prop_assert_eq!(&known.end, &left.end);
                    left.end = known.start;
                } else {
                    prop_assert_eq!(&known.start, &left.start);
                    left.start = known.end;
                }
            }
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn rows_of_elsewhere_are_not_taken() {
        let hashing = Hashing::new(Key::from_static(b"d/"), 4).expect("sound");
        let mut merge = Merge::new(hashing.clone(), hashing.span(), 10, false);
        let row = |key: &[u8]| Row {
            key: Key::copy_from_slice(key),
            value: Key::new(),
            timestamp: Timestamp(1),
        };
        for bad in [&b"d/"[..], b"d/\x00", b"e/\x00\x00", b"d/\x00\x09x"] {
            assert!(!merge.add(vec![row(bad)], false), "{bad:?}");
        }
        assert!(merge.add(vec![row(&hashing.store(&Key::from_static(b"d/x")))], false));
        assert_eq!(merge.finish().1[0].key[..], *b"d/x");
    }
}
