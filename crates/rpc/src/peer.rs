//! The link to one peer: two bounded queues, and a task that keeps a connection
//! up and writes each queue to a stream of its own.

use crate::cert::{CertRole, SERVER_NAME};
use crate::close::{CloseCode, Closed};
use crate::endpoint::{Lane, Shared, count, lock};
use crate::frame;
use crate::hello::{StreamHello, StreamKind};
use crate::tls;
use crate::transport::BACKOFF;
use bytes::{Bytes, BytesMut};
use quinn::{ConnectionError, WriteError};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use synod_paxos::{Incarnation, NodeId};
use synod_shard::NodeMessage;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Bytes taken from a queue for one write, about.
const WRITE_BYTES: usize = 4 << 20;

/// Messages of one `send_peer`, encoded.
struct Held {
    /// Not before this.
    due: Instant,
    bytes: Bytes,
    frames: u64,
}

#[derive(Default)]
struct LaneState {
    held: VecDeque<Held>,
    bytes: usize,
    /// Reused for encoding.
    scratch: BytesMut,
}

/// One lane's queue.
#[derive(Default)]
struct LaneQueue {
    state: Mutex<LaneState>,
    wake: Notify,
}

/// What a lane's writer does next.
enum Next {
    Write(Vec<Bytes>),
    Until(Instant),
    Idle,
}

impl LaneQueue {
    /// Queues messages; returns the numbers of frames and messages that were
    /// dropped, for want of room or for their size.
    fn push(&self, messages: &[NodeMessage], delay: Duration, bound: usize) -> (u64, u64) {
        let mut state = lock(&self.state);
        let (frames, too_large) = frame::encode_all(messages, &mut state.scratch);
        if frames == 0 {
            return (0, too_large);
        }
        let bytes = state.scratch.split().freeze();
        // Never before what went in earlier: a shortened delay overtakes nothing.
        let earliest = state.held.back().map(|h| h.due);
        let due =
            earliest.map_or_else(|| Instant::now() + delay, |e| e.max(Instant::now() + delay));
        state.bytes += bytes.len();
        state.held.push_back(Held { due, bytes, frames });
        let mut dropped = 0;
        while state.bytes > bound && state.held.len() > 1 {
            if let Some(oldest) = state.held.pop_front() {
                state.bytes -= oldest.bytes.len();
                dropped += oldest.frames;
            }
        }
        drop(state);
        self.wake.notify_one();
        (dropped, too_large)
    }

    fn next(&self, shared: &Shared) -> Next {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let (mut batch, mut size) = (Vec::new(), 0);
        while let Some(front) = state.held.front() {
            if front.due > now || size >= WRITE_BYTES {
                break;
            }
            let Some(held) = state.held.pop_front() else {
                break;
            };
            state.bytes -= held.bytes.len();
            size += held.bytes.len();
            count(&shared.counts.frames_out, held.frames);
            batch.push(held.bytes);
        }
        count(&shared.counts.bytes_out, size as u64);
        if !batch.is_empty() {
            return Next::Write(batch);
        }
        state
            .held
            .front()
            .map_or(Next::Idle, |front| Next::Until(front.due))
    }

    /// Drops everything; returns the number of frames.
    fn clear(&self) -> u64 {
        let mut state = lock(&self.state);
        state.bytes = 0;
        state.held.drain(..).map(|h| h.frames).sum()
    }
}

#[derive(Default)]
struct PeerState {
    /// Where it is; none until something is sent.
    address: Option<SocketAddr>,
    delay: Duration,
    /// The incarnation last heard from.
    heard: Option<Incarnation>,
}

/// One peer.
pub(crate) struct Peer {
    node: NodeId,
    state: Mutex<PeerState>,
    consensus: LaneQueue,
    bulk: LaneQueue,
    /// Something changed that the link should look at.
    kick: Notify,
    closed: AtomicBool,
}

