//! Two neighbouring shards become one (decision 19), as each of them lives through it.
//!
//! The left one's leader stops to assign timestamps and waits until nothing is undecided there; only
//! then it calls the right one, which does the same and ends its log. So no transaction
//! of both shards is undecided in one of them while the other does not act any more. The left
//! one's log decides alone what follows. Whoever leads the right one asks until it is told.

use super::{Now, Shard, Waiting, paxos_cx};
use crate::outbox::{MergeTo, Outbox, SnapshotTask};
use crate::wire::{META_SHARD, MergeMessage, ShardDescriptor, ShardReply};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use synod_paxos::lease::NodeLease;
use synod_paxos::replica::Urgency;
use synod_paxos::{ClusterVersion, Configuration, Entry, GroupId, Mono, NodeId, Slot};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::state::State;
use synod_txn::{Absorb, Call, Command, End, Ended, Hashing, Span};

/// How long a shard waits for what is undecided before it gives the merge up, and the left one then
/// for the right one; nanoseconds. Meanwhile commits wait.
const PATIENCE_NANOS: u64 = 500_000_000;
/// A leader that cannot apply what it is to take in gives way after this long; nanoseconds.
const STANDING_NANOS: u64 = 1_000_000_000;
/// Between two messages that say the same; nanoseconds.
const RETRY_NANOS: u64 = 50_000_000;

/// How far a merge that was asked for has come. Asking again is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Merging {
    /// Under way: ask again in a moment.
    Underway,
    /// The right shard is part of the left one.
    Done,
}

/// Why shards are not merged. Nothing changed, and asking again is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MergeError {
    /// Another replica leads, or none.
    #[error("this node does not lead the shard; ask the one that does")]
    NotLeader {
        /// The best guess at who does.
        leader: Option<NodeId>,
    },
    /// A shard's leader has just been elected, its members or its range are changing.
    #[error("shard {shard} is between two leaders, members or ranges; ask again in a moment")]
    NotReady {
        /// Which.
        shard: GroupId,
    },
    /// Another merge of the shard is under way.
    #[error("the shard is being merged already, with shard {right}; wait for that")]
    Underway {
        /// The shard on the right of it.
        right: GroupId,
    },
    /// The second shard does not begin where the first one ends.
    #[error("the second shard does not begin where the first one ends; look at the map again")]
    NotNeighbours,
    /// The meta shard holds the cluster's own records, and only those.
    #[error("the meta shard is not merged with others")]
    Meta,
    /// The shards are not on the same nodes, in the same roles.
    #[error(
        "the two shards are not on the same nodes in the same roles; move the replicas of one of them"
    )]
    OtherMembers,
    /// One shard's keys are stored in another way than the other's (decision 22).
    #[error("the keys of the two shards are stored in different ways, so they stay two")]
    OtherSharding,
    /// A member has not taken in what was absorbed before.
    #[error(
        "not all members have followed the last merge, with shard {right}; ask again once they are \
         back or replaced"
    )]
    NotFollowed {
        /// The shard that was absorbed.
        right: GroupId,
    },
    /// Transactions that are not decided stood in the way until patience ended; both shards
    /// serve on as before.
    #[error("{open} transactions were not decided in time, so the shards stay two; ask again")]
    Busy {
        /// How many.
        open: u64,
    },
    /// The right shard's leader did not end it in time; both serve on as before, or will in a
    /// moment.
    #[error("the right shard did not answer in time, so the shards stay two; ask again")]
    Silent,
    /// Nodes of older programs may belong to the cluster: they know no merges.
    #[error(
        "the cluster is at version {at}, and shards are merged from version {since} on: run `synod \
         cluster upgrade` once all its nodes run a program that knows that", at = .at.0,
        since = .since.0
    )]
    Version {
        /// The shard's version.
        at: ClusterVersion,
        /// What a merge needs.
        since: ClusterVersion,
    },
}

/// A left shard's part of a merge.
#[derive(Clone, Debug, Serialize)]
enum Absorbing {
    /// It waits until nothing is undecided.
    Draining { right: GroupId, until: Mono },
    /// Nothing is; it waits for the right shard's end.
    Calling {
        right: GroupId,
        call: Call,
        until: Mono,
        next: Mono,
    },
    /// The `Absorb` has its slot.
    Proposed {
        right: GroupId,
        slot: Slot,
        end: Slot,
    },
}

