//! What a leader knows of one follower, and how much may be on the way to it.

use crate::effect::SnapshotId;
use crate::ids::{Mono, Round, Slot, SupportEpoch};
use serde::Serialize;
use std::collections::VecDeque;

/// Unanswered messages double the wait up to this power of two.
const MAX_BACKOFF: u32 = 5;

/// How long a leader sends nothing to a follower that does not answer, at most, and a little; nanoseconds.
pub(crate) const fn longest_silence(retry_nanos: u64) -> u64 {
    retry_nanos.saturating_mul((1 << MAX_BACKOFF) + 1)
}

/// How entries go to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Mode {
    /// Where its log joins on is not known: one empty Accept asks.
    Probe,
    /// Entries are sent ahead, as far as the window allows.
    Stream,
    /// It needs entries that are trimmed here; a snapshot is on its way.
    Snapshot,
}

/// A snapshot on its way to a follower: one chunk at a time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Transfer {
    /// None until the driver has opened it.
    pub(crate) id: Option<SnapshotId>,
    /// The chunk that is read or unacknowledged.
    pub(crate) chunk: u64,
    pub(crate) retry: Mono,
    pub(crate) tries: u32,
}

/// One follower.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Progress {
    pub(crate) mode: Mode,
    /// Holds everything up to here under the leader's ballot, durably; 0 before
    /// it holds the sync.
    pub(crate) matched: Slot,
    /// Whether it holds the data, as its last Accepted said.
    pub(crate) data: bool,
    /// The next slot to send.
    pub(crate) next: Slot,
    /// Where the sync it was sent begins.
    pub(crate) sync_first: Slot,
    /// What is on the way: last slot and bytes of each message.
    flight: VecDeque<(Slot, usize)>,
    pub(crate) flight_bytes: usize,
    /// The decided slot it was told last.
    pub(crate) told: Slot,
    /// The one it was told last in a message that nobody answers.
    pub(crate) told_idly: Slot,
    /// The newest support it stamped into an Accepted (L2).
    pub(crate) support: SupportEpoch,
    /// The support for which a fresh stamp was asked.
    pub(crate) asked: SupportEpoch,
    /// The support asked for when something was last sent.
    pub(crate) asked_sent: SupportEpoch,
    /// A sync without entries is on the way.
    pub(crate) bare_sync_sent: bool,
    /// How much of the sync it holds, as it says, while it lacks the rest.
    staged: Slot,
    /// The youngest round it echoed, and was sent.
    pub(crate) round: Round,
    pub(crate) round_sent: Round,
    /// When to send again, while something is unanswered.
    pub(crate) retry: Option<Mono>,
    pub(crate) tries: u32,
    /// Whether its node supported this one when last looked at.
    reachable: bool,
    /// The gap answered last, so that a burst of them starts one stream.
    pub(crate) gap: Option<Slot>,
    pub(crate) transfer: Option<Transfer>,
}

impl Progress {
    /// A follower whose log is known to be proven up to `decided`, or is not known.
    pub(crate) fn new(decided: Option<Slot>, last: Slot) -> Progress {
        let next = decided.unwrap_or(last).min(last).next();
        Progress {
            mode: if decided.is_some() {
                Mode::Stream
            } else {
                Mode::Probe
            },
            matched: Slot(0),
            data: false,
            next,
            sync_first: next,
            flight: VecDeque::new(),
            flight_bytes: 0,
            told: Slot(0),
            told_idly: Slot(0),
            support: SupportEpoch::NONE,
            asked: SupportEpoch::NONE,
            asked_sent: SupportEpoch::NONE,
            bare_sync_sent: false,
            staged: next.prev(),
            round: Round(0),
            round_sent: Round(0),
            retry: None,
            tries: 0,
            reachable: true,
            gap: None,
            transfer: None,
        }
    }

    /// Whether an answer is owed.
    pub(crate) fn is_owed(&self) -> bool {
        match self.mode {
            Mode::Probe => true,
            Mode::Stream => {
                self.matched.next() < self.next
                    || self.round < self.round_sent
                    || self.support < self.asked
            }
            Mode::Snapshot => false,
        }
    }

