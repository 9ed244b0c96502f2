//! A shard's range is cut in two (decision 15), as the shard lives through it.
//!
//! Asked for it, a leader stops to assign timestamps, as before a change of members, and
//! waits until nothing is undecided. Then it proposes the split, and until that is
//! applied nothing else: requests and messages wait, and so does what the transaction machine wants
//! proposed. So no entry behind a split in the log was made by somebody who did not know of it.

use super::{Now, Shard, paxos_cx};
use crate::outbox::Outbox;
use crate::wire::{META_SHARD, Origin, ShardDescriptor};
use serde::{Deserialize, Serialize};
use synod_paxos::lease::NodeLease;
use synod_paxos::replica::Urgency;
use synod_paxos::{Ballot, ClusterVersion, Durable, Entry, GroupId, Mono, NodeId, Slot};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::{
    Birth, Child, Command, Key, Passed, PeerMessage, Request, Span, Split, WriteBatch,
};

/// How long a leader waits for what is undecided before it gives the split up;
/// nanoseconds. Meanwhile commits wait.
pub(super) const PATIENCE_NANOS: u64 = 500_000_000;

/// How far a split that was asked for has come. Asking again is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Splitting {
    /// Under way: ask again in a moment.
    Underway,
    /// The new shard exists.
    Done,
}

/// Why a shard is not split. Nothing changed, and asking again is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SplitError {
    /// Another replica leads, or none.
    #[error("this node does not lead the shard; ask the one that does")]
    NotLeader {
        /// The best guess at who does.
        leader: Option<NodeId>,
    },
    /// The shard's leader has just been elected, its members are changing, or it is merged.
    #[error(
        "the shard is between two leaders or two sets of members, or not all of them have followed a \
         merge; ask again in a moment"
    )]
    NotReady,
    /// Another split of the shard is under way.
    #[error("the shard is being split already, into shard {child}; wait for that")]
    Underway {
        /// The shard that it makes.
        child: GroupId,
    },
    /// The key lies outside of the shard, or is its first one.
    #[error("the key is not inside of the shard's range, or is its first key; name another one")]
    NotInside,
    /// The meta shard holds the cluster's own records, and stays whole.
    #[error("the meta shard is not split")]
    Meta,
    /// The id belongs to a shard that was not split off this one.
    #[error("shard {child} exists already; take an id that no shard ever had")]
    Taken {
        /// The id.
        child: GroupId,
    },
    /// Transactions that are not decided stood in the way until patience ended; the shard
    /// serves on as before.
    #[error("{open} transactions were not decided in time, so the shard stays whole; ask again")]
    Busy {
        /// How many.
        open: u64,
    },
    /// Nodes of older programs may belong to the cluster: they know no splits.
    #[error(
        "the cluster is at version {at}, and shards are split from version {since} on: run `synod \
         cluster upgrade` once all its nodes run a program that knows that", at = .at.0,
        since = .since.0
    )]
    Version {
        /// The shard's version.
        at: ClusterVersion,
        /// What a split needs.
        since: ClusterVersion,
    },
}

/// A split on its way.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Cut {
    /// It waits until nothing is undecided.
    Draining {
        at: Key,
        child: GroupId,
        until: Mono,
    },
    /// It has its slot.
    Proposed { child: GroupId, slot: Slot },
}

impl Cut {
    fn child(&self) -> GroupId {
        match self {
            Cut::Draining { child, .. } | Cut::Proposed { child, .. } => *child,
        }
    }
}

/// The descriptor that a shard that was split off begins with.
#[must_use]
pub fn first_descriptor(child: &Child) -> ShardDescriptor {
    ShardDescriptor {
        id: child.id,
        span: child.span.clone(),
        generation: u64::from(child.configuration.epoch.0).saturating_add(child.splits),
        configuration: child.configuration.clone(),
        preferred_leader: child.leader,
        born: Some(Origin {
            parent: child.parent,
            split: child.split,
        }),
    }
}

/// What a replica of it has promised and accepted at first.
#[must_use]
pub fn first_durable(child: &Child) -> Durable {
    Durable::founded(child.began())
}

