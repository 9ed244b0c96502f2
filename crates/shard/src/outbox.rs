//! What one step of a worker leaves to be done: one batch of log records, one
//! of messages per peer, replies, engine work, snapshot work.

use crate::wire::{MergeMessage, NodeMessage, ShardDescriptor, ShardReply, SnapshotState};
use bytes::Bytes;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use synod_paxos::lease::LeaseRecord;
use synod_paxos::{
    Durable, GroupId, Message, Mono, NodeId, PersistSeq, Record, Slot, SnapshotId, Timestamp,
};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::request::ScanRange;
use synod_txn::{Caller, Key, PeerMessage, ReadToken, Response, Span, Unencoded, WriteBatch};

/// Unhurried messages wait this long for a frame to ride on.
const UNHURRIED_NANOS: u64 = 10_000_000;
/// So many unhurried messages for one node go at once.
const MAX_UNHURRIED: usize = 1024;

/// One durable record of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum NodeRecord {
    /// Of one group.
    Group {
        /// The group.
        group: GroupId,
        /// The record.
        record: Record,
    },
    /// Of a node pair.
    Lease(LeaseRecord),
    /// A replica's whole state: the first record of one that was made here.
    Base {
        /// The shard, as it begins here.
        descriptor: Box<ShardDescriptor>,
        /// The state.
        durable: Box<Durable>,
    },
}

/// A read for the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineRead {
    /// For this shard.
    pub group: GroupId,
    /// Names it.
    pub token: ReadToken,
    /// Keys to look up.
    pub keys: Vec<Key>,
    /// A range to visit.
    pub scan: Option<ScanRange>,
    /// Only versions at or below this.
    pub at: Timestamp,
}

/// Work on snapshots, done by the driver away from the loop's thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum SnapshotTask {
    /// Open the engine once it holds everything up to `id.slot`, and read chunk 0.
    Open {
        /// The shard.
        group: GroupId,
        /// For whom.
        to: NodeId,
        /// The name of the new snapshot.
        id: SnapshotId,
        /// The replicated state at `id.slot`.
        state: SnapshotState,
        /// Shards that it descends from or has absorbed, if anybody needs to know.
        ancestors: BTreeSet<GroupId>,
    },
    /// Read a chunk of an open one.
    Read {
        /// The shard.
        group: GroupId,
        /// For whom.
        to: NodeId,
        /// Which.
        id: SnapshotId,
        /// The chunk.
        chunk: u64,
    },
    /// It is no longer needed.
    Close {
        /// The shard.
        group: GroupId,
        /// For whom it was.
        to: NodeId,
    },
    /// Keep what a shard that was split off begins with, and make everything so far
    /// durable: its data is there, written by the shard that it was part of.
    Birth {
        /// The new shard.
        group: GroupId,
        /// The slot that its first state is that of.
        slot: Slot,
        /// Its first replicated state; none if its data is still to come: then whatever an
        /// interrupted birth left of it counts for nothing.
        state: Option<Unencoded>,
    },
    /// Delete the shard's data: this node is not part of it any more.
    Destroy {
        /// The shard.
        group: GroupId,
        /// Its keys.
        span: Span,
        /// Replicas on this node whose data goes with it.
        absorbed: Vec<GroupId>,
    },
    /// Stage a chunk; with `done`, install all.
    Stage {
        /// The shard.
        group: GroupId,
        /// The keys whose data it replaces, besides those that the snapshot is of.
        span: Span,
        /// Another replica's data on this node begins there.
        clip: Option<Key>,
        /// Replicas on this node whose shards the snapshot's has absorbed: what they have counts
        /// for nothing from here on.
        absorbed: Vec<GroupId>,
        /// Which.
        id: SnapshotId,
        /// The chunk.
        chunk: u64,
        /// Its bytes.
        data: Bytes,
        /// Whether it is the last.
        done: bool,
    },
}

/// Which shard's leader a message of a merge is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum MergeTo {
    /// That of this one.
    Shard(GroupId),
    /// That of the one whose range ends there.
    Before(Key),
}

/// One batch for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogBatch {
    /// Its number; tickets rise by one.
    pub ticket: u64,
    /// Its records, in order.
    pub records: Vec<NodeRecord>,
}

