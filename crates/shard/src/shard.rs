//! One shard: consensus below, transactions above, and the steps between them.
//!
//! Every input is followed by a pump, which carries effects from one
//! machine to the other until both are quiet; what is left for the outside is
//! put into the worker's [`crate::Output`].

mod apply;
mod backlog;
mod carry;
mod hash;
mod members;
mod merge;
mod office;
mod recover;
mod requests;
pub(crate) mod split;
mod straight;
mod version;
mod waiting;

pub use hash::HashError;
use hash::Rehash;
pub use members::Members;
use merge::Merges;
pub use merge::{MergeError, Merging};
use split::Cut;
pub use split::{SplitError, Splitting};
pub use version::Halt;
use waiting::Queue;

use crate::input::Versions;
use crate::wire::{ShardDescriptor, ShardReply};
use backlog::Backlog;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use synod_paxos::lease::NodeLease;
use synod_paxos::replica::{Cx as PaxosCx, Replica};
use synod_paxos::{ClusterVersion, GroupId, Mono, NodeId, Round, Slot, Term, VersionRange};
use synod_probe::{Mutation, mutated};
use synod_txn::state::State;
use synod_txn::{Command, Cx as TxnCx, Group, GroupSettings, Hashing, Interval, Key, Scratch};

/// Time as the driver read it at the start of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// The node's monotonic clock.
    pub mono: Mono,
    /// The node's wall clock.
    pub clock: Interval,
}

fn paxos_cx(now: Now, leases: &NodeLease) -> PaxosCx<'_> {
    PaxosCx {
        now: now.mono,
        leases,
    }
}

/// A replica of one shard on this node.
#[derive(Clone, Serialize)]
pub struct Shard {
    pub(crate) descriptor: ShardDescriptor,
    pub(crate) replica: Replica,
    pub(crate) group: Group,
    settings: GroupSettings,
    supports: VersionRange,
    /// The version that this term has proposed to go on in.
    raising: ClusterVersion,
    halted: Option<Halt>,
    /// The cluster's version is one that this program does not know.
    overtaken: bool,
    /// Everything up to here went through [`Group::apply`].
    applied: Slot,
    /// Everything up to here is in the engine.
    engine_applied: Slot,
    /// The term in which the group machine is in office.
    office: Option<Term>,
    waiting: Queue,
    /// What the transaction machine wanted proposed while the members change: in
    /// this order it goes on with, if the term does.
    held: VecDeque<(Command, bool)>,
    /// From proposing a stop-sign until the term goes on after it.
    suspended: bool,
    /// Confirming rounds it wanted meanwhile.
    unconfirmed: Vec<u64>,
    rounds: BTreeMap<Round, Vec<u64>>,
    /// Between the last staged chunk and the installed snapshot nothing is applied.
    installing: bool,
    /// False in quarantine (K2): no timestamp is picked.
    clock_usable: bool,
    /// When what is not decided yet was proposed.
    backlog: Backlog,
    /// Where commands are encoded.
    #[serde(skip)]
    scratch: Scratch,
    /// Between a transfer and the end of the term nothing new is proposed.
    handing_over: bool,
    /// Whether the descriptor changed since the node's map last took it over.
    members_news: bool,
    /// See [`Shard::is_behind`].
    is_behind: bool,
    /// A split that was asked for and is not over.
    cut: Option<Cut>,
    /// Why the last one did not come about, until somebody asks.
    uncut: Option<(GroupId, SplitError)>,
    /// A change of how keys are stored that was asked for and is not over.
    rehash: Option<Rehash>,
    /// Why the last one did not come about, until somebody asks.
    unhashed: Option<(Option<Hashing>, HashError)>,
    /// How many splits there were in its line when its children were last looked for.
    reviewed: Option<u64>,
    /// Where the data of another replica on this node begins: one that was split off, while
    /// this one has not come as far again.
    clip: Option<Key>,
    /// Whether the engine holds all that is other replicas' from there on.
    parts_whole: bool,
    merges: Merges,
}

/// What recovery hands to a shard.
pub struct Recovered {
    /// The shard.
    pub descriptor: ShardDescriptor,
    /// What the log said.
    pub durable: synod_paxos::Durable,
    /// The replicated state as the engine has it last, and its slot.
    pub checkpoint: Option<(Slot, State)>,
    /// The slot up to which the engine holds versions.
    pub engine_applied: Slot,
    /// Whether its log alone can make its state, if it goes back to the first entry. Where the shard
    /// began with more than that, and this node has it not, it comes from other replicas.
    pub begins_empty: bool,
    /// Whether the log does not know it yet: a shard whose birth a crash cut short.
    pub is_new: bool,
}

