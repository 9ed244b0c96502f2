//! One replica of one group: its state, its inputs, its views. What it does
//! with them lies in the files named by role: `acceptor`, `election`, `leader`,
//! `counting`, `office`, `snapshot`, `reconfigure`, `leaving`, `recover`; its views in `views`.
//!
//! A step of the driver: any number of `handle_*`, [`Replica::propose`] and
//! [`Replica::confirm`] calls, then one [`Replica::flush`], then
//! [`Replica::drain_effects`]. Only `flush` emits Persist and Accept effects;
//! draining earlier, in between, is allowed. State in memory runs ahead of the
//! disk, but whatever discloses durable state rides on the Persist after it.
//!
//! The protocol is classic Multi-Paxos (Lamport, "Paxos Made Simple", 2001)
//! with a contiguous log, and votes before campaigns (Ongaro's thesis, §9.6).

use crate::campaign::Campaign;
use crate::config::{Began, Settings};
use crate::effect::{Effect, PersistSeq};
use crate::election::Election;
use crate::ids::{Ballot, GroupId, Mono, NodeId, Slot, SupportEpoch, Timestamp};
use crate::leader::Leader;
use crate::lease::NodeLease;
use crate::leaving::Leaving;
use crate::log::Log;
use crate::message::{Message, NackReason};
use crate::outgoing::Outgoing;
use crate::prng::Prng;
use crate::progress::Transfer;
use crate::record::{Durable, Record};
use crate::recover::Recovering;
use crate::snapshot::Incoming;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use synod_probe::{Mark, mark};

/// How far beyond `undecided_bytes` a log may grow before snapshots and
/// proposals are given up for the sake of memory.
const HARD_FACTOR: usize = 4;

/// What surrounds one step: the time, and the node's leases.
#[derive(Clone, Copy, Debug)]
pub struct Cx<'a> {
    /// The node's monotonic clock.
    pub now: Mono,
    /// What this node and its peers support each other in.
    pub leases: &'a NodeLease,
}

/// Which part a replica plays at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Accepts what a leader sends, or waits for one.
    Follower,
    /// Asks whether it would be promised.
    PreCandidate,
    /// Runs phase 1.
    Candidate,
    /// Runs phase 2.
    Leader,
}

/// Whether an entry may wait for company.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Urgency {
    /// Goes out with the next flush. Refused for load only at four times
    /// `undecided_bytes`: what asks for a slot was admitted already, see
    /// [`Replica::undecided_full`].
    Now,
    /// Takes its slot, but rides the next batch or waits for `lazy_nanos`. Never
    /// refused for load.
    Lazy,
}

/// Why a proposal or a confirming round was refused. Nothing was appended; a
/// retry is safe, where and when each variant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another replica leads, or none.
    #[error("this replica does not lead the group; {}", hint(*leader))]
    NotLeader {
        /// The best guess at who does.
        leader: Option<NodeId>,
    },
    /// The first entry of the term is not decided and applied yet (P6).
    #[error("the leader is not in office yet; retry in a moment")]
    NotInOffice,
    /// Leadership is on its way to another replica.
    #[error("leadership is moving to {to}; retry there")]
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// The group's members are changing.
    #[error("the group's members are changing; retry in a moment")]
    Reconfiguring,
    /// The target of a transfer cannot lead.
    #[error("{to} is not a voter that follows this leader; choose another target")]
    BadTarget {
        /// The target named.
        to: NodeId,
    },
    /// The entry is larger than `entry_bytes`.
    #[error("the entry has {bytes} bytes, the bound is {bound}; propose it in parts")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        bound: usize,
    },
    /// Far too many bytes wait to be decided, although the layer above admits
    /// nothing new beyond `undecided_bytes`.
    #[error("{bytes} bytes wait to be decided, the bound is {bound}; retry later")]
    Overloaded {
        /// How many wait.
        bytes: usize,
        /// The bound.
        bound: usize,
    },
}

fn hint(leader: Option<NodeId>) -> String {
    match leader {
        Some(node) => format!("retry at {node}"),
        None => "retry once a leader is known".to_owned(),
    }
}

/// Why a message or a completion was dropped. All reasons are named here and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ignored {
    /// The sender is no member of the configuration.
    Stranger,
    /// The ballot does not belong to the sender, or to this replica where it should.
    WrongNode,
    /// An answer to something this replica no longer asks.
    Stale,
    /// Repeats what is already done.
    Repeated,
    /// Slots, rounds or chunks that no correct replica would send.
    Absurd,
    /// The ballot belongs to another configuration epoch.
    WrongEpoch,
    /// A part came before the ones it follows.
    OutOfOrder,
    /// The checksum does not match.
    Damaged,
    /// Only electors take part in this.
    NotElector,
    /// A snapshot that is not newer than the state.
    OldSnapshot,
    /// A log that lacks or changes what is decided here (P2): some disk has lost
    /// what it held, or the sender lies. Should never be counted.
    Contradicts,
    /// The node holds as much log as it may of replicas that wait for their data.
    Full,
}

