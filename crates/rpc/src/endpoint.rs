//! A node's endpoint: one UDP socket over which it serves clients and peers and
//! links to its peers.
//!
//! Meant for the node's `current_thread` runtime: all its tasks, and the loop
//! that drains [`EventQueue`], then share one thread, and a wake-up is a queue
//! entry. Calls never block and never wait; what cannot be queued is dropped
//! and counted (to peers) or closes the connection (to clients).

use crate::cert::CertRole;
use crate::close::CloseCode;
use crate::error::RpcError;
use crate::events::EventQueue;
use crate::frame::MAX_REQUEST_BYTES;
use crate::hello::Speaker;
use crate::peer::Peer;
use crate::replies::ReplyQueue;
use crate::server;
use crate::tls::TlsIdentity;
use crate::transport::{self, TransportOptions};
use crate::wire::{ServerFrame, TransportCounters};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use synod_paxos::{Incarnation, NodeId};
use synod_shard::NodeMessage;
use tokio::sync::Semaphore;

/// Which of a pair's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Consensus, leases, two-phase commit.
    Consensus,
    /// Snapshots.
    Bulk,
}

/// Who a node's endpoint is, and its bounds.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// The node's id.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// QUIC settings.
    pub transport: TransportOptions,
    /// Connections accepted at once, clients' and nodes'; over it, new ones are
    /// refused but for those from the addresses of peers.
    pub max_connections: usize,
    /// Unanswered requests on one stream; over it, a request is answered `Overloaded`.
    pub max_outstanding: usize,
    /// Bytes waiting for one peer on one lane; over it, the oldest frames are dropped.
    pub peer_bytes: usize,
    /// Bytes of answers waiting for one client; over it, its connection is closed.
    pub reply_bytes: usize,
    /// Bytes of answers waiting for all clients; over it, the connection for which most wait is
    /// closed.
    pub all_reply_bytes: usize,
    /// Bytes of frames from peers waiting for the loop; over it, reading pauses.
    pub event_bytes: usize,
    /// The same of frames from clients. A request waits for all that are before it,
    /// so this bounds how long.
    pub client_event_bytes: usize,
    /// Bytes of clients' requests of more than a MiB that have begun to come; over it, those of
    /// further ones stay with their senders. Not less than the largest request has.
    pub large_request_bytes: usize,
}

impl EndpointOptions {
    /// The defaults for this node.
    #[must_use]
    pub fn new(node: NodeId, incarnation: Incarnation) -> EndpointOptions {
        EndpointOptions {
            node,
            incarnation,
            transport: TransportOptions::default(),
            max_connections: 10_000,
            max_outstanding: 4096,
            peer_bytes: 64 << 20,
            reply_bytes: 64 << 20,
            all_reply_bytes: 256 << 20,
            event_bytes: 64 << 20,
            client_event_bytes: 4 << 20,
            large_request_bytes: 256 << 20,
        }
    }
}

/// A node's endpoint. Dropping it closes every connection.
pub struct Endpoint {
    shared: Arc<Shared>,
}

/// The stream a peer is heard on.
pub(crate) struct Inbound {
    pub(crate) incarnation: Incarnation,
    pub(crate) stream: u64,
}

/// What the endpoint's tasks share.
pub(crate) struct Shared {
    pub(crate) quinn: quinn::Endpoint,
    pub(crate) options: EndpointOptions,
    pub(crate) cluster: u128,
    pub(crate) events: EventQueue,
    pub(crate) counts: Counts,
    pub(crate) open: AtomicUsize,
    /// Room for large requests, in bytes.
    pub(crate) large: Semaphore,
    connector: Mutex<quinn::ClientConfig>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    names: Mutex<BTreeMap<NodeId, String>>,
    pub(crate) inbound: Mutex<BTreeMap<NodeId, Inbound>>,
    pub(crate) replies: Mutex<HashMap<u64, Arc<ReplyQueue>>>,
    /// Bytes of all answers in them.
    pub(crate) reply_bytes: AtomicUsize,
    tracked: Mutex<HashMap<usize, quinn::Connection>>,
    next_stream: AtomicU64,
}

