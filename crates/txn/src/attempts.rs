//! What a shard remembers of transactions of several shards, by attempt. Nearly all of it is settled:
//! nothing but a question brings it up again. A shard holds tens of thousands of such attempts, and
//! kept as they are, with the keys that name the participants and the messages that those keys lie
//! in, they took more than a kilobyte each. Settled ones are kept as they are encoded, in rows that
//! copies share (`chunks`).

use crate::chunks::Chunks;
use crate::scratch::Scratch;
use crate::types::AttemptId;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// So many settled ones are still kept as they are, the newest: they are asked for most.
const FRESH: usize = 16;

/// Something that is settled at some time, and may be forgotten from then on.
pub trait Settle: Clone + Serialize + DeserializeOwned {
    /// What a split or merge asks of each: the first fields of the encoding, borrowed from it.
    type View<'a>: Deserialize<'a>
    where
        Self: 'a;

    /// Whether nothing about it is outstanding.
    fn is_settled(&self) -> bool;

    /// What its encoding would be seen as.
    fn view(&self) -> Self::View<'_>;
}

/// Where something goes when a shard is cut in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Stays,
    Goes,
    Both,
}

/// A map by attempt; encoded as a `BTreeMap` is.
#[derive(Clone)]
pub struct Attempts<T> {
    plain: BTreeMap<AttemptId, T>,
    /// Of `plain`: what was settled, in the order in which it was.
    fresh: VecDeque<AttemptId>,
    /// All others, each encoded.
    settled: Chunks<Box<[u8]>>,
    scratch: Scratch,
}

impl<T> Default for Attempts<T> {
    fn default() -> Attempts<T> {
        Attempts {
            plain: BTreeMap::new(),
            fresh: VecDeque::new(),
            settled: Chunks::default(),
            scratch: Scratch::default(),
        }
    }
}