impl Absorbing {
    fn right(&self) -> GroupId {
        match self {
            Absorbing::Draining { right, .. }
            | Absorbing::Calling { right, .. }
            | Absorbing::Proposed { right, .. } => *right,
        }
    }
}

/// A right shard's part.
#[derive(Clone, Debug, Serialize)]
enum Ending {
    /// It waits until nothing is undecided.
    Draining { call: Call, until: Mono },
    /// The `End` has its slot.
    Proposed { call: Call, slot: Slot },
}

/// An end that a replica waits for: what it applies next takes in the other shard's state there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Awaited {
    pub(crate) right: GroupId,
    pub(crate) slot: Slot,
    pub(crate) under: synod_paxos::Ballot,
}

/// What a replica knows of merges besides the replicated state.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Merges {
    absorbing: Option<Absorbing>,
    ending: Option<Ending>,
    /// Why the last one did not come about, until somebody asks.
    failed: Option<(GroupId, MergeError)>,
    /// Counts this leader's askings.
    calls: u64,
    /// An end that is being refused.
    reopening: Option<(GroupId, Slot)>,
    /// What follows the shard's own end has its slot.
    resuming: bool,
    /// When the left shard is asked next.
    ask: Mono,
    awaited: Option<Awaited>,
    /// Since when.
    awaits_since: Option<Mono>,
    /// The awaited state.
    right: Option<Box<State>>,
    /// The term ends here, and another begins.
    renew: bool,
    /// The range has grown since this was last asked.
    grown: bool,
    /// A merge was applied, and the engine was not told to keep it for good.
    unsaved: bool,
    /// How often it was told and has not said that it does.
    saving: u32,
    /// Nodes that have followed the last merge.
    followed: BTreeSet<NodeId>,
    retiring: bool,
    /// What a snapshot on its way in is of, and the shards that it descends from or has absorbed.
    incoming: Option<(Span, BTreeSet<GroupId>)>,
    /// Replicas on this node whose data is this one's, or is about to be.
    supersedes: Vec<GroupId>,
    /// The shard is part of another, as the node's map says.
    gone: bool,
    /// Its data on this node is another replica's.
    pub(super) superseded: bool,
    /// Its data here goes with it.
    clears: bool,
}

/// Whether two configurations name the same members in the same roles.
fn same_members(a: &Configuration, b: &Configuration) -> bool {
    (&a.voters, &a.witnesses, &a.learners) == (&b.voters, &b.witnesses, &b.learners)
}

/// The left shard.
impl Shard {
    /// Begins to merge the shard with the one on its right, or says how far that has come.
    pub(crate) fn merge(
        &mut self,
        now: Now,
        right: &ShardDescriptor,
    ) -> Result<Merging, MergeError> {
        if let Some(absorbing) = &self.merges.absorbing {
            return match absorbing.right() {
                under_way if under_way == right.id => Ok(Merging::Underway),
                right => Err(MergeError::Underway { right }),
            };
        }
        if let Some((_, why)) = self.merges.failed.take_if(|(of, _)| *of == right.id) {
            return Err(why);
        }
        if self.office.is_none() && !self.leads() {
            let leader = self.replica.leader().filter(|n| *n != self.replica.me());
            return Err(MergeError::NotLeader { leader });
        }
        self.may_merge()?;
        if right.id == META_SHARD {
            return Err(MergeError::Meta);
        }
        let end = &self.descriptor.span.end;
        if end.is_empty() || *end != right.span.start {
            return Err(MergeError::NotNeighbours);
        }
        if !same_members(self.replica.configuration(), &right.configuration) {
            return Err(MergeError::OtherMembers);
        }
        self.group.suspend_joint();
        self.merges.absorbing = Some(Absorbing::Draining {
            right: right.id,
            until: now.mono.plus(PATIENCE_NANOS),
        });
        Ok(Merging::Underway)
    }

