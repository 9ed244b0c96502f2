//! The report as a page.

use super::Report;

/// The report as one page without anything else.
#[must_use]
pub fn html(report: &Report) -> String {
    let text = super::text(report);
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("<!doctype html><meta charset=\"utf-8\"><title>lab</title><pre>{text}</pre>\n")
}
