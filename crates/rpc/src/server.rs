//! The accepting side: connections and the streams on them.

use crate::cert::{CertRole, Subject};
use crate::close::{CloseCode, Closed};
use crate::endpoint::{Inbound, Shared, count, lock};
use crate::events::{Event, Kind};
use crate::frame::{self, FrameReader, HEADER_BYTES};
use crate::hello::{PREFIX_BYTES, Speaker, StreamHello, StreamKind};
use crate::reader::{StreamReader, bad_frame};
use crate::replies::ReplyQueue;
use crate::tls;
use crate::wire::ClientFrame;
use quinn::{RecvStream, SendStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use synod_shard::NodeMessage;
use tokio::time::timeout;

/// A stream's hello must come within this.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections beyond the bound that only the addresses of peers are given.
const KEPT_FOR_PEERS: usize = 1024;

/// Why something is refused.
pub(crate) type Refused = (CloseCode, String);

/// Counts an accepted connection while it lives.
struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until the endpoint closes.
pub(crate) async fn accept(shared: Arc<Shared>) {
    while let Some(incoming) = shared.quinn.accept().await {
        // A house full of clients must not keep the peers out.
        let open = shared.open.load(Ordering::Relaxed);
        let more = if shared.is_peer_address(incoming.remote_address()) {
            KEPT_FOR_PEERS
        } else {
            0
        };
        if open >= shared.options.max_connections + more {
            count(&shared.counts.refused, 1);
            incoming.refuse();
            continue;
        }
        shared.open.fetch_add(1, Ordering::Relaxed);
        let shared = shared.clone();
        tokio::spawn(async move {
            let _open = Open(&shared.open);
            connection(&shared, incoming).await;
        });
    }
}

async fn connection(shared: &Arc<Shared>, incoming: quinn::Incoming) {
    let address = incoming.remote_address();
    let refuse = |reason: &str| {
        count(&shared.counts.refused, 1);
        tracing::warn!(%address, reason, "refused a connection");
    };
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return refuse(&Closed::of(&error).reason),
    };
    let connection = match timeout(shared.options.transport.connect, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return refuse(&Closed::of(&error).reason),
        Err(_) => return refuse("the handshake took too long"),
    };
    let subject = match tls::peer_subject(&connection) {
        Ok(subject) => subject,
        Err(error) => {
            let reason = error.to_string();
            connection.close(CloseCode::WrongRole.var(), reason.as_bytes());
            return refuse(&reason);
        }
    };
    let _tracked = shared.track(&connection);
    // No user's name has a colon: what nodes ask each other is told apart from what users ask.
    let user: Arc<str> = match subject.role {
        CertRole::User => subject.name.as_str().into(),
        CertRole::Node => subject.to_string().into(),
    };
    loop {
        let accepted = Accepted {
            shared: shared.clone(),
            connection: connection.clone(),
            subject: subject.clone(),
            user: user.clone(),
        };
        // The transport allows a few streams at once, so the tasks are few.
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(recv) => { tokio::spawn(accepted.node_stream(recv)); }
                Err(_) => break,
            },
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => { tokio::spawn(accepted.request_stream(send, recv)); }
                Err(_) => break,
            },
        }
    }
}

/// An accepted connection, as its streams need it.
struct Accepted {
    shared: Arc<Shared>,
    connection: quinn::Connection,
    subject: Subject,
    user: Arc<str>,
}

impl Accepted {
    /// A stream from a node: messages, no answers.
    async fn node_stream(self, mut recv: RecvStream) {
        let outcome = match self.hello(&mut recv).await {
            Ok(StreamKind::Consensus(speaker)) => self.consensus(speaker, &mut recv).await,
            Ok(StreamKind::Bulk(speaker)) => match self.admit(speaker) {
                Ok(()) => self.messages(speaker, &mut recv).await,
                Err(refused) => Err(refused),
            },
            Ok(StreamKind::Requests) => Err((
                CloseCode::BadHello,
                "requests need a stream both ways".to_owned(),
            )),
            Err(refused) => Err(refused),
        };
        if let Err(refused) = outcome {
            let code = self.refuse(refused);
            let _ = recv.stop(code.var());
        }
    }

    /// A client's stream: requests in, answers out.
    async fn request_stream(self, mut send: SendStream, mut recv: RecvStream) {
        let outcome = match self.hello(&mut recv).await {
            Ok(StreamKind::Requests) => {
                let id = self.shared.stream_id();
                let queue = Arc::new(ReplyQueue::new(self.connection.clone()));
                lock(&self.shared.replies).insert(id, queue.clone());
                let outcome = tokio::select! {
                    outcome = self.requests(id, &queue, &mut recv) => outcome,
                    () = queue.write(&self.shared, &mut send) => Ok(()),
                };
                lock(&self.shared.replies).remove(&id);
                if queue.close(&self.shared) {
                    let mut gone = vec![Event::ClientGone { connection: id }];
                    self.shared.events.push(&mut gone, 0);
                }
                outcome
            }
            Ok(_) => Err((
                CloseCode::BadHello,
                "messages of nodes need a stream one way".to_owned(),
            )),
            Err(refused) => Err(refused),
        };
        if let Err(refused) = outcome {
            let code = self.refuse(refused);
            let _ = recv.stop(code.var());
            let _ = send.reset(code.var());
        }
    }

    /// Acts on a refusal: what concerns one stream ends the stream (the caller
    /// does it), what concerns the other side as such ends its connection.
    fn refuse(&self, (code, reason): Refused) -> CloseCode {
        let address = self.connection.remote_address();
        tracing::warn!(peer = %self.subject, %address, %reason, "refused");
        match code {
            CloseCode::BadFrame | CloseCode::BadHello => {
                count(&self.shared.counts.bad_frames, 1);
            }
            _ => {
                count(&self.shared.counts.refused, 1);
                self.connection.close(code.var(), reason.as_bytes());
            }
        }
        code
    }

