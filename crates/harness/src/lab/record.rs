//! What the clients of one site saw, by time.

use super::report::{Bucket, Totals};
use crate::history::{Nanos, Outcome};
use hdrhistogram::Histogram;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Gaps shorter than this are not remembered one by one.
const MIN_GAP: Duration = Duration::from_millis(50);

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// When it began, or should have.
    pub(super) from: Nanos,
    /// When it ended.
    pub(super) until: Nanos,
    /// How.
    pub(super) outcome: Outcome,
}

/// A stretch of time.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) unknown: u64,
    /// Requests that began in it, less those that ended in the one before.
    change: i64,
    /// Microseconds of those that succeeded.
    pub(super) latency: Histogram<u64>,
}

/// The record of one site, shared by its clients.
#[derive(Debug)]
pub(super) struct Record {
    bucket: Nanos,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    total: Histogram<u64>,
    last_ok: Nanos,
    gaps: Vec<(Nanos, Nanos)>,
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new(digits).expect("constant bounds are good")
}

fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Record {
    /// Of a load of this length.
    pub(super) fn new(length: Duration, bucket: Duration) -> Record {
        let count = nanos(length).div_ceil(nanos(bucket).max(1)).max(1);
        let slot = Slot {
            ok: 0,
            failed: 0,
            unknown: 0,
            change: 0,
            latency: histogram(2),
        };
        Record {
            bucket: nanos(bucket).max(1),
            state: Mutex::new(State {
                slots: vec![slot; usize::try_from(count).unwrap_or(1)],
                total: histogram(3),
                last_ok: 0,
                gaps: Vec::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A client that panicked while counting has at worst not counted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bucket of a moment; what ends after the load counts in the last one.
    fn slot(&self, at: Nanos, slots: usize) -> usize {
        usize::try_from(at / self.bucket)
            .unwrap_or(usize::MAX)
            .min(slots - 1)
    }

    /// A request begins, or should have begun.
    pub(super) fn begins(&self, at: Nanos) {
        let mut state = self.lock();
        let slot = self.slot(at, state.slots.len());
        state.slots[slot].change += 1;
    }

    /// It has ended.
    pub(super) fn ends(&self, ended: Ended) {
        let mut state = self.lock();
        let slot = self.slot(ended.until, state.slots.len());
        if let Some(next) = state.slots.get_mut(slot + 1) {
            next.change -= 1;
        }
        let now = &mut state.slots[slot];
        match ended.outcome {
            Outcome::Committed(_) => {
                let micros = (ended.until.saturating_sub(ended.from) / 1_000).max(1);
                now.ok += 1;
                // Both grow as they need, so that nothing is too large.
                let _ = now.latency.record(micros);
                let _ = state.total.record(micros);
                let last = state.last_ok;
                if ended.until.saturating_sub(last) >= nanos(MIN_GAP) {
                    state.gaps.push((last, ended.until));
                }
                state.last_ok = last.max(ended.until);
            }
            Outcome::Aborted => now.failed += 1,
            Outcome::Unknown => now.unknown += 1,
        }
    }

    /// Counts so far: ok, failed, unknown.
    pub(super) fn counts(&self) -> [u64; 3] {
        let state = self.lock();
        let add = |of: fn(&Slot) -> u64| state.slots.iter().map(of).sum();
        [add(|s| s.ok), add(|s| s.failed), add(|s| s.unknown)]
    }

    /// What is known after the load, which ended at `end`. `due` is how many requests
    /// should have begun: those that never did have failed.
    pub(super) fn finish(&self, end: Nanos, due: Option<u64>) -> Seen {
        let mut state = self.lock();
        let last = state.last_ok;
        if end > last {
            state.gaps.push((last, end));
        }
        let begun: i64 = state
            .slots
            .iter()
            .map(|s| (s.ok + s.failed + s.unknown) as i64)
            .sum();
        let never = due.map_or(0, |due| due.saturating_sub(begun.unsigned_abs()));
        if let Some(slot) = state.slots.last_mut() {
            slot.failed += never;
            slot.change += i64::try_from(never).unwrap_or(i64::MAX);
        }
        let mut waiting = 0;
        let wanted = state.slots.iter().map(|slot| {
            waiting += slot.change;
            waiting > 0
        });
        Seen {
            bucket: self.bucket,
            wanted: wanted.collect(),
            slots: state.slots.clone(),
            total: state.total.clone(),
            gaps: state.gaps.clone(),
            never,
        }
    }
}

/// What the clients of a site saw.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) bucket: Nanos,
    pub(super) slots: Vec<Slot>,
    /// Whether any request was under way in each bucket.
    pub(super) wanted: Vec<bool>,
    pub(super) total: Histogram<u64>,
    /// Times without success, from and until.
    pub(super) gaps: Vec<(Nanos, Nanos)>,
    /// Requests that never began.
    pub(super) never: u64,
}

fn quantile(latency: &Histogram<u64>, quantile: f64) -> u64 {
    // Bins have a width: never more than the longest that there was.
    latency.value_at_quantile(quantile).min(max(latency))
}

fn max(latency: &Histogram<u64>) -> u64 {
    if latency.is_empty() { 0 } else { latency.max() }
}

impl Seen {
    /// For the report.
    pub(super) fn buckets(&self) -> Vec<Bucket> {
        let bucket = |slot: &Slot| Bucket {
            ok: slot.ok,
            failed: slot.failed,
            unknown: slot.unknown,
            p50_micros: quantile(&slot.latency, 0.5),
            p99_micros: quantile(&slot.latency, 0.99),
            max_micros: max(&slot.latency),
        };
        self.slots.iter().map(bucket).collect()
    }

    /// For the report.
    pub(super) fn totals(&self) -> Totals {
        let add = |of: fn(&Slot) -> u64| self.slots.iter().map(of).sum();
        Totals {
            ok: add(|s| s.ok),
            failed: add(|s| s.failed),
            unknown: add(|s| s.unknown),
            p50_micros: quantile(&self.total, 0.5),
            p99_micros: quantile(&self.total, 0.99),
            p999_micros: quantile(&self.total, 0.999),
            max_micros: max(&self.total),
        }
    }

    /// The longest time without success, outside of these stretches of time: when it
    /// began, and how long it was.
    pub(super) fn longest_gap(&self, excused: &[(Nanos, Nanos)]) -> (Nanos, Nanos) {
        let mut longest = (0, 0);
        for &(from, until) in &self.gaps {
            let mut at = from;
            for &(begin, end) in excused {
                let free = begin.clamp(at, until) - at;
                if free > longest.1 {
                    longest = (at, free);
                }
                at = end.clamp(at, until);
            }
            if until - at > longest.1 {
                longest = (at, until - at);
            }
        }
        longest
    }

    /// The buckets that lie outside of these stretches of time, by number.
    pub(super) fn outside(&self, excused: &[(Nanos, Nanos)]) -> Vec<usize> {
        let overlaps = |slot: &usize| {
            let from = *slot as u64 * self.bucket;
            let until = from + self.bucket;
            excused
                .iter()
                .any(|(begin, end)| *begin < until && from < *end)
        };
        (0..self.slots.len())
            .filter(|slot| !overlaps(slot))
            .collect()
    }

    /// The latency of 99 of 100 in these buckets, microseconds.
    pub(super) fn p99(&self, buckets: &[usize]) -> u64 {
        let mut all = histogram(3);
        for bucket in buckets {
            // Histograms that grow take in any other.
            let _ = all.add(&self.slots[*bucket].latency);
        }
        quantile(&all, 0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn record() -> Record {
        Record::new(Duration::from_secs(2), Duration::from_millis(500))
    }

    fn request(record: &Record, from: u64, until: u64, outcome: Outcome) {
        record.begins(from * MS);
        record.ends(Ended {
            from: from * MS,
            until: until * MS,
            outcome,
        });
    }

    #[test]
    fn requests_count_where_they_end() {
        let record = record();
        let ok = Outcome::Committed(None);
        request(&record, 0, 10, ok);
        request(&record, 20, 1_600, ok);
        request(&record, 100, 1_700, Outcome::Unknown);
        request(&record, 1_900, 2_500, Outcome::Aborted);
        let seen = record.finish(2_000 * MS, Some(5));
        let buckets = seen.buckets();
        let counts: Vec<_> = buckets
            .iter()
            .map(|b| (b.ok, b.failed, b.unknown))
            .collect();
        // The fifth that was due never began.
        assert_eq!(counts, [(1, 0, 0), (0, 0, 0), (0, 0, 0), (1, 2, 1)]);
        assert_eq!(seen.wanted, [true, true, true, true]);
        assert_eq!(buckets[0].max_micros / 100, 100);
        assert_eq!(buckets[1].p99_micros, 0);
        let totals = seen.totals();
        assert_eq!((totals.ok, totals.failed, totals.unknown), (2, 2, 1));
        assert!(totals.p50_micros >= 10_000 && totals.max_micros >= 1_580_000);
        assert_eq!(seen.never, 1);
    }

    #[test]
    fn a_time_without_requests_is_no_outage() {
        let record = record();
        request(&record, 100, 110, Outcome::Committed(None));
        request(&record, 1_600, 1_610, Outcome::Committed(None));
        assert_eq!(record.counts(), [2, 0, 0]);
        let seen = record.finish(2_000 * MS, None);
        assert_eq!(seen.wanted, [true, false, false, true]);
    }

    #[test]
    fn gaps_are_found_beside_what_is_excused() {
        let record = record();
        for at in [100, 200, 1_400, 1_500] {
            request(&record, at, at, Outcome::Committed(None));
        }
        let seen = record.finish(2_000 * MS, None);
        assert_eq!(seen.longest_gap(&[]), (200 * MS, 1_200 * MS));
        let excused = [(300 * MS, 1_100 * MS)];
        assert_eq!(seen.longest_gap(&excused), (1_500 * MS, 500 * MS));
        assert_eq!(seen.outside(&excused), [3]);
        assert_eq!(seen.p99(&[1]), 0);
    }
}
