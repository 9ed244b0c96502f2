//! Phase 2: what a leader proposes and sends, and how it stops.

use crate::entry::Entry;
use crate::ids::{Ballot, Mono, NodeId, Round, Slot, Timestamp};
use crate::message::Message;
use crate::payload::Payload;
use crate::progress::{Mode, Progress};
use crate::record::Record;
use crate::replica::{Cx, FollowerProgress, ProposeError, Replica, State, Urgency};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Followers that stayed silent this often are asked again only while their
/// node supports this one.
const PATIENT_TRIES: u32 = 4;

/// After how many times `retry_nanos` each an idle leader repeats its Decided.
const REPEAT_TELL: [u64; 2] = [1, 4];

/// What phase 1 told about a member.
pub(crate) struct FirstContact {
    pub(crate) node: NodeId,
    /// Its decided slot, if it promised.
    pub(crate) decided: Option<Slot>,
}

/// A handover that waits for its target to catch up.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Handover {
    pub(crate) to: NodeId,
    pub(crate) used: Timestamp,
    pub(crate) deadline: Mono,
}

/// A leader's state under one ballot.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Leader {
    pub(crate) ballot: Ballot,
    /// The first ballot of its term: an earlier one if the term went on in another
    /// configuration.
    pub(crate) term: Ballot,
    /// The limit that the stop-sign at the log's end names, if there is one: nothing
    /// is proposed any more.
    pub(crate) stop: Option<Timestamp>,
    /// Slot of its TermStart, the end of its sync.
    pub(crate) term_start: Slot,
    pub(crate) followers: BTreeMap<NodeId, Progress>,
    /// This replica's own log is durable under `ballot` up to here.
    pub(crate) own: Slot,
    /// Up to here entries are in a record; those above wait for a flush.
    flushed: Slot,
    /// Where the unflushed sync begins, until it is flushed.
    own_sync: Option<Slot>,
    urgent: bool,
    lazy: Option<Mono>,
    /// When to tell the decided slot for its own sake.
    pub(crate) tell: Option<Mono>,
    /// How often that was done for the present decided slot.
    tells: u32,
    pub(crate) round: Round,
    /// Whether `round` has not been sent yet, so that later callers may share it.
    pub(crate) round_is_open: bool,
    pub(crate) confirmed: Round,
    /// When it steps down unless it is supported by then (L6).
    pub(crate) lost_support: Option<Mono>,
    pub(crate) handover: Option<Handover>,
    /// Nodes that the configuration leaves out and that may not know: when to tell
    /// them next, and how often that was done.
    pub(crate) parting: BTreeMap<NodeId, (Mono, u32)>,
    /// Those that have nothing left.
    pub(crate) gone: BTreeSet<NodeId>,
}