/// Running totals.
#[derive(Default)]
pub(crate) struct Counts {
    packets_in: AtomicU64,
    packets_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) frames_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) too_large: AtomicU64,
    pub(crate) bad_frames: AtomicU64,
    pub(crate) overloaded: AtomicU64,
    pub(crate) slow_readers: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Locks; a panic elsewhere does not make the data wrong, each change is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoint {
    /// Binds the socket and starts to accept. Port 0 takes a free one; the
    /// address bound is returned. Call it inside the runtime that is to do the work.
    ///
    /// # Errors
    /// [`RpcError`] if the address cannot be bound or the identity is of no use.
    pub fn bind(
        address: SocketAddr,
        tls: &TlsIdentity,
        options: EndpointOptions,
    ) -> Result<(Endpoint, SocketAddr), RpcError> {
        if tls.subject().role != CertRole::Node {
            return Err(RpcError::Tls(format!(
                "the certificate of {} is not a node's; issue one with `synod cert node`",
                tls.subject()
            )));
        }
        let socket = options.transport.socket(address)?;
        let quinn = quinn::Endpoint::new(
            options.transport.endpoint(Some(tls))?,
            Some(server_config(tls, &options)?),
            socket,
            transport::runtime(),
        )
        .map_err(|source| RpcError::Bind { address, source })?;
        let bound = quinn
            .local_addr()
            .map_err(|source| RpcError::Bind { address, source })?;
        let shared = Arc::new(Shared {
            quinn,
            cluster: tls.cluster(),
            events: EventQueue::new(options.event_bytes, options.client_event_bytes),
            counts: Counts::default(),
            open: AtomicUsize::new(0),
            large: Semaphore::new(options.large_request_bytes.max(MAX_REQUEST_BYTES)),
            connector: Mutex::new(client_config(tls, &options.transport)?),
            peers: Mutex::default(),
            names: Mutex::default(),
            inbound: Mutex::default(),
            replies: Mutex::default(),
            reply_bytes: AtomicUsize::new(0),
            tracked: Mutex::default(),
            next_stream: AtomicU64::new(1),
            options,
        });
        tokio::spawn(server::accept(shared.clone()));
        Ok((Endpoint { shared }, bound))
    }

    /// Where everything that arrives is queued.
    #[must_use]
    pub fn events(&self) -> EventQueue {
        self.shared.events.clone()
    }

    /// Queues messages for a peer. The link is made when first needed and made
    /// again by itself; while the peer cannot be reached, and over the queue's
    /// bound, messages are lost and counted. Within a lane order is kept.
    pub fn send_peer(&self, to: NodeId, address: SocketAddr, lane: Lane, messages: &[NodeMessage]) {
        if !messages.is_empty() {
            self.shared
                .peer(to)
                .send(&self.shared, address, lane, messages);
        }
    }

    /// Answers a request. An answer that nobody waits for any more is dropped;
    /// a client that does not read its answers loses its connection. Called in a
    /// tokio runtime with a timer: what is not urgent may leave later.
    pub fn reply(&self, connection: u64, frame: &ServerFrame) {
        let queue = lock(&self.shared.replies).get(&connection).cloned();
        if let Some(queue) = queue {
            queue.reply(&self.shared, frame);
        }
    }

    /// Holds every frame to this peer back for so long, order kept (both lanes;
    /// answers to clients are not delayed). For trials of distances on one machine.
    pub fn set_delay(&self, to: NodeId, one_way: Duration) {
        self.shared.peer(to).set_delay(one_way);
    }

    /// From now on only a certificate with this name may speak as this node,
    /// and only such a one is spoken to.
    pub fn know_peer(&self, node: NodeId, name: &str) {
        lock(&self.shared.names).insert(node, name.to_owned());
    }

    /// Closes the link to a peer and drops what waits for it.
    pub fn forget_peer(&self, node: NodeId) {
        lock(&self.shared.names).remove(&node);
        if let Some(peer) = lock(&self.shared.peers).remove(&node) {
            peer.close();
        }
    }

    /// Takes another certificate (of the same CA) for all connections made from now on.
    ///
    /// # Errors
    /// [`RpcError`] if it is of no use; then the old one stays.
    pub fn reload(&self, tls: &TlsIdentity) -> Result<(), RpcError> {
        if tls.cluster() != self.shared.cluster || tls.subject().role != CertRole::Node {
            return Err(RpcError::Tls(format!(
                "the certificate of {} is not a node's of this cluster",
                tls.subject()
            )));
        }
        let server = server_config(tls, &self.shared.options)?;
        *lock(&self.shared.connector) = client_config(tls, &self.shared.options.transport)?;
        self.shared.quinn.set_server_config(Some(server));
        Ok(())
    }

    /// Totals since it was bound.
    #[must_use]
    pub fn counters(&self) -> TransportCounters {
        let c = &self.shared.counts;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (mut packets_in, mut packets_out) = (get(&c.packets_in), get(&c.packets_out));
        for connection in lock(&self.shared.tracked).values() {
            let stats = connection.stats();
            packets_in += stats.udp_rx.datagrams;
            packets_out += stats.udp_tx.datagrams;
        }
        TransportCounters {
            packets_in,
            packets_out,
            bytes_in: get(&c.bytes_in),
            bytes_out: get(&c.bytes_out),
            frames_in: get(&c.frames_in),
            frames_out: get(&c.frames_out),
            dropped: get(&c.dropped),
            too_large: get(&c.too_large),
            bad_frames: get(&c.bad_frames),
            overloaded: get(&c.overloaded),
            slow_readers: get(&c.slow_readers),
            refused: get(&c.refused),
        }
    }

    /// Closes every connection and waits until the other sides were told. The
    /// port is free once the runtime has run the tasks that end with it.
    pub async fn close(self) {
        self.shut();
        self.shared.quinn.wait_idle().await;
    }

    fn shut(&self) {
        for peer in lock(&self.shared.peers).values() {
            peer.close();
        }
        self.shared
            .quinn
            .close(CloseCode::Shutdown.var(), b"the node shuts down");
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Shared {
    /// A number for a stream, never reused.
    pub(crate) fn stream_id(&self) -> u64 {
        self.next_stream.fetch_add(1, Ordering::Relaxed)
    }

    /// The peer with this id; made if it is new.
    fn peer(&self, node: NodeId) -> Arc<Peer> {
        lock(&self.peers)
            .entry(node)
            .or_insert_with(|| Arc::new(Peer::new(node)))
            .clone()
    }

    /// Who this endpoint is towards that peer.
    pub(crate) fn speaker(&self, to: NodeId) -> Speaker {
        Speaker {
            from: self.options.node,
            incarnation: self.options.incarnation,
            to,
        }
    }

    /// Whether a certificate with this name may belong to that node.
    pub(crate) fn name_fits(&self, node: NodeId, name: &str) -> bool {
        lock(&self.names)
            .get(&node)
            .is_none_or(|known| known == name)
    }

    /// Whether a node known here is reached at this address, and so speaks from it.
    pub(crate) fn is_peer_address(&self, address: SocketAddr) -> bool {
        lock(&self.peers).values().any(|p| p.is_at(address))
    }

    /// A peer was heard under this incarnation: its link may have to be remade.
    pub(crate) fn heard(&self, node: NodeId, incarnation: Incarnation) {
        let peer = lock(&self.peers).get(&node).cloned();
        if let Some(peer) = peer {
            peer.heard(incarnation);
        }
    }

    pub(crate) fn connector(&self) -> quinn::ClientConfig {
        lock(&self.connector).clone()
    }

    /// Counts a connection's packets while the guard lives, and keeps the sum after.
    pub(crate) fn track(self: &Arc<Shared>, connection: &quinn::Connection) -> Tracked {
        lock(&self.tracked).insert(connection.stable_id(), connection.clone());
        Tracked {
            shared: self.clone(),
            id: connection.stable_id(),
        }
    }
}

/// See [`Shared::track`].
pub(crate) struct Tracked {
    shared: Arc<Shared>,
    id: usize,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if let Some(connection) = lock(&self.shared.tracked).remove(&self.id) {
            let stats = connection.stats();
            count(&self.shared.counts.packets_in, stats.udp_rx.datagrams);
            count(&self.shared.counts.packets_out, stats.udp_tx.datagrams);
        }
    }
}

/// How connections are accepted.
fn server_config(
    tls: &TlsIdentity,
    options: &EndpointOptions,
) -> Result<quinn::ServerConfig, RpcError> {
    let mut config = quinn::ServerConfig::with_crypto(tls.server()?);
    config
        .transport_config(options.transport.transport(true))
        .max_incoming(options.max_connections)
        .migration(true);
    Ok(config)
}

/// How connections are made.
pub(crate) fn client_config(
    tls: &TlsIdentity,
    transport: &TransportOptions,
) -> Result<quinn::ClientConfig, RpcError> {
    let mut config = quinn::ClientConfig::new(tls.client()?);
    config.transport_config(transport.transport(false));
    Ok(config)
}
