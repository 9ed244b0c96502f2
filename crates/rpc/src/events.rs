//! The queue between the tasks that read and the loop that steps: filled by
//! the former, drained by the latter, bounded in bytes. What nodes say goes before
//! what clients ask, so that no number of clients costs a lease.

use crate::wire::ClientFrame;
use std::collections::VecDeque;
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

/// Clients' events that one drain takes, about: however many wait, the loop comes
/// back to what its peers say, and to its timers, within milliseconds.
const CLIENTS_AT_ONCE: usize = 512;

/// Who is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nodes: never kept waiting by clients.
    Peers,
    /// Clients.
    Clients,
}

impl Event {
    fn kind(&self) -> Kind {
        match self {
            Event::Client { .. } | Event::ClientGone { .. } => Kind::Clients,
            Event::PeerFrame { .. } | Event::PeerUp { .. } | Event::PeerDown { .. } => Kind::Peers,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    peers: Vec<Event>,
    peer_bytes: usize,
    /// What was read together, and its bytes.
    clients: VecDeque<(Vec<Event>, usize)>,
    client_bytes: usize,
}

impl Inner {
    fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.clients.is_empty()
    }

    fn bytes(&self, kind: Kind) -> usize {
        match kind {
            Kind::Peers => self.peer_bytes,
            Kind::Clients => self.client_bytes,
        }
    }
}

/// The queue's two ends; clones share it. One task at a time may wait.
#[derive(Clone, Debug)]
pub struct EventQueue {
    inner: Arc<Mutex<Inner>>,
    filled: Arc<Notify>,
    drained: Arc<Notify>,
    peer_bound: usize,
    client_bound: usize,
}

impl EventQueue {
    pub(crate) fn new(peer_bound: usize, client_bound: usize) -> EventQueue {
        EventQueue {
            inner: Arc::default(),
            filled: Arc::default(),
            drained: Arc::default(),
            peer_bound,
            client_bound,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bound(&self, kind: Kind) -> usize {
        match kind {
            Kind::Peers => self.peer_bound,
            Kind::Clients => self.client_bound,
        }
    }

    /// Returns once there is something to drain, at once if there is already.
    pub async fn wait(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Whether there is nothing to drain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Appends what is queued to `into`: all that came from peers, and of what came
    /// from clients as much as may be handled at once.
    pub fn drain(&self, into: &mut Vec<Event>) {
        let freed = {
            let mut inner = self.lock();
            into.append(&mut inner.peers);
            let mut freed = std::mem::take(&mut inner.peer_bytes) >= self.peer_bound;
            let before = inner.client_bytes;
            let mut taken = 0;
            while taken < CLIENTS_AT_ONCE
                && let Some((mut events, bytes)) = inner.clients.pop_front()
            {
                taken += events.len();
                inner.client_bytes -= bytes;
                into.append(&mut events);
            }
            freed |= before >= self.client_bound && inner.client_bytes < self.client_bound;
            freed
        };
        if freed {
            self.drained.notify_waiters();
        }
    }

    /// Appends events of one kind that took `bytes` on the wire, and wakes the loop once.
    pub(crate) fn push(&self, events: &mut Vec<Event>, bytes: usize) {
        let Some(kind) = events.first().map(Event::kind) else {
            return;
        };
        let was_empty = {
            let mut inner = self.lock();
            let was_empty = inner.is_empty();
            match kind {
                Kind::Peers => {
                    inner.peers.append(events);
                    inner.peer_bytes += bytes;
                }
                Kind::Clients => {
                    inner.clients.push_back((std::mem::take(events), bytes));
                    inner.client_bytes += bytes;
                }
            }
            was_empty
        };
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits while the queue is full. Readers call it between chunks, so a slow
    /// loop slows the other sides down by QUIC's flow control instead of growing.
    pub(crate) async fn room(&self, kind: Kind) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.lock().bytes(kind) < self.bound(kind) {
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

    fn down(node: u64) -> Vec<Event> {
        vec![Event::PeerDown {
            node: NodeId(node),
            incarnation: Incarnation(1),
        }]
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_full_queue_holds_its_readers_until_it_is_drained() {
        let queue = EventQueue::new(10, 10);
        let mut waiting = pin!(queue.wait());
        assert!(poll(waiting.as_mut()).is_pending());
        queue.push(&mut gone(1), 9);
        assert!(poll(waiting.as_mut()).is_ready());
        assert!(
            poll(pin!(queue.room(Kind::Clients))).is_ready(),
            "9 of 10 bytes"
        );
        queue.push(&mut gone(2), 9);
        let mut room = pin!(queue.room(Kind::Clients));
        assert!(poll(room.as_mut()).is_pending());
        assert!(
            poll(pin!(queue.room(Kind::Peers))).is_ready(),
            "peers do not wait"
        );
        let mut events = Vec::new();
        queue.drain(&mut events);
        assert_eq!(events, [gone(1), gone(2)].concat());
        assert!(poll(room.as_mut()).is_ready());
        assert!(poll(pin!(queue.wait())).is_pending(), "nothing is left");
    }

    #[test]
    fn peers_go_before_any_number_of_clients() {
        let queue = EventQueue::new(1000, 1000);
        for number in 0..CLIENTS_AT_ONCE as u64 + 3 {
            queue.push(&mut gone(number), 1);
        }
        queue.push(&mut down(7), 1);
        let mut events = Vec::new();
        queue.drain(&mut events);
        assert_eq!(events.len(), CLIENTS_AT_ONCE + 1);
        assert_eq!(events[..1], down(7));
        assert!(poll(pin!(queue.wait())).is_ready(), "some are left");
        queue.drain(&mut events);
        assert_eq!(events.len(), CLIENTS_AT_ONCE + 4);
        assert!(queue.is_empty());
    }
}
