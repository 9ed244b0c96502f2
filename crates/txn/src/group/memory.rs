//! What a leader remembers of attempts that ended in its term without an entry
//! (T4, T7), bounded.
//!
//! A no that was *told*, to a client about its Commit or as a vote, is final: a
//! copy of the Commit that comes later must not be let in. So what is dropped of
//! these leaves a floor. All else here only saves work. A Commit that names a
//! session which has ended is refused whatever is remembered, and one that names
//! an earlier term as well; nobody was told anything by a Release, by the end of
//! a session, or by an abort that met nothing. These may be forgotten without a
//! trace: else a client could shut out others by taking back what never was.

use crate::types::{AbortReason, AttemptId, SessionId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use synod_probe::{Mutation, mutated};

/// Attempts refused because they lie too far ahead, remembered at most. Each stays
/// until its time has come, so beyond that nothing final is said.
const UNTIMELY: usize = 4096;

/// A no that was said for good (T4).
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct No {
    pub(super) reason: AbortReason,
    /// The session that ended with it. A Commit that names it is new, however
    /// old its attempt is: had it been met before, the session had ended then.
    pub(super) session: Option<SessionId>,
}

/// The newest of some attempts; the oldest go first.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Memory<T> {
    ended: BTreeMap<AttemptId, T>,
    order: VecDeque<AttemptId>,
}

