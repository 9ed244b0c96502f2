//! The collection of garbage: versions that no read can ask for any more (R5).
//!
//! A checkpoint says up to where each group's horizon has come. If that is
//! further than at its last collection by a part of what is kept, the group's
//! keys are gone through once more, a few with every batch that is applied: in
//! proportion to what is written, and never for long.

use crate::engine::{Cursor, Engine, EngineError};
use std::collections::{BTreeMap, VecDeque};
use synod_paxos::{GroupId, Timestamp};
use synod_txn::Span;

/// A group is gone through again once its horizon has moved by this part of the
/// time that is kept.
const PART_OF_KEPT: u64 = 8;
/// Items looked at per version applied.
const ITEMS_PER_VERSION: usize = 4;
/// Items looked at with one batch, at least and at most.
const ITEMS: (usize, usize) = (64, 4096);

/// What may be collected of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// The group.
    pub group: GroupId,
    /// Its keys.
    pub span: Span,
    /// Versions shadowed at or below this are garbage.
    pub horizon: Timestamp,
    /// The highest timestamp the group has used.
    pub last: Timestamp,
}

/// Collections due and under way.
#[derive(Debug, Default)]
pub(super) struct Collector {
    due: VecDeque<Garbage>,
    /// Where the first of them goes on.
    cursor: Option<Cursor>,
    /// Versions of it that were removed so far.
    removed: u64,
    /// The horizon each group was last gone through at.
    done: BTreeMap<GroupId, Timestamp>,
}

impl Collector {
    /// Notes what may be collected. Groups that wait already keep their turn.
    pub(super) fn note(&mut self, garbage: Vec<Garbage>) {
        for found in garbage {
            let kept = found.last.0.saturating_sub(found.horizon.0);
            let before = self.done.get(&found.group).map_or(0, |horizon| horizon.0);
            let moved = found.horizon.0.saturating_sub(before);
            let waits = self.due.iter().any(|due| due.group == found.group);
            if moved > kept / PART_OF_KEPT && !waits {
                self.due.push_back(found);
            }
        }
    }

    /// Goes on a little, after so many versions were applied. A group that is through, if
    /// something of it was removed.
    pub(super) fn step(
        &mut self,
        engine: &dyn Engine,
        versions: usize,
    ) -> Result<Option<GroupId>, EngineError> {
        let Some(garbage) = self.due.front() else {
            return Ok(None);
        };
        let items = (versions * ITEMS_PER_VERSION).clamp(ITEMS.0, ITEMS.1);
        let after = self.cursor.take();
        let (removed, next) =
            engine.collect(&garbage.span, garbage.horizon, after.as_ref(), items)?;
        tracing::trace!(shard = garbage.group.0, removed, "collected garbage");
        self.removed += removed;
        self.cursor = next;
        if self.cursor.is_some() {
            return Ok(None);
        }
        let group = garbage.group;
        self.done.insert(group, garbage.horizon);
        self.due.pop_front();
        let removed = std::mem::take(&mut self.removed);
        Ok((removed > 0).then_some(group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EngineBatch, MemoryEngine};
    use synod_txn::{AttemptId, Key, Value};

    fn key(n: u32) -> Key {
        Key::copy_from_slice(&n.to_be_bytes())
    }

    fn all() -> Span {
        Span {
            start: Key::new(),
            end: Key::new(),
        }
    }

    fn garbage(horizon: u64) -> Vec<Garbage> {
        vec![Garbage {
            group: GroupId(2),
            span: all(),
            horizon: Timestamp(horizon),
            last: Timestamp(100),
        }]
    }

    fn versions(engine: &MemoryEngine) -> usize {
        let snapshot = Engine::snapshot(engine).unwrap();
        let (found, rest) = snapshot.export(&all(), None, usize::MAX).unwrap();
        assert!(rest.is_none());
        found.len()
    }

    #[test]
    fn what_no_read_can_see_goes_a_few_items_at_a_time() {
        let engine = MemoryEngine::new();
        for at in 1..=4u64 {
            let value = Value::from_static(b"v");
            let version = |n| {
                (
                    key(n),
                    Timestamp(at * 10),
                    AttemptId(1),
                    Some(value.clone()),
                )
            };
            engine
                .apply(EngineBatch {
                    versions: (0..300).map(version).collect(),
                    ..EngineBatch::default()
                })
                .unwrap();
        }
        let mut collector = Collector::default();
        collector.step(&engine, 1000).unwrap();
        assert_eq!(versions(&engine), 1200, "nothing was noted");
        collector.note(garbage(30));
        let mut steps = 0;
        let mut through = None;
        while !collector.due.is_empty() {
            assert_eq!(through, None);
            through = collector.step(&engine, 1).unwrap();
            steps += 1;
        }
        assert_eq!(through, Some(GroupId(2)));
        // Of each key the versions at 30 and 40 are left.
        assert_eq!(versions(&engine), 600);
        assert!(steps > 1200 / ITEMS.0, "{steps} steps");
        let newest = engine.get(&key(7), Timestamp(30)).unwrap().unwrap();
        assert_eq!(newest.timestamp, Timestamp(30));

        collector.note(garbage(31));
        assert!(collector.due.is_empty(), "not worth it yet");
        collector.note(garbage(40));
        collector.note(garbage(41));
        assert_eq!(collector.due.len(), 1, "once is enough");
        let through = collector.step(&engine, 1000).unwrap();
        assert_eq!(through, Some(GroupId(2)));
        collector.note(garbage(50));
        let through = collector.step(&engine, 1000).unwrap();
        assert_eq!(through, None, "there was nothing to remove");
    }
}
