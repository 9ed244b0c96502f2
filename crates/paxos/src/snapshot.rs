//! Snapshots: to followers that need entries which are trimmed, or that lost
//! their data. One chunk is on its way at a time; a lost one is sent again, so
//! a transfer resumes where it was. A snapshot holds only decided state, so it
//! is good under any ballot; what a receiver accepted above it stays (P4).

use crate::acceptor::ABSURD;
use crate::config::Began;
use crate::effect::{Effect, SnapshotId};
use crate::ids::{Ballot, Mono, NodeId, Slot, SupportEpoch};
use crate::message::{Message, NackReason};
use crate::progress::{Mode, Transfer};
use crate::record::Record;
use crate::replica::{Cx, Ignored, Replica, State};
use bytes::Bytes;
use serde::Serialize;
use synod_probe::{Mark, mark};

/// Unanswered chunks before a transfer is given up (the follower is probed then).
const MAX_TRIES: u32 = 6;
/// A snapshot that has been silent for this many times `retry_nanos` makes room for any
/// other: its sender has given it up by then, or is gone.
const SILENT_WAITS: u64 = 64;
/// Opening a snapshot, and reading a chunk of one, may take this many times `retry_nanos`: the
/// driver may make copies wait for what is more urgent.
const READING_WAITS: u64 = 50;

/// A snapshot that is being received.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Incoming {
    pub(crate) id: SnapshotId,
    from: NodeId,
    ballot: Ballot,
    next: u64,
    /// When the last chunk that was wanted came.
    heard: Mono,
    /// All chunks are staged; the driver installs.
    installing: bool,
    /// The configuration in force after its slot, or one before.
    began: Option<Box<Began>>,
}

/// The sender.
impl Replica {
    pub(crate) fn begin_snapshot(&mut self, cx: &Cx<'_>, to: NodeId) {
        let retry_nanos = self.settings.retry_nanos;
        let trimmed = self.log.durable.trimmed;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(follower) = leader.followers.get_mut(&to) else {
            return;
        };
        if follower.next <= trimmed {
            follower.mode = Mode::Snapshot;
            follower.clear_flight();
            follower.retry = None;
        }
        if follower.transfer.is_some() {
            return;
        }
        // Asked twice, the driver would open two.
        mark(Mark::SnapshotBegun);
        let patience = retry_nanos.saturating_mul(READING_WAITS);
        follower.transfer = Some(Transfer {
            id: None,
            chunk: 0,
            retry: cx.now.plus(patience),
            tries: MAX_TRIES,
        });
        self.out.effects.push(Effect::ReadSnapshot {
            to,
            id: None,
            chunk: 0,
        });
    }

    /// The driver read a chunk: effect `ReadSnapshot` is answered.
    pub fn handle_snapshot_read(
        &mut self,
        cx: &Cx<'_>,
        to: NodeId,
        id: SnapshotId,
        chunk: u64,
        data: Bytes,
        done: bool,
    ) {
        let retry_nanos = self.settings.retry_nanos;
        let founding = Ballot::founding(self.configuration().epoch);
        let trimmed = self.trimmed();
        let in_force = self.log.durable.began;
        let leads = matches!(self.state, State::Leader(_));
        let (ballot, transfer) = match &mut self.state {
            State::Leader(leader) => {
                let follower = leader.followers.get_mut(&to);
                (leader.ballot, follower.and_then(|f| f.transfer.as_mut()))
            }
            _ => (founding, self.helping.get_mut(&to)),
        };
        let Some(transfer) = transfer else {
            return self.ignore(Ignored::Stale);
        };
        // The driver has one open for each member: what it opened last. The answer before was to
        // an earlier wish, of a transfer that was given up meanwhile.
        if chunk == 0 && transfer.id.is_some_and(|known| known != id) {
            mark(Mark::SnapshotReopened);
            transfer.id = None;
            transfer.chunk = 0;
        }
        if transfer.chunk != chunk || transfer.id.is_some_and(|known| known != id) {
            return self.ignore(Ignored::Stale);
        }
        if leads && id.slot < trimmed {
            // It was opened before the log was cut off behind it: what follows it is gone.
            mark(Mark::SnapshotOutrun);
            transfer.id = Some(id);
            return self.drop_old_snapshot(to, trimmed);
        }
        if in_force > id.slot && !leads {
            // Opened before: it does not bring a member to this configuration.
            self.helping.remove(&to);
            self.out.effects.push(Effect::CloseSnapshot { to });
            return;
        }
        if transfer.id.is_none() {
            transfer.id = Some(id);
            transfer.tries = 0;
        }
        transfer.arm(cx.now, retry_nanos);
        let checksum = crc32fast::hash(&data);
        let tells = done && in_force > Slot(0) && in_force <= id.slot;
        let began = tells.then(|| Box::new(self.in_force()));
        self.out.send(
            to,
            Message::SnapshotChunk {
                ballot,
                id,
                chunk,
                checksum,
                data,
                done,
                began,
            },
        );
    }

