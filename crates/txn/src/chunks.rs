//! A long row of attempts whose copies cost next to nothing: entries lie in chunks, and a copy shares
//! them with its original until either changes. A shard remembers a hundred thousand attempts; copying
//! each of them for a checkpoint stopped it for 10 to 50 ms under load.

use crate::types::AttemptId;
use serde::de::Error;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries of a full chunk: what the first change after a copy copies at most.
const CHUNK: usize = 512;

/// An attempt, and what is remembered of it.
pub(crate) type Entry<V> = (AttemptId, V);

/// Entries in a row, taken from its front. Either in the order in which [`Chunks::push_back`] was
/// called, or in that of their attempts ([`Chunks::insert`]); never both.
#[derive(Clone, Debug)]
pub(crate) struct Chunks<V> {
    /// None is empty.
    chunks: VecDeque<Arc<Vec<Entry<V>>>>,
    /// So many entries of the first chunk are no longer there.
    gone: usize,
    len: usize,
}

impl<V> Default for Chunks<V> {
    fn default() -> Chunks<V> {
        Chunks {
            chunks: VecDeque::new(),
            gone: 0,
            len: 0,
        }
    }
}

impl<V: Clone> Chunks<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn front(&self) -> Option<&Entry<V>> {
        Some(&self.chunks.front()?[self.gone])
    }

    /// The entry that has `count` others before it.
    pub(crate) fn nth(&self, count: usize) -> Option<&Entry<V>> {
        let mut at = self.gone + count;
        for chunk in &self.chunks {
            match chunk.get(at) {
                None => at -= chunk.len(),
                entry => return entry,
            }
        }
        None
    }

    /// How many entries are of attempts below this one. Only where entries are in the order of their
    /// attempts.
    pub(crate) fn count_below(&self, attempt: AttemptId) -> usize {
        let Some((index, first)) = self.chunk_with(attempt) else {
            return 0;
        };
        let before: usize = self.chunks.range(..index).map(|c| c.len()).sum();
        let gone = if index == 0 { 0 } else { self.gone };
        let within = self.chunks[index][first..].partition_point(|(a, _)| *a < attempt);
        before - gone + within
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<V>> + '_ {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .skip(self.gone)
    }

    pub(crate) fn pop_front(&mut self) -> Option<Entry<V>> {
        let entry = self.front()?.clone();
        self.drop_front(1);
        Some(entry)
    }

    /// Forgets so many entries of the first chunk.
    fn drop_front(&mut self, count: usize) {
        self.gone += count;
        self.len -= count;
        if self.chunks.front().is_some_and(|c| c.len() == self.gone) {
            self.chunks.pop_front();
            self.gone = 0;
        }
    }

    /// Appends an entry. A chunk that a copy shares stays as it is.
    pub(crate) fn push_back(&mut self, entry: Entry<V>) {
        self.len += 1;
        match self.chunks.back_mut().and_then(Arc::get_mut) {
            Some(last) if last.len() < CHUNK => last.push(entry),
            _ => self.chunks.push_back(chunk_of(entry)),
        }
    }

    /// The chunk in which the attempt lies, if it lies anywhere, and the first position of it that is
    /// in use; none before the first entry.
    fn chunk_with(&self, attempt: AttemptId) -> Option<(usize, usize)> {
        if self.front()?.0 > attempt {
            return None;
        }
        // Attempts come about in the order of their ids: it is nearly always the last.
        let last = self.chunks.len() - 1;
        if last == 0 || self.chunks[last][0].0 <= attempt {
            return Some((last, self.first_of(last)));
        }
        // What is gone of the first chunk is in no order with the rest.
        let (mut low, mut high) = (0, last);
        while high - low > 1 {
            let middle = low.midpoint(high);
            let begins = self.chunks[middle][0].0 <= attempt;
            (low, high) = if begins {
                (middle, high)
            } else {
                (low, middle)
            };
        }
        Some((low, self.first_of(low)))
    }

    /// The first position of a chunk that is in use.
    fn first_of(&self, index: usize) -> usize {
        if index == 0 { self.gone } else { 0 }
    }

    /// Where this attempt's entry lies: the chunk and the position in it.
    fn find(&self, attempt: AttemptId) -> Option<(usize, usize)> {
        let (index, first) = self.chunk_with(attempt)?;
        let entries = &self.chunks[index][first..];
        let found = entries.binary_search_by_key(&attempt, |(a, _)| *a).ok()?;
        Some((index, first + found))
    }

    /// What is remembered of this attempt. Only where entries are in the order of their attempts.
    pub(crate) fn get(&self, attempt: AttemptId) -> Option<&V> {
        let (index, at) = self.find(attempt)?;
        Some(&self.chunks[index][at].1)
    }

    /// Takes this attempt's entry out. Only where entries are in the order of their attempts.
    pub(crate) fn remove(&mut self, attempt: AttemptId) -> Option<V> {
        let (index, at) = self.find(attempt)?;
        let entries = Arc::make_mut(&mut self.chunks[index]);
        let (_, value) = entries.remove(at);
        let empty = entries.len() == self.first_of(index);
        self.len -= 1;
        if empty {
            self.chunks.remove(index);
            if index == 0 {
                self.gone = 0;
            }
        }
        Some(value)
    }

    /// Puts an entry where its attempt belongs; one of the same attempt is replaced.
    pub(crate) fn insert(&mut self, (attempt, value): Entry<V>) {
        let Some((index, first)) = self.chunk_with(attempt) else {
            return self.insert_first((attempt, value));
        };
        let entries = &self.chunks[index];
        let is_last = index + 1 == self.chunks.len();
        match entries[first..].binary_search_by_key(&attempt, |(a, _)| *a) {
            Ok(at) => Arc::make_mut(&mut self.chunks[index])[first + at].1 = value,
            Err(at) if is_last && first + at == entries.len() => {
                self.push_back((attempt, value));
            }
            Err(at) => {
                self.len += 1;
                let entries = Arc::make_mut(&mut self.chunks[index]);
                entries.insert(first + at, (attempt, value));
                self.split(index);
            }
        }
    }

    fn insert_first(&mut self, entry: Entry<V>) {
        self.len += 1;
        match self.chunks.front_mut() {
            Some(front) => Arc::make_mut(front).insert(self.gone, entry),
            None => self.chunks.push_back(chunk_of(entry)),
        }
        self.split(0);
    }

    /// Halves a chunk that has become too long.
    fn split(&mut self, index: usize) {
        let half = CHUNK / 2;
        if self.chunks[index].len() <= CHUNK {
            return;
        }
        let entries = Arc::make_mut(&mut self.chunks[index]);
        let rest = entries.split_off(half);
        self.chunks.insert(index + 1, Arc::new(rest));
        // All of the first half may be gone.
        if index == 0 && self.gone >= half {
            self.chunks.pop_front();
            self.gone -= half;
        }
    }

    /// Drops entries of attempts below `floor`, and returns the highest. Only where entries are in the
    /// order of their attempts.
    pub(crate) fn drop_below(&mut self, floor: AttemptId) -> Option<AttemptId> {
        let mut highest = None;
        while let Some(chunk) = self.chunks.front() {
            let below = chunk[self.gone..].partition_point(|(a, _)| *a < floor);
            let Some(last) = below.checked_sub(1) else {
                break;
            };
            highest = Some(chunk[self.gone + last].0);
            self.drop_front(below);
        }
        highest
    }

    fn is_sorted(&self) -> bool {
        self.iter().is_sorted_by(|a, b| a.0 < b.0)
    }
}

