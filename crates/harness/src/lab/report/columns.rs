//! From a site's buckets to the columns that a picture has room for.

use super::data::{Bucket, Report, Site};

/// What ended in one stretch of time: one bucket, or several put together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    /// Where it begins and ends.
    pub(super) from_millis: f64,
    pub(super) until_millis: f64,
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) unknown: u64,
    /// Of several buckets the median one's, each counted as often as it had successes.
    pub(super) p50_micros: u64,
    /// Of several buckets the highest: an upper bound.
    pub(super) p99_micros: u64,
}

impl Column {
    /// Successes per second.
    pub(super) fn rate(&self) -> f64 {
        let millis = self.until_millis - self.from_millis;
        if millis > 0.0 {
            self.ok as f64 * 1000.0 / millis
        } else {
            0.0
        }
    }

    /// The shares of what ended that failed and that are unknown; nothing where
    /// nothing ended.
    pub(super) fn shares(&self) -> Option<(f64, f64)> {
        let ended = self.ok as f64 + self.failed as f64 + self.unknown as f64;
        (ended > 0.0).then(|| (self.failed as f64 / ended, self.unknown as f64 / ended))
    }
}

/// Where the time axis ends. A last bucket may reach beyond the run; one that
/// begins after it makes the axis longer.
pub(super) fn end_millis(report: &Report) -> u64 {
    let starts = report.sites.iter().filter(|site| !site.buckets.is_empty());
    let starts = starts.map(|site| {
        let last = site.buckets.len() as u64 - 1;
        let width = site.bucket_millis.max(1);
        let start = last.saturating_mul(width);
        // Without a length of the run the buckets alone say how long it was.
        if start >= report.run_millis {
            start.saturating_add(width)
        } else {
            report.run_millis
        }
    });
    starts.fold(report.run_millis, u64::max).max(1)
}

/// The site's buckets in at most `most` columns.
pub(super) fn columns(site: &Site, end_millis: u64, most: usize) -> Vec<Column> {
    let group = site.buckets.len().div_ceil(most.max(1)).max(1);
    let width = site.bucket_millis.max(1) as f64;
    let mut columns: Vec<Column> = Vec::new();
    for (index, buckets) in site.buckets.chunks(group).enumerate() {
        let from_millis = (index * group) as f64 * width;
        let until = from_millis + buckets.len() as f64 * width;
        columns.push(Column {
            from_millis,
            until_millis: until.min(end_millis as f64),
            ok: sum(buckets, |b| b.ok),
            failed: sum(buckets, |b| b.failed),
            unknown: sum(buckets, |b| b.unknown),
            p50_micros: middle(buckets),
            p99_micros: buckets.iter().map(|b| b.p99_micros).max().unwrap_or(0),
        });
    }
    join_stub(&mut columns, group as f64 * width);
    columns
}

/// A last column much shorter than the others, with its few operations, would have
/// any rate at all: it joins the one before.
fn join_stub(columns: &mut Vec<Column>, width: f64) {
    let is_stub = |c: &Column| c.until_millis - c.from_millis < width / 2.0;
    if columns.len() < 2 || !columns.last().is_some_and(is_stub) {
        return;
    }
    let (Some(stub), Some(last)) = (columns.pop(), columns.last_mut()) else {
        return;
    };
    last.until_millis = stub.until_millis;
    if stub.ok > last.ok {
        last.p50_micros = stub.p50_micros;
    }
    last.ok = last.ok.saturating_add(stub.ok);
    last.failed = last.failed.saturating_add(stub.failed);
    last.unknown = last.unknown.saturating_add(stub.unknown);
    last.p99_micros = last.p99_micros.max(stub.p99_micros);
}

fn sum(buckets: &[Bucket], part: impl Fn(&Bucket) -> u64) -> u64 {
    buckets.iter().map(part).fold(0, u64::saturating_add)
}

