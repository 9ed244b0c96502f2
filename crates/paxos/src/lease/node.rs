//! The machine of one node: both sides, the timer, and the views.

mod views;

use super::holder::{Held, Holder, PeerWall, Support};
use super::message::{LeaseMessage, LeaseRecord};
use super::settings::LeaseSettings;
use super::supporter::{Moment, Renew, Supporter};
use super::turns::Turns;
use crate::ids::{Incarnation, Mono, NodeId, SupportEpoch, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use synod_probe::{Mutation, mutated};

/// What a [`NodeLease`] wants done, in this order.
///
/// Messages to the node itself come out like all others; the driver hands them
/// back through [`NodeLease::handle_message`] with `from` = itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseEffect {
    /// May leave at once.
    Send {
        /// The receiver, perhaps this node.
        to: NodeId,
        /// What to say.
        message: LeaseMessage,
    },
    /// Make `record` durable (it replaces the holder's older one), then send
    /// `release` and call [`NodeLease::handle_persisted`] with `seq`. Several of
    /// one moment fit in one batch.
    Persist {
        /// What to write.
        record: LeaseRecord,
        /// What may leave only afterwards; a receiver may be this node.
        release: Vec<(NodeId, LeaseMessage)>,
        /// The name of its completion.
        seq: u64,
    },
}

/// Why a message was not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LeaseIgnored {
    /// From a node that is not a peer.
    UnknownPeer,
    /// Of an incarnation of the holder older than one already heard of.
    OldHolder,
    /// For an incarnation of this node that does not run: an earlier one (a
    /// Support), or one that never was (a Renew).
    OtherIncarnation,
    /// A Renew not younger than one already taken in.
    OlderRenew,
    /// A Support of an epoch older than one already heard of.
    OlderEpoch,
    /// It echoes a time at which this incarnation sent nothing.
    ImpossibleTime,
    /// A field that no node of this cluster sends.
    Malformed,
}

/// Support between this node and its peers, as holder and as supporter.
///
/// Call order: any `handle_*`, then [`NodeLease::drain_effects`], then
/// [`NodeLease::take_changed`] and, if so, `Replica::handle_lease_change` on all
/// replicas. `now` should not go back; where it does, the youngest one seen
/// counts. **`now` must have been read after the
/// message was received**: the supporter counts from it, and a clock read
/// before the message was even sent would make its promise too short.
/// Correspondingly a view asked with `now` says what is true at that
/// instant, not later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLease {
    settings: LeaseSettings,
    me: NodeId,
    incarnation: Incarnation,
    /// The peers, and when each is asked.
    turns: Turns,
    holder: Holder,
    supporter: Supporter,
    /// When [`NodeLease::handle_timeout`] is due; asked far more often than it changes.
    next: Option<Mono>,
    /// Promises nobody anything before this, if set (L5).
    abstains_until: Option<Mono>,
    /// The youngest instant any input told. It is past, whatever an older `now` says.
    latest: Mono,
    healthy: bool,
    replicated: Timestamp,
    changed: bool,
    raised: bool,
    effects: Vec<LeaseEffect>,
    ignored: BTreeMap<LeaseIgnored, u64>,
}

impl NodeLease {
    /// A node that starts now. `records` are the durable ones, one or more per
    /// holder (the highest limit counts); `incarnation` is durable already.
    /// Abstains (L5) unless this is the node's very first start.
    #[must_use]
    pub fn new(
        settings: LeaseSettings,
        me: NodeId,
        incarnation: Incarnation,
        peers: Vec<NodeId>,
        records: Vec<LeaseRecord>,
        now: Mono,
    ) -> NodeLease {
        let first_start = incarnation <= Incarnation(1) && records.is_empty();
        let abstains = !first_start && !mutated(Mutation::SkipAbstention);
        let named = if mutated(Mutation::ReuseEpoch) {
            Incarnation(1)
        } else {
            incarnation
        };
        let supporter = Supporter::new(named, records);
        let longest = settings.longest().max(supporter.longest_durable());
        let mut lease = NodeLease {
            settings,
            me,
            incarnation,
            turns: Turns::new(me, peers),
            holder: Holder::new(now),
            supporter,
            next: None,
            abstains_until: abstains.then(|| now.plus(settings.stretched(longest))),
            latest: now,
            healthy: true,
            replicated: Timestamp(0),
            changed: true,
            raised: false,
            effects: Vec::new(),
            ignored: BTreeMap::new(),
        };
        lease.plan_timeout();
        lease
    }