/// How far one follower is, as its leader knows; for status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerProgress {
    /// The follower.
    pub node: NodeId,
    /// Holds everything up to here under the leader's ballot, durably.
    pub matched: Slot,
    /// The next slot to send.
    pub next: Slot,
    /// Bytes on the way.
    pub in_flight_bytes: usize,
    /// Whether a snapshot is on its way.
    pub snapshot: bool,
    /// Whether it holds the data, as it said last.
    pub data: bool,
    /// Whether it has caught up: holds the sync, and all the rest is on its way to
    /// it. A learner may then be made a witness, and with `data` a voter.
    pub caught_up: bool,
}

/// The part played, with what it needs.
#[derive(Clone, Debug, Serialize)]
pub(crate) enum State {
    Follower,
    Campaign(Campaign),
    Leader(Box<Leader>),
}

/// One replica of one group. See the module's documentation for the order of calls.
#[derive(Clone, Debug, Serialize)]
pub struct Replica {
    pub(crate) group: GroupId,
    pub(crate) me: NodeId,
    pub(crate) settings: Settings,
    pub(crate) log: Log,
    pub(crate) applied: Slot,
    pub(crate) holds_data: bool,
    /// It votes, and leads nothing any more.
    pub(crate) stands_back: bool,
    /// The state machine does not get on by the log alone.
    pub(crate) stands_still: bool,
    /// The state machine applies nothing more.
    pub(crate) halted: bool,
    /// It takes no entries while it can trim none.
    pub(crate) is_full: bool,
    pub(crate) rng: Prng,
    pub(crate) state: State,
    /// The highest ballot known to be given up, and the highest timestamp used under it.
    pub(crate) relinquished: Option<(Ballot, Option<Timestamp>)>,
    /// The same of `accepted`, also after a higher one was given up; stale once
    /// `accepted` has changed.
    pub(crate) relinquished_accepted: Option<(Ballot, Option<Timestamp>)>,
    /// The newest support stamped into an Accepted under `accepted` since the start.
    pub(crate) heard: SupportEpoch,
    pub(crate) election: Election,
    /// The first ballot of the term that this replica carries from one configuration
    /// into the next, if its campaign there succeeds.
    pub(crate) keeps: Option<Ballot>,
    pub(crate) leaving: Option<Leaving>,
    /// It is about to go on alone.
    pub(crate) recovering: Option<Recovering>,
    /// Snapshots to members that missed the beginning of a configuration which
    /// nobody leads yet.
    pub(crate) helping: BTreeMap<NodeId, Transfer>,
    pub(crate) incoming: Option<Incoming>,
    /// When a snapshot may be asked for again.
    pub(crate) ask_snapshot_after: Mono,
    pub(crate) out: Outgoing,
    pub(crate) ignored: BTreeMap<Ignored, u64>,
}

