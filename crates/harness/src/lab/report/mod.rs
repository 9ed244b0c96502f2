//! What a run of the lab found, as data, as text and as a page.

mod data;
mod html;
mod text;

pub use data::{Bucket, FaultMark, HistoryResult, LinkInfo, Report, Site, Totals, Verdict};
pub use html::html;
pub use text::text;