    /// Replaces the peers; this node is always one of its own. Support already
    /// given to a node that is no peer any more stands until it runs out.
    pub fn set_peers(&mut self, peers: Vec<NodeId>) {
        if !self.turns.set_peers(&peers) {
            return;
        }
        let lost = self.holder.retain(|node| self.turns.contains(node));
        self.changed |= lost;
        self.plan_timeout();
    }

    /// Tells the highest timestamp that any group on this node has replicated:
    /// limits may always reach a little above it, so that wall clocks which were
    /// set back stop nothing (K1). Never goes down.
    pub fn raise_replicated(&mut self, last: Timestamp) {
        self.replicated = self.replicated.max(last);
    }

    /// A message arrived, from a peer or from this node itself. `wall` is the own
    /// wall clock's interval (earliest, latest).
    pub fn handle_message(
        &mut self,
        now: Mono,
        wall: (Timestamp, Timestamp),
        from: NodeId,
        message: LeaseMessage,
    ) {
        let now = self.advance(now);
        let outcome = if self.turns.contains(from) {
            self.dispatch(now, wall, from, message)
        } else {
            Err(LeaseIgnored::UnknownPeer)
        };
        match outcome {
            Ok(changed) => self.changed |= changed,
            Err(reason) => *self.ignored.entry(reason).or_default() += 1,
        }
        self.plan_timeout();
    }

    fn dispatch(
        &mut self,
        now: Mono,
        wall: (Timestamp, Timestamp),
        from: NodeId,
        message: LeaseMessage,
    ) -> Result<bool, LeaseIgnored> {
        match message {
            LeaseMessage::Renew {
                holder,
                supporter,
                sent,
                lease_nanos,
                want,
                earliest,
                latest,
            } => {
                // An earlier incarnation of this node is as good an address as any:
                // the answer names the right one, in a new epoch.
                if supporter > self.incarnation {
                    return Err(LeaseIgnored::OtherIncarnation);
                }
                let renew = Renew {
                    holder,
                    sent,
                    lease_nanos,
                    want,
                };
                let at = Moment {
                    now,
                    wall,
                    replicated: self.replicated,
                };
                let effects = &mut self.effects;
                let changed =
                    self.supporter
                        .take_renew(&self.settings, at, from, renew, effects)?;
                let waits = self.supporter.writes_for(from);
                self.turns.is_asked(&self.settings, from, now, waits);
                self.holder
                    .overhear(&self.settings, now, from, (earliest, latest));
                Ok(changed)
            }
            LeaseMessage::Support {
                holder,
                sent,
                epoch,
                lease_nanos,
                limit,
                earliest,
                latest,
            } => {
                if holder != self.incarnation || epoch.holder != self.incarnation {
                    return Err(LeaseIgnored::OtherIncarnation);
                }
                if epoch.counter == 0 || epoch.supporter == Incarnation(0) {
                    return Err(LeaseIgnored::Malformed);
                }
                let support = Support {
                    sent,
                    epoch,
                    lease_nanos,
                    limit,
                    earliest,
                    latest,
                };
                let taken = self
                    .holder
                    .take_support(&self.settings, now, from, support)?;
                self.turns.is_answered(from, sent);
                self.raised |= taken.limit;
                Ok(taken.view)
            }
        }
    }

    /// The record of [`LeaseEffect::Persist`] `seq` is durable. Unknown numbers are ignored.
    pub fn handle_persisted(&mut self, now: Mono, seq: u64) {
        self.advance(now);
        if let Some(holder) = self.supporter.record_durable(seq, &mut self.effects) {
            self.turns.answers(holder);
        }
        self.plan_timeout();
    }

    /// Time has come to [`NodeLease::next_timeout`] (or to any other instant).
    pub fn handle_timeout(&mut self, now: Mono, wall: (Timestamp, Timestamp)) {
        let now = self.advance(now);
        if self.healthy {
            self.renew(now, wall);
        }
        self.plan_timeout();
    }

