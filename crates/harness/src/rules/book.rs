//! Follows every replica by a handful of numbers, and every group by the values
//! of its decided slots, so that a step costs only what it changed.

use super::hash::{self, Map};
use super::ledger::Fresh;
use super::look::Look;
use std::collections::{BTreeMap, VecDeque};
use synod_paxos::{Ballot, Configuration, Entry, Epoch, GroupId, NodeId, Replica, Slot, Timestamp};
use synod_shard::{Shard, ShardMap, ShardRequest, Worker};
use synod_txn::settings::TERM_INCREMENT;
use synod_txn::{AttemptId, Caller, Child, Command, Key, Outcome, Request};

/// Decided values kept per group.
const VALUES: usize = 1 << 20;
/// Ballots of leaders remembered per group.
const BALLOTS: usize = 256;
/// Questions of clients remembered.
const QUESTIONS: usize = 1 << 16;

/// What a replica looks like from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The ballot of the log's suffix.
    pub accepted: Ballot,
    /// The slot before the first entry kept.
    pub trimmed: Slot,
    /// The last slot.
    pub last: Slot,
    /// The decided slot known.
    pub decided: Slot,
    /// The applied slot.
    pub applied: Slot,
    /// Whether it holds the data.
    pub holds_data: bool,
    /// The ballot it leads under.
    pub leads: Option<Ballot>,
    /// The first ballot of the term it leads in.
    pub term: Option<Ballot>,
    /// The ballot its transactions are in office under.
    pub office: Option<Ballot>,
    /// Whether its term is between two configurations.
    pub changing: bool,
    /// The configuration it knows to be in force.
    pub epoch: Epoch,
    /// Outside the configuration, and nothing is left.
    pub emptied: bool,
    /// The replicated `last` (K3).
    pub replicated: Timestamp,
    /// The same, with what the office has assigned.
    pub used: Timestamp,
}

impl Seen {
    fn of(shard: &Shard) -> Seen {
        let (replica, group) = (shard.replica(), shard.group());
        Seen {
            promised: replica.ballot(),
            accepted: replica.accepted(),
            trimmed: replica.trimmed(),
            last: replica.last(),
            decided: replica.decided(),
            applied: shard.applied(),
            holds_data: replica.holds_data(),
            leads: replica.term_ballot(),
            term: replica.term(),
            changing: replica.changes_members(),
            epoch: replica.configuration().epoch,
            emptied: is_emptied(replica),
            office: group.term().filter(|_| shard.in_office()).map(|t| t.ballot),
            replicated: group.state().last,
            used: group.last(),
        }
    }
}

/// Whether a replica is outside its group, with nothing left.
pub(super) fn is_emptied(replica: &Replica) -> bool {
    replica.last() == Slot(0) && !replica.configuration().is_member(replica.me())
}

/// Who votes in a configuration, and where it begins.
#[derive(Clone, Debug)]
pub struct Electorate {
    /// Those that vote.
    pub electors: Vec<NodeId>,
    /// Those of them that hold data.
    pub voters: Vec<NodeId>,
    /// How many electors are a majority.
    pub majority: usize,
    /// The slot of the stop-sign before it.
    pub after: Slot,
}

impl Electorate {
    fn of(configuration: &Configuration, after: Slot) -> Electorate {
        Electorate {
            electors: configuration.electors().collect(),
            voters: configuration.voters.clone(),
            majority: configuration.majority(),
            after,
        }
    }
}

/// A replica that a step changed.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Its group.
    pub group: GroupId,
    /// Before the step; after a restart, what its disk held.
    pub before: Seen,
    /// After it.
    pub after: Seen,
}

impl Change {
    /// Whether the replica leads under a ballot it did not lead under before.
    #[must_use]
    pub fn elected(&self) -> Option<Ballot> {
        self.after.leads.filter(|b| self.before.leads != Some(*b))
    }

    /// The first slot whose entry may be new to this replica.
    #[must_use]
    pub fn first_new(&self) -> Slot {
        let from = if self.after.accepted == self.before.accepted {
            self.before.last
        } else {
            self.before.decided
        };
        from.max(self.after.trimmed).next()
    }
}

/// A client's question that a node has taken.
#[derive(Clone, Debug)]
pub struct Question {
    /// The shard asked.
    pub group: GroupId,
    /// What.
    pub what: What,
    /// Versions decided anywhere when it was taken.
    pub stamp: u64,
    /// The replica's replicated `last` before it was taken.
    pub replicated: Timestamp,
}

