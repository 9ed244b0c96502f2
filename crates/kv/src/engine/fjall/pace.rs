//! Compactions at the pace of what is written.
//!
//! A merge of tables takes all the processor and the disk that there is, for a second and more,
//! and replicas of the same shards merge at about the same time: log syncs that took half a
//! millisecond took 50 to 150 then. There is no hurry: what a merge makes room for comes as
//! slowly as it is written. So it reads a certain number of bytes for each one that is written
//! meanwhile, and a steady trickle besides (RocksDB's rate limiter tuned by itself has the same
//! aim).
//!
//! Tables come up meanwhile, and each is one more to look into. So a merge stops to wait once
//! some more have.
//!
//! fjall has no setting for this. A compaction filter sees every item that is merged, and may
//! take its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::fjall::compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict};

/// Bytes merged in a second whatever is written.
const TRICKLE: u64 = 16 << 20;
/// Bytes merged for each byte written meanwhile. Less than a tree of a few levels needs, if all
/// its merges are counted together; [`HURRY_BYTES`] makes up for that.
const AMPLIFICATION: u64 = 8;
/// Once so much was written since a merge began, which is two tables or so, it waits no more.
const HURRY_BYTES: u64 = 2 * super::TABLE_BYTES as u64;
/// The merge looks at the clock so often, in bytes.
const LOOK_BYTES: u64 = 128 << 10;
/// No wait is longer, so that closing takes no longer.
const WAIT: Duration = Duration::from_millis(10);

/// What the writer tells the merges.
#[derive(Debug, Default)]
pub(super) struct Pace {
    written: AtomicU64,
    closing: AtomicBool,
}

impl Pace {
    /// So many bytes more are about to be written.
    pub(super) fn writes(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether nobody is to wait for merges any more.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Whatever is being merged waits no more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

/// Makes a [`Paced`] for each merge.
#[derive(Debug)]
pub(super) struct Paces(pub(super) Arc<Pace>);

impl Factory for Paces {
    fn name(&self) -> &'static str {
        "pace"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Paced::new(Arc::clone(&self.0), Instant::now()))
    }
}

/// One merge.
#[derive(Debug)]
struct Paced {
    pace: Arc<Pace>,
    began: Instant,
    written_before: u64,
    merged: u64,
    next_look: u64,
}

impl Paced {
    fn new(pace: Arc<Pace>, began: Instant) -> Paced {
        let written_before = pace.written.load(Ordering::Relaxed);
        Paced {
            pace,
            began,
            written_before,
            merged: 0,
            next_look: LOOK_BYTES,
        }
    }

    /// How far the merge is ahead, as time that it takes until the trickle alone allows for it.
    fn ahead(&self, now: Instant) -> Duration {
        let written = self.pace.written.load(Ordering::Relaxed) - self.written_before;
        if written >= HURRY_BYTES || self.pace.is_closing() {
            return Duration::ZERO;
        }
        let beyond = self.merged.saturating_sub(AMPLIFICATION * written);
        let due = Duration::from_micros(beyond * 1_000_000 / TRICKLE);
        due.saturating_sub(now.saturating_duration_since(self.began))
    }
}

impl CompactionFilter for Paced {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        _: &Context,
    ) -> Result<Verdict, ::fjall::LsmError> {
        self.merged += (item.key().len() + item.value()?.len()) as u64;
        if self.merged >= self.next_look {
            self.next_look = self.merged + LOOK_BYTES;
            loop {
                // What is written meanwhile may shorten it.
                let ahead = self.ahead(Instant::now());
                if ahead.is_zero() {
                    break;
                }
                std::thread::sleep(ahead.min(WAIT));
            }
        }
        Ok(Verdict::Keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_waits_for_what_is_written_and_for_time() {
        let pace = Arc::new(Pace::default());
        pace.writes(5 << 20);
        let began = Instant::now();
        let mut paced = Paced::new(Arc::clone(&pace), began);
        assert!(paced.ahead(began).is_zero());
        paced.merged = TRICKLE;
        assert_eq!(paced.ahead(began), Duration::from_secs(1));
        let half = began + Duration::from_millis(500);
        assert_eq!(paced.ahead(half), Duration::from_millis(500));
        pace.writes((TRICKLE / AMPLIFICATION / 4) as usize);
        assert_eq!(paced.ahead(half), Duration::from_millis(250));
        assert!(paced.ahead(began + Duration::from_secs(1)).is_zero());
    }

    #[test]
    fn it_hurries_before_much_is_left_unwritten_and_on_closing() {
        let pace = Arc::new(Pace::default());
        let began = Instant::now();
        let mut paced = Paced::new(Arc::clone(&pace), began);
        paced.merged = 1 << 40;
        pace.writes(HURRY_BYTES as usize - 1);
        assert!(!paced.ahead(began).is_zero());
        pace.writes(1);
        assert!(paced.ahead(began).is_zero());

        let mut next = Paced::new(Arc::clone(&pace), began);
        next.merged = 1 << 40;
        assert!(!next.ahead(began).is_zero(), "the next one counts anew");
        pace.close();
        assert!(next.ahead(began).is_zero());
    }
}