/// What the driver carries out after a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Output {
    /// Append and sync, then [`crate::input::Input::Logged`].
    pub log: Option<LogBatch>,
    /// One frame per peer.
    pub sends: BTreeMap<NodeId, Vec<NodeMessage>>,
    /// The same, on the streams for bulk.
    pub bulk: BTreeMap<NodeId, Vec<NodeMessage>>,
    /// Answers to clients.
    pub replies: Vec<(Caller, ShardReply)>,
    /// Reads of the engine, against its state of this moment.
    pub reads: Vec<EngineRead>,
    /// Versions for the engine, per shard in slot order.
    pub writes: Vec<(GroupId, WriteBatch)>,
    /// Shards whose applied slot moved, after `writes`.
    pub marks: BTreeMap<GroupId, Slot>,
    /// Snapshot work.
    pub snapshots: Vec<SnapshotTask>,
    /// The node must stop, for this reason.
    pub fatal: Option<String>,
}

/// What waits for one ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pending {
    pub(crate) ticket: u64,
    pub(crate) replicas: Vec<(GroupId, PersistSeq)>,
    pub(crate) leases: Vec<u64>,
    pub(crate) release: Vec<(NodeId, NodeMessage)>,
}

/// Collects a step's output, and remembers what waits for the log.
#[derive(Clone, Default, Serialize)]
pub(crate) struct Outbox {
    pub(crate) output: Output,
    pub(crate) peers: VecDeque<(GroupId, PeerMessage)>,
    pub(crate) merges: VecDeque<(MergeTo, MergeMessage)>,
    records: Vec<NodeRecord>,
    current: Pending,
    pending: VecDeque<Pending>,
    last_ticket: u64,
    /// Messages in no hurry, and when the oldest of them came.
    unhurried: BTreeMap<NodeId, Vec<NodeMessage>>,
    unhurried_since: Option<Mono>,
}

impl Outbox {
    pub(crate) fn send(&mut self, to: NodeId, message: NodeMessage) {
        let bulk = matches!(
            message,
            NodeMessage::Group {
                message: Message::SnapshotChunk { .. },
                ..
            }
        );
        let lane = if bulk {
            &mut self.output.bulk
        } else {
            &mut self.output.sends
        };
        lane.entry(to).or_default().push(message);
    }

    /// Sends with the next frame to that node, or after a while: no caller waits
    /// for it, and a frame of its own would wake two processes.
    pub(crate) fn send_unhurried(&mut self, now: Mono, to: NodeId, message: NodeMessage) {
        self.unhurried_since.get_or_insert(now);
        self.unhurried.entry(to).or_default().push(message);
    }

    /// When the unhurried should go at the latest.
    pub(crate) fn unhurried_due(&self) -> Option<Mono> {
        self.unhurried_since.map(|at| at.plus(UNHURRIED_NANOS))
    }

    /// Puts unhurried messages behind those that go now.
    pub(crate) fn add_unhurried(&mut self, now: Mono) {
        let due = self.unhurried_due().is_some_and(|at| at <= now);
        let output = &mut self.output;
        self.unhurried.retain(|to, messages| {
            let frame = output.sends.get_mut(to);
            if let Some(frame) = frame {
                frame.append(messages);
            } else if due || messages.len() >= MAX_UNHURRIED {
                output.sends.insert(*to, std::mem::take(messages));
            }
            !messages.is_empty()
        });
        if self.unhurried.is_empty() {
            self.unhurried_since = None;
        }
    }

    pub(crate) fn persist(
        &mut self,
        group: GroupId,
        records: Vec<Record>,
        release: Vec<(NodeId, Message)>,
        seq: PersistSeq,
    ) {
        self.records.extend(
            records
                .into_iter()
                .map(|record| NodeRecord::Group { group, record }),
        );
        self.current.replicas.push((group, seq));
        self.current.release.extend(
            release
                .into_iter()
                .map(|(to, message)| (to, NodeMessage::Group { group, message })),
        );
    }

    pub(crate) fn persist_lease(
        &mut self,
        record: LeaseRecord,
        release: Vec<(NodeId, synod_paxos::lease::LeaseMessage)>,
        seq: u64,
    ) {
        self.records.push(NodeRecord::Lease(record));
        self.current.leases.push(seq);
        self.current.release.extend(
            release
                .into_iter()
                .map(|(to, message)| (to, NodeMessage::Lease(message))),
        );
    }

