//! SVG as text, piece by piece.

use std::fmt::Write as _;

/// Text as it stands between tags and in attributes. What XML cannot hold becomes
/// a space.
pub(in super::super) fn escape(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push(' '),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A position in few bytes: a tenth of a pixel is enough.
pub(super) fn place(value: f64) -> String {
    let value = if value.is_finite() { value } else { 0.0 };
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0" } else { text }.to_string()
}

/// A drawing under way.
#[derive(Debug, Default)]
pub(super) struct Svg {
    out: String,
}

impl Svg {
    pub(super) fn text(&mut self, x: f64, y: f64, class: &str, words: &str) {
        let (x, y, words) = (place(x), place(y), escape(words));
        let _ = writeln!(
            self.out,
            "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{words}</text>"
        );
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (x1, y1, x2, y2) = (place(from.0), place(from.1), place(to.0), place(to.1));
        let _ = writeln!(
            self.out,
            "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" class=\"{class}\"/>"
        );
    }

    /// A rectangle between two corners, with words that show when it is pointed at.
    pub(super) fn rect(&mut self, class: &str, from: (f64, f64), to: (f64, f64), title: &str) {
        let (x, y) = (place(from.0.min(to.0)), place(from.1.min(to.1)));
        let (width, height) = (place((to.0 - from.0).abs()), place((to.1 - from.1).abs()));
        let end = if title.is_empty() {
            "/>".to_string()
        } else {
            format!("><title>{}</title></rect>", escape(title))
        };
        let _ = writeln!(
            self.out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" class=\"{class}\"{end}"
        );
    }

    /// A path, if there is anything to it.
    pub(super) fn path(&mut self, class: &str, data: &str) {
        if !data.is_empty() {
            let _ = writeln!(self.out, "<path d=\"{data}\" class=\"{class}\"/>");
        }
    }

    /// The whole: an element of this size that tells readers without eyes what it is.
    pub(super) fn finish(self, class: &str, width: f64, height: f64, label: &str) -> String {
        let (width, height, label) = (place(width), place(height), escape(label));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             class=\"{class}\" role=\"img\" aria-label=\"{label}\">\n{}</svg>\n",
            self.out
        )
    }
}

/// Whether a step that begins at `from` follows one that ends at `until`.
fn follows(until: f64, from: f64) -> bool {
    (until - from).abs() < 0.05
}

/// Whether two heights are written alike.
fn is_same(one: f64, other: f64) -> bool {
    (one * 10.0).round() == (other * 10.0).round()
}

/// The outline of steps, each `(from, until, y)` in positions; where one does not
/// begin where the last ended, the pen is lifted.
pub(super) fn steps(steps: &[(f64, f64, f64)]) -> String {
    // Steps of one height are one: most of a quiet run.
    let mut merged: Vec<(f64, f64, f64)> = Vec::new();
    for &step in steps {
        match merged.last_mut() {
            Some(last) if follows(last.1, step.0) && is_same(last.2, step.2) => {
                last.1 = step.1;
            }
            _ => merged.push(step),
        }
    }
    let mut data = String::new();
    let mut end: Option<f64> = None;
    for (from, until, y) in merged {
        let _ = match end {
            Some(end) if follows(end, from) => write!(data, "V{}", place(y)),
            _ => write!(data, "M{},{}", place(from), place(y)),
        };
        let _ = write!(data, "H{}", place(until));
        end = Some(until);
    }
    data
}

/// What lies between steps and a floor, each step `(from, until, y, floor)`.
pub(super) fn areas(steps: &[(f64, f64, f64, f64)]) -> String {
    let mut data = String::new();
    let mut run: Vec<(f64, f64, f64, f64)> = Vec::new();
    for &step in steps {
        if run.last().is_some_and(|last| !follows(last.1, step.0)) {
            close(&mut data, &run);
            run.clear();
        }
        run.push(step);
    }
    close(&mut data, &run);
    data
}

/// There along the steps, back along the floor.
fn close(data: &mut String, run: &[(f64, f64, f64, f64)]) {
    let forth: Vec<_> = run.iter().map(|s| (s.0, s.1, s.2)).collect();
    let back: Vec<_> = run.iter().rev().map(|s| (s.1, s.0, s.3)).collect();
    if forth.is_empty() {
        return;
    }
    *data += &steps(&forth);
    // The way back continues the same outline.
    *data += &steps(&back).replacen('M', "L", 1);
    data.push('Z');
}