    /// Whether it promised, and has not accepted the sync yet.
    pub(crate) fn is_being_synced(&self) -> bool {
        self.mode == Mode::Stream && self.matched == Slot(0)
    }

    /// Notes whether its node supports this one; one that came back is asked at once.
    pub(crate) fn note_reachable(&mut self, reachable: bool) {
        if reachable && !self.reachable && self.mode == Mode::Probe {
            self.retry = None;
            self.tries = 0;
        }
        self.reachable = reachable;
    }

    /// Something was sent: makes sure it is sent again if nobody answers.
    pub(crate) fn sent(&mut self, now: Mono, retry_nanos: u64) {
        if self.retry.is_none() {
            self.arm(now, retry_nanos);
        }
    }

    fn arm(&mut self, now: Mono, retry_nanos: u64) {
        self.retry = Some(now.plus(retry_nanos << self.tries.min(MAX_BACKOFF)));
    }

    /// An answer that moved something on: patience starts anew.
    pub(crate) fn advanced(&mut self, now: Mono, retry_nanos: u64) {
        self.tries = 0;
        self.retry = None;
        if self.is_owed() {
            self.arm(now, retry_nanos);
        }
    }

    /// The retry timer fired: forget what is on the way, ask where it stands.
    pub(crate) fn rewind(&mut self, now: Mono, retry_nanos: u64) {
        if !self.is_owed() {
            self.retry = None;
            return;
        }
        self.tries = (self.tries + 1).min(MAX_BACKOFF);
        self.mode = Mode::Probe;
        self.clear_flight();
        self.arm(now, retry_nanos);
    }

    pub(crate) fn launch(&mut self, last: Slot, bytes: usize) {
        self.flight.push_back((last, bytes));
        self.flight_bytes += bytes;
        self.next = last.next();
    }

    /// Holds all the leader has by way of a snapshot, but has not accepted it: a
    /// sync without entries makes up for that.
    pub(crate) fn wants_bare_sync(&self, flushed: Slot) -> bool {
        self.is_being_synced()
            && self.next > flushed
            && self.flight.is_empty()
            && !self.bare_sync_sent
    }

    pub(crate) fn clear_flight(&mut self) {
        self.bare_sync_sent = false;
        self.flight.clear();
        self.flight_bytes = 0;
    }

    /// The follower durably holds everything through `last`. Returns whether that is news.
    pub(crate) fn landed(&mut self, last: Slot) -> bool {
        self.landed_bytes(last);
        let news = last > self.matched;
        self.matched = self.matched.max(last);
        self.next = self.next.max(self.matched.next());
        news
    }

    fn landed_bytes(&mut self, last: Slot) {
        while let Some((slot, bytes)) = self.flight.front().copied() {
            if slot > last {
                break;
            }
            self.flight.pop_front();
            self.flight_bytes -= bytes;
        }
    }

    /// A gap that only says how much of the sync has arrived, not that something
    /// is missing: returns true and makes room in the window.
    pub(crate) fn staged_through(&mut self, slot: Slot) -> bool {
        let news = self.matched == Slot(0) && slot > self.staged && slot < self.next;
        if news {
            self.landed_bytes(slot);
            self.staged = slot;
        }
        news
    }

    /// Asks anew where its log joins on.
    pub(crate) fn probe(&mut self) {
        self.mode = Mode::Probe;
        self.clear_flight();
        self.retry = None;
        self.tries = 0;
    }

    /// Streams from the slot after `slot` on.
    pub(crate) fn restart_after(&mut self, slot: Slot) {
        self.clear_flight();
        self.mode = Mode::Stream;
        self.next = slot.next();
        self.staged = slot;
        self.sync_first = self.sync_first.min(self.next);
    }
}

impl Transfer {
    pub(crate) fn arm(&mut self, now: Mono, retry_nanos: u64) {
        self.retry = now.plus(retry_nanos << self.tries.min(MAX_BACKOFF));
    }
}
