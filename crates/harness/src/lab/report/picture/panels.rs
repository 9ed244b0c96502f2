//! A site's panels: how much succeeded, how long it took, and what did not.

use super::super::columns::Column;
use super::super::data::Site;
use super::super::words;
use super::Frame;
use super::scale::{Scale, linear_ticks, log_ticks};
use super::svg::{Svg, areas, steps};

/// Where a panel lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Area {
    /// How many numbers an axis of this height has room for.
    fn ticks(self) -> usize {
        ((self.bottom - self.top) / 18.0).max(1.0) as usize
    }
}

/// What stands behind the curves: a thin line across and its value, for each; the
/// floor; and what the panel shows, above it, where no curve can cross the words.
fn axis(svg: &mut Svg, frame: &Frame<'_>, scale: &Scale, ticks: &[(f64, String)], caption: &str) {
    for (value, name) in ticks {
        let y = scale.at(*value);
        svg.line("grid", (frame.left(), y), (frame.right(), y));
        svg.text(frame.left() - 6.0, y + 4.0, "muted end", name);
    }
    let (floor, top) = (scale.from, scale.to);
    svg.line("axis", (frame.left(), floor), (frame.right(), floor));
    svg.text(frame.left(), top - 5.0, "muted", caption);
}

fn named(ticks: Vec<f64>, name: impl Fn(f64) -> String) -> Vec<(f64, String)> {
    ticks.into_iter().map(|tick| (tick, name(tick))).collect()
}

/// The axis of successes per second: from zero to a little above the peak.
pub(super) fn rate_scale(columns: &[Column], area: Area) -> Scale {
    let peak = columns.iter().map(Column::rate).fold(0.0, f64::max);
    let high = if peak > 0.0 { peak * 1.05 } else { 1.0 };
    Scale::linear(0.0, high, area.bottom, area.top)
}

/// Successes per second.
pub(super) fn throughput(svg: &mut Svg, frame: &Frame<'_>, columns: &[Column], area: Area) {
    let scale = rate_scale(columns, area);
    let ticks = named(linear_ticks(scale.high, area.ticks()), words::short);
    axis(svg, frame, &scale, &ticks, "successes per second");
    let heights: Vec<(f64, f64, f64)> = (columns.iter())
        .map(|c| {
            (
                frame.time.at(c.from_millis),
                frame.time.at(c.until_millis),
                scale.at(c.rate()),
            )
        })
        .collect();
    let filled: Vec<_> = heights
        .iter()
        .map(|h| (h.0, h.1, h.2, area.bottom))
        .collect();
    svg.path("ok area", &areas(&filled));
    svg.path("ok curve", &steps(&heights));
}

/// The longest time without a success, as a bracket.
pub(super) fn longest_gap(svg: &mut Svg, frame: &Frame<'_>, site: &Site, area: Area) {
    let from = site.longest_gap_began_millis;
    if site.longest_gap_millis == 0 || from >= frame.end_millis {
        return;
    }
    let until = from.saturating_add(site.longest_gap_millis);
    let (left, right) = (frame.x(from), frame.x(until.min(frame.end_millis)));
    let y = area.bottom - 8.0;
    // One that can hardly be seen is told above the panels only.
    if right - left < 6.0 {
        svg.line("gap", (left, y - 4.0), (left, y + 4.0));
        return;
    }
    svg.line("gap", (left, y), (right, y));
    for x in [left, right] {
        svg.line("gap", (x, y - 4.0), (x, y + 4.0));
    }
    let words = format!("longest gap {}", words::lasted(site.longest_gap_millis));
    let half = words.chars().count() as f64 * 3.1;
    let middle = f64::midpoint(left, right);
    let middle = middle.min(frame.right() - half).max(frame.left() + half);
    svg.text(middle, y - 8.0, "halo middle", &words);
}

/// The p50 and the p99 of what succeeded.
pub(super) fn latency(svg: &mut Svg, frame: &Frame<'_>, columns: &[Column], area: Area) {
    let (low, high) = frame.latency;
    let scale = Scale::log(low, high, area.bottom, area.top);
    let ticks = log_ticks(low, high, area.ticks());
    let ticks = named(ticks, |micros| words::micros(micros as u64));
    axis(svg, frame, &scale, &ticks, "latency of successes");
    let succeeded: Vec<&Column> = columns.iter().filter(|column| column.ok > 0).collect();
    let curve = |value: fn(&Column) -> u64| -> Vec<(f64, f64, f64)> {
        let step = |c: &&Column| {
            let height = scale.at(value(c) as f64);
            (
                frame.time.at(c.from_millis),
                frame.time.at(c.until_millis),
                height,
            )
        };
        succeeded.iter().map(step).collect()
    };
    let (p50, p99) = (curve(|c| c.p50_micros), curve(|c| c.p99_micros));
    let between: Vec<_> = p99
        .iter()
        .zip(&p50)
        .map(|(p99, p50)| (p99.0, p99.1, p99.2, p50.2))
        .collect();
    svg.path("ok area", &areas(&between));
    svg.path("p99 curve", &steps(&p99));
    svg.path("ok curve", &steps(&p50));
    if let (Some(p50), Some(p99)) = (p50.last(), p99.last()) {
        // Two names need eleven units between them.
        let low = p50.2.min(area.bottom - 1.0).max(area.top + 12.0);
        let high = p99.2.min(low - 11.0);
        svg.text(p50.1 + 4.0, low + 4.0, "name-p50", "p50");
        svg.text(p99.1 + 4.0, high + 4.0, "name-p99", "p99");
    }
}

/// The shares of what ended that failed and that are unknown.
pub(super) fn errors(svg: &mut Svg, frame: &Frame<'_>, columns: &[Column], area: Area) {
    let scale = Scale::linear(0.0, 1.0, area.bottom, area.top);
    let ticks = named(vec![0.0, 1.0], words::percent);
    axis(svg, frame, &scale, &ticks, "failed or unknown");
    let (mut failed, mut unknown) = (Vec::new(), Vec::new());
    for column in columns {
        let Some((failures, unknowns)) = column.shares() else {
            continue;
        };
        let (from, until) = (
            frame.time.at(column.from_millis),
            frame.time.at(column.until_millis),
        );
        // One failure of thousands must be seen, too.
        let height = |share: f64| match share {
            0.0 => 0.0,
            share => (scale.at(0.0) - scale.at(share)).max(1.5),
        };
        let middle = area.bottom - height(failures);
        let top = (middle - height(unknowns)).max(area.top);
        if failures > 0.0 {
            failed.push((from, until, middle, area.bottom));
        }
        if unknowns > 0.0 {
            unknown.push((from, until, top, middle));
        }
    }
    svg.path("failed solid", &areas(&failed));
    svg.path("unknown solid", &areas(&unknown));
}
