//! Copies of shards that this node takes in: only as long as there is room for them on its
//! disk, and slowly while others need it (decision 20).
//!
//! A copy is staged in a file and written to the engine once it is whole, so it takes its size
//! twice. Nobody tells the size beforehand: each chunk is let in if it, and all that was
//! staged before, still finds room twice. A copy that does not is refused for a while: its chunks
//! are dropped as if the network had lost them, its sender gives it up, and the keeper, which
//! is told, chooses another node. What was staged is deleted with the replica, and goes on if
//! room is found before that.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use synod_paxos::{GroupId, Message, NodeId, SnapshotId};
use synod_rpc::copies::RefusedCopy;
use synod_shard::NodeMessage;

/// A copy that found no room is refused for so long.
const REFUSED: Duration = Duration::from_secs(120);
/// Under pressure each chunk is kept waiting so long: less than its sender waits for an answer.
const HOLD: Duration = Duration::from_millis(50);
/// Chunks that wait, at most; more are dropped.
const HELD: usize = 32;

/// A copy that is being taken in.
#[derive(Debug)]
struct Staged {
    id: SnapshotId,
    bytes: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// What may be written still, as of the last look at the disk; none without a limit.
    free: Option<u64>,
    /// What was let in since then.
    since: u64,
    staged: BTreeMap<GroupId, Staged>,
    refused: BTreeMap<GroupId, (Instant, String)>,
    held: VecDeque<(Instant, NodeId, NodeMessage)>,
    taken: u64,
}

impl Intake {
    /// So many bytes may be written before the disk counts as full; never told without a limit.
    /// `receiving` tells whose copies are still under way.
    pub(super) fn look(&mut self, now: Instant, free: u64, receiving: impl Fn(GroupId) -> bool) {
        (self.free, self.since) = (Some(free), 0);
        self.staged.retain(|group, _| receiving(*group));
        self.refused.retain(|_, (until, _)| now < *until);
    }

    /// Bytes of copies taken in since the start.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes of further copies that there is room for; none without a limit.
    pub(super) fn room(&self) -> Option<u64> {
        let staged: u64 = self.staged.values().map(|staged| staged.bytes).sum();
        let free = self.free?.saturating_sub(self.since.saturating_add(staged));
        Some(free / 2)
    }

    /// The copies that are refused now.
    pub(super) fn refused(&self, now: Instant) -> Vec<RefusedCopy> {
        let refused = self.refused.iter().filter(|(_, (until, _))| now < *until);
        let told = refused.map(|(shard, (_, reason))| RefusedCopy {
            shard: *shard,
            reason: reason.clone(),
        });
        told.collect()
    }

    /// Whether this chunk, of so many bytes, is let in.
    fn admits(&mut self, now: Instant, group: GroupId, id: SnapshotId, bytes: u64) -> bool {
        if let Some((until, _)) = self.refused.get(&group) {
            if now < *until {
                return false;
            }
            self.refused.remove(&group);
        }
        if self.room().is_some_and(|room| bytes > room) {
            let had = self.staged.get(&group).map_or(0, |staged| staged.bytes);
            let reason = format!(
                "no room for a copy of shard {}: {} MiB of it came, more would leave less on the \
                 disk than node.disk_reserve_bytes",
                group.0,
                had >> 20
            );
            tracing::warn!("{reason}");
            self.refused.insert(group, (now + REFUSED, reason));
            return false;
        }
        let staged = self.staged.entry(group).or_insert(Staged { id, bytes: 0 });
        if staged.id != id {
            *staged = Staged { id, bytes: 0 };
        }
        staged.bytes += bytes;
        self.since += bytes;
        self.taken += bytes;
        true
    }

    /// Looks at a message from another node; gives it back if it is to be heard now.
    pub(super) fn take(
        &mut self,
        now: Instant,
        from: NodeId,
        message: NodeMessage,
        pressed: bool,
    ) -> Option<NodeMessage> {
        let NodeMessage::Group {
            group,
            message: Message::SnapshotChunk { id, data, .. },
        } = &message
        else {
            return Some(message);
        };
        if !self.admits(now, *group, *id, data.len() as u64) {
            return None;
        }
        if !pressed {
            return Some(message);
        }
        if self.held.len() < HELD {
            self.held.push_back((now + HOLD, from, message));
        }
        None
    }

    /// The next chunk that has waited long enough.
    pub(super) fn next(&mut self, now: Instant) -> Option<(NodeId, NodeMessage)> {
        self.held.front().filter(|(due, ..)| *due <= now)?;
        let (_, from, message) = self.held.pop_front()?;
        Some((from, message))
    }

    /// When the next one has.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        let (due, ..) = self.held.front()?;
        Some(due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use synod_paxos::{Ballot, Slot};

    fn id(slot: u64) -> SnapshotId {
        SnapshotId {
            slot: Slot(slot),
            nonce: 1,
        }
    }

    fn chunk(group: u64, bytes: usize) -> NodeMessage {
        NodeMessage::Group {
            group: GroupId(group),
            message: Message::SnapshotChunk {
                ballot: Ballot::default(),
                id: id(9),
                chunk: 0,
                checksum: 0,
                data: Bytes::from(vec![0; bytes]),
                done: false,
                began: None,
            },
        }
    }

    #[test]
    fn a_copy_is_refused_once_it_would_not_fit_twice_and_again_after_a_while() {
        let now = Instant::now();
        let mut intake = Intake::default();
        let take = |intake: &mut Intake, group, now| {
            let taken = intake.take(now, NodeId(1), chunk(group, 100), false);
            taken.is_some()
        };
        assert!(take(&mut intake, 7, now), "without a limit");
        intake.look(now, 1_000, |_| true);
        assert_eq!(intake.room(), Some(450));
        // 500 would be staged then, and 500 installed.
        let let_in = (0..10).filter(|_| take(&mut intake, 7, now)).count();
        assert_eq!(let_in, 4);
        assert_eq!(intake.refused(now)[0].shard, GroupId(7));
        assert!(intake.refused(now)[0].reason.contains("shard 7"));
        assert!(!take(&mut intake, 7, now + REFUSED / 2));
        // What is not taken in any more needs no room.
        intake.look(now, 1_000, |_| false);
        assert!(take(&mut intake, 8, now));
        assert!(!take(&mut intake, 7, now), "it stays refused");
        assert!(take(&mut intake, 7, now + REFUSED));
        assert!(intake.refused(now + REFUSED).is_empty());
    }

    #[test]
    fn under_pressure_chunks_wait_and_nothing_else_does() {
        let now = Instant::now();
        let mut intake = Intake::default();
        let other = NodeMessage::MapDigest(3);
        assert!(intake.take(now, NodeId(1), other, true).is_some());
        for _ in 0..HELD + 5 {
            assert!(intake.take(now, NodeId(1), chunk(7, 1), true).is_none());
        }
        assert_eq!(intake.due_in(now), Some(HOLD));
        assert!(intake.next(now).is_none());
        let later = now + HOLD;
        let heard = std::iter::from_fn(|| intake.next(later)).count();
        assert_eq!((heard, intake.due_in(later)), (HELD, None));
    }
}
