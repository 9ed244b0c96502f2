//! Which shard owns which keys, as far as the client knows.

use crate::hashing::Hashing;
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
        self.span.within(span)
    }
}

/// All routes, ascending by range, and the hashed directories heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    routes: Vec<Route>,
    /// Ascending by prefix; none lies in another.
    hashed: Vec<Hashing>,
}

/// Where a key is stored, as far as the client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The shard that has it.
    pub route: &'a Route,
    /// The key it is stored under.
    pub stored: Key,
    /// The hashed directory that it is in, to be named by requests about it.
    pub hashing: Option<&'a Hashing>,
}

impl Routes {
    /// Routes in any order; ranges must not overlap.
    #[must_use]
    pub fn new(mut routes: Vec<Route>) -> Routes {
        routes.sort_by(|a, b| a.span.start.cmp(&b.span.start));
        let hashed = Vec::new();
        Routes { routes, hashed }
    }

    /// These routes, with what others know of hashed directories.
    #[must_use]
    pub fn hashed_as(mut self, known: &Routes) -> Routes {
        self.hashed.clone_from(&known.hashed);
        self
    }

    /// The hashed directories heard of, ascending by prefix.
    #[must_use]
    pub fn hashed(&self) -> &[Hashing] {
        &self.hashed
    }

    /// A shard's leader told how its keys are stored (decision 22). What is
    /// known otherwise of its range was of another time.
    pub fn learn_hashing(&mut self, shard: GroupId, hashing: Option<Hashing>) {
        let Some(route) = self.routes.iter().find(|r| r.shard == shard) else {
            return;
        };
        let hashing = hashing.filter(Hashing::is_sound);
        let told = hashing
            .as_ref()
            .map_or_else(|| route.span.clone(), Hashing::span);
        self.hashed.retain(|known| !known.span().overlaps(&told));
        if let Some(hashing) = hashing {
            let at = self.hashed.partition_point(|h| h.prefix < hashing.prefix);
            self.hashed.insert(at, hashing);
        }
    }

    /// The hashed directory that a key, plain or stored, lies in.
    #[must_use]
    pub fn hashing_of(&self, key: &[u8]) -> Option<&Hashing> {
        let after = self.hashed.partition_point(|h| h.prefix[..] <= *key);
        let hashing = self.hashed.get(after.checked_sub(1)?)?;
        hashing.contains(key).then_some(hashing)
    }

    /// Where a plain key is stored; none if no shard is known to own that.
    #[must_use]
    pub fn place(&self, key: &Key) -> Option<Place<'_>> {
        let hashing = self.hashing_of(key);
        let stored = hashing.map_or_else(|| key.clone(), |hashing| hashing.store(key));
        let route = self.of_key(&stored)?;
        Some(Place {
            route,
            stored,
            hashing,
        })
    }

    /// The part of a span of plain keys at its near end that is stored in one way, and in
    /// which. The span must not be empty.
    #[must_use]
    pub fn part(&self, plain: &Span, reverse: bool) -> (Option<&Hashing>, Span) {
        let mut part = plain.clone();
        if reverse {
            let open = plain.end.is_empty();
            let before = |h: &Hashing| open || h.prefix < plain.end;
            let after = self.hashed.partition_point(before);
            let Some(last) = after.checked_sub(1).map(|at| &self.hashed[at]) else {
                return (None, part);
            };
            let span = last.span();
            if !open && plain.end <= span.end {
                return (Some(last), plain.within(&span));
            }
            part.start = part.start.max(span.end);
            return (None, part);
        }
        if let Some(hashing) = self.hashing_of(&plain.start) {
            return (Some(hashing), plain.within(&hashing.span()));
        }
        let after = self.hashed.partition_point(|h| h.prefix <= plain.start);
        if let Some(next) = self.hashed.get(after)
            && plain.contains(&next.prefix)
        {
            part.end.clone_from(&next.prefix);
        }
        (None, part)
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