    /// What keeps either shard from a merge.
    fn may_merge(&self) -> Result<(), MergeError> {
        let shard = self.descriptor.id;
        if shard == META_SHARD {
            return Err(MergeError::Meta);
        }
        let (at, since) = (self.version(), Command::MERGE_SINCE);
        if at < since {
            return Err(MergeError::Version { at, since });
        }
        if let Some(absorbed) = &self.group.state().tail.absorbed {
            let right = absorbed.id;
            return Err(MergeError::NotFollowed { right });
        }
        let busy = self.suspended || self.changes_members() || self.handing_over;
        let changes = self.cut.is_some() || self.rehash.is_some() || self.merges_now();
        if self.office.is_none() || busy || changes {
            return Err(MergeError::NotReady { shard });
        }
        Ok(())
    }

    /// Whether this leader is merging the shard, on either side.
    pub(super) fn merges_now(&self) -> bool {
        self.merges.absorbing.is_some() || self.merges.ending.is_some() || self.has_ended()
    }

    /// Whether a merge has its slot, or its end: nothing is handed to the transaction machine.
    pub(super) fn merge_pauses(&self) -> bool {
        let absorbing = matches!(self.merges.absorbing, Some(Absorbing::Proposed { .. }));
        absorbing || matches!(self.merges.ending, Some(Ending::Proposed { .. })) || self.has_ended()
    }