    pub(crate) fn handle_snapshot_ack(
        &mut self,
        cx: &Cx<'_>,
        from: NodeId,
        ballot: Ballot,
        id: SnapshotId,
        next: u64,
        installed: bool,
    ) {
        let retry_nanos = self.settings.retry_nanos;
        if installed {
            return self.snapshot_is_installed(from, ballot, id);
        }
        let transfer = match &mut self.state {
            State::Leader(leader) if leader.ballot == ballot => {
                let follower = leader.followers.get_mut(&from);
                follower.and_then(|f| f.transfer.as_mut())
            }
            State::Leader(_) => None,
            _ => self.helping.get_mut(&from).filter(|_| ballot.is_founding()),
        };
        let Some(transfer) = transfer.filter(|t| t.id == Some(id)) else {
            return self.ignore(Ignored::Stale);
        };
        // One chunk is on its way. The answer moves on by one, starts over (the
        // receiver restarted) or resumes (the sender did, with the same snapshot).
        if next == transfer.chunk {
            transfer.tries = 0;
            return self.ignore(Ignored::Repeated);
        }
        if next > ABSURD {
            return self.ignore(Ignored::Absurd);
        }
        if next != transfer.chunk + 1 {
            mark(Mark::SnapshotResumed);
        }
        transfer.chunk = next;
        transfer.tries = 0;
        transfer.reads(cx.now, retry_nanos);
        self.out.effects.push(Effect::ReadSnapshot {
            to: from,
            id: Some(id),
            chunk: next,
        });
    }

    fn snapshot_is_installed(&mut self, from: NodeId, ballot: Ballot, id: SnapshotId) {
        match &mut self.state {
            State::Leader(leader) if leader.ballot == ballot => {
                let Some(follower) = leader.followers.get_mut(&from) else {
                    return self.ignore(Ignored::Stranger);
                };
                if follower.transfer.take_if(|t| t.id == Some(id)).is_none() {
                    return self.ignore(Ignored::Stale);
                }
                follower.probe();
            }
            State::Leader(_) => return self.ignore(Ignored::Stale),
            _ if self.helping.remove(&from).is_some() => {}
            _ => return self.ignore(Ignored::Stale),
        }
        self.out.effects.push(Effect::CloseSnapshot { to: from });
    }

    /// Without a leader in the configuration in force: the state, for a member behind
    /// the log's first entry here that needs it to vote, or to lead where this
    /// replica may not.
    pub(crate) fn help_by_snapshot(&mut self, cx: &Cx<'_>, to: NodeId) {
        let whole = !self.lacks_data()
            && self.installing().is_none()
            && self.applied >= self.log.durable.began;
        if !whole || self.helping.contains_key(&to) {
            return;
        }
        mark(Mark::SnapshotHelped);
        let patience = self.settings.retry_nanos.saturating_mul(READING_WAITS);
        let transfer = Transfer {
            id: None,
            chunk: 0,
            retry: cx.now.plus(patience),
            tries: MAX_TRIES,
        };
        self.helping.insert(to, transfer);
        self.out.effects.push(Effect::ReadSnapshot {
            to,
            id: None,
            chunk: 0,
        });
    }

    /// A leader helps as leaders do.
    pub(crate) fn stop_helping(&mut self) {
        for to in std::mem::take(&mut self.helping).into_keys() {
            self.out.effects.push(Effect::CloseSnapshot { to });
        }
    }

    pub(crate) fn helping_timeout(&mut self, cx: &Cx<'_>) {
        let retry_nanos = self.settings.retry_nanos;
        let effects = &mut self.out.effects;
        self.helping.retain(|to, transfer| {
            if transfer.retry > cx.now {
                return true;
            }
            transfer.tries += 1;
            if transfer.tries > MAX_TRIES {
                effects.push(Effect::CloseSnapshot { to: *to });
                return false;
            }
            transfer.reads(cx.now, retry_nanos);
            effects.push(Effect::ReadSnapshot {
                to: *to,
                id: transfer.id,
                chunk: transfer.chunk,
            });
            true
        });
    }

