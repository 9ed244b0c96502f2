//! What one site's clients saw: its name, three panels, and the time axis.

use super::super::columns::Column;
use super::super::data::Site;
use super::super::words;
use super::panels::{self, Area};
use super::svg::Svg;
use super::{Frame, Shape, faults};

/// The height of a panel's words above it.
const CAPTION: f64 = 20.0;

/// Draws the site from `top` on; returns where it ends.
pub(super) fn draw(
    svg: &mut Svg,
    frame: &Frame<'_>,
    site: &Site,
    columns: &[Column],
    top: f64,
) -> f64 {
    let (throughput, latency, errors) = if frame.is_dense {
        (56.0, 46.0, 14.0)
    } else {
        (88.0, 72.0, 24.0)
    };
    let top = heading(svg, frame, site, top);
    let top = faults::marks(svg, frame, site, top);
    let panel = |top: f64, height: f64| Area {
        top: top + CAPTION,
        bottom: top + CAPTION + height,
    };
    let throughput = panel(top, throughput);
    let latency = panel(throughput.bottom, latency);
    let errors = panel(latency.bottom, errors);
    faults::bands(svg, frame, site, top, errors.bottom);
    for area in [throughput, latency, errors] {
        faults::time_grid(svg, frame, area.top, area.bottom);
    }
    panels::throughput(svg, frame, columns, throughput);
    panels::longest_gap(svg, frame, site, throughput);
    panels::latency(svg, frame, columns, latency);
    panels::errors(svg, frame, columns, errors);
    faults::time_axis(svg, frame, errors.bottom)
}

/// The name, and the whole run in numbers; returns where it ends.
fn heading(svg: &mut Svg, frame: &Frame<'_>, site: &Site, top: f64) -> f64 {
    let gap = match site.longest_gap_millis {
        0 => String::new(),
        _ => format!("longest gap {}", words::gap(site)),
    };
    let nodes = words::many(site.nodes.len(), "node");
    let clients = words::many(site.clients, "client");
    let facts: Vec<&str> = [site.region.as_str(), &nodes, &clients, &gap]
        .into_iter()
        .filter(|fact| !fact.is_empty())
        .collect();
    let facts = facts.join(" · ");
    match frame.shape {
        Shape::Wide => {
            let name = words::cut(&site.name, 40);
            svg.text(frame.left(), top + 14.0, "name", &name);
            // What the name leaves of the line: its letters are the larger ones.
            let width = frame.right() - frame.left();
            let room = (width - 10.0 * name.chars().count() as f64) / 6.0;
            let facts = words::cut(&facts, room.max(0.0) as usize);
            svg.text(frame.right(), top + 14.0, "muted end", &facts);
            top + 24.0
        }
        Shape::Narrow => {
            let name = words::cut(&site.name, 40);
            svg.text(frame.left(), top + 14.0, "name", &name);
            svg.text(frame.left(), top + 30.0, "muted", &words::cut(&facts, 60));
            top + 38.0
        }
    }
}