impl Leader {
    pub(crate) fn new(
        ballot: Ballot,
        first: Slot,
        term_start: Slot,
        contacts: Vec<FirstContact>,
        lost_support: Mono,
    ) -> Leader {
        Leader {
            ballot,
            term: ballot,
            stop: None,
            term_start,
            followers: contacts
                .into_iter()
                .map(|c| (c.node, Progress::new(c.decided, term_start)))
                .collect(),
            own: Slot(0),
            flushed: first.prev(),
            own_sync: Some(first),
            urgent: true,
            lazy: None,
            tell: None,
            tells: 0,
            round: Round(0),
            round_is_open: false,
            confirmed: Round(0),
            lost_support: Some(lost_support),
            handover: None,
            parting: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Up to here entries are on their way to the own disk.
    pub(crate) fn flushed(&self) -> Slot {
        self.flushed
    }

    /// Whether nothing is known yet of where this follower's log joins on.
    pub(crate) fn probes(&self, node: NodeId) -> bool {
        self.followers
            .get(&node)
            .is_some_and(|f| f.mode == Mode::Probe)
    }

    /// The decided slot rose: followers hear of it soon, by an Accept or by itself.
    pub(crate) fn tell_soon(&mut self, soon: Mono) {
        if self.tells > 0 {
            self.tell = None;
            self.tells = 0;
        }
        self.tell.get_or_insert(soon);
    }

    /// Does not wait for company with the next flush.
    pub(crate) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// Whether this replica itself durably holds the sync.
    pub(crate) fn holds_own_sync(&self) -> bool {
        self.own >= self.term_start
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        let followers = self
            .followers
            .values()
            .flat_map(|p| [p.retry, p.transfer.as_ref().map(|t| t.retry)]);
        followers
            .chain(self.parting.values().map(|(at, _)| Some(*at)))
            .chain([
                self.lazy,
                self.tell,
                self.lost_support,
                self.handover.map(|h| h.deadline),
            ])
            .flatten()
            .min()
    }

    /// The slots of the snapshots on their way; the log above them is still needed.
    pub(crate) fn snapshot_pins(&self) -> impl Iterator<Item = Slot> + '_ {
        let transfers = self.followers.values().filter_map(|p| p.transfer.as_ref());
        // What is not open yet will be of a slot that is not trimmed then; that may take long
        // while a node wants all of its shards.
        transfers.filter_map(|t| t.id).map(|id| id.slot)
    }

    pub(crate) fn status(&self) -> Vec<FollowerProgress> {
        self.followers
            .iter()
            .map(|(node, p)| FollowerProgress {
                node: *node,
                matched: p.matched,
                next: p.next,
                in_flight_bytes: p.flight_bytes,
                snapshot: p.transfer.is_some(),
                data: p.data,
                caught_up: self.has_caught_up(*node),
            })
            .collect()
    }

    /// Whether a follower holds the sync, and all the rest is on its way to it.
    pub(crate) fn has_caught_up(&self, node: NodeId) -> bool {
        self.followers.get(&node).is_some_and(|f| {
            f.matched >= self.term_start
                && f.transfer.is_none()
                && f.mode == Mode::Stream
                && f.next > self.flushed
        })
    }
}

/// Proposing and sending.
impl Replica {
    /// Appends a command; it takes its slot at once and goes out with the flush.
    ///
    /// # Errors
    /// See [`ProposeError`]; nothing was appended then.
    pub fn propose(
        &mut self,
        cx: &Cx<'_>,
        command: Payload,
        urgency: Urgency,
    ) -> Result<Slot, ProposeError> {
        let entry = Entry::Command(command);
        let (bytes, bound) = (entry.weight(), self.settings.entry_bytes);
        if bytes > bound {
            return Err(ProposeError::TooLarge { bytes, bound });
        }
        let hint = self.leader();
        let in_office = self.in_office();
        let (waiting, most) = (self.undecided_bytes(), self.hard_bytes());
        let State::Leader(leader) = &mut self.state else {
            return Err(ProposeError::NotLeader { leader: hint });
        };
        if let Some(handover) = leader.handover {
            return Err(ProposeError::Transferring { to: handover.to });
        }
        if !in_office {
            return Err(ProposeError::NotInOffice);
        }
        if leader.stop.is_some() {
            return Err(ProposeError::Reconfiguring);
        }
        match urgency {
            Urgency::Now if waiting >= most => {
                return Err(ProposeError::Overloaded {
                    bytes: waiting,
                    bound: most,
                });
            }
            Urgency::Now => leader.urgent = true,
            Urgency::Lazy => {
                let deadline = cx.now.plus(self.settings.lazy_nanos);
                leader.lazy.get_or_insert(deadline);
            }
        }
        Ok(self.log.push(entry))
    }

    /// A leader's part of the flush: new entries into records, and to the followers.
    pub(crate) fn flush_leader(&mut self, cx: &Cx<'_>) {
        let company = !self.out.records.is_empty() || !self.out.release.is_empty();
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let fresh = leader.flushed < self.log.durable.last();
        if fresh && (leader.urgent || company || leader.lazy.is_some_and(|t| t <= cx.now)) {
            self.record_fresh();
        }
        self.pump_all(cx);
        self.count_confirmations();
    }

    /// Puts all entries that wait for a flush into records.
    pub(crate) fn record_fresh(&mut self) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        leader.urgent = false;
        leader.lazy = None;
        let (ballot, last) = (leader.ballot, self.log.durable.last());
        let decided = self.log.durable.decided;
        while leader.flushed < last {
            let first = leader.flushed.next();
            let sync = leader
                .own_sync
                .filter(|_| first <= leader.term_start)
                .map(|from| (from, leader.term_start));
            let through = if sync.is_some() {
                leader.term_start
            } else {
                last
            };
            let (entries, _) = self.log.batch(first, through, self.settings.message_bytes);
            if entries.is_empty() {
                return;
            }
            leader.flushed = Slot(leader.flushed.0 + entries.len() as u64);
            self.out.records.push(Record::Accept {
                ballot,
                first,
                entries,
                decided,
                sync,
            });
            self.out.accepted = Some((ballot, leader.flushed));
        }
    }

    /// Sends each follower what it lacks, as far as its window allows.
    fn pump_all(&mut self, cx: &Cx<'_>) {
        let State::Leader(leader) = &self.state else {
            return;
        };
        let mut next = leader.followers.keys().next().copied();
        while let Some(node) = next {
            self.pump(cx, node);
            let State::Leader(leader) = &self.state else {
                return;
            };
            let after = (std::ops::Bound::Excluded(node), std::ops::Bound::Unbounded);
            next = leader.followers.range(after).next().map(|(n, _)| *n);
        }
        if let State::Leader(leader) = &mut self.state {
            leader.round_is_open = false;
        }
    }