    /// Asks those for support whose turn it is.
    fn renew(&mut self, now: Mono, wall: (Timestamp, Timestamp)) {
        let (earliest, latest) = wall;
        let want = latest
            .plus(self.settings.limit_ahead())
            .max(self.replicated.plus(self.settings.logical_increment_nanos));
        let holder = &self.holder;
        let due = self
            .turns
            .due(&self.settings, |peer| holder.round_trip(peer), now);
        for to in due {
            self.turns.asks(to, now);
            let message = LeaseMessage::Renew {
                holder: self.incarnation,
                supporter: self.holder.incarnation_of(to),
                sent: now,
                lease_nanos: self.holder.lease_for(&self.settings, to),
                want,
                earliest,
                latest,
            };
            self.effects.push(LeaseEffect::Send { to, message });
        }
    }

    /// When [`NodeLease::handle_timeout`] wants to be called next. Never at or
    /// before a time at which it was just called.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Mono> {
        self.next
    }

    fn plan_timeout(&mut self) {
        let holder = &self.holder;
        let renew = self
            .turns
            .next(&self.settings, |peer| holder.round_trip(peer), self.latest);
        self.next = [
            renew.filter(|_| self.healthy),
            self.abstains_until,
            self.holder.next_timeout(),
            self.supporter.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min();
    }

    /// Everything to be done since last asked, in order.
    pub fn drain_effects(&mut self) -> Vec<LeaseEffect> {
        std::mem::take(&mut self.effects)
    }

    /// Whether any view may have changed since last asked: support gained or lost
    /// on either side, another epoch, health, the end of abstaining. (That support
    /// lasts longer now is no change.)
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether a limit may have risen since last asked. Each renewal raises some, so
    /// only who waits for one should be told: a node has many groups that do not.
    pub fn take_raised(&mut self) -> bool {
        std::mem::take(&mut self.raised)
    }

    /// An unhealthy node does not renew: what it holds runs out (L6). It goes on
    /// supporting others. A node that got well renews at once.
    pub fn set_healthy(&mut self, now: Mono, healthy: bool) {
        self.advance(now);
        if self.healthy == healthy {
            return;
        }
        self.healthy = healthy;
        self.changed = true;
        if healthy {
            self.turns.begin_again();
        }
        self.plan_timeout();
    }

    /// Groups of this node assign timestamps, or wait for a limit to do so. Until a lease
    /// later, limits are asked for more often; nothing else depends on it.
    pub fn note_use(&mut self, now: Mono) {
        if self.turns.note_use(&self.settings, now.max(self.latest)) {
            self.plan_timeout();
        }
    }

    /// The support that this node gives `node` (itself included) at `now`.
    #[must_use]
    pub fn supports(&self, node: NodeId, now: Mono) -> Option<SupportEpoch> {
        self.supporter.supports(node, now.max(self.latest))
    }

    /// The support that this node holds from `supporter` (itself included) at `now`.
    #[must_use]
    pub fn held_from(&self, supporter: NodeId, now: Mono) -> Option<Held> {
        self.holder.held_from(supporter, now.max(self.latest))
    }

    /// The highest limit ever granted to `holder`, durable or on its way to
    /// become so; at least every limit `holder` was told.
    #[must_use]
    pub fn granted_limit(&self, holder: NodeId) -> Timestamp {
        self.supporter.granted_limit(holder)
    }

    /// What to write when the log is rewritten: at least everything granted.
    #[must_use]
    pub fn records(&self) -> Vec<LeaseRecord> {
        self.supporter.records()
    }

    /// Whether this node has restarted so recently that support which it has
    /// forgotten may still be counted on: it must promise nobody (L5).
    #[must_use]
    pub fn abstains(&self, now: Mono) -> bool {
        let now = now.max(self.latest);
        self.abstains_until.is_some_and(|until| now < until)
    }

    /// Whether this node may lead (L6).
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.healthy
    }

    /// What `peer`'s wall clock was when last heard of, for the clock check (K2).
    #[must_use]
    pub fn wall_of(&self, peer: NodeId) -> Option<PeerWall> {
        self.holder.wall_of(peer)
    }

    /// This node's incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How many messages were not acted on, by reason.
    #[must_use]
    pub fn ignored(&self) -> &BTreeMap<LeaseIgnored, u64> {
        &self.ignored
    }

    /// Notices what ran out by now. Returns the instant to count from.
    fn advance(&mut self, now: Mono) -> Mono {
        self.latest = self.latest.max(now);
        let now = self.latest;
        let lost = self.holder.expire(now);
        let turns = &self.turns;
        let lapsed = self.supporter.expire(now, |node| turns.contains(node));
        let awake = self.abstains_until.take_if(|until| *until <= now).is_some();
        self.changed |= lost | lapsed | awake;
        now
    }
}
