//! What was written and is in no table yet, in memory.
//!
//! Batches become [`Run`]s, and runs of about the same size one larger run, so that there are few
//! to look into and each change is copied a few times only. Once they are large enough all
//! of them are *frozen*: written to a table, and then forgotten. What a crash takes of this, our own log
//! replays.

use super::run::{Change, Run};
use std::sync::{Arc, PoisonError, RwLock};

/// So many runs of a size become one.
const FAN: usize = 4;
/// Runs up to this size are all of the smallest one.
const SMALLEST_BYTES: usize = 32 << 10;
/// Larger runs than this one are not made.
const LARGEST_BYTES: usize = 16 << 20;

/// The runs of one moment.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The oldest first.
    frozen: Arc<Vec<Arc<Run>>>,
    /// Newer than those; the oldest first.
    active: Vec<Arc<Run>>,
}

impl Held {
    /// All runs, the newest first.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.active.iter().rev().chain(self.frozen.iter().rev())
    }

    /// Bytes of memory that all runs take.
    pub(super) fn bytes(&self) -> usize {
        self.runs().map(|run| run.bytes()).sum()
    }

    /// Bytes of memory that the runs take which are not frozen.
    pub(super) fn active_bytes(&self) -> usize {
        self.active.iter().map(|run| run.bytes()).sum()
    }
}

/// See the module. One thread at a time writes and freezes; another may thaw
/// meanwhile, and any read.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    held: RwLock<Arc<Held>>,
}

impl Buffer {
    /// What is held now.
    pub(super) fn held(&self) -> Arc<Held> {
        self.held_with(|| ()).0
    }

    /// What is held now, and what `look` sees while nothing is added.
    pub(super) fn held_with<T>(&self, look: impl FnOnce() -> T) -> (Arc<Held>, T) {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&held), look())
    }

    fn replace(&self, next: impl FnOnce(&Held) -> Held) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let next = Arc::new(next(&held));
        let before = std::mem::replace(&mut *held, next);
        drop(held);
        // It may be the last that has megabytes of memory: nobody waits for them to go.
        drop(before);
    }

    /// Adds a batch, atomically.
    pub(super) fn add(&self, changes: Vec<Change>) {
        let mut active = self.held().active.clone();
        active.push(Arc::new(Run::new(changes)));
        while let Some(part) = active
            .len()
            .checked_sub(FAN)
            .filter(|part| is_due(&active[*part..]))
        {
            let run = Run::merge(&active[part..]);
            active.truncate(part);
            active.push(Arc::new(run));
        }
        self.replace(|held| Held {
            frozen: Arc::clone(&held.frozen),
            active,
        });
    }

    /// Freezes all runs, which it returns, the oldest first.
    pub(super) fn freeze(&self) -> Arc<Vec<Arc<Run>>> {
        self.replace(|held| {
            debug_assert!(held.frozen.is_empty(), "one part is frozen at a time");
            let runs = held.frozen.iter().chain(&held.active);
            Held {
                frozen: Arc::new(runs.cloned().collect()),
                active: Vec::new(),
            }
        });
        Arc::clone(&self.held().frozen)
    }

    /// What is frozen can be read elsewhere now.
    pub(super) fn forget_frozen(&self) {
        self.replace(|held| Held {
            frozen: Arc::default(),
            active: held.active.clone(),
        });
    }
}

/// Whether these should become one: none is of a larger size than the newest.
fn is_due(runs: &[Arc<Run>]) -> bool {
    let size = |run: &Arc<Run>| (run.compact_bytes() / SMALLEST_BYTES).max(1).ilog(FAN);
    let newest = runs.last().map_or(0, size);
    let bytes: usize = runs.iter().map(|run| run.compact_bytes()).sum();
    bytes <= LARGEST_BYTES && runs.iter().all(|run| size(run) <= newest)
}

#[cfg(test)]
mod tests {
    use super::super::run::Cursors;
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Keys that meet; values beside their keys, apart, and none.
    fn change() -> impl Strategy<Value = Change> {
        let value = prop_oneof![
            1 => Just(None),
            4 => (0..40usize, any::<u8>()).prop_map(Some),
            1 => (1_000..3_000usize, any::<u8>()).prop_map(Some),
        ];
        (0..60u8, value).prop_map(|(key, value)| {
            let value = value.map(|(bytes, fill)| Bytes::from(vec![fill; bytes]));
            (
                Bytes::from(
                    vec![b'k'; usize::from(key % 7)]
                        .into_iter()
                        .chain([key])
                        .collect::<Vec<_>>(),
                ),
                value,
            )
        })
    }

    fn all(held: &Held, start: &[u8], end: &[u8], from_back: &[bool]) -> Vec<Change> {
        let mut cursors = Cursors::between(held.runs(), start, end);
        let (mut front, mut back) = (Vec::new(), Vec::new());
        for turn in 0.. {
            let is_back = from_back[turn % from_back.len()];
            let at = if is_back {
                cursors.next_back()
            } else {
                cursors.next()
            };
            let Some((run, entry)) = at else {
                break;
            };
            let change = cursors.run(run).change(entry);
            if is_back {
                back.push(change)
            } else {
                front.push(change)
            }
        }
        front.extend(back.into_iter().rev());
        front
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_was_written_last(
            batches in prop::collection::vec(prop::collection::vec(change(), 1..30), 1..40),
            freeze in prop::collection::vec(any::<bool>(), 40),
            (start, end) in (change(), change()),
            from_back in prop::collection::vec(any::<bool>(), 1..5),
        ) {
            let buffer = Buffer::default();
            let mut model = BTreeMap::new();
            let mut is_frozen = false;
            for (batch, freeze) in batches.into_iter().zip(freeze) {
                model.extend(batch.iter().cloned());
                buffer.add(batch);
                if freeze && !is_frozen {
                    buffer.freeze();
                    is_frozen = true;
                }
            }
            let held = buffer.held();
            prop_assert!(held.active.len() + held.frozen.len() < 40 / FAN + 2 * FAN);
            for key in model.keys().chain([&start.0]) {
                let known = held.runs().find_map(|run| run.get(key));
                prop_assert_eq!(known.as_ref(), model.get(key));
            }
            let (start, end) = (start.0.clone().min(end.0.clone()), start.0.max(end.0));
            let part: Vec<Change> =
                model.range(start.clone()..end.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(all(&held, &start, &end, &from_back), part);
        }
    }

    #[test]
    fn runs_stay_few_and_none_is_copied_often() {
        let buffer = Buffer::default();
        for batch in 0..1_600u32 {
            let changes = (0..512u32).map(|item| {
                let key = (item.wrapping_mul(0x9e37_79b9) ^ batch).to_be_bytes();
                (
                    Bytes::copy_from_slice(&key),
                    Some(Bytes::from_static(&[7; 24])),
                )
            });
            buffer.add(changes.collect());
            assert!(buffer.held().active.len() <= 16, "batch {batch}");
        }
        let largest = buffer
            .held()
            .active
            .iter()
            .map(|run| run.compact_bytes())
            .max();
        assert!(largest <= Some(LARGEST_BYTES), "{largest:?}");
        assert!(largest >= Some(LARGEST_BYTES / FAN), "{largest:?}");
    }
}
