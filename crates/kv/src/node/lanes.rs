//! The real lanes: the endpoint, the log's thread and the engine's.

use super::clients::Clients;
use super::engine_thread::EngineThread;
use super::pacer::Pacer;
use super::time;
use crate::engine::Engine;
use crate::lane::EngineWork;
use crate::log::{LogRecord, LogThread};
use crate::machine::{Channel, Lanes};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_paxos::NodeId;
use synod_rpc::{Endpoint, Lane as Stream, ServerFrame};
use synod_shard::{NodeMessage, Now, ShardReply};
use synod_txn::{Caller, Outcome, Response};

/// The connections of requests that the node makes of itself: about the rows of shards,
/// and about the cluster's records.
pub(super) const OWN_ROWS: u64 = u64::MAX;
pub(super) const OWN_RECORDS: u64 = u64::MAX - 1;

/// Totals since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) commits: u64,
    pub(super) aborts: u64,
}

/// What the machine hands its work to.
pub(super) struct RealLanes {
    pub(super) endpoint: Endpoint,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) log: LogThread,
    pub(super) engine_thread: EngineThread,
    pub(super) clients: Clients,
    pub(super) peers: BTreeMap<NodeId, SocketAddr>,
    /// What is in no hurry, and goes with whatever is sent to its receiver next.
    pub(super) riders: BTreeMap<NodeId, NodeMessage>,
    pub(super) counts: Counts,
    pub(super) pacer: Pacer,
    /// Answers to this node's own requests.
    pub(super) own: Vec<(Caller, ShardReply)>,
}

impl RealLanes {
    /// Takes the answers to requests of one of the node's own connections.
    pub(super) fn own_answers(&mut self, connection: u64) -> Vec<(u64, ShardReply)> {
        let taken = self
            .own
            .extract_if(.., |(to, _)| to.connection == connection);
        taken.map(|(to, reply)| (to.request, reply)).collect()
    }

    /// Has read what may be sent to others now.
    pub(super) fn read_for_copies(&mut self, now: Instant) {
        while let Some(task) = self.pacer.next(now) {
            self.engine_thread.submit(EngineWork::Snapshot(task));
        }
    }

    /// Tells all peers, with the next frame that goes to each; where none has gone since the
    /// last time, at once.
    pub(super) fn tell_along(&mut self, message: &NodeMessage) {
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        self.riders.retain(|to, _| peers.contains(to));
        for to in peers {
            if self.riders.insert(to, message.clone()).is_some() {
                self.send(to, Channel::Consensus, Vec::new());
            }
        }
    }

    fn count(&mut self, reply: &ShardReply) {
        if let ShardReply::Response(Response::Outcome { outcome, .. }) = reply {
            match outcome {
                Outcome::Committed(_) => self.counts.commits += 1,
                Outcome::Aborted(_) => self.counts.aborts += 1,
            }
        }
    }
}

impl Lanes for RealLanes {
    fn now(&mut self) -> Now {
        time::now()
    }

    fn submit_log(&mut self, records: Vec<LogRecord>, number: u64) {
        self.log.submit(records, number);
    }

    fn trim_log(&mut self, number: u64) {
        self.log.trim_before(number);
    }

    fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    fn log_waits(&self) -> Option<Duration> {
        let since = self.log.waiting_since()?;
        Some(Instant::now().saturating_duration_since(since))
    }

    fn engine(&mut self) -> &dyn Engine {
        &*self.engine
    }

    fn submit_engine(&mut self, work: EngineWork) {
        let work = match work {
            EngineWork::Snapshot(task) => self.pacer.take(task).map(EngineWork::Snapshot),
            work => Some(work),
        };
        if let Some(work) = work {
            self.engine_thread.submit(work);
        }
    }

    fn send(&mut self, to: NodeId, channel: Channel, mut messages: Vec<NodeMessage>) {
        let stream = match channel {
            Channel::Consensus => {
                messages.extend(self.riders.remove(&to));
                Stream::Consensus
            }
            Channel::Bulk => Stream::Bulk,
        };
        if let Some(address) = self.peers.get(&to) {
            self.endpoint.send_peer(to, *address, stream, &messages);
        }
    }

    fn reply(&mut self, to: Caller, reply: ShardReply) {
        if to.connection >= OWN_RECORDS {
            self.own.push((to, reply));
            return;
        }
        self.count(&reply);
        if self.clients.answered(to) {
            let frame = ServerFrame::Response {
                id: to.request,
                reply,
            };
            self.endpoint.reply(to.connection, &frame);
        }
    }
}