    /// Reads the hello and checks what every stream must have.
    async fn hello(&self, recv: &mut RecvStream) -> Result<StreamKind, Refused> {
        let bad = |reason: &str| (CloseCode::BadHello, reason.to_owned());
        let read = async {
            let mut prefix = [0; PREFIX_BYTES + HEADER_BYTES];
            recv.read_exact(&mut prefix)
                .await
                .map_err(|_| bad("the stream ended before its hello"))?;
            let mut body = vec![0; StreamHello::check_prefix(&prefix)?];
            recv.read_exact(&mut body)
                .await
                .map_err(|_| bad("the stream ended within its hello"))?;
            StreamHello::decode(&body)
        };
        let hello = timeout(HELLO_TIMEOUT, read)
            .await
            .map_err(|_| bad("the hello did not come in time"))??;
        if hello.cluster != self.shared.cluster {
            return Err((
                CloseCode::WrongCluster,
                format!(
                    "this node belongs to cluster {}, you to {}: correct the address or the certificates",
                    uuid::Uuid::from_u128(self.shared.cluster),
                    uuid::Uuid::from_u128(hello.cluster)
                ),
            ));
        }
        Ok(hello.kind)
    }

    /// Whether the other side may speak as that node, to this one.
    fn admit(&self, speaker: Speaker) -> Result<(), Refused> {
        let own = self.shared.options.node;
        if self.subject.role != CertRole::Node {
            return Err((
                CloseCode::WrongRole,
                format!("{} is no node and may not speak as one", self.subject),
            ));
        }
        if speaker.to != own {
            return Err((
                CloseCode::WrongNode,
                format!(
                    "this is node {own}, not {}: that one has moved, or lost its directory (a wiped \
                     directory makes a new node, which is not a member)",
                    speaker.to
                ),
            ));
        }
        if speaker.from == own || !self.shared.name_fits(speaker.from, &self.subject.name) {
            return Err((
                CloseCode::WrongName,
                format!("{} may not speak as node {}", self.subject, speaker.from),
            ));
        }
        Ok(())
    }

    /// A consensus stream: its coming and going say whether the peer is up.
    async fn consensus(&self, speaker: Speaker, recv: &mut RecvStream) -> Result<(), Refused> {
        self.admit(speaker)?;
        let Speaker {
            from: node,
            incarnation,
            ..
        } = speaker;
        let stream = self.shared.stream_id();
        {
            let mut inbound = lock(&self.shared.inbound);
            if let Some(known) = inbound.get(&node)
                && known.incarnation > incarnation
            {
                return Err((
                    CloseCode::Stale,
                    format!("node {node} has restarted since: {} is over", incarnation),
                ));
            }
            inbound.insert(
                node,
                Inbound {
                    incarnation,
                    stream,
                },
            );
        }
        self.shared.heard(node, incarnation);
        let name = self.subject.name.as_str().into();
        let mut up = vec![Event::PeerUp {
            node,
            incarnation,
            name,
        }];
        self.shared.events.push(&mut up, 0);
        let outcome = self.messages(speaker, recv).await;
        let latest = lock(&self.shared.inbound)
            .get(&node)
            .is_some_and(|i| i.stream == stream);
        if latest {
            let mut down = vec![Event::PeerDown { node, incarnation }];
            self.shared.events.push(&mut down, 0);
        }
        outcome
    }

    /// Reads messages until the stream ends.
    async fn messages(&self, speaker: Speaker, recv: &mut RecvStream) -> Result<(), Refused> {
        let mut reader = StreamReader::new(&self.shared, FrameReader::default());
        let mut events = Vec::new();
        while reader.fill(Kind::Peers, recv).await? {
            let outcome = loop {
                let body = match reader.next() {
                    Ok(Some(body)) => body,
                    Ok(None) => break Ok(()),
                    Err(refused) => break Err(refused),
                };
                let mut messages: Vec<NodeMessage> = Vec::new();
                if let Err(error) = frame::decode_all(&body, &mut messages) {
                    break Err(bad_frame(error));
                }
                events.push(Event::PeerFrame {
                    from: speaker.from,
                    incarnation: speaker.incarnation,
                    messages,
                });
            };
            // What came before a bad frame was good, and counts.
            self.shared.events.push(&mut events, reader.taken());
            outcome?;
        }
        Ok(())
    }

    /// Reads requests until the stream ends.
    async fn requests(
        &self,
        id: u64,
        queue: &Arc<ReplyQueue>,
        recv: &mut RecvStream,
    ) -> Result<(), Refused> {
        let mut reader = StreamReader::new(&self.shared, FrameReader::of_requests());
        let mut events = Vec::new();
        while reader.fill(Kind::Clients, recv).await? {
            let outcome = loop {
                let frame = match reader.next() {
                    Ok(Some(body)) => ClientFrame::decode(&body).map_err(bad_frame),
                    Ok(None) => break Ok(()),
                    Err(refused) => Err(refused),
                };
                match frame.and_then(|frame| queue.admit(&self.shared, frame)) {
                    Ok(Some(frame)) => events.push(Event::Client {
                        connection: id,
                        user: self.user.clone(),
                        frame,
                    }),
                    Ok(None) => {}
                    Err(refused) => break Err(refused),
                }
            };
            // What came before a bad frame was good, and counts.
            self.shared.events.push(&mut events, reader.taken());
            outcome?;
        }
        Ok(())
    }
}
