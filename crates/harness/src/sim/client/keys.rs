//! The workloads' keys, laid out over whatever shards there are.
//!
//! Every key begins with a *stem* that puts it into a shard: just above the
//! shard's first key, or (lists only) just below its end. A letter names the
//! workload, digits the key:
//!
//! | letter | what | where |
//! |---|---|---|
//! | `a` | lists | at both ends of the shards |
//! | `b` `n` | accounts, and transfers' markers | at the start |
//! | `c` `m` | counters, and increments' markers | at the start |
//! | `i` | the note that the first data was loaded | the first shard's start |
//! | `o` | the ring's links | at the start |
//! | `r` | registers | at the start |
//!
//! Lists at the end of one shard and at the start of the next are neighbours:
//! one scan of few keys crosses the border between the two. A list that has
//! grown long is left for one of the next *generation*; generations count up
//! at the ends of shards and down at their starts, so that the newest lists are
//! those next to the border. A shard whose end leaves no room for the first stem
//! gets no keys.

use super::config::ClientConfig;
use bytes::Bytes;
use std::ops::Range;
use synod_paxos::GroupId;
use synod_shard::ShardMap;
use synod_shard::wire::RESERVED_PREFIX;
use synod_txn::{Key, Span};

/// List numbers are `generation * SLOTS + slot`.
pub(super) const SLOTS: u64 = 100;
/// Generations of one list, at most.
const GENERATIONS: u64 = 100_000;

/// Where a list lives.
#[derive(Clone, Copy, Debug)]
struct Home {
    shard: usize,
    /// At the shard's end.
    high: bool,
}

/// A shard's stems.
#[derive(Clone, Debug)]
struct Stems {
    id: GroupId,
    low: Bytes,
    high: Option<Bytes>,
}

/// All keys but those that are made on the way (lists' generations, markers).
#[derive(Debug)]
pub(super) struct Keyspace {
    shards: Vec<Stems>,
    lists: Vec<Home>,
    pub(super) registers: Vec<Key>,
    pub(super) accounts: Vec<Key>,
    pub(super) links: Vec<Key>,
    pub(super) counters: Vec<Key>,
    /// There once accounts and ring are.
    pub(super) loaded: Key,
}

/// Digits of the numbers of registers, accounts, links and counters, at least.
const LEAST_DIGITS: usize = 3;

/// Appends `number` with leading zeros.
///
/// # Panics
/// When it has more digits than `width`: two keys would be one.
fn digits(to: &mut Vec<u8>, number: u64, width: usize) {
    let from = to.len();
    let mut rest = number;
    for _ in 0..width {
        to.push(b'0' + (rest % 10) as u8);
        rest /= 10;
    }
    assert!(rest == 0, "{number} does not fit into {width} digits");
    to[from..].reverse();
}

/// Digits for the numbers below `count`.
fn width(count: u32) -> usize {
    let digits = count.saturating_sub(1).checked_ilog10().unwrap_or(0) + 1;
    LEAST_DIGITS.max(digits as usize)
}

/// The number at `range` of a key.
fn number(key: &[u8], range: Range<usize>) -> Option<u64> {
    let text = key.get(range)?;
    text.iter().try_fold(0u64, |sum, b| {
        b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0'))
    })
}

fn stems(map: &ShardMap) -> Vec<Stems> {
    let mut shards: Vec<Stems> = map
        .shards
        .iter()
        .filter(|shard| shard.span.start[..] < *RESERVED_PREFIX)
        .filter_map(|shard| {
            let low = [&shard.span.start[..], b"!"].concat();
            let mut high = if shard.span.end.is_empty() {
                RESERVED_PREFIX.to_vec()
            } else {
                shard.span.end.to_vec()
            };
            let last = high.pop()?;
            high.extend(last.checked_sub(1));
            high.push(b'~');
            let fits = |stem: &[u8]| shard.span.contains(stem);
            (fits(&low)).then(|| Stems {
                id: shard.id,
                high: (last > 0 && fits(&high) && high > low).then(|| high.into()),
                low: low.into(),
            })
        })
        .collect();
    shards.sort_by(|a, b| a.low.cmp(&b.low));
    shards
}

impl Keyspace {
    /// Lays the keys out.
    ///
    /// # Panics
    /// When the map has no shard for users' keys.
    pub(super) fn new(map: &ShardMap, config: &ClientConfig) -> Keyspace {
        let shards = stems(map);
        assert!(!shards.is_empty(), "the map has no shard for users' keys");
        let key = |letter: u8, index: u32, width: usize| {
            let mut key = shards[index as usize % shards.len()].low.to_vec();
            key.push(letter);
            digits(&mut key, u64::from(index), width);
            Bytes::from(key)
        };
        let keys = |letter, count| {
            let width = width(count);
            (0..count).map(|index| key(letter, index, width)).collect()
        };
        let lists = (0..config.lists.clamp(1, SLOTS as u32) as usize).map(|slot| {
            let shard = slot % shards.len();
            let high = (slot / shards.len()) % 2 == 1 && shards[shard].high.is_some();
            Home { shard, high }
        });
        Keyspace {
            lists: lists.collect(),
            registers: keys(b'r', config.registers.max(2)),
            accounts: keys(b'b', config.accounts.max(3)),
            links: keys(b'o', config.links.max(4)),
            counters: keys(b'c', config.counters.max(1)),
            loaded: key(b'i', 0, LEAST_DIGITS),
            shards,
        }
    }

    pub(super) fn lists(&self) -> usize {
        self.lists.len()
    }