    /// Whether the shard has ended, as far as applied, and was not told to go on.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.group.state().tail.ended.is_some() && !mutated(Mutation::ServeAfterEnd)
    }

    /// When a merge wants a tick.
    pub(super) fn merge_timeout(&self) -> Option<Mono> {
        let absorbing = match &self.merges.absorbing {
            Some(Absorbing::Draining { until, .. }) => Some(*until),
            Some(Absorbing::Calling { until, next, .. }) => Some(*until.min(next)),
            _ => None,
        };
        let ending = match &self.merges.ending {
            Some(Ending::Draining { until, .. }) => Some(*until),
            _ => None,
        };
        let standing = self.merges.awaits_since.filter(|_| self.leads());
        let standing = standing.map(|since| since.plus(STANDING_NANOS));
        let asks = self.has_ended() && self.replica.term_ballot().is_some();
        let asking = asks.then_some(self.merges.ask);
        absorbing
            .into_iter()
            .chain(ending)
            .chain(asking)
            .chain(standing)
            .min()
    }

    /// Goes on with a merge, at the end of a step.
    pub(crate) fn go_on_merging(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        self.save_merge(out);
        let stands = self.merges.awaits_since;
        if stands.is_some_and(|since| since.plus(STANDING_NANOS) <= now.mono) && self.leads() {
            // Somebody else may get on.
            mark(Mark::StoodStill);
            self.step_down(now, leases);
        }
        self.go_on_absorbing(now, leases, out);
        self.go_on_ending(now, leases, out);
        if let Some(ended) = &self.group.state().tail.ended
            && self.replica.term_ballot().is_some()
            && self.merges.ask <= now.mono
        {
            let ended = ended.clone();
            self.merges.ask = now.mono.plus(RETRY_NANOS);
            let to = MergeTo::Before(ended.end.span.start.clone());
            let right = self.descriptor.id;
            out.merge(to, MergeMessage::Ended { right, ended });
        }
    }

    fn go_on_absorbing(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        match &mut self.merges.absorbing {
            Some(Absorbing::Draining { right, until }) => {
                let (right, until) = (*right, *until);
                let open = self.group.undecided() as u64;
                if open > 0 && until <= now.mono {
                    mark(Mark::MergeBusy);
                    return self.stay_two(now, leases, right, MergeError::Busy { open });
                }
                if open > 0 && !mutated(Mutation::MergeOverIntents) {
                    return;
                }
                self.merges.calls += 1;
                let call = Call {
                    left: self.descriptor.id,
                    ballot: self.replica.ballot(),
                    number: self.merges.calls,
                };
                self.merges.absorbing = Some(Absorbing::Calling {
                    right,
                    call,
                    until: now.mono.plus(2 * PATIENCE_NANOS),
                    next: now.mono.plus(RETRY_NANOS),
                });
                self.call(right, call, out);
            }
            Some(Absorbing::Calling {
                right,
                call,
                until,
                next,
            }) => {
                let (right, call) = (*right, *call);
                if *until <= now.mono {
                    mark(Mark::MergeSilent);
                    self.stay_two(now, leases, right, MergeError::Silent);
                } else if *next <= now.mono {
                    *next = now.mono.plus(RETRY_NANOS);
                    self.call(right, call, out);
                }
            }
            _ => {}
        }
    }

    fn call(&self, right: GroupId, call: Call, out: &mut Outbox) {
        let message = MergeMessage::Call {
            call,
            border: self.descriptor.span.end.clone(),
            configuration: self.replica.configuration().clone(),
            hashing: self.group.state().tail.hashing.clone(),
        };
        out.merge(MergeTo::Shard(right), message);
    }

    /// The merge does not come about: whoever asks is told why.
    fn stay_two(&mut self, now: Now, leases: &NodeLease, right: GroupId, why: MergeError) {
        self.merges.absorbing = None;
        self.merges.failed = Some((right, why));
        let cx = self.txn_cx(now, leases);
        self.group.resume(&cx);
        self.hand_in_waiting(now, leases);
    }

    /// A message of the other shard, or of a node that has followed. Only for who leads.
    pub(crate) fn handle_merge(
        &mut self,
        now: Now,
        leases: &NodeLease,
        message: MergeMessage,
        out: &mut Outbox,
    ) {
        match message {
            MergeMessage::Call {
                call,
                border,
                configuration,
                hashing,
            } => {
                let fits = self.fits(&border, &configuration, hashing.as_ref());
                self.handle_call(now, call, fits, out);
            }
            MergeMessage::Declined { call, why } => {
                if let Some(Absorbing::Calling {
                    right, call: mine, ..
                }) = &self.merges.absorbing
                    && *mine == call
                {
                    let right = *right;
                    self.stay_two(now, leases, right, why);
                }
            }
            MergeMessage::Ended { right, ended } => {
                self.handle_ended(now, leases, right, &ended, out);
            }
            MergeMessage::Answer { slot, absorbed } => {
                self.handle_answer(now, leases, slot, absorbed);
            }
            MergeMessage::Followed { right, node } => {
                self.handle_followed(now, leases, right, node, out);
            }
        }
    }

    /// The right shard has ended, and asks.
    fn handle_ended(
        &mut self,
        now: Now,
        leases: &NodeLease,
        right: GroupId,
        ended: &Ended,
        out: &mut Outbox,
    ) {
        if self.office.is_none() || self.pauses() {
            return;
        }
        let state = self.group.state();
        let slot = ended.slot;
        let answer = |absorbed| MergeMessage::Answer { slot, absorbed };
        if state.has_absorbed(right) && !mutated(Mutation::ReopenAbsorbed) {
            return out.merge(MergeTo::Shard(right), answer(true));
        }
        if state.has_reopened(right, slot) {
            return out.merge(MergeTo::Shard(right), answer(false));
        }
        // Not this shard's to decide, or not any more.
        if self.descriptor.span.end != ended.end.span.start {
            return;
        }
        if let Some(Absorbing::Calling {
            right: called,
            call,
            ..
        }) = &self.merges.absorbing
            && *called == right
            && *call == ended.end.call
        {
            let fits = same_members(self.replica.configuration(), &ended.end.configuration)
                && state.tail.hashing == ended.end.hashing;
            if fits && (self.group.undecided() == 0 || mutated(Mutation::MergeOverIntents)) {
                return self.propose_absorb(now, leases, right, ended);
            }
            let open = self.group.undecided() as u64;
            let why = if fits {
                MergeError::Busy { open }
            } else {
                MergeError::OtherMembers
            };
            self.stay_two(now, leases, right, why);
        }
        self.reopen(now, leases, right, slot);
    }

    fn propose_absorb(&mut self, now: Now, leases: &NodeLease, right: GroupId, ended: &Ended) {
        let Ended { slot: end, end: of } = ended;
        let epoch = u64::from(self.replica.configuration().epoch.0);
        let generation = self.descriptor.generation.max(of.generation);
        let splits = self.group.state().lineage.splits;
        let absorb = Absorb {
            span: self.descriptor.span.clone(),
            right,
            gained: of.span.clone(),
            slot: *end,
            under: of.under,
            last: of.last,
            hashing: of.hashing.clone(),
            splits: (generation + 1).saturating_sub(epoch).max(splits + 1),
        };
        let command = Command::Absorb(Box::new(absorb));
        match self.try_propose(now, leases, &command, Urgency::Now) {
            Some(slot) => {
                mark(Mark::AbsorbProposed);
                let end = *end;
                self.merges.absorbing = Some(Absorbing::Proposed { right, slot, end });
            }
            None => {
                let shard = self.descriptor.id;
                self.stay_two(now, leases, right, MergeError::NotReady { shard });
            }
        }
    }

    /// Refuses the right shard's end: nobody here wants it, or any more.
    fn reopen(&mut self, now: Now, leases: &NodeLease, right: GroupId, slot: Slot) {
        let done = |(known, at): &(GroupId, Slot)| *known == right && *at >= slot;
        if self.merges.reopening.as_ref().is_some_and(done) || self.version() < Command::MERGE_SINCE
        {
            return;
        }
        let command = Command::Reopen { right, slot };
        if let Some(taken) = self.try_propose(now, leases, &command, Urgency::Now) {
            mark(Mark::ReopenProposed);
            self.backlog.add(taken, now.mono);
            self.merges.reopening = Some((right, slot));
        }
    }

    /// A member has what was absorbed, for good, or a node that is none has no use for it.
    fn handle_followed(
        &mut self,
        now: Now,
        leases: &NodeLease,
        right: GroupId,
        node: NodeId,
        out: &mut Outbox,
    ) {
        if self.office.is_none() || self.pauses() {
            return;
        }
        let state = self.group.state();
        let absorbed = state.tail.absorbed.map(|absorbed| absorbed.id);
        if absorbed != Some(right) {
            if state.has_absorbed(right) {
                out.retired(node, right);
            }
            return;
        }
        self.merges.followed.insert(node);
        let mut members = self.replica.configuration().members();
        let all = members.all(|n| self.merges.followed.contains(&n));
        drop(members);
        let enough = all || mutated(Mutation::RetireEarly);
        if !enough || self.merges.retiring || self.suspended {
            return;
        }
        let command = Command::Retire { right };
        if let Some(slot) = self.try_propose(now, leases, &command, Urgency::Now) {
            mark(Mark::RetireProposed);
            self.backlog.add(slot, now.mono);
            self.merges.retiring = true;
        }
    }
}

