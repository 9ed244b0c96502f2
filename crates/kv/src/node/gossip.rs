//! Nodes tell each other who holds which shard.
//!
//! A node's map begins with the cluster's first one. Its own replicas correct it, and
//! what it hears from others: whoever leads a shard through a change tells everybody
//! at once, and every second all compare a number that stands for the whole map, so
//! that whoever missed something gets it. An older word never replaces a younger (generations);
//! and nothing rests on the map but where requests and messages are sent first.

use super::driver::Driver;
use crate::machine::{Channel, Lanes};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use synod_paxos::{GroupId, NodeId};
use synod_shard::{NodeMessage, Shard, ShardDescriptor, Worker};

/// Between two comparisons.
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of descriptors in one message, about.
const MESSAGE_BYTES: usize = 256 << 10;
/// Bytes of a descriptor besides its keys, about.
const DESCRIPTOR_BYTES: usize = 256;

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
}

impl Gossip {
    pub(super) fn new(now: Instant) -> Gossip {
        Gossip {
            next: now,
            seen: None,
            digest: 0,
            told: BTreeMap::new(),
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
            let led = |d: &&ShardDescriptor| worker.shard(d.id).is_some_and(Shard::leads);
            let untold = |d: &&ShardDescriptor| told.get(&d.id).is_none_or(|g| *g < d.generation);
            let news: Vec<_> = worker.map().changed().filter(led).filter(untold).collect();
            tell = messages(news.iter().copied());
            let news: Vec<_> = news.iter().map(|d| (d.id, d.generation)).collect();
            self.gossip.seen = Some(worker.map_changes());
            self.gossip.digest = worker.map().digest();
            self.gossip.told.extend(news);
        }
        if now >= self.gossip.next {
            self.gossip.next = now + INTERVAL;
            tell.push(NodeMessage::MapDigest(self.gossip.digest));
        }
        if tell.is_empty() {
            return;
        }
        let others: Vec<NodeId> = self.lanes.peers.keys().copied().collect();
        for node in others {
            self.lanes.send(node, Channel::Consensus, tell.clone());
        }
    }

    /// Another node's map has this number: if it is not this one's, it gets what is
    /// known here.
    pub(super) fn compare_maps(&mut self, from: NodeId, digest: u64) {
        let worker = self.machine.worker();
        let Some(map) = worker.map(Worker::map) else {
            return;
        };
        if digest != map.digest() {
            let known = messages(map.changed());
            self.lanes.send(from, Channel::Consensus, known);
        }
    }
}
