//! The task behind a client's link: connects when there is a call, writes what
//! is queued, reads answers, and connects again.

use crate::cert::{CertRole, SERVER_NAME};
use crate::close::{CloseCode, Closed};
use crate::endpoint::lock;
use crate::error::CallError;
use crate::frame::{self, FrameReader};
use crate::hello::{StreamHello, StreamKind};
use crate::link::Link;
use crate::pool::Shared;
use crate::tls;
use crate::transport::{BACKOFF, READ_CHUNKS};
use crate::wire::ServerFrame;
use bytes::{Bytes, BytesMut};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Answers whoever still waits when the task ends, also with its runtime.
struct Ending(Arc<Link>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A node that shut down is tried again this often, and for so long, without
/// anybody asking for it.
const RETURN_PAUSE: Duration = Duration::from_millis(200);
const RETURN_WAIT: Duration = Duration::from_secs(60);

/// Connects when there is a call, serves, and connects again.
pub(crate) async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let _ending = Ending(link.clone());
    let address = link.address;
    let mut backoff = BACKOFF.0;
    // Since when the node has been gone that said good-bye.
    let mut left: Option<Instant> = None;
    while link.work().await {
        match dial(&shared, address).await {
            Ok(connection) => {
                let began = Instant::now();
                left = None;
                if !link.connected(&connection) {
                    connection.close(CloseCode::Shutdown.var(), b"the client is done");
                    return;
                }
                let closed = serve(&shared, &link, &connection).await;
                if closed.refused {
                    link.fail_all(&CallError::Refused {
                        address,
                        reason: closed.reason,
                    });
                } else if closed.left {
                    link.leave(&closed.reason);
                    left = Some(Instant::now());
                } else {
                    link.disconnected(&closed.reason);
                    if began.elapsed() > BACKOFF.1 {
                        // It worked for a while: no reason to hesitate.
                        backoff = BACKOFF.0;
                        continue;
                    }
                }
            }
            Err(error) => link.fail_all(&error),
        }
        match left {
            Some(since) if since.elapsed() < RETURN_WAIT => sleep(RETURN_PAUSE).await,
            Some(_) => {
                link.give_up();
                left = None;
            }
            None => {
                // Calls made meanwhile wait for the next attempt.
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
    }
}

async fn dial(shared: &Shared, address: SocketAddr) -> Result<quinn::Connection, CallError> {
    let failed = |reason: String| CallError::Connect { address, reason };
    let connector = lock(&shared.connector).clone();
    let connecting = shared
        .quinn
        .connect_with(connector, address, SERVER_NAME)
        .map_err(|e| failed(e.to_string()))?;
    let connection = timeout(shared.options.transport.connect, connecting)
        .await
        .map_err(|_| failed("no answer; is the node running, and the address right?".to_owned()))?
        .map_err(|e| {
            let Closed {
                reason, refused, ..
            } = Closed::of(&e);
            if refused {
                CallError::Refused { address, reason }
            } else {
                failed(reason)
            }
        })?;
    match tls::peer_subject(&connection) {
        Ok(subject) if subject.role == CertRole::Node => Ok(connection),
        other => {
            let who = other.map_or_else(|e| e.to_string(), |s| s.to_string());
            let reason = format!("{who} answered where a node was expected");
            connection.close(CloseCode::WrongRole.var(), reason.as_bytes());
            Err(CallError::Refused { address, reason })
        }
    }
}

/// Why a stream ended.
enum Ended {
    /// With its connection.
    Connection(ConnectionError),
    /// Alone.
    Stream(String),
}

impl From<WriteError> for Ended {
    fn from(error: WriteError) -> Ended {
        match error {
            WriteError::ConnectionLost(error) => Ended::Connection(error),
            other => Ended::Stream(other.to_string()),
        }
    }
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Ended {
        match error {
            ReadError::ConnectionLost(error) => Ended::Connection(error),
            other => Ended::Stream(other.to_string()),
        }
    }
}

/// Serves calls until the connection ends; a stream that ends alone is replaced.
async fn serve(shared: &Shared, link: &Link, connection: &quinn::Connection) -> Closed {
    loop {
        let ended = match connection.open_bi().await {
            Ok((mut send, mut recv)) => {
                tokio::select! {
                    ended = write(shared, link, &mut send) => ended,
                    ended = read(link, &mut recv) => ended,
                }
            }
            Err(error) => Ended::Connection(error),
        };
        match ended {
            Ended::Connection(error) => return Closed::of(&error),
            Ended::Stream(reason) => {
                link.fail_sent(&format!("the stream ended: {reason}"));
                tokio::select! {
                    () = sleep(BACKOFF.0) => {}
                    error = connection.closed() => return Closed::of(&error),
                }
            }
        }
    }
}

async fn write(shared: &Shared, link: &Link, send: &mut SendStream) -> Ended {
    let mut hello = BytesMut::new();
    StreamHello {
        cluster: shared.cluster,
        kind: StreamKind::Requests,
    }
    .encode(&mut hello);
    if let Err(error) = send.write_chunk(hello.freeze()).await {
        return error.into();
    }
    loop {
        let batch = link.take();
        if batch.is_empty() {
            link.wake.notified().await;
        } else if let Err(error) = send.write_chunk(batch).await {
            return error.into();
        }
    }
}

async fn read(link: &Link, recv: &mut RecvStream) -> Ended {
    let mut chunks: [Bytes; READ_CHUNKS] = Default::default();
    let mut reader = FrameReader::default();
    let mut answers = Vec::new();
    loop {
        let count = match recv.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) => return Ended::Stream("finished by the node".to_owned()),
            Err(error) => return error.into(),
        };
        for chunk in &mut chunks[..count] {
            reader.push(&std::mem::take(chunk));
        }
        let outcome = loop {
            match reader.next_frame() {
                Ok(None) => break Ok(()),
                Ok(Some(body)) => match frame::decode::<ServerFrame>(&body) {
                    Ok(answer) => answers.push(answer),
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        link.deliver(&mut answers);
        if let Err(error) = outcome {
            let _ = recv.stop(CloseCode::BadFrame.var());
            return Ended::Stream(error.to_string());
        }
    }
}