/// The right shard.
impl Shard {
    /// Whether a left shard like this can absorb it.
    fn fits(
        &self,
        border: &[u8],
        configuration: &Configuration,
        hashing: Option<&Hashing>,
    ) -> Result<(), MergeError> {
        if *border != self.descriptor.span.start[..] {
            return Err(MergeError::NotNeighbours);
        }
        if !same_members(self.replica.configuration(), configuration) {
            return Err(MergeError::OtherMembers);
        }
        if self.group.state().hashing() != hashing {
            return Err(MergeError::OtherSharding);
        }
        Ok(())
    }

    fn handle_call(
        &mut self,
        now: Now,
        call: Call,
        fits: Result<(), MergeError>,
        out: &mut Outbox,
    ) {
        let known = match (&self.merges.ending, &self.group.state().tail.ended) {
            (Some(Ending::Draining { call, .. } | Ending::Proposed { call, .. }), _) => Some(*call),
            (None, ended) => ended.as_ref().map(|ended| ended.end.call),
        };
        if known == Some(call) {
            // The question may be lost.
            self.merges.ask = now.mono;
            return;
        }
        if let Err(why) = self.may_merge().and(fits) {
            let message = MergeMessage::Declined { call, why };
            return out.merge(MergeTo::Shard(call.left), message);
        }
        self.group.suspend_joint();
        self.merges.ending = Some(Ending::Draining {
            call,
            until: now.mono.plus(PATIENCE_NANOS),
        });
    }

