//! How fast this node sends copies of shards (decision 20).
//!
//! A bucket of bytes (Turner, "New directions in communications", 1986) that fills at the rate
//! of the cluster's setting, at an eighth of it while the node feels that its disk or its
//! requests need the time. Only reads of further chunks wait here: what opens a snapshot holds
//! its state, and goes on at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};
use synod_placement::CopyRate;
use synod_shard::SnapshotTask;

/// Bytes of one chunk, about: what a read is taken to cost until it is known.
const CHUNK: u64 = 512 << 10;
/// While it yields, this part of the rate is left,
const YIELDS: u64 = 8;
/// and no less than this: a chunk of every copy under way has its turn in time for its receiver
/// not to be given up.
const LEAST: u64 = 2 << 20;
/// For so long it yields after the last sign that it should.
const PRESSED: Duration = Duration::from_millis(250);
/// What may be sent at once after a rest takes so long at the rate.
const BURST: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct Pacer {
    /// Bytes in a second.
    rate: u64,
    /// Bytes that may be sent now; below zero, what was sent too much.
    left: i64,
    filled: Instant,
    yields_until: Instant,
    /// Reads that wait; one for each copy under way.
    waiting: VecDeque<SnapshotTask>,
    sent: u64,
}

impl Pacer {
    pub(super) fn new(now: Instant) -> Pacer {
        Pacer {
            rate: CopyRate::default().0,
            left: 0,
            filled: now,
            yields_until: now,
            waiting: VecDeque::new(),
            sent: 0,
        }
    }

    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// The setting has changed, if it is one.
    pub(super) fn set_rate(&mut self, rate: u64) {
        if rate != self.rate && CopyRate::check(rate).is_ok() {
            tracing::info!(
                rate,
                "copies of shards are sent at most so many bytes in a second"
            );
            self.rate = rate;
        }
    }

    /// Bytes sent since the start.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Something else needs the disk, or the processor.
    pub(super) fn press(&mut self, now: Instant) {
        self.yields_until = now + PRESSED;
    }

    pub(super) fn yields(&self, now: Instant) -> bool {
        now < self.yields_until
    }

    fn allowed(&self, now: Instant) -> u64 {
        match self.yields(now) {
            true => (self.rate / YIELDS).max(LEAST),
            false => self.rate,
        }
    }

    /// Takes a task; gives back what is to be done at once.
    pub(super) fn take(&mut self, task: SnapshotTask) -> Option<SnapshotTask> {
        match &task {
            SnapshotTask::Read { group, to, .. } => {
                // Another read for the same receiver was asked for twice, or is of no use any more.
                self.forget(*group, *to);
                self.waiting.push_back(task);
                return None;
            }
            SnapshotTask::Open { group, to, .. } => {
                self.forget(*group, *to);
                self.left -= CHUNK as i64;
            }
            SnapshotTask::Close { group, to } => self.forget(*group, *to),
            _ => {}
        }
        Some(task)
    }

    fn forget(&mut self, of: synod_paxos::GroupId, receiver: synod_paxos::NodeId) {
        self.waiting.retain(|task| {
            !matches!(task, SnapshotTask::Read { group, to, .. } if *group == of && *to == receiver)
        });
    }

    /// The next read whose time has come.
    pub(super) fn next(&mut self, now: Instant) -> Option<SnapshotTask> {
        self.fill(now);
        if self.left < 0 {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.left -= CHUNK as i64;
        Some(next)
    }

    fn fill(&mut self, now: Instant) {
        let allowed = self.allowed(now);
        let nanos = now.saturating_duration_since(self.filled).as_nanos();
        let more = u128::from(allowed) * nanos / 1_000_000_000;
        if more == 0 {
            return;
        }
        self.filled = now;
        let burst = u128::from(allowed) * BURST.as_nanos() / 1_000_000_000;
        let left = self
            .left
            .saturating_add(i64::try_from(more).unwrap_or(i64::MAX));
        self.left = left.min(i64::try_from(burst).unwrap_or(i64::MAX));
    }

    /// So many bytes were read, and are sent.
    pub(super) fn read(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.left += CHUNK as i64 - bytes as i64;
    }

    /// When the next read may go, if one waits.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        self.waiting.front()?;
        let missing = u64::try_from(-self.left).unwrap_or(0);
        let nanos = u128::from(missing) * 1_000_000_000 / u128::from(self.allowed(now));
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(wait.saturating_sub(now.saturating_duration_since(self.filled)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::{GroupId, NodeId, Slot, SnapshotId};

    fn id() -> SnapshotId {
        SnapshotId {
            slot: Slot(7),
            nonce: 1,
        }
    }

    fn read(group: u64, chunk: u64) -> SnapshotTask {
        SnapshotTask::Read {
            group: GroupId(group),
            to: NodeId(2),
            id: id(),
            chunk,
        }
    }

    /// Bytes sent in ten seconds by so many copies that go on as fast as they may.
    fn sent(pacer: &mut Pacer, copies: u64, now: &mut Instant, pressed: bool) -> u64 {
        let before = pacer.sent();
        (0..copies).for_each(|group| assert!(pacer.take(read(group, 0)).is_none()));
        for _ in 0..10_000 {
            *now += Duration::from_millis(1);
            if pressed {
                pacer.press(*now);
            }
            while let Some(SnapshotTask::Read { group, chunk, .. }) = pacer.next(*now) {
                pacer.read(CHUNK as usize);
                assert!(pacer.take(read(group.0, chunk + 1)).is_none());
            }
        }
        pacer.sent() - before
    }

    #[test]
    fn the_rate_is_kept_however_many_copies_there_are() {
        let mut now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.set_rate(8 << 20);
        for copies in [1, 16] {
            let mib = sent(&mut pacer, copies, &mut now, false) >> 20;
            assert!((78..=82).contains(&mib), "{copies}: {mib}");
        }
        // Below the bounds it is none.
        pacer.set_rate(1);
        assert_eq!(pacer.rate(), 8 << 20);
    }

    #[test]
    fn under_pressure_it_yields_and_never_stops() {
        let mut now = Instant::now();
        let mut pacer = Pacer::new(now);
        let mib = sent(&mut pacer, 4, &mut now, true) >> 20;
        assert!((78..=82).contains(&mib), "an eighth of 64 MiB/s: {mib}");
        pacer.set_rate(4 << 20);
        let mib = sent(&mut pacer, 4, &mut now, true) >> 20;
        assert!((19..=21).contains(&mib), "{mib}");
        now += PRESSED;
        assert!(!pacer.yields(now));
    }

    #[test]
    fn small_chunks_cost_what_they_are() {
        let mut now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.set_rate(4 << 20);
        let mut reads = 0;
        for _ in 0..1_000 {
            now += Duration::from_millis(1);
            pacer.take(read(1, reads));
            while pacer.next(now).is_some() {
                pacer.read(1_000);
                reads += 1;
            }
        }
        assert!(reads > 500, "{reads}");
    }

    #[test]
    fn one_read_for_each_receiver_waits_and_none_once_it_is_closed() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.take(read(1, 3));
        pacer.take(read(1, 3));
        pacer.take(read(2, 0));
        assert_eq!(pacer.waiting.len(), 2);
        let close = SnapshotTask::Close {
            group: GroupId(1),
            to: NodeId(2),
        };
        assert!(pacer.take(close).is_some(), "at once");
        assert_eq!(pacer.waiting.len(), 1);
        assert!(pacer.due_in(now).is_some());
    }
}