/// What was asked.
#[derive(Clone, Debug)]
pub enum What {
    /// Newest versions without locks.
    Latest(Vec<Key>),
    /// Newest versions under locks.
    Locked(Vec<Key>),
    /// A commit, of the participant that this anchor names.
    Commit(AttemptId, Key),
    /// What became of it? By the coordinator's anchor.
    Status(AttemptId, Key),
    /// Something without an outcome.
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Value {
    digest: u64,
    ballot: Ballot,
}

/// A group, as all nodes together know it.
#[derive(Debug)]
pub struct GroupBook {
    /// Who votes, by configuration.
    electorates: BTreeMap<Epoch, Electorate>,
    /// Decided values from slot `base + 1` on.
    values: VecDeque<Value>,
    base: u64,
    /// Where each known leader's TermStart is.
    starts: BTreeMap<Ballot, Slot>,
    /// Up to where each leader itself knew its log decided.
    told: BTreeMap<Ballot, Slot>,
    /// The ballot of the last TermStart decided.
    pub term: Ballot,
    /// The highest timestamp of all decided entries (K3).
    pub last: Timestamp,
    /// The same when it began.
    born_at: Timestamp,
    /// What it was split off, and the slot there; none if it never was.
    born_of: Option<(GroupId, Slot)>,
}

impl GroupBook {
    /// What its parent's `last` was when it was split off; 0 if it never was.
    #[must_use]
    pub fn born_at(&self) -> Timestamp {
        self.born_at
    }

    /// What it was split off, and by which slot there; none if it never was.
    #[must_use]
    pub fn born_of(&self) -> Option<(GroupId, Slot)> {
        self.born_of
    }

    /// Everything up to here was decided by somebody.
    #[must_use]
    pub fn frontier(&self) -> Slot {
        Slot(self.base + self.values.len() as u64)
    }

    /// Who votes in a configuration.
    #[must_use]
    pub fn electorate(&self, epoch: Epoch) -> Option<&Electorate> {
        self.electorates.get(&epoch)
    }

    /// Every configuration there was, as far as known.
    pub fn electorates(&self) -> impl Iterator<Item = &Electorate> {
        self.electorates.values()
    }

    fn value(&self, slot: Slot) -> Option<&Value> {
        let index = slot.0.checked_sub(self.base + 1)?;
        self.values.get(index as usize).filter(|v| v.digest != 0)
    }

    /// The digest of the value decided in `slot`, if it is known.
    #[must_use]
    pub fn decided(&self, slot: Slot) -> Option<u64> {
        self.value(slot).map(|v| v.digest)
    }

    /// The same, if it was decided under a ballot below `ballot`.
    #[must_use]
    pub fn decided_below(&self, slot: Slot, ballot: Ballot) -> Option<u64> {
        let value = self.value(slot).filter(|v| v.ballot < ballot);
        value.map(|v| v.digest)
    }

    /// Where the leader of `ballot` put its TermStart.
    #[must_use]
    pub fn start_of(&self, ballot: Ballot) -> Option<Slot> {
        self.starts.get(&ballot).copied()
    }

    /// Up to where the leader of `ballot` knew its log decided, if that was seen.
    #[must_use]
    pub fn told_by(&self, ballot: Ballot) -> Option<Slot> {
        self.told.get(&ballot).copied()
    }

    fn push(&mut self, value: Value) {
        self.values.push_back(value);
        if self.values.len() > VALUES {
            self.values.pop_front();
            self.base += 1;
        }
    }

    /// A group that begins with a state, in the slot before the first that it decides.
    fn born(child: &Child, last: Timestamp, of: (GroupId, Slot)) -> GroupBook {
        let began = child.began();
        let electorate = Electorate::of(&began.configuration, began.after);
        GroupBook {
            electorates: BTreeMap::from([(began.configuration.epoch, electorate)]),
            values: VecDeque::new(),
            base: began.after.0,
            starts: BTreeMap::new(),
            told: BTreeMap::new(),
            term: Ballot::default(),
            last,
            born_at: last,
            born_of: Some(of),
        }
    }