fn chunk_of<V>(entry: Entry<V>) -> Arc<Vec<Entry<V>>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    chunk.push(entry);
    Arc::new(chunk)
}

impl<V: Clone> FromIterator<Entry<V>> for Chunks<V> {
    /// Entries in this order.
    fn from_iter<T: IntoIterator<Item = Entry<V>>>(entries: T) -> Chunks<V> {
        let mut chunks = Chunks::default();
        entries
            .into_iter()
            .for_each(|entry| chunks.push_back(entry));
        chunks
    }
}

impl<V: Clone + Serialize> Serialize for Chunks<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_seq(Some(self.len))?;
        self.iter()
            .try_for_each(|entry| row.serialize_element(entry))?;
        row.end()
    }
}

impl<'de, V: Clone + Deserialize<'de>> Deserialize<'de> for Chunks<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Chunks<V>, D::Error> {
        Ok(Vec::<Entry<V>>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

/// Reads entries that must be in the order of their attempts.
pub(crate) fn sorted<'de, D, V>(deserializer: D) -> Result<Chunks<V>, D::Error>
where
    D: Deserializer<'de>,
    V: Clone + Deserialize<'de>,
{
    let chunks = Chunks::deserialize(deserializer)?;
    if chunks.is_sorted() {
        Ok(chunks)
    } else {
        Err(D::Error::custom("attempts are out of order"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use synod_paxos::Timestamp;

    type Row = Chunks<Timestamp>;
    type Entry = super::Entry<Timestamp>;

    fn entry(id: u128) -> Entry {
        (AttemptId(id), Timestamp(id as u64 + 1))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16),
        Pop(u8),
        Remove(u8),
        DropBelow(u16),
        Copy,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            40 => any::<u16>().prop_map(Step::Insert),
            3 => any::<u8>().prop_map(Step::Pop),
            6 => any::<u8>().prop_map(Step::Remove),
            1 => (0..20_000u16).prop_map(Step::DropBelow),
            1 => Just(Step::Copy),
        ]
    }

    proptest! {
        #[test]
        fn a_sorted_row_is_as_a_map(steps in prop::collection::vec(step(), 1..6_000)) {
            let (mut row, mut map) = (Row::default(), BTreeMap::new());
            let mut copies: Vec<(Row, Vec<Entry>)> = Vec::new();
            for (time, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(id) => {
                        // Mostly rising, as attempts' times are.
                        let id = time as u128 * 10 + u128::from(id % 3_000);
                        row.insert(entry(id));
                        map.insert(entry(id).0, entry(id).1);
                    }
                    Step::Pop(many) => {
                        for _ in 0..many {
                            prop_assert_eq!(row.pop_front(), map.pop_first());
                        }
                    }
                    Step::Remove(near) => {
                        let from = AttemptId(time as u128 * 10);
                        let of_those = map.range(from..).map(|(a, _)| *a);
                        let one = of_those.take(usize::from(near) + 1).last();
                        let one = one.unwrap_or(AttemptId(u128::from(near)));
                        prop_assert_eq!(row.remove(one), map.remove(&one));
                    }
                    Step::DropBelow(floor) => {
                        let floor = AttemptId(u128::from(floor));
                        let keep = map.split_off(&floor);
                        let gone = std::mem::replace(&mut map, keep);
                        let highest = gone.last_key_value().map(|(a, _)| *a);
                        prop_assert_eq!(row.drop_below(floor), highest);
                    }
                    Step::Copy => copies.push((row.clone(), row.iter().copied().collect())),
                }
                prop_assert_eq!(row.len(), map.len());
                prop_assert_eq!(row.front().copied(), map.first_key_value().map(|(a, t)| (*a, *t)));
                let asked = AttemptId(time as u128 * 7);
                prop_assert_eq!(row.get(asked), map.get(&asked));
                prop_assert_eq!(row.count_below(asked), map.range(..asked).count());
                let third = map.iter().nth(time / 3).map(|(a, t)| (*a, *t));
                prop_assert_eq!(row.nth(time / 3).copied(), third);
            }
            prop_assert!(row.iter().copied().eq(map.iter().map(|(a, t)| (*a, *t))));
            for (copy, before) in copies {
                prop_assert!(copy.iter().eq(&before), "a copy stays as it was");
            }
        }
    }

    #[test]
    fn it_is_encoded_as_a_list_and_a_map_are() {
        let ids = (0..2_000u128).map(|id| entry(id * id));
        let mut row: Row = ids.clone().collect();
        row.pop_front();
        let list: VecDeque<Entry> = ids.clone().skip(1).collect();
        let map: BTreeMap<AttemptId, Timestamp> = ids.skip(1).collect();
        let encoded = postcard::to_allocvec(&row).unwrap();
        assert_eq!(encoded, postcard::to_allocvec(&list).unwrap());
        assert_eq!(encoded, postcard::to_allocvec(&map).unwrap());
        let read: Row = postcard::from_bytes(&encoded).unwrap();
        assert!(read.iter().eq(row.iter()));
    }

    #[test]
    fn a_row_that_is_not_sorted_is_refused_where_it_must_be() {
        #[derive(Debug, Deserialize)]
        struct Sorted(#[serde(deserialize_with = "sorted")] Row);
        let read = |ids: &[u128]| {
            let entries: Vec<Entry> = ids.iter().map(|id| entry(*id)).collect();
            postcard::from_bytes::<Sorted>(&postcard::to_allocvec(&entries).unwrap())
        };
        assert_eq!(read(&[1, 2, 5]).unwrap().0.len(), 3);
        read(&[1, 5, 2]).unwrap_err();
        read(&[1, 1]).unwrap_err();
    }

    #[test]
    fn what_follows_a_copy_copies_one_chunk_at_most() {
        let mut row: Row = (0..100_000u128).map(|id| entry(id * 2)).collect();
        let copy = row.clone();
        row.push_back(entry(1 << 40));
        row.pop_front();
        row.insert(entry(60_001));
        let shared = |chunk: &&Arc<Vec<Entry>>| Arc::strong_count(chunk) == 2;
        let of_copy = copy.chunks.iter().filter(shared).count();
        assert_eq!(of_copy + 1, copy.chunks.len());
    }
}
