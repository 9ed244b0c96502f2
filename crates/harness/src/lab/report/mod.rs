//! What a run of the fault lab did, for people: as text for a terminal and as one
//! page for a browser.
//!
//! | part | for |
//! |---|---|
//! | `data` | what is told of a run; the engine fills it |
//! | `text` | the terminal, at most 100 columns |
//! | `html` | one page that needs nothing else: no script, no font, no network |
//! | `picture` | the page's picture: every site and every fault on one time axis |
//! | `columns`, `faults`, `words` | what text and page share |
//!
//! Both are pure functions of the data: the same report gives the same bytes.
//! Whatever is in the data, they give something readable: no sites, no buckets,
//! thousands of buckets, faults after the end, rates that are not numbers.

mod columns;
mod data;
#[cfg(test)]
mod example;
mod faults;
mod html;
mod picture;
#[cfg(test)]
mod tests;
mod text;
mod words;

pub use data::{Bucket, FaultMark, HistoryResult, LinkInfo, Report, Site, Totals, Verdict};
pub use html::html;
pub use text::text;
