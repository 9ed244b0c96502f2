//! What the tests share: certificates, nodes that echo, and a client without manners.
#![allow(dead_code, missing_docs)]

use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_paxos::{Ballot, GroupId, Incarnation, Message, NodeId, Slot, Term, Timestamp};
use synod_rpc::cert::{self, Validity};
use synod_rpc::hello::{Speaker, StreamHello, StreamKind};
use synod_rpc::{
    CallError, CertRole, ClientFrame, Endpoint, EndpointOptions, Event, EventQueue, NodeRequest,
    NodeResponse, Pool, PoolOptions, RequestBody, ServerBody, ServerFrame, TlsIdentity,
};
use synod_shard::{NodeMessage, ShardReply, ShardRequest};
use synod_txn::{AttemptId, Request, Response, Version};
use tempfile::TempDir;

pub const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A CA with nodes a, b, c and the user ann.
pub fn certificates() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    cert::create_ca(dir.path(), "test").expect("a CA");
    for name in ["a", "b", "c"] {
        cert::issue_node(dir.path(), name, &Validity::default()).expect("a node");
    }
    cert::issue_user(dir.path(), "ann", &Validity::default()).expect("a user");
    dir
}

pub fn node_identity(dir: &Path, name: &str) -> TlsIdentity {
    TlsIdentity::from_dir(dir, CertRole::Node, name).expect("a node's identity")
}

pub fn user_identity(dir: &Path) -> TlsIdentity {
    TlsIdentity::from_dir(dir, CertRole::User, "ann").expect("a user's identity")
}

pub fn options(node: u64, incarnation: u64) -> EndpointOptions {
    EndpointOptions::new(NodeId(node), Incarnation(incarnation))
}

pub fn bind(dir: &Path, name: &str, options: EndpointOptions) -> (Endpoint, SocketAddr) {
    bind_at(dir, name, options, LOOPBACK)
}

pub fn bind_at(
    dir: &Path,
    name: &str,
    options: EndpointOptions,
    address: SocketAddr,
) -> (Endpoint, SocketAddr) {
    Endpoint::bind(address, &node_identity(dir, name), options).expect("binds")
}

pub fn pool(dir: &Path) -> Pool {
    Pool::new(&user_identity(dir), PoolOptions::default()).expect("a pool")
}

pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// A read of one key; the echo answers with the key as its value.
pub fn ask(key: impl Into<Bytes>) -> RequestBody {
    RequestBody::Shard(ShardRequest {
        shard: GroupId(2),
        generation: 1,
        request: Request::Latest {
            keys: vec![key.into()],
            scan: None,
        },
        hashing: None,
    })
}

pub fn answered(body: &ServerBody) -> Bytes {
    match body {
        ServerBody::Shard(ShardReply::Response(Response::Read { versions, .. })) => {
            versions[0].clone().and_then(|v| v.value).expect("a value")
        }
        other => panic!("not an echo: {other:?}"),
    }
}

/// What the echo says to a frame.
pub fn echo_of(frame: &ClientFrame) -> Option<ServerFrame> {
    match frame {
        ClientFrame::Request { id, request } => {
            let Request::Latest { keys, .. } = &request.request else {
                return None;
            };
            let versions = keys
                .iter()
                .map(|key| {
                    Some(Version {
                        value: Some(key.clone()),
                        timestamp: Timestamp(1),
                        attempt: AttemptId(1),
                    })
                })
                .collect();
            Some(ServerFrame::Response {
                id: *id,
                reply: ShardReply::Response(Response::Read {
                    term: Term::default(),
                    session: None,
                    versions,
                    rows: Vec::new(),
                    more: false,
                    now: Timestamp(1),
                }),
            })
        }
        ClientFrame::Node {
            id,
            request: NodeRequest::Info,
        } => Some(ServerFrame::Node {
            id: *id,
            response: NodeResponse::Done,
        }),
        _ => None,
    }
}

/// Answers everything that can be echoed, for ever.
pub async fn echo(endpoint: &Endpoint) {
    let queue = endpoint.events();
    let mut events = Vec::new();
    loop {
        queue.wait().await;
        queue.drain(&mut events);
        for event in events.drain(..) {
            if let Event::Client {
                connection, frame, ..
            } = event
                && let Some(answer) = echo_of(&frame)
            {
                endpoint.reply(connection, &answer);
            }
        }
    }
}

