//! The queue between the tasks that read and the loop that steps: filled by
//! the former, drained wholly by the latter, bounded in bytes.

use crate::cert::CertRole;
use crate::wire::ClientFrame;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use synod_paxos::{Incarnation, NodeId};
use synod_shard::NodeMessage;
use tokio::sync::Notify;

/// Something that reached this node.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all events are of the two large kinds; a box each would only cost"
)]
pub enum Event {
    /// A node's messages, in the order sent (per lane).
    PeerFrame {
        /// The node.
        from: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
        /// The messages.
        messages: Vec<NodeMessage>,
    },
    /// A frame of a client.
    Client {
        /// The request stream it came on; answers go there. Never reused.
        connection: u64,
        /// The name in the certificate.
        user: Arc<str>,
        /// The role in the certificate; nodes ask each other too.
        role: CertRole,
        /// The frame.
        frame: ClientFrame,
    },
    /// A request stream ended; answers to it go nowhere. Comes once per
    /// `connection` that an [`Event::Client`] was seen from.
    ClientGone {
        /// The request stream.
        connection: u64,
    },
    /// A node's consensus stream reaches us.
    PeerUp {
        /// The node.
        node: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
        /// The name in its certificate.
        name: Arc<str>,
    },
    /// That stream ended and no younger one has taken its place.
    PeerDown {
        /// The node.
        node: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
    },
}

#[derive(Debug, Default)]
struct Inner {
    events: Vec<Event>,
    bytes: usize,
}

/// The queue's two ends; clones share it. One task at a time may wait.
#[derive(Clone, Debug)]
pub struct EventQueue {
    inner: Arc<Mutex<Inner>>,
    filled: Arc<Notify>,
    drained: Arc<Notify>,
    bound: usize,
}

impl EventQueue {
    pub(crate) fn new(bound: usize) -> EventQueue {
        EventQueue {
            inner: Arc::default(),
            filled: Arc::default(),
            drained: Arc::default(),
            bound,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once there is something to drain, at once if there is already.
    pub async fn wait(&self) {
        while self.lock().events.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Appends everything queued to `into`.
    pub fn drain(&self, into: &mut Vec<Event>) {
        let full = {
            let mut inner = self.lock();
            into.append(&mut inner.events);
            std::mem::take(&mut inner.bytes) >= self.bound
        };
        if full {
            self.drained.notify_waiters();
        }
    }

    /// Appends events that took `bytes` on the wire, and wakes the loop once.
    pub(crate) fn push(&self, events: &mut Vec<Event>, bytes: usize) {
        if events.is_empty() {
            return;
        }
        let was_empty = {
            let mut inner = self.lock();
            let was_empty = inner.events.is_empty();
            inner.events.append(events);
            inner.bytes += bytes;
            was_empty
        };
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits while the queue is full. Readers call it between chunks, so a slow
    /// loop slows its peers down by QUIC's flow control instead of growing.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.lock().bytes < self.bound {
                return;
            }
            drained.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn gone(connection: u64) -> Vec<Event> {
        vec![Event::ClientGone { connection }]
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_full_queue_holds_its_readers_until_it_is_drained() {
        let queue = EventQueue::new(10);
        let mut waiting = pin!(queue.wait());
        assert!(poll(waiting.as_mut()).is_pending());
        queue.push(&mut gone(1), 9);
        assert!(poll(waiting.as_mut()).is_ready());
        assert!(poll(pin!(queue.room())).is_ready(), "9 of 10 bytes");
        queue.push(&mut gone(2), 9);
        let mut room = pin!(queue.room());
        assert!(poll(room.as_mut()).is_pending());
        let mut events = Vec::new();
        queue.drain(&mut events);
        assert_eq!(events, [gone(1), gone(2)].concat());
        assert!(poll(room.as_mut()).is_ready());
        assert!(poll(pin!(queue.wait())).is_pending(), "nothing is left");
    }
}