/// The median of the medians, each as often as its bucket had successes.
fn middle(buckets: &[Bucket]) -> u64 {
    let mut medians: Vec<(u64, u64)> = (buckets.iter().filter(|b| b.ok > 0))
        .map(|b| (b.p50_micros, b.ok))
        .collect();
    medians.sort_unstable();
    let half = sum(buckets, |b| b.ok).div_ceil(2);
    let mut passed = 0u64;
    let found = medians.iter().find(|(_, ok)| {
        passed = passed.saturating_add(*ok);
        passed >= half
    });
    found.map_or(0, |(median, _)| *median)
}

/// Successes per second in each of `cells` equal stretches of the time axis, a
/// bucket's spread evenly over it; nothing where there are no buckets.
pub(super) fn cells(site: &Site, end_millis: u64, cells: usize) -> Vec<Option<f64>> {
    let columns = columns(site, end_millis, usize::MAX);
    let width = end_millis.max(1) as f64 / cells.max(1) as f64;
    let cell = |index: usize| {
        let (from, until) = (index as f64 * width, (index + 1) as f64 * width);
        let first = columns.partition_point(|c| c.until_millis <= from);
        let (mut ok, mut covered) = (0.0, 0.0);
        for column in &columns[first..] {
            let shared = column.until_millis.min(until) - column.from_millis.max(from);
            if shared <= 0.0 {
                break;
            }
            ok += column.rate() * shared;
            covered += shared;
        }
        (covered > 0.0).then(|| ok / covered)
    };
    (0..cells).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::super::example::{bucket, empty, site};
    use super::*;

    #[test]
    fn many_buckets_become_few_columns_and_nothing_is_lost() {
        let buckets = (0..2_000).map(|index| bucket(index % 7, 1, 2, 100, 100 + index));
        let site = site("here", 250, buckets.collect());
        let columns = columns(&site, 500_000, 600);
        assert_eq!(columns.len(), 500);
        assert_eq!(columns.iter().map(|c| c.ok).sum::<u64>(), site.total.ok);
        assert_eq!(columns.iter().map(|c| c.unknown).sum::<u64>(), 4_000);
        // The last of its four has no success.
        assert_eq!(columns[1].p99_micros, 106);
        assert_eq!(
            (columns[1].from_millis, columns[1].until_millis),
            (1000.0, 2000.0)
        );
    }

    #[test]
    fn a_median_of_medians_counts_successes() {
        let buckets = [
            bucket(1, 0, 0, 900, 900),
            bucket(9, 0, 0, 10, 20),
            bucket(0, 5, 0, 0, 0),
        ];
        assert_eq!(middle(&buckets), 10);
        assert_eq!(middle(&buckets[2..]), 0);
    }

    #[test]
    fn a_short_last_bucket_has_no_rate_of_its_own() {
        let mut report = empty();
        report.run_millis = 2_010;
        let buckets = vec![
            bucket(100, 0, 0, 1, 2),
            bucket(100, 0, 0, 1, 2),
            bucket(9, 0, 0, 1, 2),
        ];
        report.sites = vec![site("here", 1_000, buckets)];
        let end = end_millis(&report);
        assert_eq!(end, 2_010);
        let columns = columns(&report.sites[0], end, 600);
        assert_eq!((columns.len(), columns[1].ok), (2, 109));
        assert!((columns[1].rate() - 109_000.0 / 1_010.0).abs() < 1e-9);
    }

    #[test]
    fn cells_spread_buckets_evenly() {
        let buckets = vec![bucket(10, 0, 0, 1, 2), bucket(30, 0, 0, 1, 2)];
        let site = site("here", 1_000, buckets);
        let rates = [Some(10.0), Some(10.0), Some(30.0), Some(30.0), None, None];
        assert_eq!(cells(&site, 3_000, 6), rates);
        assert_eq!(cells(&site, 2_000, 1), [Some(20.0)]);
    }
}
