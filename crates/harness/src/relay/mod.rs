//! A network between real processes: every packet between nodes, and between
//! clients and nodes, passes a relay on this machine that can lose, delay,
//! double and reorder it, per direction of each link.
//!
//! Each node has a *front*: the address it advertises. Who sends to a front is
//! known by its address (a node sends everything from the one it listens on; the
//! clients of a *site* from an address that [`Relay::site`] has named; everybody
//! else is a client of no site), and is given a *back* socket of its own, from
//! which the node receives, and to which it answers:
//!
//! ```text
//! n1 ──► front of n2 ──(link n1→n2)──► back of (n1, n2) ──► n2
//! n1 ◄── front of n2 ◄─(link n2→n1)─── back of (n1, n2) ◄── n2
//! ```

mod link;
mod wire;

pub use link::Link;

use link::Direction;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use wire::{Packet, Wire};

/// Bytes of the largest packet.
const PACKET_BYTES: usize = 65_536;
/// Clients' addresses that one front serves, at most; packets of others are lost.
const MAX_SOURCES: usize = 20_000;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// A node, by its number.
    Node(usize),
    /// The clients of a site, by its number.
    Site(usize),
    /// All clients of no site.
    Clients,
}

/// A running relay; dropping it ends it, and nothing passes any more.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    fronts: Vec<SocketAddr>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    /// Where each node listens.
    nodes: Mutex<Vec<SocketAddr>>,
    /// From where the clients of each site send.
    sites: Mutex<Vec<IpAddr>>,
    links: Mutex<HashMap<(End, End), Direction>>,
    wire: Wire,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves no change half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn end(&self, address: SocketAddr) -> End {
        let nodes = lock(&self.nodes);
        if let Some(node) = nodes.iter().position(|listens| *listens == address) {
            return End::Node(node);
        }
        let sites = lock(&self.sites);
        let site = sites.iter().position(|from| *from == address.ip());
        site.map_or(End::Clients, End::Site)
    }

    fn with<T>(&self, from: End, to: End, run: impl FnOnce(&mut Direction) -> T) -> T {
        let number = |end| match end {
            End::Node(number) => number as u64,
            End::Clients => 0xffff,
            End::Site(number) => 0x8000 + number as u64,
        };
        let seed =
            self.seed ^ ((number(from) << 16) | number(to)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut links = lock(&self.links);
        let direction = links.entry((from, to));
        run(direction.or_insert_with(|| Direction::new(seed)))
    }

    /// Lets a packet take its chances.
    fn pass(&self, from: End, to: End, packet: Packet) {
        let now = Instant::now();
        let fates = self.with(from, to, |direction| {
            direction.fates(now, packet.bytes.len())
        });
        for due in fates {
            self.wire.send(due, packet.clone());
        }
    }
}

