//! The client's side: one connection and one long stream per node, shared by
//! all callers.
//!
//! Works from any async runtime. Inside a tokio `current_thread` runtime the
//! network work runs there, because a hop between threads costs more than the
//! call; elsewhere the pool has a thread of its own. Callers encode their
//! requests themselves, the writer sends whatever is queued at once, and the
//! reader hands out all answers of one read together.

use crate::connect;
use crate::endpoint::{client_config, lock};
use crate::error::{CallError, RpcError};
use crate::link::Link;
use crate::tls::TlsIdentity;
use crate::transport::{self, TransportOptions};
use crate::wire::{ClientFrame, LIVE_PER_FRAME, RequestBody, ServerBody, ShardFrame};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use synod_shard::ShardRequest;
use synod_txn::{AttemptId, ClientId, Request};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How often deadlines and silence are looked at.
const SWEEP: Duration = Duration::from_millis(10);
/// How long a closing pool waits for the other sides to be told.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where the network work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// On the caller's runtime if that is tokio's `current_thread`, else on a thread of its own.
    Auto,
    /// On a thread of its own.
    OwnThread,
    /// On the tokio runtime that the pool is made in; the pool ends with it.
    Caller,
}

/// A pool's settings and bounds.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// QUIC settings.
    pub transport: TransportOptions,
    /// Where the network work runs.
    pub io: Io,
    /// The address of this machine to send from, and by which nodes and what lies
    /// between know the caller. None: whichever the system takes.
    pub local: Option<IpAddr>,
    /// A node that sends nothing at all for this long, although calls wait for
    /// it, is given up: its calls end as lost. Meanwhile it is asked for a sign of life,
    /// four times in all.
    pub silence: Duration,
    /// Unanswered calls per node; over it, a call is refused as overloaded.
    pub max_outstanding: usize,
    /// Bytes waiting to be sent to one node; over it, a call is refused as overloaded.
    pub queue_bytes: usize,
    /// Nodes a pool keeps a link for.
    pub max_nodes: usize,
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions {
            transport: TransportOptions {
                keep_alive: Duration::from_secs(1),
                ..TransportOptions::default()
            },
            io: Io::Auto,
            local: None,
            silence: Duration::from_millis(800),
            max_outstanding: 4096,
            queue_bytes: 64 << 20,
            max_nodes: 1024,
        }
    }
}

/// Connections to nodes, made when first needed. Clones share them; the last
/// one dropped closes them.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

/// What a pool's clones share.
struct Inner {
    links: Mutex<HashMap<SocketAddr, Arc<Link>>>,
    shared: Arc<Shared>,
    socket: Arc<ClientSocket>,
}

/// What pools that share a socket share. It is closed with the last of them.
struct ClientSocket {
    quinn: quinn::Endpoint,
    handle: Handle,
    /// Ends the pools' own thread, if they have one.
    farewell: Option<Arc<Notify>>,
}

/// What a pool's tasks share.
pub(crate) struct Shared {
    pub(crate) quinn: quinn::Endpoint,
    pub(crate) options: PoolOptions,
    pub(crate) cluster: u128,
    pub(crate) connector: Mutex<quinn::ClientConfig>,
    /// Whether the sweeper is at work; whoever finds it resting wakes it.
    sweeping: AtomicBool,
    busy: Notify,
}

impl Shared {
    /// Makes sure that the deadline of a call just made is watched.
    pub(crate) fn watch(&self) {
        if !self.sweeping.swap(true, Ordering::AcqRel) {
            self.busy.notify_one();
        }
    }
}

