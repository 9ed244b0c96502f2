//! When each peer is asked for support.
//!
//! A pair of nodes needs two renewals, one each way. Each could come at its own time; but
//! one that goes along with the answer to the other's costs a few bytes in a
//! packet that is sent anyway. So of every pair one node asks when its time comes, and the
//! other one with its answer: it waits a little longer, and asks by itself only when nothing came.
//!
//! How often is a matter of liveness alone: what a holder counts on is what each
//! answer says (L2). While timestamps are used, and while an answer is missing, it is every
//! L/4. While none are, nobody needs a higher limit before the old one ends, and
//! it is nearly L/2.

use super::settings::LeaseSettings;
use crate::ids::{Mono, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One peer's turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Turn {
    /// When it was asked last; none: it is to be asked at once.
    asked: Option<Mono>,
    /// Whether the last question was answered.
    answered: bool,
    /// The peer asks first, and the next question goes along with the answer to its.
    second: bool,
    /// It asked, and the answer waits for the disk.
    waits: bool,
    /// Ask it now, together with an answer.
    now: bool,
}

/// The turns of all peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turns {
    me: NodeId,
    /// This node included.
    peers: BTreeMap<NodeId, Turn>,
    /// Timestamps are used until then.
    used_until: Mono,
}

impl Turns {
    pub(super) fn new(me: NodeId, peers: Vec<NodeId>) -> Turns {
        let mut turns = Turns {
            me,
            peers: BTreeMap::new(),
            used_until: Mono(0),
        };
        turns.set_peers(&peers);
        turns
    }

    /// Replaces the peers; new ones are asked at once. Returns whether there was a change.
    pub(super) fn set_peers(&mut self, peers: &[NodeId]) -> bool {
        let named = |id: &NodeId| *id == self.me || peers.contains(id);
        let before = self.peers.len();
        self.peers.retain(|id, _| named(id));
        let mut changed = self.peers.len() != before;
        for id in peers.iter().chain([&self.me]) {
            changed |= !self.peers.contains_key(id);
            self.peers.entry(*id).or_default();
        }
        changed
    }

    pub(super) fn contains(&self, peer: NodeId) -> bool {
        self.peers.contains_key(&peer)
    }

    /// All are asked at once, as after a pause.
    pub(super) fn begin_again(&mut self) {
        for turn in self.peers.values_mut() {
            *turn = Turn::default();
        }
    }

    /// Timestamps are used at `now`: limits must rise with the clock. Returns whether
    /// that is news.
    pub(super) fn note_use(&mut self, settings: &LeaseSettings, now: Mono) -> bool {
        let news = now >= self.used_until;
        self.used_until = now.plus(settings.lease_nanos);
        news
    }

    /// The peer was asked at `now`.
    pub(super) fn asks(&mut self, peer: NodeId, now: Mono) {
        if let Some(turn) = self.peers.get_mut(&peer) {
            *turn = Turn {
                asked: Some(now),
                // Nobody had asked this node: it goes first.
                second: turn.second && turn.now,
                ..Turn::default()
            };
        }
    }

    /// The peer answered the question of `sent`.
    pub(super) fn is_answered(&mut self, peer: NodeId, sent: Mono) {
        if let Some(turn) = self.peers.get_mut(&peer)
            && turn.asked.is_some_and(|asked| asked <= sent)
        {
            turn.answered = true;
        }
    }

    /// The peer asked, at `now`, and its answer leaves at once or, if it `waits`, with
    /// [`Turns::answers`].
    pub(super) fn is_asked(
        &mut self,
        settings: &LeaseSettings,
        peer: NodeId,
        now: Mono,
        waits: bool,
    ) {
        let me = self.me;
        let Some(turn) = self.peers.get_mut(&peer).filter(|_| peer != me) else {
            return;
        };
        let ago = turn.asked.map_or(u64::MAX, |asked| now.since(asked));
        if ago >= settings.renew_period() / 2 {
            turn.second = true;
            turn.waits = waits;
            turn.now |= !waits;
        } else if peer < me && !turn.answered {
            // The two questions crossed; the next time one of them waits for the other.
            turn.second = true;
        }
    }

    /// The answer that waited for the disk leaves now.
    pub(super) fn answers(&mut self, peer: NodeId) {
        if let Some(turn) = self.peers.get_mut(&peer) {
            turn.now |= std::mem::take(&mut turn.waits);
        }
    }

    /// Who is to be asked at `now`. `round_trip` is the shortest one to each peer.
    pub(super) fn due(
        &self,
        settings: &LeaseSettings,
        round_trip: impl Fn(NodeId) -> u64,
        now: Mono,
    ) -> Vec<NodeId> {
        let due = |(id, turn): &(&NodeId, &Turn)| {
            self.due_at(settings, turn, round_trip(**id), now) <= now
        };
        let due = self.peers.iter().filter(due);
        due.map(|(id, _)| *id).collect()
    }

    /// When somebody is to be asked next, as things are at `now`.
    pub(super) fn next(
        &self,
        settings: &LeaseSettings,
        round_trip: impl Fn(NodeId) -> u64,
        now: Mono,
    ) -> Option<Mono> {
        let peers = self.peers.iter();
        peers
            .map(|(id, turn)| self.due_at(settings, turn, round_trip(*id), now))
            .min()
    }

    fn due_at(&self, settings: &LeaseSettings, turn: &Turn, round_trip: u64, now: Mono) -> Mono {
        let Some(asked) = turn.asked.filter(|_| !turn.now) else {
            return Mono(0);
        };
        let used = now < self.used_until;
        let period = if used || !turn.answered {
            settings.renew_period()
        } else {
            settings.idle_period(round_trip)
        };
        let patience = if turn.second {
            settings.renew_period() / 2
        } else {
            0
        };
        asked.plus(period.saturating_add(patience))
    }
}