impl Shard {
    /// Begins to split the shard, or says how far that has come.
    pub(crate) fn split(
        &mut self,
        now: Now,
        at: &Key,
        child: GroupId,
    ) -> Result<Splitting, SplitError> {
        if let Some(cut) = &self.cut {
            return match cut.child() {
                under_way if under_way == child => Ok(Splitting::Underway),
                child => Err(SplitError::Underway { child }),
            };
        }
        if let Some((_, why)) = self.uncut.take_if(|(of, _)| *of == child) {
            return Err(why);
        }
        if self.office.is_none() && !self.leads() {
            let leader = self.replica.leader().filter(|n| *n != self.replica.me());
            return Err(SplitError::NotLeader { leader });
        }
        let busy = self.suspended || self.handing_over || self.rehash.is_some();
        let merges = self.merges_now() || self.group.state().tail.absorbed.is_some();
        if self.office.is_none() || self.changes_members() || busy || merges {
            return Err(SplitError::NotReady);
        }
        if self.descriptor.id == META_SHARD {
            return Err(SplitError::Meta);
        }
        let (at_version, since) = (self.version(), Command::SPLIT_SINCE);
        if at_version < since && !mutated(Mutation::ProposeEarly) {
            let at = at_version;
            return Err(SplitError::Version { at, since });
        }
        let span = &self.descriptor.span;
        if *at <= span.start || !span.contains(at) {
            return Err(SplitError::NotInside);
        }
        self.group.suspend();
        self.cut = Some(Cut::Draining {
            at: at.clone(),
            child,
            until: now.mono.plus(PATIENCE_NANOS),
        });
        Ok(Splitting::Underway)
    }

    /// Goes on with a split that waits, at the end of a step: proposes it once nothing is
    /// undecided, or gives it up.
    pub(crate) fn go_on_splitting(&mut self, now: Now, leases: &NodeLease) {
        let Some(Cut::Draining { at, child, until }) = &self.cut else {
            return;
        };
        let (at, child, until) = (at.clone(), *child, *until);
        let open = self.group.undecided();
        if open == 0 || mutated(Mutation::SplitOverIntents) {
            return self.propose_split(now, leases, at, child);
        }
        if until <= now.mono {
            mark(Mark::SplitBusy);
            let open = open as u64;
            self.stay_whole(now, leases, child, SplitError::Busy { open });
        }
    }

    /// The split does not come about: whoever asks is told why.
    fn stay_whole(&mut self, now: Now, leases: &NodeLease, child: GroupId, why: SplitError) {
        self.uncut = Some((child, why));
        self.cut = None;
        let cx = self.txn_cx(now, leases);
        self.group.resume(&cx);
    }

    fn propose_split(&mut self, now: Now, leases: &NodeLease, at: Key, child: GroupId) {
        let split = Split {
            span: self.descriptor.span.clone(),
            at,
            child,
            configuration: self.replica.configuration().clone(),
            leader: self.replica.me(),
            last: self.group.last(),
            under: self.replica.ballot(),
        };
        let command = Command::Split(Box::new(split));
        match self.try_propose(now, leases, &command, Urgency::Now) {
            Some(slot) => {
                mark(Mark::SplitProposed);
                self.cut = Some(Cut::Proposed { child, slot });
            }
            None => self.stay_whole(now, leases, child, SplitError::NotReady),
        }
    }

    /// When a split that waits is given up.
    pub(super) fn cut_timeout(&self) -> Option<Mono> {
        match &self.cut {
            Some(Cut::Draining { until, .. }) => Some(*until),
            _ => None,
        }
    }

    /// Whether a split is proposed and not applied.
    fn is_being_cut(&self) -> bool {
        matches!(self.cut, Some(Cut::Proposed { .. }))
    }

    /// Whether the transaction machine is handed nothing, and has nothing proposed.
    pub(super) fn pauses(&self) -> bool {
        self.changes_members()
            || self.is_being_cut()
            || self.merge_pauses()
            || self.is_being_hashed()
    }

    /// The split is applied, if there was one under way: the term goes on with what is left.
    pub(super) fn end_cut(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        let Some(Cut::Proposed { child, slot }) = self.cut else {
            return;
        };
        if self.applied < slot {
            return;
        }
        self.cut = None;
        let lineage = &self.group.state().lineage;
        if lineage.children.last().is_none_or(|born| born.id != child) {
            self.uncut = Some((child, SplitError::Busy { open: 1 }));
        }
        let answer = self.not_leader();
        for caller in self.group.take_orphans() {
            out.reply(caller, answer.clone());
        }
        while let Some((command, lazy)) = self.held.pop_front() {
            if self.group.concerns(&command) {
                self.propose(now, leases, &command, lazy);
            }
        }
        let cx = self.txn_cx(now, leases);
        self.group.resume(&cx);
        self.hand_in_waiting(now, leases);
    }

    /// The descriptor follows what splits and merges have made of the range.
    pub(super) fn review_range(&mut self) {
        let lineage = &self.group.state().lineage;
        let Some(span) = lineage.span.as_ref() else {
            return;
        };
        if *span != self.descriptor.span {
            if !mutated(Mutation::SplitKeepsRange) {
                self.descriptor.span = span.clone();
            }
            self.members_news = true;
        }
        self.review_generation();
    }