impl<T: Settle> Attempts<T> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.plain.len() + self.settled.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many a copy does not share with its original.
    pub(crate) fn copied(&self) -> usize {
        self.plain.len()
    }

    /// Whether there is something of this attempt.
    #[must_use]
    pub fn contains_key(&self, attempt: &AttemptId) -> bool {
        self.plain.contains_key(attempt) || self.settled.get(*attempt).is_some()
    }

    /// What there is of this attempt.
    #[must_use]
    pub fn get(&self, attempt: &AttemptId) -> Option<Cow<'_, T>> {
        let plain = self.plain.get(attempt).map(Cow::Borrowed);
        plain.or_else(|| {
            let encoded = self.settled.get(*attempt)?;
            Some(Cow::Owned(decoded(encoded)))
        })
    }

    /// Those that are not settled, in the order of their attempts.
    pub fn unsettled(&self) -> impl Iterator<Item = (AttemptId, &T)> {
        let plain = self.plain.iter().filter(|(_, value)| !value.is_settled());
        plain.map(|(attempt, value)| (*attempt, value))
    }

    /// All, in the order of their attempts.
    pub fn iter(&self) -> impl Iterator<Item = (AttemptId, Cow<'_, T>)> {
        self.merged().map(|(attempt, held)| match held {
            Held::Plain(value) => (attempt, Cow::Borrowed(value)),
            Held::Encoded(encoded) => (attempt, Cow::Owned(decoded(encoded))),
        })
    }

    /// All attempts, in their order.
    pub fn keys(&self) -> impl Iterator<Item = AttemptId> {
        self.merged().map(|(attempt, _)| attempt)
    }

    fn merged(&self) -> impl Iterator<Item = (AttemptId, Held<'_, T>)> {
        let mut plain = self.plain.iter().peekable();
        let mut settled = self.settled.iter().peekable();
        std::iter::from_fn(move || {
            let first = match (plain.peek(), settled.peek()) {
                (Some((a, _)), Some((b, _))) => **a < *b,
                (first, _) => first.is_some(),
            };
            if first {
                plain.next().map(|(a, value)| (*a, Held::Plain(value)))
            } else {
                settled.next().map(|(a, bytes)| (*a, Held::Encoded(bytes)))
            }
        })
    }

    /// Puts something in for an attempt, in place of what there was.
    pub fn insert(&mut self, attempt: AttemptId, value: T) {
        self.settled.remove(attempt);
        let settled = value.is_settled();
        self.plain.insert(attempt, value);
        if settled {
            self.settle(attempt);
        }
    }

    /// Changes what there is of an attempt; none if there is nothing.
    pub fn update<R>(&mut self, attempt: AttemptId, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        if let Some(value) = self.plain.get_mut(&attempt) {
            let before = value.is_settled();
            let result = change(value);
            if !before && value.is_settled() {
                self.settle(attempt);
            }
            return Some(result);
        }
        let mut value = decoded(self.settled.get(attempt)?);
        let result = change(&mut value);
        self.insert(attempt, value);
        Some(result)
    }

    /// Takes out what there is of an attempt.
    pub fn remove(&mut self, attempt: &AttemptId) {
        self.plain.remove(attempt);
        self.settled.remove(*attempt);
    }

    /// All, as far as a view shows them.
    pub(crate) fn views(&self) -> impl Iterator<Item = (AttemptId, T::View<'_>)> {
        self.merged().map(|(attempt, held)| match held {
            Held::Plain(value) => (attempt, value.view()),
            Held::Encoded(encoded) => (attempt, viewed::<T>(encoded)),
        })
    }

    /// Cuts it in two; returns what goes. What is settled is moved as it is.
    pub(crate) fn part(
        &mut self,
        mut side: impl FnMut(AttemptId, T::View<'_>) -> Side,
    ) -> Attempts<T> {
        let (all, mut gone) = (std::mem::take(self), Attempts::default());
        for (attempt, encoded) in all.settled.iter() {
            let side = side(*attempt, viewed::<T>(encoded));
            if side != Side::Goes {
                self.settled.push_back((*attempt, encoded.clone()));
            }
            if side != Side::Stays {
                gone.settled.push_back((*attempt, encoded.clone()));
            }
        }
        for (attempt, value) in all.plain {
            let side = side(attempt, value.view());
            if side != Side::Goes {
                self.insert(attempt, value.clone());
            }
            if side != Side::Stays {
                gone.insert(attempt, value);
            }
        }
        gone
    }

    /// Drops settled ones of attempts below `floor`, and others that may be dropped nevertheless.
    pub(crate) fn forget(&mut self, floor: AttemptId, may: impl Fn(&T) -> bool) {
        let keep = self.plain.split_off(&floor);
        self.plain
            .retain(|_, value| !value.is_settled() && !may(value));
        self.plain.extend(keep);
        self.settled.drop_below(floor);
    }

    /// Whether [`Attempts::forget`] would drop anything.
    pub(crate) fn has_below(&self, floor: AttemptId) -> bool {
        self.settled
            .front()
            .is_some_and(|(first, _)| *first < floor)
            || self.plain.range(..floor).any(|(_, v)| v.is_settled())
    }

    /// The lowest attempt that may stay where so many settled ones below `now` may; none if there are no
    /// more than that. Those that were settled last do not count.
    pub(crate) fn lowest_of(&self, most: usize, now: AttemptId) -> Option<AttemptId> {
        let excess = self.settled.count_below(now).checked_sub(most)?;
        let lowest = self.settled.nth(excess).filter(|_| excess > 0);
        lowest.map(|(attempt, _)| *attempt)
    }

    /// The settled attempt that has so many others above it or is one of them; none if there are fewer.
    /// Those that were settled last do not count.
    pub(crate) fn below_newest(&self, count: usize) -> Option<AttemptId> {
        let at = self.settled.len().checked_sub(count)?;
        self.settled.nth(at).map(|(attempt, _)| *attempt)
    }

    fn settle(&mut self, attempt: AttemptId) {
        self.fresh.push_back(attempt);
        if self.fresh.len() <= FRESH {
            return;
        }
        let oldest = self.fresh.pop_front();
        // It may be gone, or have come again and wait once more.
        let settled = oldest.and_then(|a| Some((a, self.plain.get(&a)?)));
        if let Some((attempt, value)) = settled.filter(|(_, value)| value.is_settled())
            && let Ok(encoded) = self.scratch.encode(value)
        {
            self.plain.remove(&attempt);
            self.settled.insert((attempt, encoded));
        }
    }
}