/// The next event that `pick` takes, within reason.
pub async fn next<T>(queue: &EventQueue, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    let mut events = Vec::new();
    let search = async {
        loop {
            queue.wait().await;
            queue.drain(&mut events);
            if let Some(found) = events.drain(..).find_map(&mut pick) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, search)
        .await
        .expect("the event comes in time")
}

/// Polls until `check` holds, within reason.
pub async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = soon();
    while !check() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A message that carries a number.
pub fn message(number: u64) -> NodeMessage {
    NodeMessage::Group {
        group: GroupId(7),
        message: Message::Decided {
            ballot: Ballot::default(),
            slot: Slot(number),
        },
    }
}

/// The numbers in messages made by [`message`].
pub fn numbers(messages: &[NodeMessage]) -> Vec<u64> {
    messages
        .iter()
        .map(|m| match m {
            NodeMessage::Group {
                message: Message::Decided { slot, .. },
                ..
            } => slot.0,
            other => panic!("unexpected {other:?}"),
        })
        .collect()
}

/// A bare QUIC client with some certificate, for what the pool would never do.
pub async fn raw(dir: &Path, files: &str, to: SocketAddr) -> quinn::Connection {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(dir.join("ca.crt")).expect("a CA"))
        .expect("a CA");
    let chain = vec![CertificateDer::from_pem_file(dir.join(format!("{files}.crt"))).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(dir.join(format!("{files}.key"))).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("a pair");
    tls.alpn_protocols = vec![synod_rpc::tls::ALPN.to_vec()];
    let quic = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("QUIC");
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    // Less in flight than a socket's buffer holds: nothing is lost on the way.
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(quinn::VarInt::from_u32(64 << 10));
    transport.keep_alive_interval(Some(Duration::from_secs(1)));
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client(LOOPBACK).expect("a socket");
    endpoint
        .connect_with(config, to, cert::SERVER_NAME)
        .expect("connects")
        .await
        .expect("connects")
}

pub fn hello(cluster: u128, kind: StreamKind) -> Bytes {
    let mut out = BytesMut::new();
    StreamHello { cluster, kind }.encode(&mut out);
    out.freeze()
}

pub const fn speaker(from: u64, incarnation: u64, to: u64) -> Speaker {
    Speaker {
        from: NodeId(from),
        incarnation: Incarnation(incarnation),
        to: NodeId(to),
    }
}

/// A node that echoes, in a thread and runtime of its own, so that it can be
/// killed without a farewell.
pub struct Victim {
    kill: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    pub address: SocketAddr,
}

impl Victim {
    pub fn start(dir: &Path, address: SocketAddr, incarnation: u64) -> Victim {
        let identity = node_identity(dir, "b");
        let (kill, killed) = tokio::sync::oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let endpoint = runtime.block_on(async {
                let (endpoint, address) =
                    Endpoint::bind(address, &identity, options(2, incarnation)).expect("binds");
                tell.send(address).expect("somebody listens");
                tokio::select! {
                    () = echo(&endpoint) => {}
                    _ = killed => {}
                }
                endpoint
            });
            // Without its runtime the endpoint can send nothing more.
            drop(runtime);
            drop(endpoint);
        });
        Victim {
            kill: Some(kill),
            thread: Some(thread),
            address: told.recv().expect("bound"),
        }
    }

    pub fn kill(&mut self) {
        if let Some(kill) = self.kill.take() {
            let _ = kill.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Calls until it is answered; returns the errors on the way.
pub async fn insist(pool: &Pool, to: SocketAddr) -> Vec<CallError> {
    let mut errors = Vec::new();
    let deadline = soon();
    loop {
        match pool.call(to, ask("x"), deadline).await {
            Ok(body) => {
                assert_eq!(answered(&body), "x");
                return errors;
            }
            Err(error) => errors.push(error),
        }
        assert!(Instant::now() < deadline, "in vain: {errors:?}");
    }
}

/// The connection and number of a request to a shard.
pub fn asked(event: Event) -> Option<(u64, u64)> {
    match event {
        Event::Client {
            connection,
            frame: ClientFrame::Request { id, .. },
            ..
        } => Some((connection, id)),
        _ => None,
    }
}
