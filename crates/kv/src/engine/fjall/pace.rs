//! Work in the background at the pace of what is written.
//!
//! A merge of tables takes all the processor and the disk that there is, for a second and more, the
//! making of one for a tenth,
//! and replicas of the same shards do it at about the same time: log syncs that took half a
//! millisecond took 50 to 150 then. There is no hurry: what it makes room for comes as
//! slowly as it is written. So it takes on a certain number of bytes for each one that is written
//! meanwhile, and a steady trickle besides (RocksDB's rate limiter tuned by itself has the same
//! aim).
//!
//! fjall has no setting for this. A compaction filter sees every item that is merged, and may
//! take its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::fjall::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};

/// How fast something goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    /// Bytes in a second whatever is written.
    trickle: u64,
    /// Bytes for each byte written meanwhile.
    amplification: u64,
    /// Once so many bytes were written since it began, it waits no more.
    hurry: u64,
    /// Nor while this is the case.
    but: But,
}

/// What makes a piece of work hurry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum But {
    /// Somebody waits for the table in the making.
    Awaited,
    /// There are many tables that are not merged.
    Crowded,
}

/// Merges: less than a tree of a few levels needs, if all are counted together, and the time in which two
/// tables come up makes up for that. Each that does is one more to look into.
const MERGE: Speed = Speed {
    trickle: 16 << 20,
    amplification: 8,
    hurry: 2 * super::TABLE_BYTES as u64,
    but: But::Crowded,
};
/// Tables: done long before the next one is due.
pub(super) const TABLE: Speed = Speed {
    trickle: 16 << 20,
    amplification: 2,
    hurry: super::TABLE_BYTES as u64 / 2,
    but: But::Awaited,
};
/// A merge looks at the clock so often, in bytes.
const LOOK_BYTES: usize = 128 << 10;
/// No wait is longer, so that closing takes no longer.
const WAIT: Duration = Duration::from_millis(10);

/// What the writer tells those in the background.
#[derive(Debug, Default)]
pub(super) struct Pace {
    written: AtomicU64,
    awaited: AtomicBool,
    crowded: AtomicBool,
    closing: AtomicBool,
}

impl Pace {
    /// So many bytes more are about to be written.
    pub(super) fn writes(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether somebody waits for the table in the making.
    pub(super) fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::Relaxed);
    }

    /// Whether there are many tables that are not merged.
    pub(super) fn set_crowded(&self, crowded: bool) {
        self.crowded.store(crowded, Ordering::Relaxed);
    }

    /// Whether nobody is to wait for merges any more.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Whatever is under way waits no more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

/// A piece of work and how far it has come.
#[derive(Debug)]
pub(super) struct Paced {
    pace: Arc<Pace>,
    speed: Speed,
    began: Instant,
    written_before: u64,
    done: u64,
}

impl Paced {
    pub(super) fn new(pace: Arc<Pace>, speed: Speed, began: Instant) -> Paced {
        let written_before = pace.written.load(Ordering::Relaxed);
        Paced {
            pace,
            speed,
            began,
            written_before,
            done: 0,
        }
    }

    /// So many bytes more are done. Waits if that is more than is due.
    pub(super) fn did(&mut self, bytes: usize) {
        self.done += bytes as u64;
        loop {
            // What is written meanwhile may shorten it.
            let ahead = self.ahead(Instant::now());
            if ahead.is_zero() {
                return;
            }
            std::thread::sleep(ahead.min(WAIT));
        }
    }

    /// How far it is ahead, as time that it takes until the trickle alone allows for it.
    fn ahead(&self, now: Instant) -> Duration {
        let written = self.pace.written.load(Ordering::Relaxed) - self.written_before;
        let but = match self.speed.but {
            But::Awaited => &self.pace.awaited,
            But::Crowded => &self.pace.crowded,
        };
        let hurries = but.load(Ordering::Relaxed);
        if hurries || written >= self.speed.hurry || self.pace.is_closing() {
            return Duration::ZERO;
        }
        let beyond = { self.done }.saturating_sub(self.speed.amplification * written);
        let due = Duration::from_micros(beyond * 1_000_000 / self.speed.trickle);
        due.saturating_sub(now.saturating_duration_since(self.began))
    }
}

/// Makes a [`Merge`] for each one.
#[derive(Debug)]
pub(super) struct Merges(pub(super) Arc<Pace>);

impl Factory for Merges {
    fn name(&self) -> &'static str {
        "pace"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Merge {
            paced: Paced::new(Arc::clone(&self.0), MERGE, Instant::now()),
            bytes: 0,
        })
    }
}

/// One merge.
#[derive(Debug)]
struct Merge {
    paced: Paced,
    /// Bytes since the last look at the clock.
    bytes: usize,
}

impl CompactionFilter for Merge {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        _: &Context,
    ) -> Result<Verdict, ::fjall::LsmError> {
        self.bytes += item.key().len() + item.value()?.len();
        if self.bytes >= LOOK_BYTES {
            self.paced.did(std::mem::take(&mut self.bytes));
        }
        Ok(Verdict::Keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paced(pace: &Arc<Pace>, speed: Speed, began: Instant, done: u64) -> Paced {
        let mut paced = Paced::new(Arc::clone(pace), speed, began);
        paced.done = done;
        paced
    }

    #[test]
    fn a_merge_waits_for_what_is_written_and_for_time() {
        let pace = Arc::new(Pace::default());
        pace.writes(5 << 20);
        let began = Instant::now();
        let nothing = paced(&pace, MERGE, began, 0);
        assert!(nothing.ahead(began).is_zero());
        let second = paced(&pace, MERGE, began, MERGE.trickle);
        assert_eq!(second.ahead(began), Duration::from_secs(1));
        let half = began + Duration::from_millis(500);
        assert_eq!(second.ahead(half), Duration::from_millis(500));
        pace.writes((MERGE.trickle / MERGE.amplification / 4) as usize);
        assert_eq!(second.ahead(half), Duration::from_millis(250));
        assert!(second.ahead(began + Duration::from_secs(1)).is_zero());
    }

    #[test]
    fn it_hurries_once_much_was_written_and_on_closing() {
        let pace = Arc::new(Pace::default());
        let began = Instant::now();
        let merge = paced(&pace, MERGE, began, 1 << 40);
        pace.writes(MERGE.hurry as usize - 1);
        assert!(!merge.ahead(began).is_zero());
        pace.writes(1);
        assert!(merge.ahead(began).is_zero());

        let next = paced(&pace, MERGE, began, 1 << 40);
        assert!(!next.ahead(began).is_zero(), "the next one counts anew");
        pace.close();
        assert!(next.ahead(began).is_zero());
    }

    #[test]
    fn a_table_hurries_for_who_waits_for_it_and_a_merge_if_there_are_many_tables() {
        let pace = Arc::new(Pace::default());
        let began = Instant::now();
        let table = paced(&pace, TABLE, began, 1 << 40);
        let merge = paced(&pace, MERGE, began, 1 << 40);
        let hurry = || (table.ahead(began).is_zero(), merge.ahead(began).is_zero());
        assert_eq!(hurry(), (false, false));
        pace.set_awaited(true);
        assert_eq!(hurry(), (true, false));
        pace.set_awaited(false);
        pace.set_crowded(true);
        assert_eq!(hurry(), (false, true));
    }
}
