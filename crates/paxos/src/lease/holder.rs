//! The holder's side: what other nodes have promised this one.

use super::LeaseIgnored;
use super::settings::LeaseSettings;
use crate::ids::{Incarnation, Mono, NodeId, SupportEpoch, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use synod_probe::{Mark, Mutation, mark, mutated};

/// Support that this node holds from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Names the unbroken support; the same as what the supporter stamps into Accepted.
    pub epoch: SupportEpoch,
    /// Counted on strictly before this instant of the own clock.
    pub until: Mono,
    /// Timestamps up to here are granted, durably at the supporter.
    pub limit: Timestamp,
}

/// The wall clock of a peer as last heard, for the clock check (K2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerWall {
    /// The interval the peer's clock reported.
    pub earliest: Timestamp,
    /// See `earliest`.
    pub latest: Timestamp,
    /// When the report arrived, on the own monotonic clock.
    pub received: Mono,
    /// The report was made at most this long before `received`; nanoseconds.
    /// None: it came unasked (while this node does not renew), its age is not known.
    pub round_trip: Option<u64>,
}

/// One Support, checked for its addressee.
#[derive(Clone, Copy, Debug)]
pub(super) struct Support {
    pub sent: Mono,
    pub epoch: SupportEpoch,
    pub lease_nanos: u64,
    pub limit: Timestamp,
    pub earliest: Timestamp,
    pub latest: Timestamp,
}

/// What a Support changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Support was gained, or goes on under another epoch.
    pub view: bool,
    /// The limit is another one.
    pub limit: bool,
}

/// What is known of one supporter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Supporter {
    held: Held,
    /// Whether `held` was still counted on when last looked at.
    live: bool,
}

/// The holder's half of a [`super::NodeLease`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// Supports of this incarnation are all sent at or after this.
    started: Mono,
    supporters: BTreeMap<NodeId, Supporter>,
    walls: BTreeMap<NodeId, PeerWall>,
    /// The shortest round trip seen with each peer; nanoseconds.
    round_trips: BTreeMap<NodeId, u64>,
}

impl Holder {
    pub(super) fn new(started: Mono) -> Holder {
        Holder {
            started,
            supporters: BTreeMap::new(),
            walls: BTreeMap::new(),
            round_trips: BTreeMap::new(),
        }
    }

    /// Forgets all nodes that `keep` refuses. Returns whether a view may have changed.
    pub(super) fn retain(&mut self, keep: impl Fn(NodeId) -> bool) -> bool {
        let before = self.supporters.len();
        self.supporters.retain(|node, _| keep(*node));
        self.walls.retain(|node, _| keep(*node));
        self.round_trips.retain(|node, _| keep(*node));
        self.supporters.len() != before
    }

    /// The lease to ask of `peer`: at least four round trips of the pair.
    pub(super) fn lease_for(&self, settings: &LeaseSettings, peer: NodeId) -> u64 {
        settings
            .lease_nanos
            .max(self.round_trip(peer).saturating_mul(4))
            .min(settings.longest())
    }

    /// The shortest round trip seen with `peer`; nanoseconds, 0 if none was.
    pub(super) fn round_trip(&self, peer: NodeId) -> u64 {
        self.round_trips.get(&peer).copied().unwrap_or(0)
    }

    /// The supporter's incarnation as far as known; 0 if nothing was heard.
    pub(super) fn incarnation_of(&self, peer: NodeId) -> Incarnation {
        self.supporters
            .get(&peer)
            .map_or(Incarnation(0), |s| s.held.epoch.supporter)
    }

    /// Takes a Support in. Returns what changed, or why it was ignored.
    pub(super) fn take_support(
        &mut self,
        settings: &LeaseSettings,
        now: Mono,
        from: NodeId,
        support: Support,
    ) -> Result<Taken, LeaseIgnored> {
        if support.sent > now || support.sent < self.started {
            return Err(LeaseIgnored::ImpossibleTime);
        }
        self.measure(now, from, &support);
        let lease = support.lease_nanos.min(settings.longest());
        let from_when = if mutated(Mutation::CountFromReceipt) {
            now
        } else {
            support.sent
        };
        let until = from_when.plus(settings.shortened(lease));
        let fresh = Held {
            epoch: support.epoch,
            until,
            limit: support.limit,
        };
        let Some(known) = self.supporters.get_mut(&from) else {
            let live = until > now;
            self.supporters
                .insert(from, Supporter { held: fresh, live });
            return Ok(Taken {
                view: live,
                limit: live,
            });
        };
        let before = (known.live, known.held.epoch, known.held.limit);
        match order(support.epoch).cmp(&order(known.held.epoch)) {
            std::cmp::Ordering::Less => {
                mark(Mark::SupportOlder);
                return Err(LeaseIgnored::OlderEpoch);
            }
            // Overtaken and repeated Supports of one epoch only add up.
            std::cmp::Ordering::Equal => {
                if !known.live && until > now {
                    mark(Mark::HeldAgain);
                }
                known.held.until = known.held.until.max(until);
                known.held.limit = known.held.limit.max(support.limit);
            }
            // Never carried over: `until` of another epoch says nothing about this one.
            std::cmp::Ordering::Greater => known.held = fresh,
        }
        known.live = known.held.until > now;
        Ok(Taken {
            view: (before.0, before.1) != (known.live, known.held.epoch),
            limit: before.2 != known.held.limit,
        })
    }

    /// A Support answers a Renew, so its age is bounded by the round trip.
    fn measure(&mut self, now: Mono, from: NodeId, support: &Support) {
        let round_trip = now.since(support.sent);
        self.walls.insert(
            from,
            PeerWall {
                earliest: support.earliest,
                latest: support.latest,
                received: now,
                round_trip: Some(round_trip),
            },
        );
        self.round_trips
            .entry(from)
            .and_modify(|shortest| *shortest = (*shortest).min(round_trip))
            .or_insert(round_trip);
    }

    /// A Renew tells a clock too, but nobody knows how old it is: it counts only
    /// while there is no recent answer to a question of this node's own.
    pub(super) fn overhear(
        &mut self,
        settings: &LeaseSettings,
        now: Mono,
        from: NodeId,
        (earliest, latest): (Timestamp, Timestamp),
    ) {
        let measured = self.walls.get(&from).is_some_and(|known| {
            known.round_trip.is_some() && now.since(known.received) <= settings.longest()
        });
        if !measured {
            self.walls.insert(
                from,
                PeerWall {
                    earliest,
                    latest,
                    received: now,
                    round_trip: None,
                },
            );
        }
    }

    pub(super) fn held_from(&self, supporter: NodeId, now: Mono) -> Option<Held> {
        self.supporters
            .get(&supporter)
            .map(|s| s.held)
            .filter(|held| now < held.until)
    }

    pub(super) fn wall_of(&self, peer: NodeId) -> Option<PeerWall> {
        self.walls.get(&peer).copied()
    }

    /// Notices what ran out. Returns whether anything did.
    pub(super) fn expire(&mut self, now: Mono) -> bool {
        let mut lost = false;
        for supporter in self.supporters.values_mut() {
            if supporter.live && supporter.held.until <= now {
                supporter.live = false;
                lost = true;
            }
        }
        lost
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.supporters
            .values()
            .filter(|s| s.live)
            .map(|s| s.held.until)
            .min()
    }
}

/// Epochs of one supporter for this incarnation, in the order they began.
fn order(epoch: SupportEpoch) -> (Incarnation, u64) {
    (epoch.supporter, epoch.counter)
}