    /// The descriptor's generation counts configurations, splits and merges.
    pub(super) fn review_generation(&mut self) {
        let epoch = u64::from(self.descriptor.configuration.epoch.0);
        let generation = epoch.saturating_add(self.group.state().lineage.splits);
        if generation > self.descriptor.generation {
            self.descriptor.generation = generation;
            self.members_news = true;
        }
    }

    /// Whether anything may have been split off since this was last asked.
    pub(crate) fn take_lineage_news(&mut self) -> bool {
        let splits = Some(self.group.state().lineage.splits);
        let news = self.group.has_births() || self.reviewed != splits;
        self.reviewed = splits;
        news
    }

    /// What was split off since last asked, with the state it begins with.
    pub(crate) fn take_births(&mut self) -> Vec<Birth> {
        self.group.take_births()
    }

    /// The last splits of the state, for whoever is sent a snapshot of it.
    pub(super) fn passed(&self) -> Vec<Passed> {
        let children = self.group.state().lineage.children.iter();
        // Those of shards that it absorbed are in other logs.
        let own = children.filter(|child| child.parent == self.descriptor.id);
        own.map(|child| child.split).collect()
    }

    /// The last of these splits that the log holds and does not know to be decided.
    pub(crate) fn holds_split(&self, passed: &[Passed]) -> Option<Slot> {
        if !self.replica.holds_data() || self.installing {
            return None;
        }
        let decided = self.replica.decided();
        let held = passed.iter().filter(|passed| {
            let Some(Entry::Command(bytes)) = self.replica.entry(passed.slot) else {
                return false;
            };
            let command = synod_txn::command::decode(bytes);
            matches!(command, Ok(Command::Split(split)) if split.under == passed.under)
        });
        held.map(|passed| passed.slot)
            .filter(|slot| *slot > decided)
            .max()
    }

    /// Whether a slot is decided here, and about to be applied.
    pub(crate) fn is_applying(&self, slot: Slot) -> bool {
        let decided = self.replica.holds_data() && slot <= self.replica.decided();
        decided && self.applied < slot && !self.installing
    }

    /// These splits are decided: a snapshot that is on its way has them behind it, or what they
    /// split off exists. Who sends it may not have that one's data, and what this replica has of
    /// it would be replaced, log and data: where the log holds one, this replica gets
    /// there by its log first. Returns whether it does so now.
    ///
    /// That goes beyond P5, but not beyond what P5 rests on: a leader proposes one entry for a
    /// slot and logs are handed on whole, so logs that hold the same split in the same slot
    /// under the same ballot do not differ before it.
    pub(crate) fn pass_splits(
        &mut self,
        now: Now,
        leases: &NodeLease,
        under: Option<Ballot>,
        passed: &[Passed],
    ) -> bool {
        let Some(slot) = self.holds_split(passed) else {
            return false;
        };
        let cx = paxos_cx(now, leases);
        let passes = self.replica.learn_decided(&cx, under, slot);
        if passes {
            mark(Mark::SplitBeforeSnapshot);
        }
        passes
    }

    /// Whether everything that a request touches is this shard's.
    pub(super) fn owns(&self, request: &Request) -> bool {
        request.is_within(&self.descriptor.span)
    }

    /// Whether the anchor that a message goes to is this shard's (T10): of another's
    /// transactions it knows nothing, and must not say so.
    pub(super) fn is_anchor_here(&self, message: &PeerMessage) -> bool {
        let here = self.descriptor.span.contains(&message.anchor);
        if !here {
            mark(Mark::AnchorMoved);
        }
        here || mutated(Mutation::NonOwnerSaysNo)
    }

    /// The keys whose data on this node is this replica's.
    #[must_use]
    pub fn data_span(&self) -> Span {
        self.descriptor.span.before(self.clip.as_ref())
    }

    /// Whether part of the range is another replica's on this node.
    pub(crate) fn is_clipped(&self) -> bool {
        let span = &self.descriptor.span;
        self.clip.as_ref().is_some_and(|clip| span.contains(clip))
    }

    /// Whether the engine holds the data of that part, too. It may be younger than this
    /// replica's, which does no harm: whoever it is sent to gets there by the same entries
    /// before it reads any of it.
    pub(crate) fn set_parts_whole(&mut self, whole: bool) {
        self.parts_whole = whole;
    }

    /// Another replica's data on this node begins there.
    pub(crate) fn set_clip(&mut self, clip: Option<Key>) {
        self.clip = clip;
    }

    /// Of versions that it applies again those that are another replica's data are that
    /// one's to write.
    pub(super) fn clip_batch(&self, mut batch: WriteBatch) -> WriteBatch {
        if self.merges.superseded {
            batch.versions.clear();
        }
        if let Some(clip) = &self.clip {
            batch.versions.retain(|(key, ..)| key < clip);
        }
        batch
    }
}
