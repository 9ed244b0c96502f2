//! The UDP socket under quinn, as the system should wake us for it.
//!
//! quinn's own socket waits for two things at once: datagrams, and room to send.
//! Room there nearly always is; but whenever a datagram has left, the system tells
//! of the room it left, and the loop goes round for nothing, once per datagram.
//! Here the system is asked about room only while a send has failed for want of it.
//!
//! And a read that did not fill all its buffers has emptied the socket: no second
//! one is needed to hear so.

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use std::future::Future;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// tokio, with sockets of this kind.
#[derive(Debug)]
pub(crate) struct QuietRuntime;

impl Runtime for QuietRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(quiet(socket)?)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

fn quiet(socket: UdpSocket) -> io::Result<Arc<QuietSocket>> {
    socket.set_nonblocking(true)?;
    Ok(Arc::new(QuietSocket {
        state: UdpSocketState::new((&socket).into())?,
        io: register(socket, Interest::READABLE)?,
        blocked: AtomicBool::new(false),
    }))
}

fn register(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: a `UdpSocket` owns its descriptor, which stays open and the same for
    // as long as it lives; here that is in the `AsyncFd`, which lends it only shared.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

#[derive(Debug)]
struct QuietSocket {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// The last send found no room.
    blocked: AtomicBool,
}

impl AsyncUdpSocket for QuietSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller {
            socket: self,
            room: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.io.get_ref().into(), transmit);
        if let Err(error) = &sent
            && error.kind() == ErrorKind::WouldBlock
        {
            self.blocked.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let room = bufs.len().min(meta.len());
        loop {
            let mut ready = ready!(self.io.poll_read_ready(cx))?;
            match self.state.recv(self.io.get_ref().into(), bufs, meta) {
                Ok(count) => {
                    if count < room {
                        // Empty. What comes from now on is a new event, even if it
                        // came between the read and this line.
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

/// Waits for room on behalf of one connection.
#[derive(Debug)]
struct Poller {
    socket: Arc<QuietSocket>,
    /// The socket once more, registered for room, while there is none.
    room: Option<AsyncFd<UdpSocket>>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.room.is_none() {
            if !self.socket.blocked.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            // A new registration is told of room that is there already.
            let again = self.socket.io.get_ref().try_clone()?;
            self.room = Some(register(again, Interest::WRITABLE)?);
        }
        if let Some(room) = &self.room {
            ready!(room.poll_write_ready(cx))?.retain_ready();
        }
        self.room = None;
        self.socket.blocked.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    fn transmit(to: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        }
    }

    async fn receive(socket: &Arc<dyn AsyncUdpSocket>) -> io::Result<usize> {
        let mut memory = vec![0u8; 4 * 70_000];
        let mut buffers: Vec<IoSliceMut<'_>> =
            memory.chunks_mut(70_000).map(IoSliceMut::new).collect();
        let mut metas = [RecvMeta::default(); 4];
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut metas)).await?;
        Ok(metas[..count]
            .iter()
            .map(|meta| meta.len.div_ceil(meta.stride.max(1)))
            .sum())
    }

    fn socket() -> Arc<dyn AsyncUdpSocket> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        QuietRuntime.wrap_udp_socket(socket).unwrap()
    }

    #[tokio::test]
    async fn what_comes_after_the_socket_was_emptied_is_heard_of() {
        let (ours, theirs) = (socket(), socket());
        let to = ours.local_addr().unwrap();
        for round in 1..=200usize {
            // More than one read takes, now and then.
            let many = if round % 10 == 0 { 9 } else { 1 };
            for _ in 0..many {
                theirs.try_send(&transmit(to, b"datagram")).unwrap();
            }
            let mut heard = 0;
            while heard < many {
                let next = tokio::time::timeout(Duration::from_secs(10), receive(&ours));
                heard += next.await.expect("an event").unwrap();
            }
            assert_eq!(heard, many);
        }
    }

    #[tokio::test]
    async fn after_a_send_without_room_the_system_is_asked_for_it() {
        let ours = quiet(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let mut poller = Poller {
            socket: ours.clone(),
            room: None,
        };
        let mut pinned = Pin::new(&mut poller);
        // A send to a process of this machine never lacks room, so it is said here.
        for _ in 0..3 {
            ours.blocked.store(true, Ordering::Relaxed);
            let room = poll_fn(|cx| pinned.as_mut().poll_writable(cx));
            let told = tokio::time::timeout(Duration::from_secs(10), room).await;
            told.expect("told of the room").unwrap();
            assert!(!ours.blocked.load(Ordering::Relaxed));
            assert!(pinned.room.is_none(), "and no longer asked");
        }
    }
}
