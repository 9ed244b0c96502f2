//! Ranges of keys to read.

use synod_shard::RESERVED_PREFIX;
use synod_txn::{Key, MAX_SCAN_ROWS, Span, Value};

/// Keys to read, in which order, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub(crate) span: Span,
    pub(crate) limit: u64,
    pub(crate) reverse: bool,
    pub(crate) page_rows: u32,
}

impl Range {
    /// The keys `from <= key < to`; an empty `to` means "to the end".
    #[must_use]
    pub fn new(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Range {
        Range::of_span(Span {
            start: Key::copy_from_slice(from.as_ref()),
            end: Key::copy_from_slice(to.as_ref()),
        })
    }

    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Range {
        Range::of_span(Span::of_prefix(prefix.as_ref()))
    }

    /// All keys.
    #[must_use]
    pub fn all() -> Range {
        Range::new([], [])
    }

    fn of_span(mut span: Span) -> Range {
        // The cluster's own keys come last and are no user's business.
        if span.end.is_empty() || span.end[..] > *RESERVED_PREFIX {
            span.end = Key::from_static(RESERVED_PREFIX);
        }
        Range {
            span,
            limit: u64::MAX,
            reverse: false,
            page_rows: 1_000,
        }
    }

    /// At most this many rows.
    #[must_use]
    pub const fn limit(mut self, rows: u64) -> Range {
        self.limit = rows;
        self
    }

    /// From the greatest key downwards.
    #[must_use]
    pub const fn reverse(mut self) -> Range {
        self.reverse = true;
        self
    }

    /// Rows fetched at once (default 1,000, at most 10,000).
    #[must_use]
    pub const fn page_rows(mut self, rows: u32) -> Range {
        self.page_rows = match rows {
            0 => 1,
            rows if rows > MAX_SCAN_ROWS => MAX_SCAN_ROWS,
            rows => rows,
        };
        self
    }

    /// Whether nothing is left to read.
    pub(crate) fn is_done(&self) -> bool {
        self.limit == 0 || self.span.is_empty()
    }

    /// Rows to ask for next.
    pub(crate) fn next_rows(&self) -> u32 {
        u32::try_from(self.limit).map_or(self.page_rows, |limit| limit.min(self.page_rows))
    }

    /// This range without what was read of it; none = everything was read.
    pub(crate) fn after(&self, rows: usize, rest: Option<Span>) -> Option<Range> {
        let limit = self.limit - (rows as u64).min(self.limit);
        let rest = Range {
            span: rest?,
            limit,
            ..self.clone()
        };
        (!rest.is_done()).then_some(rest)
    }
}

/// Some rows of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values, in the range's order.
    pub rows: Vec<(Key, Value)>,
    /// What is left to read; none = nothing. Scan on with it, now or later.
    pub rest: Option<Range>,
}
