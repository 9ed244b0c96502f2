//! The picture: the faults, and below them what each site's clients saw, all on one
//! time axis.
//!
//! It is drawn twice, for a wide page and for a phone: one that is merely shrunk
//! would have letters that nobody can read.

mod faults;
mod panels;
mod scale;
mod site;
mod svg;
#[cfg(test)]
mod tests;

use super::columns::{self, Column};
use super::data::Report;
use super::faults::{Numbered, numbered};
use scale::{Scale, log_ends};
use svg::Svg;
pub(super) use svg::escape;

/// For what width it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A page on a screen.
    Wide,
    /// A phone, upright.
    Narrow,
}

impl Shape {
    fn width(self) -> f64 {
        match self {
            Shape::Wide => 1000.0,
            Shape::Narrow => 390.0,
        }
    }

    /// How many columns are drawn at most.
    pub(super) fn columns(self) -> usize {
        match self {
            Shape::Wide => 600,
            Shape::Narrow => 200,
        }
    }

    /// Room for the numbers of the axes.
    fn left(self) -> f64 {
        match self {
            Shape::Wide => 58.0,
            Shape::Narrow => 46.0,
        }
    }

    /// Room for the names of the curves.
    fn right(self) -> f64 {
        34.0
    }

    fn class(self) -> &'static str {
        match self {
            Shape::Wide => "picture wide",
            Shape::Narrow => "picture narrow",
        }
    }
}

/// What all parts of the picture share.
struct Frame<'a> {
    shape: Shape,
    time: Scale,
    end_millis: u64,
    faults: Vec<Numbered<'a>>,
    /// The ends of the axes of latency: the same for all sites, to compare them.
    latency: (f64, f64),
    /// Many sites get lower panels.
    is_dense: bool,
    /// Among many faults a site shows only those that were done to it.
    is_crowded: bool,
}

impl Frame<'_> {
    fn left(&self) -> f64 {
        self.time.from
    }

    fn right(&self) -> f64 {
        self.time.to
    }

    fn x(&self, millis: u64) -> f64 {
        self.time.at(millis as f64)
    }
}

/// Whether there are so many faults that a site shows only its own.
pub(super) fn is_crowded(report: &Report) -> bool {
    report.faults.len() > 12
}

/// The whole picture, as SVG.
pub(super) fn draw(report: &Report, shape: Shape) -> String {
    let end_millis = columns::end_millis(report);
    let of_site = |site| columns::columns(site, end_millis, shape.columns());
    let columns: Vec<Vec<Column>> = report.sites.iter().map(of_site).collect();
    let frame = Frame {
        shape,
        time: Scale::linear(
            0.0,
            end_millis as f64,
            shape.left(),
            shape.width() - shape.right(),
        ),
        end_millis,
        faults: numbered(report, end_millis),
        latency: latency_ends(&columns),
        is_dense: report.sites.len() > 6,
        is_crowded: is_crowded(report),
    };
    let mut svg = Svg::default();
    let mut top = faults::overview(&mut svg, &frame, 4.0);
    for (site, columns) in report.sites.iter().zip(&columns) {
        top = site::draw(&mut svg, &frame, site, columns, top + 14.0);
    }
    let label = format!("What the clients saw during {}", report.scenario);
    svg.finish(shape.class(), shape.width(), top + 6.0, &label)
}

/// The ends of an axis that holds every p50 and p99 of the run.
fn latency_ends(columns: &[Vec<Column>]) -> (f64, f64) {
    let all = columns.iter().flatten();
    let all = all.flat_map(|column| [column.p50_micros, column.p99_micros]);
    let all: Vec<u64> = all.filter(|micros| *micros > 0).collect();
    match (all.iter().min(), all.iter().max()) {
        (Some(low), Some(high)) => log_ends(*low as f64, *high as f64),
        _ => (1_000.0, 100_000.0),
    }
}