impl Pool {
    /// Binds a UDP socket; connects to nobody yet.
    ///
    /// # Errors
    /// [`RpcError`] if the identity is of no use or the system refuses a socket or thread.
    pub fn new(tls: &TlsIdentity, options: PoolOptions) -> Result<Pool, RpcError> {
        let connector = client_config(tls, &options.transport)?;
        let current = Handle::try_current().ok();
        let caller = match (options.io, current) {
            (Io::Caller, None) => {
                let reason = "the pool was to run on the caller's tokio runtime; there is none";
                return Err(RpcError::Thread(std::io::Error::other(reason)));
            }
            (Io::Caller, some) => some,
            (Io::Auto, Some(handle)) if handle.runtime_flavor() == RuntimeFlavor::CurrentThread => {
                Some(handle)
            }
            _ => None,
        };
        let (handle, own) = match caller {
            Some(handle) => (handle, None),
            None => {
                let (handle, own) = own_thread().map_err(RpcError::Thread)?;
                (handle, Some(own))
            }
        };
        let entered = handle.enter();
        let quinn = client_endpoint(&options)?;
        drop(entered);
        let farewell = own.map(|own| own.hand_over(quinn.clone()));
        let socket = Arc::new(ClientSocket {
            quinn,
            handle,
            farewell,
        });
        Ok(Pool::over(socket, tls.cluster(), connector, options))
    }

    /// Another pool, with connections of its own, over this one's socket and thread: for a
    /// process that is many clients at once. A socket has buffers, and what it reads into.
    #[must_use]
    pub fn beside(&self) -> Pool {
        let shared = &self.inner.shared;
        let connector = lock(&shared.connector).clone();
        let socket = self.inner.socket.clone();
        Pool::over(socket, shared.cluster, connector, shared.options.clone())
    }

    /// A pool over this socket.
    fn over(
        socket: Arc<ClientSocket>,
        cluster: u128,
        connector: quinn::ClientConfig,
        options: PoolOptions,
    ) -> Pool {
        let shared = Arc::new(Shared {
            quinn: socket.quinn.clone(),
            cluster,
            connector: Mutex::new(connector),
            sweeping: AtomicBool::new(false),
            busy: Notify::new(),
            options,
        });
        let inner = Arc::new(Inner {
            links: Mutex::default(),
            shared,
            socket,
        });
        let sweep = sweep(Arc::downgrade(&inner), inner.shared.clone());
        inner.socket.handle.spawn(sweep);
        Pool { inner }
    }

    /// Asks a node, and waits for its answer until the deadline (which is
    /// watched to some 10 ms). Connects if need be. Dropping the future gives
    /// the call up; whether it had an effect is then unknown.
    ///
    /// # Errors
    /// [`CallError`] says whether the request may have reached the node.
    pub async fn call(
        &self,
        to: SocketAddr,
        body: RequestBody,
        deadline: Instant,
    ) -> Result<ServerBody, CallError> {
        let link = self.link(to)?;
        link.submit(&self.inner.shared, |id| body.numbered(id), deadline)?
            .answer()
            .await
    }

    /// The same for a request to a shard that the caller keeps, to ask again elsewhere.
    ///
    /// # Errors
    /// As [`Pool::call`].
    pub async fn call_shard(
        &self,
        to: SocketAddr,
        request: &ShardRequest,
        deadline: Instant,
    ) -> Result<ServerBody, CallError> {
        let link = self.link(to)?;
        let numbered = |id| ShardFrame { id, request };
        let call = link.submit(&self.inner.shared, numbered, deadline)?;
        match request.request {
            // A cancelled Commit goes on, and most participants' answers come after the outcome.
            Request::Commit(_) => call.that_goes_on().answer().await,
            _ => call.answer().await,
        }
    }

    /// Tells every connected node that this client and these of its
    /// transactions are alive, without waiting.
    pub fn keepalive(&self, client: ClientId, live: &[AttemptId]) {
        let links = lock(&self.inner.links);
        let mut rest = live;
        loop {
            let (part, after) = rest.split_at(rest.len().min(LIVE_PER_FRAME));
            let frame = ClientFrame::KeepAlive {
                client,
                live: part.to_vec(),
            };
            for link in links.values() {
                link.tell(&frame);
            }
            if after.is_empty() {
                return;
            }
            rest = after;
        }
    }

    /// Whether there is a connection to this node now.
    #[must_use]
    pub fn is_connected(&self, to: SocketAddr) -> bool {
        self.rtt(to).is_some()
    }

    /// The round trip to this node as measured on its connection, if there is one.
    #[must_use]
    pub fn rtt(&self, to: SocketAddr) -> Option<Duration> {
        lock(&self.inner.links).get(&to)?.rtt()
    }

