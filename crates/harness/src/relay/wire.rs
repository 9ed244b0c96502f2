//! Packets on their way: sent when they are due, in the order in which they are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Packets under way at once, at most; more are lost.
const MAX_PACKETS: usize = 65_536;

/// A packet, and whence and whither it leaves the relay.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) bytes: Arc<[u8]>,
    pub(super) socket: Arc<UdpSocket>,
    pub(super) to: SocketAddr,
}

/// A packet that waits, ordered by when it is due and then by its number.
struct Waiting {
    due: Instant,
    number: u64,
    packet: Packet,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// The way in.
#[derive(Debug)]
pub(super) struct Wire {
    sender: mpsc::Sender<Waiting>,
    next: AtomicU64,
}

impl Wire {
    /// Sends a packet when it is due; over the bound it is lost.
    pub(super) fn send(&self, due: Instant, packet: Packet) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let _ = self.sender.try_send(Waiting {
            due,
            number,
            packet,
        });
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "packet {} to {}", self.number, self.packet.to)
    }
}

/// A wire, and what has to run for it.
pub(super) fn make() -> (Wire, impl Future<Output = ()> + Send) {
    let (sender, receiver) = mpsc::channel(MAX_PACKETS);
    let wire = Wire {
        sender,
        next: AtomicU64::new(0),
    };
    (wire, run(receiver))
}

async fn run(mut receiver: mpsc::Receiver<Waiting>) {
    let mut waiting: BinaryHeap<Reverse<Waiting>> = BinaryHeap::new();
    loop {
        while let Some(Reverse(next)) = waiting.peek() {
            if next.due > Instant::now() {
                break;
            }
            if let Some(Reverse(Waiting { packet, .. })) = waiting.pop() {
                // A new socket is not known to be writable before it has been waited for.
                // A node that is not there: lost, as in a network.
                let _ = packet.socket.send_to(&packet.bytes, packet.to).await;
            }
        }
        let due = waiting.peek().map(|Reverse(next)| next.due);
        let idle = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            more = receiver.recv() => match more {
                Some(more) if waiting.len() < MAX_PACKETS => waiting.push(Reverse(more)),
                Some(_) => {}
                None => return,
            },
            () = idle => {}
        }
    }
}