    /// The key of a list.
    pub(super) fn list(&self, slot: usize, generation: u64) -> Key {
        let home = self.lists[slot];
        let mut key = self.list_stem(home, generation);
        digits(&mut key, slot as u64, 2);
        key.into()
    }

    fn list_stem(&self, home: Home, generation: u64) -> Vec<u8> {
        let stems = &self.shards[home.shard];
        let generation = generation % GENERATIONS;
        let (stem, order) = match &stems.high {
            Some(high) if home.high => (high, generation),
            _ => (&stems.low, GENERATIONS - 1 - generation),
        };
        let mut key = Vec::with_capacity(stem.len() + 8);
        key.extend_from_slice(stem);
        key.push(b'a');
        digits(&mut key, order, 5);
        key
    }

    /// Slot and generation of a list's key.
    pub(super) fn list_of(&self, key: &[u8]) -> Option<(usize, u64)> {
        let length = key.len();
        let slot = number(key, length.checked_sub(2)?..length)? as usize;
        let order = number(key, length.checked_sub(7)?..length - 2)?;
        let home = self.lists.get(slot)?;
        let generation = if home.high {
            order
        } else {
            GENERATIONS - 1 - order
        };
        Some((slot, generation))
    }

    /// The shards that hold users' keys, by the indices that keys are laid out by.
    pub(super) fn shards(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.shards.iter().map(|stems| stems.id)
    }

    /// The index of the shard of a list, by its number in histories.
    pub(super) fn shard_of_list(&self, number: u64) -> Option<usize> {
        let home = self.lists.get((number % SLOTS) as usize);
        home.map(|home| home.shard)
    }

    /// The index of the shard of a register or an account, by its number in histories.
    pub(super) fn shard_of(&self, index: u64) -> Option<usize> {
        usize::try_from(index)
            .ok()
            .map(|index| index % self.shards.len())
    }

    /// The lists that share a shard with a slot.
    pub(super) fn lists_beside(&self, slot: usize) -> (GroupId, impl Iterator<Item = usize> + '_) {
        let shard = self.lists[slot].shard;
        let beside = move |(slot, home): (usize, &Home)| (home.shard == shard).then_some(slot);
        let slots = self.lists.iter().enumerate().filter_map(beside);
        (self.shards[shard].id, slots)
    }

    /// The registers that share a shard with one.
    pub(super) fn registers_beside(
        &self,
        index: usize,
    ) -> (GroupId, impl Iterator<Item = usize> + '_) {
        let shard = index % self.shards.len();
        let same = (shard..self.registers.len()).step_by(self.shards.len());
        (self.shards[shard].id, same)
    }

    /// Borders between shards, the outer ones included.
    pub(super) fn borders(&self) -> usize {
        self.shards.len() + 1
    }

    /// The lists next to a border, from `generations` on: their slots, and the
    /// span to scan. None where there is no list.
    pub(super) fn border(&self, border: usize, generations: &[u64]) -> Option<(Vec<usize>, Span)> {
        let beside = |home: &Home| {
            if home.high {
                home.shard + 1 == border
            } else {
                home.shard == border
            }
        };
        let all = self.lists.iter().enumerate();
        let slots: Vec<usize> = all.filter(|(_, h)| beside(h)).map(|(s, _)| s).collect();
        let oldest = |high: bool| {
            let side = slots.iter().filter(|&&s| self.lists[s].high == high);
            side.map(|&s| (generations[s], self.lists[s]))
                .min_by_key(|g| g.0)
        };
        let (left, right) = (oldest(true), oldest(false));
        let start = match (left, right) {
            (Some((generation, home)), _) => self.list_stem(home, generation),
            (None, Some((_, home))) => {
                let mut start = self.shards[home.shard].low.to_vec();
                start.push(b'a');
                start
            }
            (None, None) => return None,
        };
        let mut end = match (left, right) {
            (_, Some((generation, home))) => self.list_stem(home, generation),
            (Some((_, home)), None) => self.list_stem(home, GENERATIONS - 1),
            (None, None) => return None,
        };
        end.push(b':');
        let span = Span {
            start: start.into(),
            end: end.into(),
        };
        Some((slots, span))
    }

    /// The key of a client's marker; `letter` is `m` (increments) or `n` (transfers).
    pub(super) fn marker(&self, letter: u8, client: u32, count: u64) -> Key {
        let stems = &self.shards[count as usize % self.shards.len()];
        let mut key = Vec::with_capacity(stems.low.len() + 13);
        key.extend_from_slice(&stems.low);
        key.push(letter);
        digits(&mut key, u64::from(client), 4);
        digits(&mut key, count, 8);
        key.into()
    }

    /// The spans of all markers, of one client or of all.
    pub(super) fn markers(&self, letter: u8, client: Option<u32>) -> Vec<Span> {
        let span = |stems: &Stems| {
            let mut prefix = stems.low.to_vec();
            prefix.push(letter);
            if let Some(client) = client {
                digits(&mut prefix, u64::from(client), 4);
            }
            Span::of_prefix(&prefix)
        };
        self.shards.iter().map(span).collect()
    }

    /// The span of all accounts in one shard, the shards counted from 0; none
    /// after the last.
    pub(super) fn account_span(&self, shard: usize) -> Option<Span> {
        let stems = self.shards.get(shard)?;
        Some(Span::of_prefix(&[&stems.low[..], b"b"].concat()))
    }

    /// Client and number of a marker.
    pub(super) fn marker_of(key: &[u8]) -> Option<(u32, u64)> {
        let length = key.len();
        let count = number(key, length.checked_sub(8)?..length)?;
        let client = number(key, length.checked_sub(12)?..length - 8)?;
        Some((client as u32, count))
    }
}