impl Replica {
    /// A replica as recovery finds it: `durable` replayed from the log, the
    /// state machine above at `applied`, `began` being the configuration that its
    /// state names, if any. `holds_data` is false if that state is
    /// lost or incomplete; the replica then votes, but neither leads nor serves.
    /// `seed` feeds only the jitter of its timers.
    #[must_use]
    #[allow(
        clippy::too_many_arguments,
        reason = "everything a replica is made of, once"
    )]
    pub fn new(
        group: GroupId,
        me: NodeId,
        settings: Settings,
        durable: Durable,
        applied: Slot,
        began: Option<&Began>,
        holds_data: bool,
        seed: u64,
        now: Mono,
    ) -> Replica {
        let mut replica = Replica {
            group,
            me,
            holds_data: holds_data && applied >= durable.trimmed,
            stands_back: false,
            stands_still: false,
            halted: false,
            is_full: false,
            settings,
            log: Log::new(durable),
            applied,
            rng: Prng::new(seed),
            state: State::Follower,
            relinquished: None,
            relinquished_accepted: None,
            heard: SupportEpoch::NONE,
            election: Election::default(),
            keeps: None,
            leaving: None,
            recovering: None,
            helping: BTreeMap::new(),
            incoming: None,
            ask_snapshot_after: Mono(0),
            out: Outgoing::default(),
            ignored: BTreeMap::new(),
        };
        replica.out.written_decided = replica.decided();
        if replica.holds_data && applied > replica.decided() {
            // The engine got further on its own than the log that fed it. What it
            // applied was decided, so it stands for a snapshot of that slot; the
            // log's own entries down there may be others, accepted but never
            // decided. Those above stay (P4).
            mark(Mark::EngineAheadOfLog);
            replica.log.drop_through(applied);
            let record = Record::Installed { slot: applied };
            replica.out.records.push(record);
        }
        if let Some(began) = began.filter(|_| replica.holds_data) {
            replica.configure(began);
        }
        if replica.holds_data && replica.decided() > applied {
            let decided = replica.decided();
            replica.out.decided(decided);
        }
        replica.arm_first_election(now);
        replica.review_leaving(now);
        replica
    }

    /// A message from `from`; anything may be lost, repeated or overtaken.
    pub fn handle_message(&mut self, cx: &Cx<'_>, from: NodeId, message: Message) {
        if from == self.me {
            return self.ignore(Ignored::Stranger);
        }
        if self.is_being_destroyed() || self.recovering.is_some() {
            return self.ignore(Ignored::Stale);
        }
        if self.admits_era(from, &message) && self.admits(cx, from, &message) {
            self.dispatch(cx, from, message);
        }
        self.review_election(cx);
        self.review_leaving(cx.now);
    }

    fn dispatch(&mut self, cx: &Cx<'_>, from: NodeId, message: Message) {
        match message {
            Message::PreVote { .. } | Message::Prepare { .. } => {
                self.handle_candidate(cx, from, message);
            }
            Message::PreVoteReply { ballot } => self.handle_prevote_reply(cx, from, ballot),
            Message::Promise { .. } => self.handle_promise(cx, from, message),
            Message::Accept {
                ballot,
                first,
                entries,
                decided,
                sync,
                round,
            } => {
                let part = crate::acceptor::Part {
                    first,
                    entries,
                    decided,
                    sync,
                    round,
                };
                self.handle_accept(cx, from, ballot, part);
            }
            Message::Accepted {
                ballot,
                last,
                support,
                round,
                data,
            } => {
                let heard = crate::counting::Heard {
                    last,
                    support,
                    round,
                    data,
                };
                self.handle_accepted(cx, from, ballot, heard);
            }
            Message::Decided { ballot, slot } => self.handle_decided(cx, from, ballot, slot),
            Message::Nack { ballot, reason } => self.handle_nack(cx, from, ballot, reason),
            Message::Contested { ballot } => self.handle_contested(cx, from, ballot),
            Message::Relinquish { ballot, used } => {
                self.handle_relinquish(cx, from, ballot, used);
            }
            Message::TransferLeader { ballot, used } => {
                self.handle_transfer(cx, from, ballot, used);
            }
            Message::SnapshotChunk { .. } => self.handle_snapshot_chunk(cx, from, message),
            Message::SnapshotAck {
                ballot,
                id,
                next,
                installed,
            } => self.handle_snapshot_ack(cx, from, ballot, id, next, installed),
            Message::Settled {
                epoch,
                first,
                entries,
                end,
            } => self.handle_settled(cx, from, epoch, first, entries, end),
            Message::Began { epoch, after } => self.handle_began(cx, from, epoch, after),
            Message::Gone { epoch } => self.handle_gone(from, epoch),
            Message::Held { began, holds } => self.handle_held(cx, from, *began, holds),
        }
    }

    /// The persist effect `seq`, and with it all before, is on stable storage.
    pub fn handle_persisted(&mut self, cx: &Cx<'_>, seq: PersistSeq) {
        if seq.number > self.out.number {
            return self.ignore(Ignored::Absurd);
        }
        while let Some(mark) = self.out.marks.front().copied() {
            if mark.number > seq.number {
                break;
            }
            self.out.marks.pop_front();
            if let Some(ballot) = mark.promised {
                self.promise_is_durable(cx, ballot);
            }
            if let Some((ballot, slot)) = mark.accepted {
                self.own_log_is_durable(cx, ballot, slot);
            }
        }
        self.recovery_is_durable(cx, seq.number);
        self.review_election(cx);
        self.review_leaving(cx.now);
    }

    /// Time has passed; call at or after [`Replica::next_timeout`].
    pub fn handle_timeout(&mut self, cx: &Cx<'_>) {
        if self.recovering.is_some() {
            return;
        }
        match &self.state {
            State::Follower => self.election_timeout(cx),
            State::Campaign(_) => self.campaign_timeout(cx),
            State::Leader(_) => self.leader_timeout(cx),
        }
        self.leaving_timeout(cx);
        self.helping_timeout(cx);
        self.review_election(cx);
    }

    /// The leases changed in any way.
    pub fn handle_lease_change(&mut self, cx: &Cx<'_>) {
        self.review_lease(cx);
        self.review_election(cx);
    }

    /// The state machine above has applied everything through `slot`.
    pub fn handle_applied(&mut self, _cx: &Cx<'_>, slot: Slot) {
        assert!(
            slot <= self.decided(),
            "P7: applied slot {slot} beyond the decided slot {}",
            self.decided()
        );
        if !self.is_being_destroyed() {
            self.applied = self.applied.max(slot);
        }
    }

    /// Ends a step: one Persist and, from a leader, the Accepts for everything new.
    pub fn flush(&mut self, cx: &Cx<'_>) {
        self.flush_leader(cx);
        self.out.persist(&self.log.durable);
    }

    /// The engine has synced its state through `through`: drops the log's prefix
    /// as far as decided, applied and running snapshots allow; snapshots not once
    /// the log is far too long. Does nothing during a campaign, which counts with
    /// the log as it was when it began. Returns the slot before the first entry kept.
    pub fn trim(&mut self, _cx: &Cx<'_>, through: Slot) -> Slot {
        let too_long = self.log_bytes() > self.hard_bytes();
        let mut slot = through.min(self.decided()).min(self.applied);
        let began = self.log.durable.began;
        if began > Slot(0) && self.decided() == began || self.recovering.is_some() {
            // Nobody has led in this configuration yet. Those who missed its
            // beginning may still need the entries before.
            return self.trimmed();
        }
        match &self.state {
            State::Follower => {}
            State::Campaign(_) => return self.trimmed(),
            State::Leader(leader) => {
                slot = slot.min(leader.flushed());
                if let Some(pinned) = leader.snapshot_pins().min()
                    && pinned < slot
                    && !too_long
                {
                    mark(Mark::TrimPinned);
                    slot = pinned;
                }
            }
        }
        if self.holds_data && slot > self.trimmed() {
            self.log.drop_through(slot);
            self.out.records.push(Record::Trimmed { slot });
            self.drop_old_snapshots(slot);
        }
        self.trimmed()
    }

    /// No entries are to be taken while none can be trimmed ([`Replica::trims_nothing`]): whoever sums
    /// up the logs of a node has to end that somewhere. Such a replica is to its leader one that does not
    /// answer. It gives up nothing that it has accepted: some of that may have been chosen with
    /// its vote.
    pub fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Where soft bounds on the log's size become hard ones; bytes.
    pub(crate) fn hard_bytes(&self) -> usize {
        self.settings.undecided_bytes.saturating_mul(HARD_FACTOR)
    }

    /// Takes the effects that gathered, in order.
    pub fn drain_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out.effects)
    }

    /// When [`Replica::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Mono> {
        if self.recovering.is_some() {
            return None;
        }
        let own = match &self.state {
            State::Follower => self.election.deadline,
            State::Campaign(campaign) => Some(campaign.retry),
            State::Leader(leader) => leader.next_timeout(),
        };
        let leaving = self.leaving.as_ref().map(|l| l.retry);
        let helping = self.helping.values().map(|t| t.retry);
        own.into_iter().chain(leaving).chain(helping).min()
    }

    pub(crate) fn ignore(&mut self, reason: Ignored) {
        *self.ignored.entry(reason).or_default() += 1;
    }

    pub(crate) fn nack(&mut self, to: NodeId, ballot: Ballot, reason: NackReason) {
        self.out.send(to, Message::Nack { ballot, reason });
    }

    /// Takes what the log holds through `slot` for decided. Whoever calls this knows by more than
    /// the log's ballot that no other log was decided up to there: the rule that P5 gives to
    /// everybody else is the caller's to prove. A leader or candidate gives way first if
    /// it was told by a leader `under` a higher ballot; campaigns count with the log as it is.
    /// Returns whether that was news.
    pub fn learn_decided(&mut self, cx: &Cx<'_>, under: Option<Ballot>, slot: Slot) -> bool {
        let decided = self.decided();
        if slot <= decided || slot > self.last() || self.is_being_destroyed() {
            return false;
        }
        if let Some(ballot) = under.filter(|ballot| !ballot.is_founding()) {
            self.raise_promised(cx, ballot);
        }
        if under.is_none_or(|ballot| ballot.is_founding() || ballot == self.ballot()) {
            self.end_campaign();
        }
        if let State::Follower = self.state {
            self.believe(cx, self.accepted(), slot);
        }
        self.decided() > decided
    }

    /// Believes a decided slot (P5) and tells the driver. If it ends a configuration
    /// the next one has begun here when this returns.
    pub(crate) fn believe(&mut self, cx: &Cx<'_>, ballot: Ballot, slot: Slot) {
        let epoch = self.configuration().epoch;
        if !self.log.believe(ballot, slot) {
            return;
        }
        if self.holds_data {
            let decided = self.decided();
            self.out.decided(decided);
        }
        if self.configuration().epoch > epoch {
            self.epoch_began(cx, ballot);
        }
    }
}
