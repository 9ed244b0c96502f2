//! The supporter's side: what this node has promised others.

mod views;

use super::LeaseIgnored;
use super::message::{LeaseMessage, LeaseRecord};
use super::node::LeaseEffect;
use super::settings::LeaseSettings;
use crate::ids::{Incarnation, Mono, NodeId, SupportEpoch, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use synod_probe::{Mark, Mutation, mark, mutated};

/// One Renew, addressed to this incarnation or to an earlier or unknown one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renew {
    pub holder: Incarnation,
    pub sent: Mono,
    pub lease_nanos: u64,
    pub want: Timestamp,
}

/// What a supporter knows at the moment it handles a Renew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub now: Mono,
    pub wall: (Timestamp, Timestamp),
    /// The highest replicated timestamp of any group here (K1).
    pub replicated: Timestamp,
}

/// Support given to one holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    epoch: SupportEpoch,
    until: Mono,
    /// The youngest Renew of `epoch.holder` that was taken in, by its `sent`.
    newest: Mono,
    /// Whether it still stood when last looked at.
    live: bool,
}

/// A record on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    seq: u64,
    record: LeaseRecord,
    /// A later Support that discloses no more than `record`, to leave after it.
    riding: Option<LeaseMessage>,
}

/// The limit granted to one holder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Granted {
    durable: Timestamp,
    pending: Option<Pending>,
}

impl Granted {
    /// Durable, or on its way to become so.
    fn highest(&self) -> Timestamp {
        let pending = self.pending.as_ref().map(|p| p.record.limit);
        self.durable.max(pending.unwrap_or_default())
    }
}

/// The supporter's half of a [`super::NodeLease`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Supporter {
    incarnation: Incarnation,
    /// The last epoch counter used, for whatever holder: none is used twice.
    counter: u64,
    given: BTreeMap<NodeId, Given>,
    granted: BTreeMap<NodeId, Granted>,
    /// The longest lease that some durable record names; nanoseconds.
    longest_durable: u64,
    last_seq: u64,
}

impl Supporter {
    pub(super) fn new(incarnation: Incarnation, records: Vec<LeaseRecord>) -> Supporter {
        let mut granted = BTreeMap::<NodeId, Granted>::new();
        let mut longest_durable = 0;
        for record in records {
            let limit = &mut granted.entry(record.holder).or_default().durable;
            *limit = (*limit).max(record.limit);
            longest_durable = longest_durable.max(record.longest_lease_nanos);
        }
        Supporter {
            incarnation,
            counter: 0,
            given: BTreeMap::new(),
            granted,
            longest_durable,
            last_seq: 0,
        }
    }

    pub(super) fn longest_durable(&self) -> u64 {
        self.longest_durable
    }

    /// Supports `from`, and answers once the limit to disclose is durable.
    /// Returns whether a view changed, or why the Renew was ignored.
    pub(super) fn take_renew(
        &mut self,
        settings: &LeaseSettings,
        at: Moment,
        from: NodeId,
        renew: Renew,
        effects: &mut Vec<LeaseEffect>,
    ) -> Result<bool, LeaseIgnored> {
        if renew.lease_nanos == 0 || renew.holder == Incarnation(0) {
            return Err(LeaseIgnored::Malformed);
        }
        let wanted_lease = renew.lease_nanos.min(settings.longest());
        // While a record is pending, nothing beyond it is granted: see `disclose`.
        let pending = self.granted.get(&from).and_then(|g| g.pending.as_ref());
        let lease_nanos = pending.map_or(wanted_lease, |p| {
            let covered = p.record.longest_lease_nanos.max(self.longest_durable);
            wanted_lease.min(covered)
        });
        let (epoch, changed) = self.extend(settings, at.now, from, renew, lease_nanos)?;
        self.disclose(settings, at, from, renew, (epoch, lease_nanos), effects);
        Ok(changed)
    }

    /// Gives support from now on; under a new epoch unless the old one still
    /// stands for the same incarnation of the holder.
    fn extend(
        &mut self,
        settings: &LeaseSettings,
        now: Mono,
        from: NodeId,
        renew: Renew,
        lease_nanos: u64,
    ) -> Result<(SupportEpoch, bool), LeaseIgnored> {
        let until = now.plus(settings.stretched(lease_nanos));
        if let Some(given) = self.given.get_mut(&from) {
            if renew.holder < given.epoch.holder {
                return Err(LeaseIgnored::OldHolder);
            }
            if renew.holder == given.epoch.holder {
                // Overtaken: the one that overtook it was answered. Repeated ones
                // would only keep up support that nobody asked for lately.
                if renew.sent <= given.newest {
                    mark(Mark::RenewOvertaken);
                    return Err(LeaseIgnored::OlderRenew);
                }
                given.newest = renew.sent;
                if now < given.until || mutated(Mutation::ReviveSupport) {
                    given.until = given.until.max(until);
                    return Ok((given.epoch, false));
                }
                mark(Mark::EpochLapsed);
            } else {
                mark(Mark::HolderRestarted);
            }
        }
        self.counter += 1;
        let epoch = SupportEpoch {
            supporter: self.incarnation,
            holder: renew.holder,
            counter: self.counter,
        };
        let given = Given {
            epoch,
            until,
            newest: renew.sent,
            live: true,
        };
        self.given.insert(from, given);
        Ok((epoch, true))
    }

