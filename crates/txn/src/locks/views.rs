//! Views for who checks the lock table from outside.

use super::Locks;
use crate::request::LockMode;
use crate::types::{AttemptId, Key, Span, Write};

impl Locks {
    /// Whether `attempt` holds all of these: writes exclusively, reads at least shared.
    #[must_use]
    pub fn holds(&self, attempt: AttemptId, writes: &[Write], reads: &[Span]) -> bool {
        let point = |key: &Key, mode| {
            let cell = self.points.get(key);
            let mine = cell.and_then(|c| c.holders.iter().find(|h| h.0 == attempt));
            mine.is_some_and(|held| held.1 >= mode)
        };
        let span = |span: &Span| {
            let owner = self.owners.get(&attempt);
            span.as_key().map_or_else(
                || owner.is_some_and(|o| o.spans.iter().any(|(held, _)| held == span)),
                |key| point(key, LockMode::Shared),
            )
        };
        writes.iter().all(|w| point(&w.key, LockMode::Exclusive)) && reads.iter().all(span)
    }
}
