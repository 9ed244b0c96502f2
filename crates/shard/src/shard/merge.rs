//! Two neighbouring shards become one (decision 19), as each of them lives through it.
//!
//! The left one's leader stops to assign timestamps and waits until nothing is undecided there; only
//! then it calls the right one, which does the same and ends its log. So no transaction
//! of both shards is undecided in one of them while the other does not act any more. The left
//! one's log decides alone what follows. Whoever leads the right one asks until it is told.

mod data;
mod left;
mod right;

use super::{Now, Shard, paxos_cx};
use crate::outbox::{MergeTo, Outbox};
use crate::wire::{META_SHARD, MergeMessage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use synod_paxos::lease::NodeLease;
use synod_paxos::{ClusterVersion, Configuration, Entry, GroupId, Mono, NodeId, Slot};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::request::Refusal;
use synod_txn::state::State;
use synod_txn::{AbortReason, Call, Command, Request, Response, Span};

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

/// Either shard.
impl Shard {
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

    /// What is answered at once while a merge has its slot: this leader's term ends with it, or has
    /// ended, and all sessions with it. Who reads under locks is told: while that waited here, its
    /// locks in other shards would keep others waiting. And once the shard has ended there are
    /// no locks to release.
    pub(super) fn answer_before_end(&self, request: &Request) -> Option<Response> {
        if !self.merge_pauses() || !self.replica.in_office() {
            return None;
        }
        match request {
            Request::LockedRead { .. } | Request::Validate { .. } => {
                mark(Mark::ReadMetMerge);
                Some(Response::Refused(Refusal::Aborted(AbortReason::Moved)))
            }
            Request::Release { .. } if self.has_ended() => Some(Response::Released),
            _ => None,
        }
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
}