    fn raise(&mut self, entry: &Entry, command: Option<&Command>) {
        if let Entry::TermStart(start) = entry {
            self.term = start.term;
            self.last = self.last.plus(TERM_INCREMENT).max(start.floor);
        }
        if let Entry::StopSign(stop) = entry {
            self.last = self.last.max(stop.last).max(stop.limit);
        }
        let timestamp = match command {
            Some(Command::OneShard { timestamp, .. } | Command::Close { timestamp }) => *timestamp,
            Some(Command::Intent(intent)) => intent.timestamp,
            Some(Command::Split(split)) => split.last,
            Some(Command::End(end)) => end.last,
            Some(Command::Absorb(absorb)) => absorb.last,
            Some(Command::Outcome { outcome, .. } | Command::Resolve { outcome, .. }) => {
                match outcome {
                    Outcome::Committed(timestamp) => *timestamp,
                    Outcome::Aborted(_) => return,
                }
            }
            _ => return,
        };
        self.last = self.last.max(timestamp);
    }
}

/// What a step brought.
#[derive(Debug, Default)]
pub struct News {
    /// The replicas it changed.
    pub changes: Vec<Change>,
    /// Entries decided for the first time.
    pub fresh: Vec<Fresh>,
}

/// See the module.
pub struct Book {
    nodes: Vec<Vec<(GroupId, Seen)>>,
    /// What crashes took, until the node is back.
    lost: Vec<Vec<(GroupId, Seen)>>,
    groups: BTreeMap<GroupId, GroupBook>,
    questions: Map<(usize, Caller), Question>,
    asked: VecDeque<(usize, Caller)>,
}

impl Book {
    pub(super) fn new(map: &ShardMap, nodes: usize) -> Book {
        let group = |shard: &synod_shard::ShardDescriptor| GroupBook {
            electorates: BTreeMap::from([(
                shard.configuration.epoch,
                Electorate::of(&shard.configuration, Slot(0)),
            )]),
            values: VecDeque::new(),
            base: 0,
            starts: BTreeMap::new(),
            told: BTreeMap::new(),
            term: Ballot::default(),
            last: Timestamp(0),
            born_at: Timestamp(0),
            born_of: None,
        };
        Book {
            nodes: vec![Vec::new(); nodes],
            lost: vec![Vec::new(); nodes],
            groups: map.shards.iter().map(|s| (s.id, group(s))).collect(),
            questions: Map::default(),
            asked: VecDeque::new(),
        }
    }

    /// A group, as all nodes together know it.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&GroupBook> {
        self.groups.get(&group)
    }

    /// A shard was split off another one in this step, by a slot `of` it.
    pub(super) fn split(&mut self, child: &Child, last: Timestamp, of: (GroupId, Slot)) {
        self.groups
            .insert(child.id, GroupBook::born(child, last, of));
    }

    /// A node's replica after the node's last step.
    #[must_use]
    pub fn seen(&self, node: usize, group: GroupId) -> Option<&Seen> {
        let shards = self.nodes.get(node)?;
        let found = shards.iter().find(|(id, _)| *id == group);
        found.map(|(_, seen)| seen)
    }

    /// A replica of a node that is down, or just back, as it was before the crash.
    #[must_use]
    pub fn before_crash(&self, node: usize, group: GroupId) -> Option<&Seen> {
        let shards = self.lost.get(node)?;
        let found = shards.iter().find(|(id, _)| *id == group);
        found.map(|(_, seen)| seen)
    }

    /// The nodes that lead this group, each under its ballot.
    pub fn leaders(&self, group: GroupId) -> impl Iterator<Item = (usize, Ballot)> {
        let nodes = 0..self.nodes.len();
        nodes.filter_map(move |node| Some((node, self.seen(node, group)?.leads?)))
    }

    /// The question that an answer answers.
    #[must_use]
    pub fn question(&self, node: usize, caller: Caller) -> Option<&Question> {
        self.questions.get(&(node, caller))
    }