    /// Ends the collection of log records. Returns what may complete at once:
    /// a barrier with nothing on its way before it.
    pub(crate) fn seal(&mut self) -> Option<Pending> {
        let mut current = std::mem::take(&mut self.current);
        if !self.records.is_empty() {
            self.last_ticket += 1;
            let records = std::mem::take(&mut self.records);
            match &mut self.output.log {
                // A step seals more than once when completions follow each other.
                Some(batch) => {
                    batch.ticket = self.last_ticket;
                    batch.records.extend(records);
                }
                none => {
                    *none = Some(LogBatch {
                        ticket: self.last_ticket,
                        records,
                    });
                }
            }
            let early = mutated(Mutation::ReleaseBeforeSync).then(|| Pending {
                release: std::mem::take(&mut current.release),
                ..Pending::default()
            });
            self.pending.push_back(Pending {
                ticket: self.last_ticket,
                ..current
            });
            return early;
        }
        if current == Pending::default() {
            return None;
        }
        match self.pending.back_mut() {
            Some(last) => {
                mark(Mark::BarrierWaited);
                last.replicas.extend(current.replicas);
                last.leases.extend(current.leases);
                last.release.extend(current.release);
                None
            }
            None => Some(current),
        }
    }

    /// Whether this step writes anything of a group: idle ones write nothing.
    pub(crate) fn writes_groups(&self) -> bool {
        let mut records = self.output.log.iter().flat_map(|batch| &batch.records);
        records.any(|record| matches!(record, NodeRecord::Group { .. }))
    }

    /// Everything that waited for tickets up to this one, in order.
    pub(crate) fn logged(&mut self, ticket: u64) -> Vec<Pending> {
        let ready = self.pending.partition_point(|p| p.ticket <= ticket);
        self.pending.drain(..ready).collect()
    }

    pub(crate) fn reply(&mut self, to: Caller, response: Response) {
        self.output
            .replies
            .push((to, ShardReply::Response(response)));
    }

    pub(crate) fn reply_wrong_node(&mut self, to: Caller, reply: ShardReply) {
        self.output.replies.push((to, reply));
    }

    pub(crate) fn peer(&mut self, shard: GroupId, message: PeerMessage) {
        self.peers.push_back((shard, message));
    }

    pub(crate) fn read(
        &mut self,
        group: GroupId,
        token: ReadToken,
        keys: Vec<Key>,
        scan: Option<ScanRange>,
        at: Timestamp,
    ) {
        self.output.reads.push(EngineRead {
            group,
            token,
            keys,
            scan,
            at,
        });
    }

    pub(crate) fn write(&mut self, group: GroupId, batch: WriteBatch) {
        self.output.writes.push((group, batch));
    }

    pub(crate) fn mark(&mut self, group: GroupId, slot: Slot) {
        self.output.marks.insert(group, slot);
    }

    pub(crate) fn fatal(&mut self, reason: String) {
        self.output.fatal.get_or_insert(reason);
    }

    pub(crate) fn open_snapshot(
        &mut self,
        group: GroupId,
        to: NodeId,
        id: SnapshotId,
        state: SnapshotState,
        ancestors: BTreeSet<GroupId>,
    ) {
        self.output.snapshots.push(SnapshotTask::Open {
            group,
            to,
            id,
            state,
            ancestors,
        });
    }

    pub(crate) fn read_snapshot(&mut self, group: GroupId, to: NodeId, id: SnapshotId, chunk: u64) {
        self.output.snapshots.push(SnapshotTask::Read {
            group,
            to,
            id,
            chunk,
        });
    }

    pub(crate) fn close_snapshot(&mut self, group: GroupId, to: NodeId) {
        self.output
            .snapshots
            .push(SnapshotTask::Close { group, to });
    }

    pub(crate) fn destroy(&mut self, group: GroupId, span: Span, absorbed: Vec<GroupId>) {
        let task = SnapshotTask::Destroy {
            group,
            span,
            absorbed,
        };
        self.output.snapshots.push(task);
    }

    /// The first record of a replica that is made now.
    pub(crate) fn base(&mut self, descriptor: &ShardDescriptor, durable: Durable) {
        self.records.push(NodeRecord::Base {
            descriptor: Box::new(descriptor.clone()),
            durable: Box::new(durable),
        });
    }

    pub(crate) fn merge(&mut self, to: MergeTo, message: MergeMessage) {
        self.merges.push_back((to, message));
    }

    /// Tells a node that no replica of a shard is needed any more.
    pub(crate) fn retired(&mut self, node: NodeId, right: GroupId) {
        self.send(node, NodeMessage::Retired(right));
    }

    pub(crate) fn birth(&mut self, task: SnapshotTask) {
        self.output.snapshots.push(task);
    }

    pub(crate) fn stage_snapshot(&mut self, stage: SnapshotTask) {
        self.output.snapshots.push(stage);
    }
}
