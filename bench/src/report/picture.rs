//! The picture: throughput over clients, and how many times etcd's each
//! workload reaches. Legible on light and on dark ground.

use super::markdown::{LOOPS, name, number};
use super::summary::{Range, Summary};
use crate::plan::Group;
use crate::record::Subject;
use crate::system::System;
use std::fmt::Write as _;

/// The whole width, in SVG's units.
const WIDTH: f64 = 900.0;
const MARGIN: f64 = 16.0;
/// The charts of throughput.
const CHART_TOP: f64 = 76.0;
const CHART_HEIGHT: f64 = 190.0;
/// The bars.
const BARS_TOP: f64 = CHART_TOP + CHART_HEIGHT + 92.0;
const BAR_STEP: f64 = 22.0;
const BAR_HEIGHT: f64 = 12.0;
const BARS_LEFT: f64 = 210.0;
const BARS_RIGHT: f64 = 690.0;
/// Bars show a workload with the most clients it was measured with, up to these.
const CLIENTS: u32 = 256;

const STYLE: &str = "\
text { font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.muted { fill: #59636e }
.end { text-anchor: end }
.middle { text-anchor: middle }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.one { stroke: #59636e; stroke-width: 1.5 }
.whisker { stroke: #1f2328; stroke-width: 1.5 }
.synod { fill: #0969da; stroke: #0969da }
.etcd { fill: #bc4c00; stroke: #bc4c00 }
.curve { fill: none; stroke-width: 2 }
.bar { stroke: none }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.muted { fill: #9198a1 }
.grid { stroke: #3d444d }
.one { stroke: #9198a1 }
.whisker { stroke: #e6edf3 }
.synod { fill: #4493f8; stroke: #4493f8 }
.etcd { fill: #f0883e; stroke: #f0883e }
.curve { fill: none }
.bar { stroke: none }
}";

/// From values to positions, by their logarithms.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        self.from + share * (self.to - self.from)
    }
}

/// The whole picture, as SVG.
pub fn draw(summary: &Summary) -> String {
    let bars = bars_of(summary);
    let height = BARS_TOP + BAR_STEP * bars.len() as f64 + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
         height=\"{height:.0}\" role=\"img\" aria-label=\"Synod and etcd side by side\">\n\
         <style>\n{STYLE}\n</style>\n"
    );
    text(
        &mut svg,
        MARGIN,
        26.0,
        "title",
        "Operations per second, by clients",
    );
    key(&mut svg, 330.0, 22.0);
    let charts = [
        (Group::Put, "put", "write one key"),
        (Group::Get, "get", "read one key, linearizable"),
        (Group::Txn2, "txn2", "read two keys, write both"),
    ];
    let width = (WIDTH - 2.0 * MARGIN) / charts.len() as f64;
    for (index, (group, workload, title)) in charts.into_iter().enumerate() {
        let left = MARGIN + width * index as f64;
        let subjects = summary.subjects(group).filter(|s| s.workload == workload);
        let subjects: Vec<&Subject> = subjects.collect();
        chart(&mut svg, summary, &subjects, left, width, title);
    }
    let title = "Times etcd's operations per second (log scale; whiskers: least and greatest)";
    text(&mut svg, MARGIN, BARS_TOP - 34.0, "title", title);
    ratios(&mut svg, &bars);
    svg += "</svg>\n";
    svg
}

fn key(svg: &mut String, left: f64, y: f64) {
    for (index, system) in [System::Synod, System::Etcd].into_iter().enumerate() {
        let x = left + 80.0 * index as f64;
        let class = system.name();
        let _ = writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"5\" class=\"{class}\"/>"
        );
        text(svg, x + 10.0, y + 4.0, "", class);
    }
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{words}</text>"
    );
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
    );
}

/// Throughput of both over clients.
fn chart(
    svg: &mut String,
    summary: &Summary,
    subjects: &[&Subject],
    left: f64,
    width: f64,
    title: &str,
) {
    text(svg, left + 44.0, CHART_TOP - 14.0, "muted", title);
    let most = subjects.iter().map(|s| s.clients).max().unwrap_or(1);
    let x = Scale {
        low: 1.0,
        high: f64::from(most).max(2.0),
        from: left + 52.0,
        to: left + width - 16.0,
    };
    let y = Scale {
        low: 300.0,
        high: 300_000.0,
        from: CHART_TOP + CHART_HEIGHT,
        to: CHART_TOP,
    };
    for (value, words) in [(1e3, "1k"), (1e4, "10k"), (1e5, "100k")] {
        line(svg, "grid", (x.from, y.at(value)), (x.to, y.at(value)));
        text(svg, x.from - 8.0, y.at(value) + 4.0, "muted end", words);
    }
    for subject in subjects {
        let clients = f64::from(subject.clients);
        let words = number(clients);
        text(svg, x.at(clients), y.from + 18.0, "muted middle", &words);
    }
    for system in [System::Etcd, System::Synod] {
        let points: Vec<(f64, Range)> = (subjects.iter())
            .filter_map(|s| Some((x.at(s.clients.into()), summary.range(s, system, "rate")?)))
            .collect();
        let class = system.name();
        let path: Vec<String> = (points.iter())
            .map(|(x, rate)| format!("{x:.1},{:.1}", y.at(rate.median)))
            .collect();
        let path = path.join(" ");
        let _ = writeln!(svg, "<polyline points=\"{path}\" class=\"{class} curve\"/>");
        for (at, rate) in &points {
            line(svg, class, (*at, y.at(rate.low)), (*at, y.at(rate.high)));
            let middle = y.at(rate.median);
            let _ = writeln!(
                svg,
                "<circle cx=\"{at:.1}\" cy=\"{middle:.1}\" r=\"3\" class=\"{class}\"/>"
            );
        }
        if let Some((at, rate)) = points.last() {
            let above = if system == System::Synod { -9.0 } else { 16.0 };
            let y = y.at(rate.median) + above;
            text(svg, *at, y, "end", &number(rate.median));
        }
    }
}

struct Bar {
    label: String,
    ratio: Range,
    rates: String,
}

/// Each workload with the most clients up to a bound.
fn bars_of(summary: &Summary) -> Vec<Bar> {
    let mut bars: Vec<(&Subject, Bar)> = Vec::new();
    for subject in LOOPS.iter().flat_map(|group| summary.subjects(*group)) {
        let Some(ratio) = summary.ratio(subject, "rate") else {
            continue;
        };
        if subject.clients > CLIENTS {
            continue;
        }
        let rate = |system| {
            let rate = summary.range(subject, system, "rate");
            rate.map_or_else(String::new, |rate| number(rate.median))
        };
        let bar = Bar {
            label: format!("{}, {} clients", name(subject), subject.clients),
            ratio,
            rates: format!("{} : {}", rate(System::Synod), rate(System::Etcd)),
        };
        // Of one workload the one with more clients comes later.
        let is_same =
            |s: &Subject| s.workload == subject.workload && s.value_bytes == subject.value_bytes;
        bars.retain(|(other, _)| !is_same(other));
        bars.push((subject, bar));
    }
    bars.into_iter().map(|(_, bar)| bar).collect()
}

fn ratios(svg: &mut String, bars: &[Bar]) {
    let highest = bars.iter().map(|bar| bar.ratio.high).fold(10.0, f64::max);
    let lowest = bars.iter().map(|bar| bar.ratio.low).fold(0.9, f64::min);
    let x = Scale {
        low: lowest.max(0.01),
        high: highest,
        from: BARS_LEFT,
        to: BARS_RIGHT,
    };
    let bottom = BARS_TOP + BAR_STEP * bars.len() as f64;
    for value in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0] {
        if value < x.low || value > x.high {
            continue;
        }
        let class = if value == 1.0 { "one" } else { "grid" };
        line(
            svg,
            class,
            (x.at(value), BARS_TOP - 6.0),
            (x.at(value), bottom),
        );
        let words = format!("{value} ×");
        text(svg, x.at(value), BARS_TOP - 12.0, "muted middle", &words);
    }
    for (index, bar) in bars.iter().enumerate() {
        let top = BARS_TOP + BAR_STEP * index as f64;
        let middle = top + BAR_HEIGHT / 2.0;
        let (from, to) = (x.at(1.0), x.at(bar.ratio.median));
        let class = if bar.ratio.median < 1.0 {
            "etcd"
        } else {
            "synod"
        };
        let (left, width) = (from.min(to), (to - from).abs().max(1.0));
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" class=\"{class} bar\"/>"
        );
        let (low, high) = (x.at(bar.ratio.low), x.at(bar.ratio.high));
        line(svg, "whisker", (low, middle), (high, middle));
        text(svg, BARS_LEFT - 12.0, middle + 4.0, "end", &bar.label);
        let words = format!("{} ×", number(bar.ratio.median));
        text(svg, BARS_RIGHT + 12.0, middle + 4.0, "", &words);
        text(svg, BARS_RIGHT + 74.0, middle + 4.0, "muted", &bar.rates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_factors_are_equally_far_apart() {
        let scale = Scale {
            low: 1.0,
            high: 100.0,
            from: 0.0,
            to: 10.0,
        };
        assert!((scale.at(10.0) - 5.0).abs() < 1e-9);
        assert!((scale.at(0.5) - 0.0).abs() < 1e-9 && (scale.at(1e6) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn an_empty_summary_is_still_a_picture() {
        let svg = draw(&Summary::of(Vec::new()));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
