//! Splits and merges, as an operator asks for them, the shards there are by then, and the cluster version.

use super::Sim;
use crate::sim::fault::NEWEST;
use crate::sim::node::SimNode;
use synod_paxos::{GroupId, NodeId};
use synod_shard::{META_SHARD, NodeMessage, SplitError, Splitting, Worker};
use synod_txn::{Key, Span};

/// Keys tried, at most, until one lies inside of the shard.
const TRIES: u64 = 16;

/// Shards split off in one run, at most: each adds to every checkpoint, and slow disks with
/// short logs would do nothing else.
const MOST: usize = 12;

/// A key beside those of the workloads: behind the shard's stem a letter, and a number.
fn border(span: &Span, pick: u64) -> Option<Key> {
    let stem = span.start.iter().position(|b| *b == b'!');
    let mut stem = span.start[..stem.unwrap_or(span.start.len())].to_vec();
    stem.push(if pick.is_multiple_of(5) { b'~' } else { b'!' });
    (1..=TRIES).find_map(|turn| {
        let pick = pick / 8 * turn;
        let letter = b"abijklmnopqrstuw"[(pick % 16) as usize];
        let mut key = [&stem[..], &[letter]].concat();
        if !(pick / 16).is_multiple_of(3) {
            key.extend(format!("{:03}", pick / 48 % 40).bytes());
        }
        let inside = key[..] > span.start[..] && span.contains(&key);
        inside.then(|| key.into())
    })
}

/// The shard that ends where a key begins, if its leader is here.
fn leads_before(worker: &Worker, start: &Key) -> Option<GroupId> {
    let mut shards = worker.shards();
    let found = shards.find(|s| s.in_office() && s.descriptor().span.end == *start);
    found.map(|shard| shard.descriptor().id)
}

impl Sim {
    /// All shards there are, those that were split off last, without those that were absorbed.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        let first = self.bootstrap.map.shards.iter().map(|s| s.id);
        let all = first.chain(self.born.iter().copied());
        all.filter(|id| !self.absorbed.contains(id))
    }

    /// The shard of an index, which may be any number, or [`NEWEST`].
    pub(super) fn group_at(&self, index: usize) -> GroupId {
        if index == NEWEST
            && let Some(newest) = self.groups().last()
        {
            return newest;
        }
        let count = self.groups().count().max(1);
        let group = self.groups().nth(index % count);
        group.unwrap_or_default()
    }

    /// Has a shard split, and asks again for one that is on its way.
    pub(super) fn split(&mut self, shard: usize, pick: u64) {
        let group = self.group_at(shard);
        let Some(node) = self.leader_of(shard) else {
            return;
        };
        let leader = self.nodes[node].worker().and_then(|w| w.shard(group));
        let Some(at) = leader.and_then(|s| border(&s.descriptor().span, pick)) else {
            return;
        };
        self.split_at(node, group, &at);
    }

    /// Has the node that leads a shard split it there, unless there are enough.
    pub(super) fn split_at(&mut self, node: usize, group: GroupId, at: &Key) {
        if self.born.len() >= MOST {
            return;
        }
        let child = GroupId(self.next_shard);
        let n = &mut self.nodes[node];
        let Some(process) = n.process.as_mut().filter(|_| n.paused_until <= self.t) else {
            return;
        };
        process.lanes.set_now(&n.clock, self.t);
        let answer = process.machine.split(&mut process.lanes, group, at, child);
        if let Ok(Splitting::Underway | Splitting::Done) | Err(SplitError::Taken { .. }) = answer {
            self.next_shard += 1;
        }
        let id = self.nodes[node].id;
        self.trace.line(self.t, || {
            format!("{id} is to split {group} at {at:?} into {child}: {answer:?}")
        });
        self.plan_turn(node, self.t);
    }

    /// Has a shard merged into its left neighbour.
    pub(super) fn merge(&mut self, shard: usize) {
        let right = self.group_at(shard);
        let Some(start) = self.leader_of(shard).and_then(|node| {
            let shard = self.nodes[node].worker()?.shard(right)?;
            Some(shard.descriptor().span.start.clone())
        }) else {
            return;
        };
        let mut nodes = self.nodes.iter();
        let found = nodes.position(|n| {
            n.worker()
                .is_some_and(|w| leads_before(w, &start).is_some())
        });
        let Some(node) = found else { return };
        let n = &mut self.nodes[node];
        let left = n.worker().and_then(|w| leads_before(w, &start));
        let (Some(left), true) = (left, n.paused_until <= self.t) else {
            return;
        };
        let Some(process) = n.process.as_mut() else {
            return;
        };
        process.lanes.set_now(&n.clock, self.t);
        let answer = process.machine.merge(&mut process.lanes, left, right);
        let id = self.nodes[node].id;
        self.trace.line(self.t, || {
            format!("{id} is to merge {left} with {right}: {answer:?}")
        });
        self.plan_turn(node, self.t);
    }

    /// Who leads the meta shard reads what its row says of the cluster version.
    fn read_version(&mut self) {
        let meta = self.groups().position(|group| group == META_SHARD);
        let Some(node) = meta.and_then(|meta| self.leader_of(meta)) else {
            return;
        };
        let n = &mut self.nodes[node];
        let Some(process) = n.process.as_mut().filter(|_| n.paused_until <= self.t) else {
            return;
        };
        process.lanes.set_now(&n.clock, self.t);
        let (machine, lanes) = (&mut process.machine, &mut process.lanes);
        machine.learn_version(lanes, self.raised);
        self.plan_turn(node, self.t);
    }

    /// Nodes tell each other of shards whose ranges or members have changed and of the cluster
    /// version, as the driver of a real node does: who holds no replica of one hears of it by
    /// nothing else. (Of seed 913 a shard's first members were all replaced and started anew, and
    /// sent a client round among themselves.)
    /// Who knows the same is told nothing; the digests that real nodes compare are not sent.
    pub(super) fn gossip(&mut self) {
        let first = self.bootstrap.version;
        if self.raised > first {
            self.read_version();
        }
        for from in 0..self.nodes.len() {
            let n = &self.nodes[from];
            let Some(worker) = n.worker().filter(|_| n.paused_until <= self.t) else {
                continue;
            };
            let mut known = Vec::new();
            let shards: Vec<_> = worker.map().changed().cloned().collect();
            if !shards.is_empty() {
                known.push(NodeMessage::Shards(shards));
            }
            if worker.version() > first {
                known.push(NodeMessage::Version(worker.version()));
            }
            if known.is_empty() {
                continue;
            }
            let digest = worker.map_digest();
            let knows = |n: &&SimNode| n.worker().is_some_and(|w| w.map_digest() == digest);
            let others = self.nodes.iter().filter(|n| !knows(n)).map(|n| n.id);
            for to in others.collect::<Vec<NodeId>>() {
                self.send(from, to, known.clone());
            }
        }
    }
}