    fn go_on_ending(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        let Some(Ending::Draining { call, until }) = self.merges.ending else {
            return;
        };
        let open = self.group.undecided() as u64;
        if open == 0 || mutated(Mutation::MergeOverIntents) {
            return self.propose_end(now, leases, call);
        }
        if until <= now.mono {
            mark(Mark::MergeBusy);
            self.merges.ending = None;
            let why = MergeError::Busy { open };
            out.merge(
                MergeTo::Shard(call.left),
                MergeMessage::Declined { call, why },
            );
            let cx = self.txn_cx(now, leases);
            self.group.resume(&cx);
        }
    }

    fn propose_end(&mut self, now: Now, leases: &NodeLease, call: Call) {
        let end = End {
            span: self.descriptor.span.clone(),
            configuration: self.replica.configuration().clone(),
            generation: self.descriptor.generation,
            last: self.group.last(),
            hashing: self.group.state().tail.hashing.clone(),
            call,
            under: self.replica.ballot(),
        };
        let command = Command::End(Box::new(end));
        if let Some(slot) = self.try_propose(now, leases, &command, Urgency::Now) {
            mark(Mark::EndProposed);
            self.merges.ending = Some(Ending::Proposed { call, slot });
            return;
        }
        self.merges.ending = None;
        let cx = self.txn_cx(now, leases);
        self.group.resume(&cx);
    }

    /// What became of the shard's end.
    fn handle_answer(&mut self, now: Now, leases: &NodeLease, slot: Slot, absorbed: bool) {
        let ended = &self.group.state().tail.ended;
        if ended.as_ref().is_none_or(|ended| ended.slot != slot) {
            return;
        }
        if absorbed {
            // Its replica here will hear of it by the other shard's log; there is no hurry.
            self.merges.ask = now.mono.plus(20 * RETRY_NANOS);
            return;
        }
        if self.merges.resuming {
            return;
        }
        let command = Command::Resume { slot };
        if let Some(taken) = self.try_propose(now, leases, &command, Urgency::Now) {
            mark(Mark::ResumeProposed);
            self.backlog.add(taken, now.mono);
            self.merges.resuming = true;
        }
    }

    /// The shard is part of another by now: whoever waits is sent there.
    pub(crate) fn send_away(&mut self, to: Option<&ShardReply>, out: &mut Outbox) {
        self.merges.gone = true;
        let waiting = std::mem::take(&mut self.waiting);
        for waiting in waiting {
            if let Waiting::Request(caller, ..) = waiting {
                let nothing = ShardReply::WrongNode(None);
                out.reply_wrong_node(caller, to.cloned().unwrap_or(nothing));
            }
        }
    }

    /// Whether the node's map says that the shard is part of another.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.merges.gone
    }
}

/// What every replica does.
impl Shard {
    /// The other shard's state, if it was handed in.
    pub(super) fn take_right(&mut self, absorb: &Absorb) -> Option<Box<State>> {
        let right = self.merges.right.take();
        if right.is_none() {
            self.merges.awaited = Some(Awaited {
                right: absorb.right,
                slot: absorb.slot,
                under: absorb.under,
            });
        }
        right
    }

    /// The end of another shard that this replica waits for.
    pub(crate) fn awaited(&self) -> Option<Awaited> {
        self.merges.awaited
    }

    /// Whether a merge was applied since this was last asked.
    pub(crate) fn take_grown(&mut self) -> bool {
        std::mem::take(&mut self.merges.grown)
    }

    /// Hands the awaited state in.
    pub(crate) fn hand_in(&mut self, now: Now, leases: &NodeLease, right: State) {
        self.forget_awaited();
        self.replica.stand_still(&paxos_cx(now, leases), false);
        self.merges.right = Some(Box::new(right));
    }

    /// The awaited state is not to be had now: until it is, or a snapshot brings it and what
    /// follows, this replica does not count as one that has the data.
    pub(crate) fn stand_still(&mut self, now: Now, leases: &NodeLease) {
        self.merges.awaits_since.get_or_insert(now.mono);
        self.replica.stand_still(&paxos_cx(now, leases), true);
    }

    /// Whether a snapshot on its way in may be given up: the awaited state is here.
    pub(crate) fn drop_incoming(&mut self) {
        self.replica.drop_incoming();
        self.merges.incoming = None;
    }