impl Shard {
    /// A shard as recovery found it.
    pub(crate) fn new(
        recovered: Recovered,
        me: NodeId,
        paxos: synod_paxos::Settings,
        settings: GroupSettings,
        versions: Versions,
        seed: u64,
        now: Mono,
    ) -> Shard {
        let Recovered {
            descriptor,
            durable,
            checkpoint,
            engine_applied,
            begins_empty,
            is_new: _,
        } = recovered;
        let known = checkpoint.is_some();
        let (applied, group) = match checkpoint {
            Some((slot, state)) => (
                slot,
                Group::with_state(descriptor.id, settings.clone(), state),
            ),
            None => {
                let group = Group::new(descriptor.id, settings.clone());
                (Slot(0), group.begun_at(versions.first))
            }
        };
        let skips = mutated(Mutation::SkipAfterRestart) && applied < durable.decided;
        let applied = if skips { applied.next() } else { applied };
        // Data older than the log's first entry cannot be brought up to date from
        // the log: the replica votes as a witness until a snapshot arrives (§8).
        let holds_data = applied >= durable.trimmed && (known || begins_empty);
        let replica = Replica::new(
            descriptor.id,
            me,
            paxos,
            durable,
            applied,
            group.state().began.as_ref(),
            holds_data,
            seed,
            now,
        );
        let mut shard = Shard {
            descriptor,
            replica,
            group,
            settings,
            supports: versions.supports,
            raising: ClusterVersion::default(),
            halted: None,
            overtaken: versions.raised > versions.supports.newest,
            applied,
            engine_applied,
            office: None,
            waiting: Queue::default(),
            held: VecDeque::new(),
            suspended: false,
            unconfirmed: Vec::new(),
            rounds: BTreeMap::new(),
            installing: false,
            clock_usable: true,
            backlog: Backlog::default(),
            scratch: Scratch::default(),
            handing_over: false,
            members_news: false,
            is_behind: false,
            cut: None,
            uncut: None,
            rehash: None,
            unhashed: None,
            reviewed: None,
            clip: None,
            parts_whole: false,
            merges: Merges::default(),
        };
        if known {
            // The log's descriptor may be of a range that the state comes to again.
            let epoch = u64::from(shard.descriptor.configuration.epoch.0);
            let splits = shard.group.state().lineage.splits;
            shard.descriptor.generation = epoch.saturating_add(splits);
        }
        shard.review_descriptor();
        shard.review_halt();
        shard
    }

    fn txn_cx(&self, now: Now, leases: &NodeLease) -> TxnCx {
        let cx = paxos_cx(now, leases);
        let leads = self.office.is_some() && !self.changes_members();
        TxnCx {
            now: now.mono,
            clock: now.clock,
            limit: if leads && self.clock_usable {
                self.replica.limit(&cx)
            } else {
                synod_paxos::Timestamp(0)
            },
            lease: leads
                && (self.replica.lease(&cx).is_some() || mutated(Mutation::ServeAfterLease)),
        }
    }

    /// Whether this replica leads and has taken office.
    #[must_use]
    pub fn in_office(&self) -> bool {
        self.office.is_some()
    }

    /// The term in which it is in office.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.office
    }

    /// The replica, for status.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The transaction machine, for status.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The descriptor.
    #[must_use]
    pub fn descriptor(&self) -> &ShardDescriptor {
        &self.descriptor
    }

    /// The slot up to which entries went through the state machine.
    #[must_use]
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// The slot up to which the engine holds versions.
    #[must_use]
    pub fn engine_applied(&self) -> Slot {
        self.engine_applied
    }

    /// When this shard next wants a tick.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Mono> {
        let group = self.group.next_timeout();
        match (
            self.replica.next_timeout(),
            group.filter(|_| !self.pauses()),
        ) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
        .into_iter()
        .chain(self.cut_timeout())
        .chain(self.merge_timeout())
        .chain(self.hash_timeout())
        .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Now, leases: &NodeLease) {
        let cx = paxos_cx(now, leases);
        if self.replica.next_timeout().is_some_and(|t| t <= now.mono) {
            self.replica.handle_timeout(&cx);
        }
        if self.group.next_timeout().is_some_and(|t| t <= now.mono) && !self.pauses() {
            let cx = self.txn_cx(now, leases);
            self.group.handle_timeout(&cx);
        }
    }

    pub(crate) fn handle_lease_change(&mut self, now: Now, leases: &NodeLease) {
        self.replica.handle_lease_change(&paxos_cx(now, leases));
        if self.office.is_some() && !self.pauses() {
            // A higher limit may free what was parked (K1).
            let cx = self.txn_cx(now, leases);
            self.group.handle_timeout(&cx);
        }
    }

    /// Whether commits wait for a higher limit.
    pub(crate) fn waits_for_limit(&self) -> bool {
        self.group.waits_for_limit()
    }

    /// An answer for the driver's [`ShardReply`].
    #[must_use]
    pub fn wrong_node(descriptor: Option<&ShardDescriptor>) -> ShardReply {
        ShardReply::WrongNode(descriptor.cloned().map(Box::new))
    }
}