impl Peer {
    pub(crate) fn new(node: NodeId) -> Peer {
        Peer {
            node,
            state: Mutex::default(),
            consensus: LaneQueue::default(),
            bulk: LaneQueue::default(),
            kick: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn send(
        self: &Arc<Peer>,
        shared: &Arc<Shared>,
        address: SocketAddr,
        lane: Lane,
        messages: &[NodeMessage],
    ) {
        let delay = {
            let mut state = lock(&self.state);
            match state.address.replace(address) {
                None => {
                    tokio::spawn(run(shared.clone(), self.clone()));
                }
                Some(before) if before != address => self.kick.notify_one(),
                Some(_) => {}
            }
            state.delay
        };
        let (dropped, too_large) = self
            .lane(lane)
            .push(messages, delay, shared.options.peer_bytes);
        count(&shared.counts.dropped, dropped);
        if too_large > 0 {
            count(&shared.counts.too_large, too_large);
            tracing::error!(peer = %self.node, too_large, "dropped messages larger than a frame");
        }
    }

    pub(crate) fn set_delay(&self, one_way: Duration) {
        lock(&self.state).delay = one_way;
    }

    /// The peer reached us under this incarnation. A link made to an earlier
    /// one leads nowhere, and a pause before the next attempt is pointless.
    pub(crate) fn heard(&self, incarnation: Incarnation) {
        lock(&self.state).heard = Some(incarnation);
        self.kick.notify_one();
    }

    pub(crate) fn is_at(&self, address: SocketAddr) -> bool {
        lock(&self.state).address == Some(address)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.kick.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn lane(&self, lane: Lane) -> &LaneQueue {
        match lane {
            Lane::Consensus => &self.consensus,
            Lane::Bulk => &self.bulk,
        }
    }

    fn target(&self) -> (Option<SocketAddr>, Option<Incarnation>) {
        let state = lock(&self.state);
        (state.address, state.heard)
    }
}

/// Keeps the link up until the peer is forgotten or the endpoint closes.
async fn run(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut backoff = BACKOFF.0;
    let mut told = String::new();
    while !peer.is_closed() {
        let (Some(address), heard) = peer.target() else {
            return;
        };
        let began = Instant::now();
        let dialed = tokio::select! {
            dialed = dial(&shared, &peer, address) => dialed,
            // The peer has just come up, or moved: the packets sent so far went
            // nowhere, and QUIC would wait long before it sends them again.
            () = peer.kick.notified() => continue,
        };
        let reason = match dialed {
            Ok(connection) => {
                let _tracked = shared.track(&connection);
                tracing::info!(peer = %peer.node, %address, "linked");
                told.clear();
                serve(&shared, &peer, &connection, address, heard).await
            }
            Err(reason) => {
                let lost = peer.consensus.clear() + peer.bulk.clear();
                count(&shared.counts.dropped, lost);
                reason
            }
        };
        if peer.is_closed() {
            break;
        }
        if reason != told {
            tracing::warn!(peer = %peer.node, %address, %reason, "no link; trying again");
            told = reason;
        }
        // A link that held for a while starts over; one that is refused at once does not.
        if began.elapsed() > 2 * shared.options.transport.connect {
            backoff = BACKOFF.0;
        }
        tokio::select! {
            () = sleep(backoff) => {}
            () = peer.kick.notified() => {}
        }
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// Connects, and checks that a node of the right name answered.
async fn dial(
    shared: &Shared,
    peer: &Peer,
    address: SocketAddr,
) -> Result<quinn::Connection, String> {
    let connecting = shared
        .quinn
        .connect_with(shared.connector(), address, SERVER_NAME)
        .map_err(|e| e.to_string())?;
    let connection = timeout(shared.options.transport.connect, connecting)
        .await
        .map_err(|_| "no answer".to_owned())?
        .map_err(|e| Closed::of(&e).reason)?;
    let subject = tls::peer_subject(&connection).map_err(|e| e.to_string())?;
    if subject.role != CertRole::Node || !shared.name_fits(peer.node, &subject.name) {
        let reason = format!("{subject} answered where node {} was expected", peer.node);
        connection.close(CloseCode::WrongName.var(), reason.as_bytes());
        return Err(reason);
    }
    Ok(connection)
}

/// Writes both lanes until the connection ends; says why it did.
async fn serve(
    shared: &Shared,
    peer: &Peer,
    connection: &quinn::Connection,
    address: SocketAddr,
    heard: Option<Incarnation>,
) -> String {
    tokio::select! {
        error = write_lane(shared, peer, connection, Lane::Consensus) => Closed::of(&error).reason,
        error = write_lane(shared, peer, connection, Lane::Bulk) => Closed::of(&error).reason,
        error = connection.closed() => Closed::of(&error).reason,
        reason = overtaken(peer, address, heard) => {
            connection.close(CloseCode::Redial.var(), reason.as_bytes());
            reason.to_owned()
        }
    }
}

/// Returns once the link should be given up for a new one.
async fn overtaken(
    peer: &Peer,
    address: SocketAddr,
    mut heard: Option<Incarnation>,
) -> &'static str {
    loop {
        peer.kick.notified().await;
        let (address_now, heard_now) = peer.target();
        if peer.is_closed() {
            return "the peer is no longer needed";
        }
        if address_now != Some(address) {
            return "the peer's address changed";
        }
        if heard.is_some() && heard_now != heard {
            return "the peer restarted";
        }
        heard = heard_now;
    }
}

/// Writes one lane's queue to streams until the connection fails. A stream the
/// other side stopped is replaced, after a pause.
async fn write_lane(
    shared: &Shared,
    peer: &Peer,
    connection: &quinn::Connection,
    lane: Lane,
) -> ConnectionError {
    loop {
        match write_stream(shared, peer, connection, lane).await {
            WriteError::ConnectionLost(error) => return error,
            other => {
                tracing::warn!(peer = %peer.node, ?lane, reason = %other, "the stream was stopped");
                sleep(BACKOFF.0).await;
            }
        }
    }
}

async fn write_stream(
    shared: &Shared,
    peer: &Peer,
    connection: &quinn::Connection,
    lane: Lane,
) -> WriteError {
    let mut stream = match connection.open_uni().await {
        Ok(stream) => stream,
        Err(error) => return WriteError::ConnectionLost(error),
    };
    let speaker = shared.speaker(peer.node);
    let (kind, priority) = match lane {
        Lane::Consensus => (StreamKind::Consensus(speaker), 1),
        Lane::Bulk => (StreamKind::Bulk(speaker), 0),
    };
    let _ = stream.set_priority(priority);
    let mut hello = BytesMut::new();
    StreamHello {
        cluster: shared.cluster,
        kind,
    }
    .encode(&mut hello);
    if let Err(error) = stream.write_chunk(hello.freeze()).await {
        return error;
    }
    let queue = peer.lane(lane);
    loop {
        match queue.next(shared) {
            Next::Write(mut batch) => {
                if let Err(error) = stream.write_all_chunks(&mut batch).await {
                    return error;
                }
            }
            Next::Until(due) => sleep_until(due).await,
            Next::Idle => queue.wake.notified().await,
        }
    }
}