    /// Whether its state is that of the end in that slot, with all that was written before in
    /// the engine.
    pub(crate) fn is_at_end(&self, slot: Slot) -> bool {
        let ended = &self.group.state().tail.ended;
        let at_end = ended.as_ref().is_some_and(|ended| ended.slot == slot);
        let at_end = at_end || mutated(Mutation::AbsorbEarly);
        at_end && self.is_whole() && self.group.is_written()
    }

    /// An end is decided, since it was absorbed: a replica whose log holds it applies it. (As for
    /// splits, this goes beyond P5.) Returns whether it does so now.
    pub(crate) fn reach_end(&mut self, now: Now, leases: &NodeLease, awaited: &Awaited) -> bool {
        if !self.is_whole() || self.replica.decided() >= awaited.slot {
            return false;
        }
        let Some(Entry::Command(bytes)) = self.replica.entry(awaited.slot) else {
            return false;
        };
        let command = synod_txn::command::decode(bytes);
        if !matches!(command, Ok(Command::End(end)) if end.under == awaited.under) {
            return false;
        }
        mark(Mark::EndBelieved);
        let cx = paxos_cx(now, leases);
        self.replica.learn_decided(&cx, None, awaited.slot)
    }

    /// A merge was applied here.
    pub(super) fn absorbed_applied(&mut self) {
        self.merges.renew = true;
        self.merges.unsaved = true;
        self.merges.grown = true;
        self.merges.followed.clear();
        self.merges.retiring = false;
        self.merges.incoming = None;
    }

    /// After entries were applied: merges that are over, on either side.
    pub(super) fn review_merge(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        if let Some(Ending::Proposed { call, slot }) = self.merges.ending
            && self.applied >= slot
        {
            self.merges.ending = None;
            self.merges.resuming = false;
            if !self.has_ended() {
                let why = MergeError::Busy { open: 1 };
                out.merge(
                    MergeTo::Shard(call.left),
                    MergeMessage::Declined { call, why },
                );
                self.go_on_after_merge(now, leases);
            }
        }
        if self.has_ended() && self.office.is_some() {
            // Who waits in line goes on if the end is refused, and elsewhere if not.
            let waiting = std::mem::take(&mut self.waiting);
            self.leave_office(out);
            self.waiting = waiting;
        }
        if let Some(Absorbing::Proposed { right, slot, end }) = self.merges.absorbing
            && self.applied >= slot
        {
            self.merges.absorbing = None;
            if self.group.state().has_absorbed(right) {
                let absorbed = !mutated(Mutation::ReopenAbsorbed);
                let slot = end;
                out.merge(
                    MergeTo::Shard(right),
                    MergeMessage::Answer { slot, absorbed },
                );
            } else {
                self.merges.failed = Some((right, MergeError::Busy { open: 1 }));
                self.go_on_after_merge(now, leases);
                self.reopen(now, leases, right, end);
            }
        }
        if std::mem::take(&mut self.merges.renew)
            && self.leads()
            && !mutated(Mutation::TermAfterAbsorb)
        {
            mark(Mark::TermRenewed);
            self.step_down(now, leases);
            self.replica.campaign(&paxos_cx(now, leases));
        }
    }

    /// What was held back goes on: the entry changed nothing.
    fn go_on_after_merge(&mut self, now: Now, leases: &NodeLease) {
        while let Some((command, lazy)) = self.held.pop_front() {
            self.propose(now, leases, &command, lazy);
        }
        let cx = self.txn_cx(now, leases);
        self.group.resume(&cx);
        self.hand_in_waiting(now, leases);
    }

    /// The shard's end was refused: another term begins, as this leader has forgotten its own.
    pub(super) fn resume_applied(&mut self) {
        self.merges.renew = true;
        self.merges.resuming = false;
    }

    /// The term is over.
    pub(super) fn leave_merges(&mut self) {
        self.merges.absorbing = None;
        self.merges.ending = None;
        self.merges.failed = None;
        self.merges.reopening = None;
        self.merges.resuming = false;
        self.merges.retiring = false;
        self.merges.followed.clear();
    }