    /// A request reached a node.
    pub(super) fn ask(&mut self, node: usize, caller: Caller, request: &ShardRequest, stamp: u64) {
        let what = match &request.request {
            Request::Latest { keys, .. } => What::Latest(keys.clone()),
            Request::LockedRead { keys, .. } => What::Locked(keys.clone()),
            Request::Commit(commit) => match commit.participants.get(commit.here as usize) {
                Some(here) => What::Commit(commit.attempt, here.anchor.clone()),
                None => What::Other,
            },
            Request::Status {
                attempt, anchor, ..
            } => What::Status(*attempt, anchor.clone()),
            _ => What::Other,
        };
        let group = request.shard;
        let seen = self.seen(node, group);
        let replicated = seen.map_or(Timestamp(0), |s| s.replicated);
        let question = Question {
            group,
            what,
            stamp,
            replicated,
        };
        // Of a request that comes twice the first coming counts.
        self.questions.entry((node, caller)).or_insert(question);
        self.asked.push_back((node, caller));
        if self.asked.len() > QUESTIONS
            && let Some(old) = self.asked.pop_front()
        {
            self.questions.remove(&old);
        }
    }

    /// A node came back: what its disk held is where its replicas begin.
    pub(super) fn restarted(&mut self, node: usize, worker: &Worker) {
        let shards = worker.shards();
        self.nodes[node] = shards.map(|s| (s.descriptor().id, Seen::of(s))).collect();
    }

    /// A node is gone, perhaps in the middle of a step.
    pub(super) fn crashed(&mut self, node: usize) {
        let lost = std::mem::take(&mut self.nodes[node]);
        for (group, seen) in &lost {
            // It may have told more than was seen of it.
            if let (Some(book), Some(ballot)) = (self.groups.get_mut(group), seen.leads) {
                book.told.insert(ballot, Slot(u64::MAX));
            }
        }
        self.lost[node] = lost;
    }

    /// Follows a node through a step.
    pub(super) fn observe(&mut self, look: &Look<'_>, news: &mut News) {
        news.changes.clear();
        news.fresh.clear();
        let seen = &mut self.nodes[look.node];
        for (index, shard) in look.worker.shards().enumerate() {
            let group = shard.descriptor().id;
            let after = Seen::of(shard);
            // Both are in the order of the groups; replicas are made, and never go.
            let before = match seen.get_mut(index) {
                Some((id, known)) if *id == group && *known == after => continue,
                Some((id, known)) if *id == group => std::mem::replace(known, after),
                _ => {
                    seen.insert(index, (group, after));
                    Seen::default()
                }
            };
            let change = Change {
                group,
                before,
                after,
            };
            news.changes.push(change);
            if let Some(book) = self.groups.get_mut(&group) {
                follow(book, look.t, shard.replica(), &change, &mut news.fresh);
            }
        }
    }
}

/// Follows a group through a change of one replica.
fn follow(
    book: &mut GroupBook,
    t: u64,
    replica: &Replica,
    change: &Change,
    fresh: &mut Vec<Fresh>,
) {
    let after = change.after;
    if after.epoch > Epoch(0) && !book.electorates.contains_key(&after.epoch) {
        let began = replica.in_force();
        let electorate = Electorate::of(&began.configuration, began.after);
        book.electorates.insert(after.epoch, electorate);
    }
    if let Some(ballot) = change.elected() {
        let start = |slot: &Slot| matches!(replica.entry(*slot), Some(Entry::TermStart(s)) if s.ballot == ballot);
        let slots = (after.trimmed.0 + 1..=after.last.0).rev().map(Slot);
        if let Some(slot) = slots.take(4096).find(start) {
            book.starts.insert(ballot, slot);
        }
        while book.starts.len() > BALLOTS {
            book.starts.pop_first();
        }
        while book.told.len() > BALLOTS {
            book.told.pop_first();
        }
    }
    // What a leader decides last it tells in the step that ends its leadership.
    for ballot in [change.before.leads, after.leads].into_iter().flatten() {
        let told = book.told.entry(ballot).or_default();
        *told = after.decided.max(*told);
    }
    while book.frontier() < after.decided {
        let slot = book.frontier().next();
        let Some(entry) = replica.entry(slot) else {
            // Trimmed here, and decided by a leader that was gone before it was seen.
            let (digest, ballot) = (0, after.accepted);
            book.push(Value { digest, ballot });
            continue;
        };
        let command = match entry {
            Entry::Command(bytes) => synod_txn::command::decode(bytes).ok(),
            _ => None,
        };
        let above = book.last;
        book.raise(entry, command.as_ref());
        book.push(Value {
            digest: hash::entry(entry),
            ballot: after.accepted,
        });
        fresh.push(Fresh {
            group: change.group,
            slot,
            term: book.term,
            above,
            t,
            command,
        });
    }
}
