//! The faults by number, where they lie on the time axis, and rows in which they do
//! not touch each other.

use super::data::{FaultMark, Report, Site};
use super::words;

/// A fault with its number and its place on the time axis.
#[derive(Clone, Debug)]
pub(super) struct Numbered<'a> {
    /// From 1, in the order of time.
    pub(super) number: usize,
    pub(super) mark: &'a FaultMark,
    /// Where it begins and ends on the axis; nothing if it begins after the end.
    pub(super) window: Option<(u64, u64)>,
    /// Whether it was done to all sites, or to something that is no site and no node.
    is_everywhere: bool,
}

/// All faults in the order of time.
pub(super) fn numbered(report: &Report, end_millis: u64) -> Vec<Numbered<'_>> {
    let mut marks: Vec<&FaultMark> = report.faults.iter().collect();
    marks.sort_by_key(|mark| mark.at_millis);
    let is_known = |name: &String| report.sites.iter().any(|site| is_of(name, site));
    let mut numbered = Vec::with_capacity(marks.len());
    for (index, mark) in marks.into_iter().enumerate() {
        let from = mark.at_millis;
        let until = mark.until_millis.unwrap_or(end_millis).max(from);
        numbered.push(Numbered {
            number: index + 1,
            mark,
            window: (from < end_millis).then(|| (from, until.min(end_millis))),
            is_everywhere: !mark.on.iter().any(is_known),
        });
    }
    numbered
}

/// Whether this is the name of the site or of one of its nodes.
fn is_of(name: &String, site: &Site) -> bool {
    *name == site.name || site.nodes.contains(name)
}

impl Numbered<'_> {
    /// Whether it was done to this site or to one of its nodes.
    pub(super) fn touches(&self, site: &Site) -> bool {
        self.is_everywhere || self.mark.on.iter().any(|name| is_of(name, site))
    }

    /// What was done, and to whom where that is not said already.
    pub(super) fn words(&self) -> String {
        let what = &self.mark.what;
        let others = self.mark.on.iter().filter(|name| !what.contains(*name));
        let others: Vec<&str> = others.map(String::as_str).collect();
        if others.is_empty() {
            what.clone()
        } else {
            format!("{what}: {}", others.join(", "))
        }
    }

    /// From when to when: `8 s – 13 s`, `at 8 s`, `16 s – end`.
    pub(super) fn when(&self) -> String {
        let from = words::moment(self.mark.at_millis);
        match self.mark.until_millis {
            _ if self.window.is_none() => format!("{from}, after the end"),
            None => format!("{from} – end"),
            Some(until) if until <= self.mark.at_millis => format!("at {from}"),
            Some(until) => format!("{from} – {}", words::moment(until)),
        }
    }
}

/// For each stretch the first row in which it touches none before it.
pub(super) fn rows(stretches: &[(f64, f64)]) -> Vec<usize> {
    let mut rows: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut places = Vec::with_capacity(stretches.len());
    for &(from, until) in stretches {
        let is_free = |row: &Vec<(f64, f64)>| row.iter().all(|&(f, u)| until <= f || u <= from);
        let place = rows.iter().position(is_free).unwrap_or(rows.len());
        if place == rows.len() {
            rows.push(Vec::new());
        }
        rows[place].push((from, until));
        places.push(place);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::super::example::{fault, ordinary};
    use super::*;

    #[test]
    fn numbers_follow_time_and_windows_end_with_the_run() {
        let mut report = ordinary();
        report.faults.push(fault(2_000, None, "first", &[]));
        report
            .faults
            .push(fault(24_000, Some(99_000), "long", &["ireland"]));
        report
            .faults
            .push(fault(25_000, None, "late", &["ireland"]));
        let faults = numbered(&report, 25_000);
        let windows: Vec<_> = faults.iter().map(|f| (f.number, f.window)).collect();
        assert_eq!(windows[0], (1, Some((2_000, 25_000))));
        assert_eq!(windows[3], (4, Some((24_000, 25_000))));
        assert_eq!(windows[4], (5, None));
        assert_eq!(faults[0].when(), "2 s – end");
        assert_eq!(faults[4].when(), "25 s, after the end");
    }

    #[test]
    fn a_fault_touches_its_site_and_what_is_unknown_touches_all() {
        let mut report = ordinary();
        report
            .faults
            .push(fault(20_000, None, "odd", &["the moon"]));
        let faults = numbered(&report, 25_000);
        let touched = |index: usize| {
            report
                .sites
                .iter()
                .map(|site| faults[index].touches(site))
                .collect::<Vec<_>>()
        };
        assert_eq!(touched(0), [false, false, true]);
        assert_eq!(touched(1), [true, false, false]);
        assert_eq!(touched(2), [true, true, true]);
        assert_eq!(faults[0].words(), "cut off from all others: virginia");
    }

    #[test]
    fn what_touches_goes_to_the_next_row() {
        let stretches = [(0.0, 5.0), (4.0, 6.0), (5.0, 9.0), (4.5, 5.5)];
        assert_eq!(rows(&stretches), [0, 1, 0, 2]);
    }
}