    /// The cluster this pool's CA belongs to.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.inner.shared.cluster
    }

    /// Takes another certificate (of the same CA) for connections made from now on.
    ///
    /// # Errors
    /// [`RpcError`] if it is of no use; then the old one stays.
    pub fn reload(&self, tls: &TlsIdentity) -> Result<(), RpcError> {
        if tls.cluster() != self.inner.shared.cluster {
            return Err(RpcError::Tls("the new CA is another cluster's".to_owned()));
        }
        let config = client_config(tls, &self.inner.shared.options.transport)?;
        *lock(&self.inner.shared.connector) = config;
        Ok(())
    }

    fn link(&self, to: SocketAddr) -> Result<Arc<Link>, CallError> {
        let mut links = lock(&self.inner.links);
        if let Some(link) = links.get(&to) {
            return Ok(link.clone());
        }
        if links.len() >= self.inner.shared.options.max_nodes {
            links.retain(|_, link| link.in_use());
            if links.len() >= self.inner.shared.options.max_nodes {
                return Err(CallError::Overloaded { address: to });
            }
        }
        let link = Arc::new(Link::new(to));
        self.inner
            .socket
            .handle
            .spawn(connect::run(self.inner.shared.clone(), link.clone()));
        links.insert(to, link.clone());
        Ok(link)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for link in lock(&self.links).values() {
            link.close();
        }
        self.shared.busy.notify_one();
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        let code = crate::close::CloseCode::Shutdown.var();
        self.quinn.close(code, b"the client is done");
        if let Some(farewell) = &self.farewell {
            farewell.notify_one();
        }
    }
}

/// Ends calls whose deadline has passed and links whose node fell silent.
/// Rests while no call waits.
async fn sweep(pool: std::sync::Weak<Inner>, shared: Arc<Shared>) {
    loop {
        let Some(inner) = pool.upgrade() else {
            return;
        };
        let links: Vec<Arc<Link>> = lock(&inner.links).values().cloned().collect();
        drop(inner);
        let now = Instant::now();
        let mut waiting = 0;
        for link in &links {
            waiting += link.sweep(now, shared.options.silence);
        }
        if waiting > 0 {
            tokio::time::sleep(SWEEP).await;
            continue;
        }
        shared.sweeping.store(false, Ordering::Release);
        // A call made between the count and the store found it sweeping and woke nobody.
        if links.iter().any(|link| link.is_waiting()) {
            shared.sweeping.store(true, Ordering::Release);
            continue;
        }
        shared.busy.notified().await;
    }
}

/// A socket that reaches IPv6 and IPv4 nodes, or IPv4 nodes where there is no IPv6;
/// from the address that was asked for, if one was.
fn client_endpoint(options: &PoolOptions) -> Result<quinn::Endpoint, RpcError> {
    let any = match options.local {
        Some(local) => [SocketAddr::from((local, 0)); 2],
        None => [
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        ],
    };
    let options = &options.transport;
    let (address, socket) = match options.socket(any[0]) {
        Ok(socket) => (any[0], socket),
        Err(_) => (any[1], options.socket(any[1])?),
    };
    quinn::Endpoint::new(options.endpoint(None)?, None, socket, transport::runtime())
        .map_err(|source| RpcError::Bind { address, source })
}

/// A pool's own thread, before it knows its endpoint.
struct OwnThread {
    farewell: Arc<Notify>,
    endpoint: std::sync::mpsc::Sender<quinn::Endpoint>,
}

impl OwnThread {
    /// The thread closes this endpoint in order when it ends.
    fn hand_over(self, endpoint: quinn::Endpoint) -> Arc<Notify> {
        // The thread lives until it is notified, so the channel is open.
        let _ = self.endpoint.send(endpoint);
        self.farewell
    }
}

/// Starts a thread with a `current_thread` runtime.
fn own_thread() -> std::io::Result<(Handle, OwnThread)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    let farewell = Arc::new(Notify::new());
    let (endpoint, received) = std::sync::mpsc::channel::<quinn::Endpoint>();
    let ended = farewell.clone();
    std::thread::Builder::new()
        .name("synod-client".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                ended.notified().await;
                if let Ok(endpoint) = received.try_recv() {
                    // Nobody waits for this thread; late farewells are only a courtesy.
                    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
                }
            });
        })?;
    Ok((handle, OwnThread { farewell, endpoint }))
}