impl<T> Default for Memory<T> {
    fn default() -> Memory<T> {
        Memory {
            ended: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T: Copy> Memory<T> {
    /// Returns the attempt that is forgotten for it.
    pub(super) fn insert(
        &mut self,
        attempt: AttemptId,
        ended: T,
        bound: usize,
    ) -> Option<AttemptId> {
        if self.ended.insert(attempt, ended).is_some() {
            return None;
        }
        self.order.push_back(attempt);
        if self.order.len() <= bound {
            return None;
        }
        let old = self.order.pop_front()?;
        self.ended.remove(&old);
        Some(old)
    }

    pub(super) fn get(&self, attempt: AttemptId) -> Option<T> {
        self.ended.get(&attempt).copied()
    }

    pub(super) fn contains(&self, attempt: AttemptId) -> bool {
        self.ended.contains_key(&attempt)
    }
}

/// Below what some attempts were forgotten (T7): floors, one for each stretch of
/// the ids' time. So one id from the far future, or from before all clocks fell
/// back, leaves everybody else's time as it was.
#[derive(Clone, Debug, Default, Serialize)]
struct Floors {
    /// Of all stretches that were dropped, which lay in the past.
    base: u64,
    /// By the number of the first stretch: the last one, and the floor of all.
    raised: BTreeMap<u64, (u64, u64)>,
}

impl Floors {
    /// Length of a stretch, as a power of two of milliseconds.
    const STRETCH: u32 = 6;
    /// Kept apart, at most: over eight minutes' of stretches.
    const MOST: usize = 8192;

    fn raise(&mut self, forgotten: AttemptId, now_millis: u64) {
        let above = forgotten.millis() + 1;
        let stretch = forgotten.millis() >> Self::STRETCH;
        let around = self.raised.range_mut(..=stretch).next_back();
        match around.filter(|(_, (end, _))| *end >= stretch) {
            Some((_, (_, floor))) => *floor = (*floor).max(above),
            None => {
                self.raised.insert(stretch, (stretch, above));
            }
        }
        if self.raised.len() > Self::MOST {
            self.shorten(now_millis);
        }
    }

    /// What is past is over for everybody. What is ahead must not become so before
    /// its time: there the two furthest become one.
    fn shorten(&mut self, now_millis: u64) {
        let past = |start: &u64| *start <= now_millis >> Self::STRETCH;
        if self.raised.first_key_value().is_some_and(|(s, _)| past(s)) {
            if let Some((_, (_, floor))) = self.raised.pop_first() {
                self.base = self.base.max(floor);
            }
        } else if let (Some(high), Some(low)) = (self.raised.pop_last(), self.raised.pop_last()) {
            self.raised.insert(low.0, high.1);
        }
    }

    /// The floor where this attempt lies; milliseconds.
    fn at(&self, attempt: AttemptId) -> u64 {
        let stretch = attempt.millis() >> Self::STRETCH;
        let around = self.raised.range(..=stretch).next_back();
        let raised = around.filter(|(_, (end, _))| *end >= stretch);
        self.base.max(raised.map_or(0, |(_, (_, floor))| *floor))
    }
}

/// The noes of one term. See the module.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Noes {
    told: Memory<No>,
    floors: Floors,
    untold: Memory<No>,
    /// Told of attempts too far ahead, which stay until their time has come.
    untimely: BTreeSet<AttemptId>,
}

impl Noes {
    /// A no that somebody was told, or will be. `now_millis` is about the time.
    pub(super) fn tell(&mut self, attempt: AttemptId, no: No, bound: usize, now_millis: u64) {
        let forgotten = self.told.insert(attempt, no, bound);
        if let Some(forgotten) = forgotten
            && !mutated(Mutation::ForgetIdFloor)
        {
            self.floors.raise(forgotten, now_millis);
        }
    }

    /// One that only saves work.
    pub(super) fn note(&mut self, attempt: AttemptId, no: No, bound: usize) {
        if !self.told.contains(attempt) {
            self.untold.insert(attempt, no, bound);
        }
    }

    /// Whether a no for an attempt that lies too far ahead may be told: it is
    /// remembered then. Ids up to `most_millis` do so no longer.
    pub(super) fn tell_untimely(
        &mut self,
        attempt: AttemptId,
        most_millis: u64,
        bound: usize,
        now_millis: u64,
    ) -> bool {
        if self.untimely.contains(&attempt) || self.told.contains(attempt) {
            return true;
        }
        while self.untimely.len() >= UNTIMELY {
            let due = self.untimely.first().copied();
            let Some(due) = due.filter(|due| due.millis() <= most_millis) else {
                return false;
            };
            self.untimely.remove(&due);
            self.tell(due, Self::UNTIMELY, bound, now_millis);
        }
        self.untimely.insert(attempt)
    }

    const UNTIMELY: No = No {
        reason: AbortReason::Deadline,
        session: None,
    };

    pub(super) fn get(&self, attempt: AttemptId) -> Option<No> {
        let untimely = || self.untimely.contains(&attempt).then_some(Self::UNTIMELY);
        let told = self.told.get(attempt).or_else(untimely);
        told.or_else(|| self.untold.get(attempt))
    }

    /// Whether the attempt, if it is not known, may have been told no and forgotten.
    pub(super) fn may_have_forgotten(&self, attempt: AttemptId) -> bool {
        attempt.millis() < self.floors.at(attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: No = No {
        reason: AbortReason::RolledBack,
        session: None,
    };

    fn id(millis: u64, number: u64) -> AttemptId {
        AttemptId((u128::from(millis) << 80) | u128::from(number))
    }

    #[test]
    fn what_nobody_was_told_leaves_no_floor() {
        let mut noes = Noes::default();
        for number in 1..10 {
            noes.note(id(1_000, number), NO, 2);
        }
        assert!(noes.get(id(1_000, 9)).is_some());
        assert!(noes.get(id(1_000, 7)).is_none());
        assert!(!noes.may_have_forgotten(id(1_000, 7)));
        for number in 1..4 {
            noes.tell(id(1_000, number), NO, 2, 1_000);
        }
        assert!(noes.may_have_forgotten(id(1_000, 1)));
    }

    #[test]
    fn ids_from_the_future_shut_only_their_own_times() {
        let mut noes = Noes::default();
        let hour = 3_600_000;
        for number in 0..30_000 {
            noes.tell(id(hour + number * 500, number), NO, 1, 1_000);
        }
        assert!(noes.floors.raised.len() <= Floors::MOST);
        for number in 0..29_999 {
            assert!(noes.may_have_forgotten(id(hour + number * 500, number)));
        }
        assert!(!noes.may_have_forgotten(id(1_000, 1)));
        assert!(!noes.may_have_forgotten(id(hour + 100, 1)), "between two");
        assert_eq!(noes.floors.base, 0);
    }

    #[test]
    fn floors_of_the_past_become_one() {
        let mut noes = Noes::default();
        let last = 30_000 * 64;
        for number in 0..30_000 {
            noes.tell(id(number * 64, number), NO, 1, number * 64);
        }
        assert!(noes.floors.raised.len() <= Floors::MOST);
        assert!(noes.floors.base > 0);
        assert!(noes.may_have_forgotten(id(64, 1)));
        assert!(!noes.may_have_forgotten(id(last, 1)));
    }

    #[test]
    fn what_is_untimely_stays_until_its_time() {
        let mut noes = Noes::default();
        for number in 0..UNTIMELY as u64 {
            assert!(noes.tell_untimely(id(100_000 + number, number), 30_000, 10, 0));
        }
        assert!(noes.tell_untimely(id(100_000, 0), 30_000, 10, 0), "again");
        assert!(!noes.tell_untimely(id(200_000, 1), 30_000, 10, 0), "full");
        // Two times have come.
        assert!(noes.tell_untimely(id(200_000, 1), 100_001, 10, 80_000));
        assert!(noes.tell_untimely(id(200_000, 2), 100_001, 10, 80_000));
        assert!(!noes.tell_untimely(id(200_000, 3), 100_001, 10, 80_000));
        assert!(noes.get(id(100_000, 0)).is_some(), "told for good");
        assert!(noes.get(id(200_000, 3)).is_none());
    }
}