    /// The follower's log begins after `slot`: an older snapshot is of no use to it.
    pub(crate) fn drop_old_snapshot(&mut self, from: NodeId, slot: Slot) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(follower) = leader.followers.get_mut(&from) else {
            return;
        };
        let old = follower
            .transfer
            .take_if(|t| t.id.is_some_and(|id| id.slot < slot));
        if old.is_some() {
            follower.probe();
            let effect = Effect::CloseSnapshot { to: from };
            self.out.effects.push(effect);
        }
    }

    /// The log was trimmed through `slot` in spite of older snapshots: they start over.
    pub(crate) fn drop_old_snapshots(&mut self, slot: Slot) {
        let State::Leader(leader) = &self.state else {
            return;
        };
        let nodes: Vec<NodeId> = leader.followers.keys().copied().collect();
        for node in nodes {
            self.drop_old_snapshot(node, slot);
        }
    }

    /// Sends unanswered chunks again; gives transfers up that nobody answers.
    pub(crate) fn snapshot_timeout(&mut self, cx: &Cx<'_>) {
        let retry_nanos = self.settings.retry_nanos;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        for (node, follower) in &mut leader.followers {
            let Some(transfer) = &mut follower.transfer else {
                continue;
            };
            if transfer.retry > cx.now {
                continue;
            }
            transfer.tries += 1;
            if transfer.tries > MAX_TRIES {
                mark(Mark::SnapshotGivenUp);
                follower.transfer = None;
                follower.probe();
                self.out.effects.push(Effect::CloseSnapshot { to: *node });
                continue;
            }
            mark(Mark::SnapshotChunkAgain);
            transfer.reads(cx.now, retry_nanos);
            self.out.effects.push(Effect::ReadSnapshot {
                to: *node,
                id: transfer.id,
                chunk: transfer.chunk,
            });
        }
    }
}

impl Transfer {
    /// The driver is to read the chunk; it waits for nobody else until then.
    fn reads(&mut self, now: Mono, retry_nanos: u64) {
        self.retry = now.plus(retry_nanos.saturating_mul(READING_WAITS));
    }
}

/// The receiver.
impl Replica {
    /// Without data, which all members are meant to have: also a witness, which could
    /// otherwise never trim its log. Who stands still has some, but nothing to go on with.
    #[must_use]
    pub fn lacks_data(&self) -> bool {
        !self.holds_data || self.stands_still
    }

    /// Whether its log can only grow: without data it has nothing to trim by, and halted nothing more.
    #[must_use]
    pub fn trims_nothing(&self) -> bool {
        self.lacks_data() || self.halted
    }

    /// Gives up what is there of a snapshot on its way in, unless it is being installed.
    pub fn drop_incoming(&mut self) {
        self.incoming.take_if(|incoming| !incoming.installing);
    }

    /// Asks the leader for the data that is lacking, once in a while.
    pub(crate) fn ask_for_snapshot(&mut self, cx: &Cx<'_>, leader: NodeId, ballot: Ballot) {
        if !self.lacks_data() || self.installing().is_some() || cx.now < self.ask_snapshot_after {
            return;
        }
        mark(Mark::SnapshotAsked);
        self.ask_snapshot_after = cx.now.plus(self.settings.retry_nanos);
        self.nack(leader, ballot, NackReason::NeedsSnapshot);
    }

    pub(crate) fn handle_snapshot_chunk(&mut self, cx: &Cx<'_>, from: NodeId, message: Message) {
        let Message::SnapshotChunk {
            ballot,
            id,
            chunk,
            checksum,
            data,
            done,
            began,
        } = message
        else {
            return;
        };
        let helps = ballot.is_founding();
        if ballot.node != from && !helps {
            return self.ignore(Ignored::WrongNode);
        }
        if ballot < self.ballot() && !helps {
            return self.nack(from, ballot, NackReason::Promised(self.ballot()));
        }
        let epoch = self.configuration().epoch;
        let leads = matches!(self.state, State::Leader(_));
        let needless = ballot.epoch == epoch && (leads || id.slot <= self.applied);
        if helps && (ballot.epoch < epoch || needless) {
            // Helped already; what is left is a leader's to send.
            return self.acknowledge(from, ballot, id, chunk, true);
        }
        // Whoever installs it has to know what it is part of.
        let nameless = helps && done && began.is_none() && ballot.epoch > epoch;
        if id.slot.0 > ABSURD || chunk > ABSURD || ballot.round > ABSURD || nameless {
            return self.ignore(Ignored::Absurd);
        }
        // As with an Accept: whoever sends snapshots leads under this ballot.
        // Campaigns count with the log as it is, which this is about to change.
        if let State::Campaign(_) = self.state {
            mark(Mark::SnapshotWhileCampaigning);
        }
        if helps {
            // No promise before all of it is here: until then the configuration in
            // force may need this replica, should the helper be gone.
            self.yield_to_higher(cx);
        } else {
            self.raise_promised(cx, ballot);
            self.end_campaign();
        }
        self.be_patient(cx);
        if self.holds_data && id.slot <= self.applied {
            mark(Mark::SnapshotOld);
            self.ignore(Ignored::OldSnapshot);
            return self.acknowledge(from, ballot, id, chunk, true);
        }
        if id.slot < self.trimmed() {
            // It would leave a hole between the state and the log.
            self.ignore(Ignored::OldSnapshot);
            return self.nack(from, ballot, NackReason::Trimmed(self.trimmed()));
        }
        if crc32fast::hash(&data) != checksum {
            return self.ignore(Ignored::Damaged);
        }
        let Some(next) = self.expected_chunk(cx, from, ballot, id, chunk) else {
            return;
        };
        if chunk != next {
            return self.acknowledge(from, ballot, id, next, false);
        }
        self.out.effects.push(Effect::StageSnapshot {
            id,
            chunk,
            data,
            done,
        });
        if let Some(incoming) = &mut self.incoming {
            incoming.next = next + 1;
            incoming.heard = cx.now;
            incoming.installing = done;
            incoming.began = began;
        }
        if !done {
            self.acknowledge(from, ballot, id, next + 1, false);
        }
    }