    fn pump(&mut self, cx: &Cx<'_>, node: NodeId) {
        let elector = self.configuration().is_elector(node);
        let retry_nanos = self.settings.retry_nanos;
        let decided = self.decided();
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let (ballot, round, end) = (leader.ballot, leader.round, leader.term_start);
        let Some(follower) = leader.followers.get_mut(&node) else {
            return;
        };
        let accept = |first, entries, sync| Message::Accept {
            ballot,
            first,
            entries,
            decided,
            sync,
            round,
        };
        let trimmed = self.log.durable.trimmed;
        if follower.mode == Mode::Stream && follower.next <= trimmed {
            return self.begin_snapshot(cx, node);
        }
        let mut said = false;
        while follower.mode == Mode::Stream
            && follower.next <= leader.flushed
            && follower.flight_bytes < self.settings.window_bytes
        {
            let first = follower.next;
            // Tagged also past its end, until it is known that the follower holds
            // the sync: a snapshot may have brought it there without accepting it.
            let syncs = first <= end || follower.matched == Slot(0);
            let sync = syncs.then_some((follower.sync_first, end));
            let through = if first <= end { end } else { leader.flushed };
            let (entries, bytes) = self.log.batch(first, through, self.settings.message_bytes);
            follower.launch(Slot(first.0 + entries.len() as u64 - 1), bytes);
            self.out.send(node, accept(first, entries, sync));
            said = true;
        }
        let question = match follower.mode {
            Mode::Probe => follower.retry.is_none(),
            Mode::Stream => {
                (elector && follower.round_sent < round)
                    || (follower.asked > follower.support && follower.asked > follower.asked_sent)
            }
            Mode::Snapshot => false,
        };
        let bare = follower.wants_bare_sync(leader.flushed);
        if (question || bare) && !said {
            let sync = bare.then_some((follower.sync_first, end));
            self.out.send(node, accept(follower.next, Vec::new(), sync));
            follower.bare_sync_sent |= bare;
            said = true;
        }
        if said {
            follower.round_sent = round;
            follower.asked_sent = follower.asked;
            follower.told = decided;
            follower.sent(cx.now, retry_nanos);
        }
    }
}

/// Time, and the end of leading.
impl Replica {
    pub(crate) fn leader_timeout(&mut self, cx: &Cx<'_>) {
        self.lease_timeout(cx);
        let retry_nanos = self.settings.retry_nanos;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        if leader.lazy.is_some_and(|t| t <= cx.now) {
            leader.lazy = None;
            leader.urgent = true;
        }
        for (node, follower) in &mut leader.followers {
            if follower.retry.is_none_or(|t| t > cx.now) {
                continue;
            }
            follower.rewind(cx.now, retry_nanos);
            let silent =
                follower.tries >= PATIENT_TRIES && cx.leases.held_from(*node, cx.now).is_none();
            if follower.retry.is_some() && !silent {
                self.out.send(
                    *node,
                    Message::Accept {
                        ballot: leader.ballot,
                        first: follower.next,
                        entries: Vec::new(),
                        decided: self.log.durable.decided,
                        sync: None,
                        round: leader.round,
                    },
                );
                follower.round_sent = leader.round;
                follower.told = self.log.durable.decided;
            }
        }
        self.tell_decided(cx);
        self.tell_parting(cx);
        self.snapshot_timeout(cx);
        self.handover_timeout(cx);
    }

    /// Tells the decided slot to followers that no Accept will tell; nobody
    /// answers that, so it is repeated a few times in case it was lost.
    fn tell_decided(&mut self, cx: &Cx<'_>) {
        let retry_nanos = self.settings.retry_nanos;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        if leader.tell.is_none_or(|t| t > cx.now) {
            return;
        }
        let (ballot, slot) = (leader.ballot, self.log.durable.decided);
        let mut told = false;
        for (node, follower) in &mut leader.followers {
            let again = follower.told_idly == slot;
            if (again || follower.told < slot) && follower.matched > Slot(0) {
                (follower.told, follower.told_idly) = (slot, slot);
                self.out.send(*node, Message::Decided { ballot, slot });
                told = true;
            }
        }
        let wait = REPEAT_TELL.get(leader.tells as usize).filter(|_| told);
        leader.tell = wait.map(|waits| cx.now.plus(retry_nanos.saturating_mul(*waits)));
        leader.tells += 1;
    }

    /// A higher ballot came by, or this replica promised it.
    pub(crate) fn yield_to_higher(&mut self, cx: &Cx<'_>) {
        self.end_campaign();
        self.step_down(cx, None);
    }

    /// Stops leading: the ballot is given up for good, and all are told.
    pub(crate) fn step_down(&mut self, cx: &Cx<'_>, used: Option<Timestamp>) {
        // What is appended stays in the log, so it must reach the disk as well.
        self.record_fresh();
        let State::Leader(leader) = std::mem::replace(&mut self.state, State::Follower) else {
            return;
        };
        for (node, follower) in &leader.followers {
            if follower.transfer.is_some() {
                let effect = crate::effect::Effect::CloseSnapshot { to: *node };
                self.out.effects.push(effect);
            }
        }
        let ballot = leader.ballot;
        self.note_relinquished(ballot, used);
        self.tell_electors(&Message::Relinquish { ballot, used });
        self.out
            .effects
            .push(crate::effect::Effect::Deposed { ballot });
        self.election.deadline = None;
        self.review_election(cx);
    }
}