/// One of [`Attempts`].
enum Held<'a, T> {
    Plain(&'a T),
    Encoded(&'a [u8]),
}

fn decoded<T: Settle>(encoded: &[u8]) -> T {
    postcard::from_bytes(encoded).expect("only what `settle` encoded lies in a row")
}

fn viewed<'a, T: Settle>(encoded: &'a [u8]) -> T::View<'a> {
    let (view, _) = postcard::take_from_bytes(encoded)
        .expect("a view is of the first fields of what lies in a row");
    view
}

/// Bytes that are what the encoding of something is.
struct Encoded<'a>(&'a [u8]);

impl Serialize for Encoded<'_> {
    /// As a tuple: postcard encodes one of bytes as those bytes, and nothing besides.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = serializer.serialize_tuple(self.0.len())?;
        self.0
            .iter()
            .try_for_each(|byte| bytes.serialize_element(byte))?;
        bytes.end()
    }
}

impl<T: Settle> Serialize for Attempts<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (attempt, held) in self.merged() {
            match held {
                Held::Plain(value) => map.serialize_entry(&attempt, value)?,
                Held::Encoded(encoded) => map.serialize_entry(&attempt, &Encoded(encoded))?,
            }
        }
        map.end()
    }
}

impl<'de, T: Settle> Deserialize<'de> for Attempts<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Attempts<T>, D::Error> {
        let all = BTreeMap::<AttemptId, T>::deserialize(deserializer)?;
        Ok(all.into_iter().collect())
    }
}

impl<T: Settle> FromIterator<(AttemptId, T)> for Attempts<T> {
    fn from_iter<I: IntoIterator<Item = (AttemptId, T)>>(entries: I) -> Attempts<T> {
        let mut attempts = Attempts::default();
        for (attempt, value) in entries {
            attempts.insert(attempt, value);
        }
        attempts
    }
}

