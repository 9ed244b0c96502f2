//! Views for who checks the lock table from outside.

use super::{Age, Locks, Stage, What};
use crate::request::LockMode;
use crate::types::{AttemptId, Key, Priority, Span, Write};

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

    /// A request filed under a younger holder that may be wounded here, by the
    /// ages that `age` knows: the waiter and the holder.
    #[must_use]
    pub fn waits_for_younger(
        &self,
        age: &dyn Fn(AttemptId) -> Option<Priority>,
    ) -> Option<(AttemptId, AttemptId)> {
        let waiters = self.waiters.values();
        let waiters = waiters.filter(|w| matches!(w.what, What::Locks(_)));
        let mut pairs = waiters.map(|w| (w.age.attempt(), w.on));
        pairs.find(|(waiter, holder)| {
            let open = self.stage(*holder) == Some(Stage::Open);
            match (age(*waiter), age(*holder)) {
                (Some(one), Some(other)) => {
                    open && Age::new(one, *waiter) < Age::new(other, *holder)
                }
                _ => false,
            }
        })
    }
}