    /// Answers at once if everything disclosed is durable already; else with
    /// or after the record that makes it so.
    fn disclose(
        &mut self,
        settings: &LeaseSettings,
        at: Moment,
        from: NodeId,
        renew: Renew,
        (epoch, lease_nanos): (SupportEpoch, u64),
        effects: &mut Vec<LeaseEffect>,
    ) {
        let granted = self.granted.entry(from).or_default();
        let support = |limit| LeaseMessage::Support {
            holder: renew.holder,
            sent: renew.sent,
            epoch,
            lease_nanos,
            limit,
            earliest: at.wall.0,
            latest: at.wall.1,
        };
        if let Some(pending) = &mut granted.pending {
            mark(Mark::SupportRode);
            let limit = granted.durable.max(pending.record.limit);
            pending.riding = Some(support(limit));
            return;
        }
        let ceiling = at
            .wall
            .1
            .plus(settings.max_offset_nanos)
            .max(at.replicated.plus(settings.logical_increment_nanos));
        if renew.want > ceiling {
            mark(Mark::LimitCapped);
        }
        let capped = if mutated(Mutation::GrantAnyLimit) {
            renew.want
        } else {
            renew.want.min(ceiling)
        };
        let limit = granted.durable.max(capped);
        if limit <= granted.durable && lease_nanos <= self.longest_durable {
            let message = support(limit);
            effects.push(LeaseEffect::Send { to: from, message });
            return;
        }
        self.last_seq += 1;
        let record = LeaseRecord {
            holder: from,
            limit,
            longest_lease_nanos: self.longest_durable.max(lease_nanos),
        };
        granted.pending = Some(Pending {
            seq: self.last_seq,
            record,
            riding: None,
        });
        let mut release = vec![(from, support(limit))];
        if mutated(Mutation::LimitBeforeDurable) {
            let early = release.drain(..);
            effects.extend(early.map(|(to, message)| LeaseEffect::Send { to, message }));
        }
        effects.push(LeaseEffect::Persist {
            record,
            release,
            seq: self.last_seq,
        });
    }

    /// Whether what `holder` is to be answered waits for a record.
    pub(super) fn writes_for(&self, holder: NodeId) -> bool {
        let granted = self.granted.get(&holder);
        granted.is_some_and(|granted| granted.pending.is_some())
    }

    /// The record of this number is durable: what waited for it may leave. Returns whose it is.
    pub(super) fn record_durable(
        &mut self,
        seq: u64,
        effects: &mut Vec<LeaseEffect>,
    ) -> Option<NodeId> {
        for (holder, granted) in &mut self.granted {
            let Some(pending) = granted.pending.take_if(|p| p.seq == seq) else {
                continue;
            };
            granted.durable = granted.durable.max(pending.record.limit);
            self.longest_durable = self.longest_durable.max(pending.record.longest_lease_nanos);
            effects.extend(pending.riding.map(|message| LeaseEffect::Send {
                to: *holder,
                message,
            }));
            return Some(*holder);
        }
        None
    }

    pub(super) fn supports(&self, node: NodeId, now: Mono) -> Option<SupportEpoch> {
        self.given
            .get(&node)
            .filter(|given| now < given.until)
            .map(|given| given.epoch)
    }

    pub(super) fn granted_limit(&self, holder: NodeId) -> Timestamp {
        self.granted
            .get(&holder)
            .map_or(Timestamp(0), Granted::highest)
    }

    /// One record per holder, with what is durable or on its way to become so.
    pub(super) fn records(&self) -> Vec<LeaseRecord> {
        let pending = self.granted.values().filter_map(|g| g.pending.as_ref());
        let longest_lease_nanos = pending
            .map(|p| p.record.longest_lease_nanos)
            .fold(self.longest_durable, u64::max);
        self.granted
            .iter()
            .filter(|(_, granted)| granted.highest() > Timestamp(0))
            .map(|(holder, granted)| LeaseRecord {
                holder: *holder,
                limit: granted.highest(),
                longest_lease_nanos,
            })
            .collect()
    }

    /// Notices what ran out, and forgets it if `keep` refuses the node. Returns
    /// whether anything ran out.
    pub(super) fn expire(&mut self, now: Mono, keep: impl Fn(NodeId) -> bool) -> bool {
        let mut lapsed = false;
        self.given.retain(|node, given| {
            let over = given.until <= now;
            lapsed |= given.live && over;
            given.live = !over;
            !over || keep(*node)
        });
        lapsed
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.given
            .values()
            .filter(|given| given.live)
            .map(|given| given.until)
            .min()
    }
}