impl<T: Settle + fmt::Debug> fmt::Debug for Attempts<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Record, Resolution};
    use crate::types::{Key, Outcome, Participant};
    use proptest::prelude::*;
    use synod_paxos::{GroupId, Term, Timestamp};

    fn record(anchors: u8) -> Record {
        let anchor = |n: u8| Key::from(vec![b'k', n]);
        let participant = |n| Participant {
            shard: GroupId(u64::from(n) + 1),
            anchor: anchor(n),
            term: Term::default(),
        };
        Record {
            participants: (0..=anchors).map(participant).collect(),
            anchor: anchor(0),
            outcome: None,
            acked: Default::default(),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, u8),
        Outcome(u16),
        Acked(u16, u8),
        Remove(u16),
        Forget(u16),
        Copy,
    }

    fn step() -> impl Strategy<Value = Step> {
        let near = 0..200u16;
        prop_oneof![
            20 => (near.clone(), 0..3u8).prop_map(|(near, anchors)| Step::Insert(near, anchors)),
            20 => near.clone().prop_map(Step::Outcome),
            30 => (near.clone(), 0..4u8).prop_map(|(near, anchor)| Step::Acked(near, anchor)),
            1 => near.clone().prop_map(Step::Remove),
            1 => near.prop_map(Step::Forget),
            1 => Just(Step::Copy),
        ]
    }

    fn outcome(record: &mut Record) {
        record
            .outcome
            .get_or_insert(Outcome::Committed(Timestamp(7)));
    }

    /// The same as a map that knows nothing of rows.
    fn compare(row: &Attempts<Record>, map: &BTreeMap<AttemptId, Record>) {
        let encoded = postcard::to_allocvec(row).unwrap();
        assert_eq!(encoded, postcard::to_allocvec(map).unwrap());
        let read: Attempts<Record> = postcard::from_bytes(&encoded).unwrap();
        assert_eq!(encoded, postcard::to_allocvec(&read).unwrap());
        assert!(row.iter().map(|(a, r)| (a, r.into_owned())).eq(map.clone()));
        assert!(row.keys().eq(map.keys().copied()));
        let open = map.iter().filter(|(_, r)| !r.is_settled());
        assert!(row.unsettled().eq(open.map(|(a, r)| (*a, r))));
    }

    proptest! {
        #[test]
        fn it_is_as_a_map(steps in prop::collection::vec(step(), 1..2_500)) {
            let (mut row, mut map) = (Attempts::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (time, step) in steps.into_iter().enumerate() {
                // Mostly rising, as attempts' times are.
                let at = |near: u16| AttemptId(time as u128 / 8 + u128::from(near));
                match step {
                    Step::Insert(near, anchors) => {
                        row.insert(at(near), record(anchors));
                        map.insert(at(near), record(anchors));
                    }
                    Step::Outcome(near) => {
                        let known = row.update(at(near), outcome);
                        prop_assert_eq!(known, map.get_mut(&at(near)).map(outcome));
                    }
                    Step::Acked(near, anchor) => {
                        let acked = |record: &mut Record| {
                            record.acked.insert(Key::from(vec![b'k', anchor]))
                        };
                        let known = row.update(at(near), acked);
                        prop_assert_eq!(known, map.get_mut(&at(near)).map(acked));
                    }
                    Step::Remove(near) => {
                        row.remove(&at(near));
                        map.remove(&at(near));
                    }
                    Step::Forget(near) => {
                        let floor = at(near % 50);
                        let gone = |a: &AttemptId, r: &Record| *a < floor && r.is_settled();
                        prop_assert_eq!(row.has_below(floor), map.iter().any(|(a, r)| gone(a, r)));
                        row.forget(floor, |_| false);
                        map.retain(|a, r| !gone(a, r));
                    }
                    Step::Copy => copies.push((row.clone(), map.clone())),
                }
                let asked = at(time as u16 % 200);
                prop_assert_eq!(row.get(&asked).map(Cow::into_owned), map.get(&asked).cloned());
                prop_assert_eq!(row.contains_key(&asked), map.contains_key(&asked));
                prop_assert_eq!(row.len(), map.len());
            }
            copies.push((row, map));
            for (copy, before) in &copies {
                compare(copy, before);
            }
            let (mut row, mut map) = copies.swap_remove(0);
            let views = row.views().map(|(a, r)| (a, r.anchor.to_vec(), r.participants.len()));
            let of_map = |(a, r): (&AttemptId, &Record)| {
                (*a, r.anchor.to_vec(), r.participants.len())
            };
            prop_assert!(views.eq(map.iter().map(of_map)));
            let side = |a: AttemptId, participants: usize| match a.0 % 3 {
                0 => Side::Both,
                1 if participants > 1 => Side::Goes,
                _ => Side::Stays,
            };
            let gone = row.part(|a, record| side(a, record.participants.len()));
            let side = |a: &AttemptId, r: &Record| side(*a, r.participants.len());
            let mut of_map = map.clone();
            of_map.retain(|a, record| side(a, record) != Side::Stays);
            compare(&gone, &of_map);
            map.retain(|a, record| side(a, record) != Side::Goes);
            compare(&row, &map);
        }
    }

    #[test]
    fn what_is_settled_is_shared_by_copies_and_counted() {
        let resolution = |id: u128| Resolution {
            outcome: Outcome::Committed(Timestamp(1)),
            recorded: !id.is_multiple_of(10),
            coordinator: GroupId(1),
            anchor: None,
        };
        let all: Attempts<Resolution> = (0..10_000)
            .map(|id| (AttemptId(id), resolution(id)))
            .collect();
        assert_eq!(all.copied(), 1_000 + FRESH);
        let end = AttemptId(10_000);
        assert_eq!(all.lowest_of(9_000 - FRESH, end), None);
        assert_eq!(all.lowest_of(9_000 - FRESH - 9, end), Some(AttemptId(11)));
        assert_eq!(all.below_newest(9_000), None);
        assert_eq!(all.below_newest(9_000 - FRESH), Some(AttemptId(1)));
        // What lies ahead is not too much.
        assert_eq!(all.lowest_of(8_000, AttemptId(5_000)), None);
        assert_eq!(all.lowest_of(4_491, AttemptId(5_000)), Some(AttemptId(11)));
    }
}