    /// What was absorbed goes to the engine for good, behind everything that was written.
    fn save_merge(&mut self, out: &mut Outbox) {
        if !std::mem::take(&mut self.merges.unsaved) {
            return;
        }
        if self.is_whole() {
            self.merges.saving += 1;
            self.save_end(out);
        }
    }

    /// The engine holds what was absorbed for good.
    pub(crate) fn merge_saved(&mut self) {
        self.merges.saving = self.merges.saving.saturating_sub(1);
    }

    /// Whether the engine holds the last merge for good.
    pub(crate) fn is_merge_saved(&self) -> bool {
        self.merges.saving == 0 && !self.merges.unsaved
    }

    /// The state came from elsewhere, or is gone: nothing is awaited.
    pub(super) fn forget_awaited(&mut self) {
        self.merges.awaited = None;
        self.merges.awaits_since = None;
        self.merges.right = None;
    }

    /// The shard that it absorbed last and whose replicas are still there.
    pub(crate) fn absorbed(&self) -> Option<GroupId> {
        let absorbed = self.group.state().tail.absorbed;
        absorbed.filter(|_| self.is_whole()).map(|a| a.id)
    }

    /// Shards of whose data here this replica's is made, or was: those that it has absorbed, and
    /// others that it descends from.
    pub(crate) fn absorbed_so_far(&self) -> impl Iterator<Item = GroupId> {
        let held = self.is_whole() || self.installing;
        let ancestors = self.group.state().lineage.ancestors.iter().copied();
        ancestors.filter(move |_| held)
    }

    /// What a snapshot on its way in is of, and the shards that it descends from or has absorbed.
    pub(crate) fn on_the_way(&self) -> Option<&(Span, BTreeSet<GroupId>)> {
        let on_its_way = self.installing || self.replica.incoming_snapshot().is_some();
        self.merges.incoming.as_ref().filter(|_| on_its_way)
    }

    /// Such a snapshot is on its way in.
    pub(crate) fn expect_absorbed(&mut self, span: Span, ancestors: BTreeSet<GroupId>) {
        self.merges.incoming = Some((span, ancestors));
    }

    /// Replicas on this node whose data is this one's, or is about to be.
    pub(crate) fn supersedes(&self) -> &[GroupId] {
        &self.merges.supersedes
    }

    pub(crate) fn set_supersedes(&mut self, ids: Vec<GroupId>) {
        self.merges.supersedes = ids;
    }

    /// What it has goes to the engine for good, for another replica that takes it in: after
    /// a restart it may be asked for, and does not apply anything any more.
    pub(crate) fn save_end(&mut self, out: &mut Outbox) {
        if let Some((slot, state)) = self.checkpoint() {
            out.birth(SnapshotTask::Birth {
                group: self.descriptor.id,
                slot,
                state: Some(state),
            });
        }
    }

    /// Whether what becomes of the shard is another one's to say, or the log takes one in that it has
    /// not taken yet.
    pub(crate) fn is_being_merged(&self) -> bool {
        let takes = |(_, entry): (Slot, &Entry)| {
            let Entry::Command(bytes) = entry else {
                return false;
            };
            let command = synod_txn::command::decode(bytes);
            matches!(command, Ok(Command::Absorb(_) | Command::End(_)))
        };
        let mut ahead = self.replica.entries_from(self.applied.next());
        self.group.state().tail.ended.is_some()
            || self.is_gone()
            || self.merges.superseded
            || ahead.any(takes)
    }

    /// Whether the data is another replica's.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.merges.superseded
    }

    pub(crate) fn set_superseded(&mut self, superseded: bool) {
        self.merges.superseded = superseded;
    }

    /// No replica of the shard is needed any more. With `clears` its data goes, too.
    pub(crate) fn retire(&mut self, now: Now, leases: &NodeLease, clears: bool) {
        self.merges.clears = clears;
        self.replica.retire(&paxos_cx(now, leases));
    }

    /// What goes with the replica.
    pub(super) fn span_to_clear(&self) -> Span {
        let span = self.data_span();
        let outlived = self.has_ended() && !self.merges.clears;
        if outlived || self.merges.superseded {
            return Span {
                start: span.start.clone(),
                end: span.start,
            };
        }
        span
    }
}
