//! Nodes tell each other who holds which shard.
//!
//! A node's map begins with the cluster's first one. Its own replicas correct it, and
//! what it hears from others: whoever leads a shard through a change tells everybody
//! at once, and every second all compare a number that stands for the whole map (with
//! what goes to the other node anyway), so that whoever missed something gets it. An older word never replaces a younger (generations);
//! and nothing rests on the map but where requests and messages are sent first.

use super::driver::Driver;
use crate::machine::{Channel, Lanes};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use synod_paxos::{ClusterVersion, GroupId, NodeId};
use synod_rpc::Lane;
use synod_shard::{NodeMessage, NodeRow, Shard, ShardDescriptor};

/// Between two comparisons.
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of descriptors in one message, about.
const MESSAGE_BYTES: usize = 256 << 10;
/// Bytes of a descriptor besides its keys, about.
const DESCRIPTOR_BYTES: usize = 256;

/// How long a node that is no peer is spoken with.
const STRANGER: Duration = Duration::from_secs(5);
/// One that goes on comparing is answered again after this long.
const STRANGER_AGAIN: Duration = Duration::from_secs(60);
/// Rows about nodes in one message.
const NODES: usize = 500;

/// What was told, and when to compare again.
#[derive(Debug)]
pub(super) struct Gossip {
    next: Instant,
    /// The worker's count of changes when the map was looked at last.
    seen: Option<u64>,
    /// The map's number then.
    digest: u64,
    /// The generations that everybody was told of from here.
    told: BTreeMap<GroupId, u64>,
    /// The roster's number when it was stored last.
    stored: u64,
    /// The cluster's version that was stored last.
    version: ClusterVersion,
    /// Nodes that were answered though they are no peers, and when.
    strangers: BTreeMap<NodeId, Instant>,
}

impl Gossip {
    pub(super) fn new(now: Instant) -> Gossip {
        Gossip {
            next: now,
            seen: None,
            digest: 0,
            told: BTreeMap::new(),
            stored: 0,
            version: ClusterVersion::default(),
            strangers: BTreeMap::new(),
        }
    }
}

/// Descriptors in messages that are not too large.
fn messages<'a>(descriptors: impl Iterator<Item = &'a ShardDescriptor>) -> Vec<NodeMessage> {
    let mut messages = Vec::new();
    let mut part: Vec<ShardDescriptor> = Vec::new();
    let mut bytes = 0;
    for descriptor in descriptors {
        let more = descriptor.span.start.len() + descriptor.span.end.len() + DESCRIPTOR_BYTES;
        if bytes + more > MESSAGE_BYTES && !part.is_empty() {
            messages.push(NodeMessage::Shards(std::mem::take(&mut part)));
            bytes = 0;
        }
        bytes += more;
        part.push(descriptor.clone());
    }
    if !part.is_empty() {
        messages.push(NodeMessage::Shards(part));
    }
    messages
}

impl Driver {
    /// Tells everybody what is new, and compares when it is time to.
    pub(super) fn gossip(&mut self, now: Instant) {
        let Some(worker) = self.machine.worker() else {
            return;
        };
        let mut tell = Vec::new();
        let Gossip { told, .. } = &self.gossip;
        if self.gossip.seen != Some(worker.map_changes()) {
            let me = self.directory.identity().node;
            // Of a shard that was split off nobody leads it yet when it begins.
            let led = |d: &&ShardDescriptor| {
                d.preferred_leader == me || worker.shard(d.id).is_some_and(Shard::leads)
            };
            let untold = |d: &&ShardDescriptor| told.get(&d.id).is_none_or(|g| *g < d.generation);
            let news: Vec<_> = worker.map().changed().filter(led).filter(untold).collect();
            tell = messages(news.iter().copied());
            let news: Vec<_> = news.iter().map(|d| (d.id, d.generation)).collect();
            self.gossip.seen = Some(worker.map_changes());
            self.gossip.digest = worker.map_digest();
            self.gossip.told.extend(news);
            if self.keep_roster() && self.reading.latest().is_some() {
                // First-hand: the rows are read here.
                tell.extend(self.known_nodes());
            }
            if self.keep_version() {
                tell.extend(self.known_version());
            }
        }
        if now >= self.gossip.next {
            self.gossip.next = now + INTERVAL;
            self.forget_strangers(now);
            if !self.is_retired() {
                let digest = NodeMessage::MapDigest(self.gossip.digest);
                self.lanes.tell_along(&digest);
            }
        }
        if tell.is_empty() {
            return;
        }
        let others: Vec<NodeId> = self.lanes.peers.keys().copied().collect();
        for node in others {
            self.lanes.send(node, Channel::Consensus, tell.clone());
        }
    }

