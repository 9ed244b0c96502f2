//! Medians, ranges and ratios of what was measured several times.

use crate::plan::Group;
use crate::record::{Record, Subject};
use crate::system::System;
use std::collections::BTreeMap;

/// All records, by what they are of.
pub struct Summary {
    measured: BTreeMap<Subject, BTreeMap<System, Vec<Record>>>,
}

/// A median and what it lies between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The one in the middle; the mean of two where there is none.
    pub median: f64,
    /// The greatest.
    pub high: f64,
}

impl Range {
    /// Of some values; none of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Range> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Range { low, median, high })
    }
}

impl Summary {
    /// Sorts them.
    pub fn of(records: Vec<Record>) -> Summary {
        let mut measured: BTreeMap<Subject, BTreeMap<System, Vec<Record>>> = BTreeMap::new();
        for record in records {
            let systems = measured.entry(record.subject.clone()).or_default();
            systems.entry(record.system).or_default().push(record);
        }
        Summary { measured }
    }

    /// What was measured in a group, in order.
    pub fn subjects(&self, group: Group) -> impl Iterator<Item = &Subject> {
        self.measured.keys().filter(move |s| s.group == group)
    }

    /// One workload with so many clients.
    pub fn subject(&self, group: Group, workload: &str, clients: u32) -> Option<&Subject> {
        let mut all = self.subjects(group);
        all.find(|s| s.workload == workload && s.clients == clients)
    }

    fn values(&self, subject: &Subject, system: System, figure: &str) -> Vec<f64> {
        let records = self.measured.get(subject).and_then(|s| s.get(&system));
        let records = records.map_or(&[][..], Vec::as_slice);
        records.iter().filter_map(|r| r.figure(figure)).collect()
    }

    /// A figure, over all repetitions.
    pub fn range(&self, subject: &Subject, system: System, figure: &str) -> Option<Range> {
        Range::of(self.values(subject, system, figure))
    }

    /// Synod's figure over etcd's, each repetition by itself: both met the same
    /// minute of the machine's.
    pub fn ratio(&self, subject: &Subject, figure: &str) -> Option<Range> {
        self.ratio_between(subject, subject, figure)
    }

    /// Synod's figure of one subject over etcd's of another.
    pub fn ratio_between(&self, synod: &Subject, etcd: &Subject, figure: &str) -> Option<Range> {
        let ours = self.values(synod, System::Synod, figure);
        let theirs = self.values(etcd, System::Etcd, figure);
        let pairs = ours
            .iter()
            .zip(&theirs)
            .filter(|(_, theirs)| **theirs > 0.0);
        Range::of(pairs.map(|(ours, theirs)| ours / theirs))
    }

    /// How often everything was measured, at least and at most.
    pub fn repetitions(&self) -> Option<(usize, usize)> {
        // Kills are repeated within one round.
        let cells = self
            .measured
            .iter()
            .filter(|(s, _)| s.group != Group::Failover);
        let counts = cells.flat_map(|(_, systems)| systems.values().map(Vec::len));
        let counts: Vec<usize> = counts.collect();
        Some((*counts.iter().min()?, *counts.iter().max()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(system: System, rate: f64) -> Record {
        Record {
            subject: Subject {
                group: Group::Put,
                workload: "put".to_owned(),
                clients: 1,
                value_bytes: 128,
                offered: None,
                participants: None,
            },
            system,
            figures: [("rate".to_owned(), rate)].into(),
        }
    }

    #[test]
    fn ratios_pair_repetitions_and_medians_do_not_mind_outliers() {
        let mut records = Vec::new();
        for (ours, theirs) in [(40.0, 10.0), (90.0, 30.0), (2.0, 1.0)] {
            records.push(record(System::Synod, ours));
            records.push(record(System::Etcd, theirs));
        }
        let summary = Summary::of(records);
        let subject = summary.subject(Group::Put, "put", 1).expect("measured");
        let rate = summary
            .range(subject, System::Synod, "rate")
            .expect("has one");
        assert_eq!((rate.low, rate.median, rate.high), (2.0, 40.0, 90.0));
        let ratio = summary.ratio(subject, "rate").expect("both");
        assert_eq!((ratio.low, ratio.median, ratio.high), (2.0, 3.0, 4.0));
        assert_eq!(summary.range(subject, System::Etcd, "p50_us"), None);
        assert_eq!(summary.repetitions(), Some((3, 3)));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let range = Range::of([1.0, 3.0]).expect("some");
        assert!((range.median - 2.0).abs() < 1e-9);
        assert_eq!(Range::of([]), None);
    }
}
