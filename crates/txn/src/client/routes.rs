//! Which shard owns which keys, as far as the client knows.

use crate::types::{Key, Span};
use serde::{Deserialize, Serialize};
use synod_paxos::{GroupId, Term};

/// One shard's range, and the term its leader had when last heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The shard.
    pub shard: GroupId,
    /// Its keys.
    pub span: Span,
    /// The last term heard of: a hint that saves asking before a blind write.
    /// A stale one costs one attempt, never safety (T4).
    pub term: Option<Term>,
}

impl Route {
    /// The part of `span` that lies in the shard.
    #[must_use]
    pub fn clip(&self, span: &Span) -> Span {
        let start: &Key = (&self.span.start).max(&span.start);
        let end = match (self.span.end.is_empty(), span.end.is_empty()) {
            (true, _) => &span.end,
            (_, true) => &self.span.end,
            _ => (&self.span.end).min(&span.end),
        };
        Span {
            start: start.clone(),
            end: end.clone(),
        }
    }
}

/// All routes, ascending by range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    routes: Vec<Route>,
}

impl Routes {
    /// Routes in any order; ranges must not overlap.
    #[must_use]
    pub fn new(mut routes: Vec<Route>) -> Routes {
        routes.sort_by(|a, b| a.span.start.cmp(&b.span.start));
        Routes { routes }
    }

    /// All of them, ascending by range.
    #[must_use]
    pub fn all(&self) -> &[Route] {
        &self.routes
    }

    /// The shard that owns `key`.
    #[must_use]
    pub fn of_key(&self, key: &[u8]) -> Option<&Route> {
        let after = self.routes.partition_point(|r| r.span.start[..] <= *key);
        let route = self.routes.get(after.checked_sub(1)?)?;
        route.span.contains(key).then_some(route)
    }

    /// The shard that owns the greatest keys below `end` (empty = the greatest of all).
    #[must_use]
    pub fn below(&self, end: &[u8]) -> Option<&Route> {
        if end.is_empty() {
            return self.routes.last().filter(|r| r.span.end.is_empty());
        }
        let after = self.routes.partition_point(|r| r.span.start[..] < *end);
        let route = self.routes.get(after.checked_sub(1)?)?;
        (route.span.end.is_empty() || *end <= route.span.end[..]).then_some(route)
    }

    /// The route of a shard.
    #[must_use]
    pub fn of_shard(&self, shard: GroupId) -> Option<&Route> {
        self.routes.iter().find(|r| r.shard == shard)
    }

    /// Remember the term a shard's leader named.
    pub fn learn_term(&mut self, shard: GroupId, term: Term) {
        if let Some(route) = self.routes.iter_mut().find(|r| r.shard == shard)
            && route.term.is_none_or(|known| known.ballot < term.ballot)
        {
            route.term = Some(term);
        }
    }
}