    /// A node that was taken out of the cluster is no peer; but one that compares maps has
    /// not heard of it yet.
    pub(super) fn answer_stranger(&mut self, from: NodeId, messages: &[NodeMessage]) {
        let compares = |m: &NodeMessage| matches!(m, NodeMessage::MapDigest(_));
        let Some(worker) = self.machine.worker() else {
            return;
        };
        let mut rows = worker.roster().rows();
        if let Some(row) = rows.find(|row| row.node.id == from)
            && messages.iter().any(compares)
            && !self.gossip.strangers.contains_key(&from)
        {
            self.gossip.strangers.insert(from, Instant::now());
            let answer = [NodeMessage::Nodes(vec![row.clone()])];
            let (address, lane) = (row.node.address, Lane::Consensus);
            self.lanes.endpoint.send_peer(from, address, lane, &answer);
        }
    }

    /// The links to those who were answered are closed again.
    fn forget_strangers(&mut self, now: Instant) {
        let lanes = &self.lanes;
        self.gossip.strangers.retain(|id, at| {
            let since = now.duration_since(*at);
            if since > STRANGER && !lanes.peers.contains_key(id) {
                lanes.endpoint.forget_peer(*id);
            }
            since <= STRANGER_AGAIN
        });
    }

    /// What was heard of nodes since the cluster began.
    fn known_nodes(&self) -> Vec<NodeMessage> {
        let rows = self.machine.worker().map(|w| w.roster().changed());
        let rows: Vec<NodeRow> = rows.into_iter().flatten().cloned().collect();
        let parts = rows.chunks(NODES);
        parts
            .map(|part| NodeMessage::Nodes(part.to_vec()))
            .collect()
    }

    /// Nodes that have joined are peers from now on, also after a restart; those that were
    /// taken out are none any more. Returns whether there was news of any.
    fn keep_roster(&mut self) -> bool {
        let Some(worker) = self.machine.worker() else {
            return false;
        };
        let digest = worker.roster().digest();
        if digest == self.gossip.stored {
            return false;
        }
        let rows: Vec<NodeRow> = worker.roster().changed().cloned().collect();
        self.gossip.stored = digest;
        self.know_peers();
        if self.is_retired() {
            tracing::warn!(
                "this node was taken out of the cluster; `synod node rejoin` takes it in again"
            );
        }
        if let Err(error) = self.directory.store_nodes(&rows) {
            self.machine
                .fail(format!("what nodes there are cannot be stored: {error}"));
        }
        true
    }

    /// The cluster's version, where all nodes know what that is.
    fn known_version(&self) -> Option<NodeMessage> {
        let version = self.machine.worker()?.version();
        let told = version >= NodeMessage::VERSION_SINCE;
        told.then_some(NodeMessage::Version(version))
    }

    /// A program that does not know the cluster's version must not start here again. Returns
    /// whether there was news of it.
    fn keep_version(&mut self) -> bool {
        let Some(worker) = self.machine.worker() else {
            return false;
        };
        let version = worker.version();
        if version == self.gossip.version {
            return false;
        }
        self.gossip.version = version;
        if let Some(why) = self.overtaken() {
            tracing::error!(%why, "the cluster has gone on without this node's program");
        } else {
            tracing::info!(version = version.0, "the cluster's version");
        }
        if version > self.directory.version()
            && let Err(error) = self.directory.store_version(version)
        {
            self.machine
                .fail(format!("the cluster's version cannot be stored: {error}"));
        }
        true
    }

    /// Another node's map has this number: if it is not this one's, it gets what is
    /// known here.
    pub(super) fn compare_maps(&mut self, from: NodeId, digest: u64) {
        let Some(worker) = self.machine.worker() else {
            return;
        };
        if digest != worker.map_digest() {
            let mut known = messages(worker.map().changed());
            known.extend(self.known_nodes());
            known.extend(self.known_version());
            if self.is_retired() {
                // It asks nobody by itself any more; perhaps it was taken in again.
                known.push(NodeMessage::MapDigest(worker.map_digest()));
            }
            self.lanes.send(from, Channel::Consensus, known);
        }
    }
}