impl Relay {
    /// Starts a relay of `nodes` fronts on free loopback ports. Until
    /// [`Relay::listens`] says where a node is, nothing reaches it.
    ///
    /// # Errors
    /// When the system gives no socket or thread.
    pub fn start(nodes: usize, seed: u64) -> std::io::Result<Relay> {
        let mut sockets = Vec::new();
        let mut fronts = Vec::new();
        for _ in 0..nodes {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_nonblocking(true)?;
            fronts.push(socket.local_addr()?);
            sockets.push(socket);
        }
        let (wire, run_wire) = wire::make();
        let unset = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let shared = Arc::new(Shared {
            seed,
            nodes: Mutex::new(vec![unset; nodes]),
            sites: Mutex::default(),
            links: Mutex::default(),
            wire,
        });
        let stop = Arc::new(Notify::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (ended, of_thread) = (stop.clone(), shared.clone());
        let thread = std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::spawn(run_wire);
                    for (node, socket) in sockets.into_iter().enumerate() {
                        if let Ok(socket) = UdpSocket::from_std(socket) {
                            tokio::spawn(front(of_thread.clone(), node, Arc::new(socket)));
                        }
                    }
                    ended.notified().await;
                });
            })?;
        Ok(Relay {
            shared,
            fronts,
            stop,
            thread: Some(thread),
        })
    }

    /// The address at which a node is reached.
    #[must_use]
    pub fn front(&self, node: usize) -> SocketAddr {
        self.fronts[node]
    }

    /// Says where a node listens.
    pub fn listens(&self, node: usize, address: SocketAddr) {
        lock(&self.shared.nodes)[node] = address;
    }

    /// Names the next site: clients that send from this address, which no node has.
    /// Any of 127.0.0.0/8 will do, on Linux. Returns its end.
    pub fn site(&self, clients: IpAddr) -> End {
        let mut sites = lock(&self.shared.sites);
        sites.push(clients);
        End::Site(sites.len() - 1)
    }

    /// Sets one direction of a link, for packets sent from now on.
    pub fn set(&self, from: End, to: End, link: Link) {
        self.shared.with(from, to, |direction| direction.set(link));
    }

    /// Sets both directions of a link.
    pub fn set_both(&self, a: End, b: End, link: &Link) {
        self.set(a, b, link.clone());
        self.set(b, a, link.clone());
    }

    /// Sets all links between nodes.
    pub fn set_between_nodes(&self, link: &Link) {
        for a in 0..self.fronts.len() {
            for b in (0..self.fronts.len()).filter(|b| *b != a) {
                self.set(End::Node(a), End::Node(b), link.clone());
            }
        }
    }

    /// Sets all links to and from a node: those of other nodes, and of clients too
    /// if `clients`.
    pub fn set_around(&self, node: usize, link: &Link, clients: bool) {
        for other in (0..self.fronts.len()).filter(|other| *other != node) {
            self.set_both(End::Node(node), End::Node(other), link);
        }
        if clients {
            self.set_both(End::Node(node), End::Clients, link);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves one node's front.
async fn front(shared: Arc<Shared>, node: usize, socket: Arc<UdpSocket>) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; PACKET_BYTES];
    loop {
        // An error is that of an earlier send; the socket goes on.
        let Ok((bytes, source)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if !backs.contains_key(&source) {
            if backs.len() >= MAX_SOURCES {
                continue;
            }
            let Ok(back) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else {
                continue;
            };
            let back = Arc::new(back);
            backs.insert(source, back.clone());
            tokio::spawn(answers(shared.clone(), node, source, back, socket.clone()));
        }
        let to = lock(&shared.nodes)[node];
        let packet = Packet {
            bytes: buffer[..bytes].into(),
            socket: backs[&source].clone(),
            to,
        };
        shared.pass(shared.end(source), End::Node(node), packet);
    }
}

/// Takes a node's answers to one source.
async fn answers(
    shared: Arc<Shared>,
    node: usize,
    source: SocketAddr,
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
) {
    let mut buffer = vec![0; PACKET_BYTES];
    loop {
        let Ok((bytes, _)) = back.recv_from(&mut buffer).await else {
            continue;
        };
        let packet = Packet {
            bytes: buffer[..bytes].into(),
            socket: front.clone(),
            to: source,
        };
        shared.pass(End::Node(node), shared.end(source), packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::UdpSocket as StdSocket;
    use std::time::Duration;

    fn socket() -> StdSocket {
        let socket = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let patience = Duration::from_secs(5);
        socket.set_read_timeout(Some(patience)).expect("is set");
        socket
    }

    fn hear(socket: &StdSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 100];
        let (bytes, from) = socket.recv_from(&mut buffer).expect("a packet");
        (buffer[..bytes].to_vec(), from)
    }

    /// Two sites' clients ask the same node; one of them is cut off.
    #[test]
    fn clients_are_told_apart_by_their_site() {
        let relay = Relay::start(1, 1).expect("a relay");
        let node = socket();
        relay.listens(0, node.local_addr().expect("bound"));
        let clients = [[127, 0, 1, 1], [127, 0, 1, 2], [127, 0, 0, 1]].map(|from| {
            let socket = StdSocket::bind((Ipv4Addr::from(from), 0)).expect("a socket");
            let patience = Duration::from_secs(5);
            socket.set_read_timeout(Some(patience)).expect("is set");
            socket
        });
        let sites = [0, 1].map(|i| {
            let from = clients[i].local_addr().expect("bound");
            relay.site(from.ip())
        });
        assert_eq!(sites, [End::Site(0), End::Site(1)]);
        relay.set(End::Site(0), End::Node(0), Link::broken());
        relay.set(End::Node(0), End::Site(1), Link::broken());
        for (number, client) in clients.iter().enumerate() {
            let text = [b'0' + u8::try_from(number).expect("small")];
            client.send_to(&text, relay.front(0)).expect("sent");
        }
        // The first site's question is lost, the second's answer, nothing of the third's.
        let mut heard = [hear(&node), hear(&node)];
        heard.sort();
        assert_eq!([&heard[0].0[..], &heard[1].0[..]], [b"1", b"2"]);
        for (text, from) in &heard {
            node.send_to(text, from).expect("sent");
        }
        assert_eq!(hear(&clients[2]).0, b"2");
        for client in &clients[..2] {
            client.set_nonblocking(true).expect("is set");
            let nothing = client.recv_from(&mut [0; 100]).map_err(|e| e.kind());
            assert_eq!(nothing, Err(ErrorKind::WouldBlock));
        }
    }

    #[test]
    fn packets_go_there_and_back_until_a_link_is_cut() {
        let relay = Relay::start(2, 1).expect("a relay");
        let (a, b) = (socket(), socket());
        relay.listens(0, a.local_addr().expect("bound"));
        relay.listens(1, b.local_addr().expect("bound"));
        a.send_to(b"ask", relay.front(1)).expect("sent");
        let (text, back) = hear(&b);
        assert_eq!(text, b"ask");
        b.send_to(b"answer", back).expect("sent");
        assert_eq!(hear(&a), (b"answer".to_vec(), relay.front(1)));

        // One way only: b's answers still reach a.
        relay.set(End::Node(0), End::Node(1), Link::broken());
        a.send_to(b"lost", relay.front(1)).expect("sent");
        b.send_to(b"more", back).expect("sent");
        assert_eq!(hear(&a).0, b"more");
        b.set_nonblocking(true).expect("is set");
        let nothing = b.recv_from(&mut [0; 100]).map_err(|e| e.kind());
        assert_eq!(nothing, Err(ErrorKind::WouldBlock));
    }
}
