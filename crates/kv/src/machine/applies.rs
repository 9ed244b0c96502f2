//! Applies that gather until they are worth waking the engine's lane: its work
//! is behind the answers, and two wake-ups per commit cost more than it
//! (`docs/decisions/0006`).

use crate::lane::EngineWork;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_paxos::{GroupId, Mono, Slot};
use synod_txn::WriteBatch;

/// Applies gather this long at most.
const GATHER: Duration = Duration::from_millis(10);
/// So many applied entries go at once.
const ENOUGH_WRITES: usize = 512;

/// What gathers.
#[derive(Default)]
pub(super) struct Applies {
    writes: Vec<(GroupId, WriteBatch)>,
    marks: BTreeMap<GroupId, Slot>,
    since: Option<Mono>,
}

impl Applies {
    pub(super) fn add(
        &mut self,
        now: Mono,
        writes: Vec<(GroupId, WriteBatch)>,
        marks: BTreeMap<GroupId, Slot>,
    ) {
        if writes.is_empty() && marks.is_empty() {
            return;
        }
        self.since.get_or_insert(now);
        self.writes.extend(writes);
        self.marks.extend(marks);
    }

    /// Whether there is anything; tells without a look at the clock.
    pub(super) fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// How long until they should go; none if there is nothing.
    pub(super) fn due_in(&self, now: Mono) -> Option<Duration> {
        let since = self.since?;
        if self.writes.len() >= ENOUGH_WRITES {
            return Some(Duration::ZERO);
        }
        Some(GATHER.saturating_sub(Duration::from_nanos(now.since(since))))
    }

    pub(super) fn is_due(&self, now: Mono) -> bool {
        self.due_in(now).is_some_and(|wait| wait.is_zero())
    }

    pub(super) fn take(&mut self) -> Option<EngineWork> {
        self.since.take()?;
        Some(EngineWork::Apply {
            writes: std::mem::take(&mut self.writes),
            marks: std::mem::take(&mut self.marks),
        })
    }
}
