//! The faults: a row for each at the top, and bands with their numbers through the
//! panels.

use super::super::data::Site;
use super::super::faults::{Numbered, rows};
use super::super::words;
use super::scale::time_ticks;
use super::svg::Svg;
use super::{Frame, Shape};

/// The height of a row with a bar and its words.
const ROW: f64 = 24.0;
/// Between a number and its words.
const SPACE: f64 = 5.0;
/// How wide letters of the picture are, about.
const LETTER: f64 = 6.5;
/// The height of a row of numbers above a site's panels.
const MARK: f64 = 15.0;

/// The faults that the time axis reaches.
fn drawn<'a>(frame: &'a Frame<'_>) -> impl Iterator<Item = &'a Numbered<'a>> {
    frame.faults.iter().filter(|fault| fault.window.is_some())
}

/// What is told of a fault that is pointed at.
fn title(fault: &Numbered<'_>) -> String {
    format!("{}: {}, {}", fault.number, fault.words(), fault.when())
}

/// The bars of all faults with what they did; returns where it ends.
pub(super) fn overview(svg: &mut Svg, frame: &Frame<'_>, top: f64) -> f64 {
    let entries: Vec<Entry<'_>> = drawn(frame).map(|fault| Entry::of(frame, fault)).collect();
    if entries.is_empty() {
        return top;
    }
    let extents: Vec<(f64, f64)> = entries.iter().map(Entry::extent).collect();
    let places = rows(&extents);
    let count = places.iter().max().map_or(0, |last| last + 1);
    let top = top + 20.0;
    svg.text(frame.left(), top - 8.0, "name", "Faults");
    let bottom = top + ROW * count as f64 + 4.0;
    time_grid(svg, frame, top, bottom);
    for (entry, row) in entries.iter().zip(places) {
        let y = top + ROW * row as f64;
        let (from, until) = entry.bar;
        let title = title(entry.fault);
        svg.rect("bar", (from, y + 17.0), (until, y + 20.0), &title);
        pill(svg, entry.fault, entry.pill, y + 1.0, true);
        let (x, class) = if entry.is_before {
            (entry.words_at.1, "fault end")
        } else {
            (entry.words_at.0, "fault")
        };
        svg.text(x, y + 12.0, class, &entry.words);
    }
    time_axis(svg, frame, bottom)
}

/// A fault in the overview.
struct Entry<'a> {
    fault: &'a Numbered<'a>,
    bar: (f64, f64),
    /// Where its number stands: where the bar begins, if there is room.
    pill: f64,
    words: String,
    /// Where its words stand: behind the number, or before it if that is where there
    /// is room.
    words_at: (f64, f64),
    is_before: bool,
}

impl<'a> Entry<'a> {
    fn of(frame: &Frame<'_>, fault: &'a Numbered<'a>) -> Entry<'a> {
        let edge = frame.right() + frame.shape.right();
        let number = mark_width(fault);
        // Words that are cut must not run out of the picture, however broad.
        let room = (edge - frame.left() - number - SPACE) / (LETTER * 1.15);
        let words = words::cut(&fault.words(), room as usize);
        let width = words.chars().count() as f64 * LETTER;
        let bar = bar(frame, fault);
        let pill = bar.0.min(edge - number);
        let is_behind = pill + number + SPACE + width <= edge;
        let is_before = !is_behind && pill - SPACE - width >= frame.left();
        let (pill, left) = if is_before {
            (pill, pill - SPACE - width)
        } else {
            let pill = pill.min(edge - number - SPACE - width);
            (pill, pill + number + SPACE)
        };
        Entry {
            fault,
            bar,
            pill,
            words,
            words_at: (left, left + width),
            is_before,
        }
    }

    /// The room that it takes in its row.
    fn extent(&self) -> (f64, f64) {
        let left = self.bar.0.min(self.pill).min(self.words_at.0);
        let number = self.pill + mark_width(self.fault);
        (left, self.bar.1.max(number).max(self.words_at.1) + 10.0)
    }
}

/// Where a bar lies; even one of no length can be seen.
fn bar(frame: &Frame<'_>, fault: &Numbered<'_>) -> (f64, f64) {
    let (from, until) = fault.window.unwrap_or((0, 0));
    let (from, until) = (frame.x(from), frame.x(until));
    (from, until.max(from + 2.0))
}

fn mark_width(fault: &Numbered<'_>) -> f64 {
    6.0 + 6.0 * fault.number.to_string().len() as f64
}

/// A fault's number, full or pale.
fn pill(svg: &mut Svg, fault: &Numbered<'_>, left: f64, y: f64, is_full: bool) {
    let (pill, number) = if is_full {
        ("pill", "number")
    } else {
        ("pill off", "number off")
    };
    let width = mark_width(fault);
    svg.rect(pill, (left, y), (left + width, y + 13.0), &title(fault));
    let words = fault.number.to_string();
    svg.text(left + width / 2.0, y + 10.0, number, &words);
}

/// Those that a site shows: all, or among many its own.
fn shown<'a>(frame: &'a Frame<'_>, site: &'a Site) -> impl Iterator<Item = &'a Numbered<'a>> {
    drawn(frame).filter(|fault| !frame.is_crowded || fault.touches(site))
}

/// The numbers above a site's panels, full for what was done to it; returns where
/// they end.
pub(super) fn marks(svg: &mut Svg, frame: &Frame<'_>, site: &Site, top: f64) -> f64 {
    let left = |fault: &Numbered<'_>| bar(frame, fault).0.min(frame.right() - mark_width(fault));
    let extents = shown(frame, site).map(|fault| {
        let left = left(fault);
        (left, left + mark_width(fault) + 2.0)
    });
    let places = rows(&extents.collect::<Vec<_>>());
    for (fault, row) in shown(frame, site).zip(&places) {
        let y = top + MARK * *row as f64;
        pill(svg, fault, left(fault), y, fault.touches(site));
    }
    let count = places.iter().max().map_or(0, |last| last + 1);
    top + MARK * count as f64
}

/// The bands behind a site's panels.
pub(super) fn bands(svg: &mut Svg, frame: &Frame<'_>, site: &Site, top: f64, bottom: f64) {
    for fault in shown(frame, site) {
        let (from, until) = bar(frame, fault);
        let (band, edge) = if fault.touches(site) {
            ("band", "edge")
        } else {
            ("band off", "edge off")
        };
        svg.rect(band, (from, top), (until, bottom), &title(fault));
        svg.line(edge, (from, top), (from, bottom));
    }
}

fn ticks(frame: &Frame<'_>) -> Vec<f64> {
    let most = match frame.shape {
        Shape::Wide => 14,
        Shape::Narrow => 6,
    };
    time_ticks(frame.end_millis as f64, most)
}

/// Thin lines at the round moments.
pub(super) fn time_grid(svg: &mut Svg, frame: &Frame<'_>, top: f64, bottom: f64) {
    for tick in ticks(frame) {
        let x = frame.time.at(tick);
        svg.line("grid", (x, top), (x, bottom));
    }
}

/// The round moments in seconds; returns where it ends.
pub(super) fn time_axis(svg: &mut Svg, frame: &Frame<'_>, y: f64) -> f64 {
    svg.line("axis", (frame.left(), y), (frame.right(), y));
    for tick in ticks(frame) {
        let x = frame.time.at(tick);
        svg.line("axis", (x, y), (x, y + 3.0));
        svg.text(x, y + 15.0, "muted middle", &words::moment(tick as u64));
    }
    y + 18.0
}