    /// Which chunk of `id` is wanted; none if another snapshot is being received
    /// or installed, or this one is complete.
    fn expected_chunk(
        &mut self,
        cx: &Cx<'_>,
        from: NodeId,
        ballot: Ballot,
        id: SnapshotId,
        chunk: u64,
    ) -> Option<u64> {
        let silent = self.settings.retry_nanos.saturating_mul(SILENT_WAITS);
        match &mut self.incoming {
            Some(incoming) if incoming.installing => {
                // Installing may take long. The sender hears that its chunk is not
                // lost, so that it neither gives up nor opens another snapshot.
                let mut at = chunk;
                if incoming.id == id {
                    (incoming.from, incoming.ballot) = (from, ballot);
                    at = incoming.next.saturating_sub(1);
                }
                self.ignore(Ignored::Repeated);
                self.acknowledge(from, ballot, id, at, false);
                None
            }
            Some(incoming) if incoming.id == id && incoming.from == from => {
                incoming.ballot = ballot;
                Some(incoming.next)
            }
            // Of two senders that bring the same the first goes on; each would make the
            // other start over, for ever.
            Some(incoming)
                if cx.now.since(incoming.heard) < silent
                    && ((ballot, id.slot) < (incoming.ballot, incoming.id.slot)
                        || from != incoming.from
                            && (ballot, id.slot) == (incoming.ballot, incoming.id.slot)) =>
            {
                self.ignore(Ignored::OldSnapshot);
                None
            }
            incoming if chunk == 0 => {
                *incoming = Some(Incoming {
                    id,
                    from,
                    ballot,
                    next: 0,
                    heard: cx.now,
                    installing: false,
                    began: None,
                });
                Some(0)
            }
            _ => Some(0),
        }
    }

    fn acknowledge(
        &mut self,
        to: NodeId,
        ballot: Ballot,
        id: SnapshotId,
        next: u64,
        installed: bool,
    ) {
        let ack = Message::SnapshotAck {
            ballot,
            id,
            next,
            installed,
        };
        self.out.release(to, ack);
    }

    /// The driver installed a snapshot atomically, synced: the state is that
    /// after `id.slot`.
    pub fn handle_snapshot_installed(&mut self, cx: &Cx<'_>, id: SnapshotId) {
        let incoming = self.incoming.take_if(|i| i.id == id);
        let fits = id.slot >= self.trimmed();
        if fits && (id.slot >= self.applied || !self.holds_data) {
            // Campaigns and terms count with the log as it was when they began.
            self.yield_to_higher(cx);
            self.applied = self.applied.max(id.slot);
            self.holds_data = true;
            self.stands_still = false;
            if self.last() > id.slot {
                mark(Mark::SnapshotBelowLog);
            }
            self.log.drop_through(id.slot);
            self.out.records.push(Record::Installed { slot: id.slot });
            let began = incoming.as_ref().and_then(|i| i.began.as_deref());
            if began.is_some_and(|began| self.configure(began)) {
                self.heard = SupportEpoch::NONE;
                self.wait_for_campaign(cx, self.settings.retry_nanos);
            }
            if self.decided() > self.applied {
                let decided = self.decided();
                self.out.decided(decided);
            }
        }
        if let Some(Incoming {
            from, ballot, next, ..
        }) = incoming
        {
            self.acknowledge(from, ballot, id, next, true);
        }
        self.review_election(cx);
        self.review_leaving(cx.now);
    }

    /// The slot of the snapshot that is being installed, if any.
    #[must_use]
    pub fn installing(&self) -> Option<Slot> {
        self.incoming
            .as_ref()
            .filter(|i| i.installing)
            .map(|i| i.id.slot)
    }
}
