//! Many connections to one node, to its bound and beyond.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use synod_harness::cluster::Cluster;
use synod_paxos::{Incarnation, NodeId};
use synod_rpc::cert::{self, Validity};
use synod_rpc::{
    CallError, CertRole, ClientFrame, Endpoint, EndpointOptions, Event, Lane, NodeRequest,
    NodeResponse, Pool, PoolOptions, RequestBody, ServerFrame, TlsIdentity,
};
use synod_shard::NodeMessage;
use synod_tests::{cluster, connect, eventually, peak_memory_mib, settled};

/// What a node takes, peers' connections included.
const BOUND: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// One more connection to this node, which asks it something.
async fn one_more(pool: Pool, address: SocketAddr) -> Result<Pool, CallError> {
    let body = RequestBody::Node(NodeRequest::Info);
    let deadline = Instant::now() + PATIENCE;
    pool.call(address, body, deadline).await?;
    Ok(pool)
}

/// Connections one by one until the node has no room; it says so in words.
async fn until_refused(first: &Pool, address: SocketAddr, pools: &mut Vec<Pool>, most: usize) {
    loop {
        match one_more(first.beside(), address).await {
            Ok(pool) => pools.push(pool),
            Err(error) => {
                assert!(!error.maybe_sent(), "{error}");
                let said = error.to_string();
                assert!(said.contains("it has too many connections"), "{said}");
                return;
            }
        }
        assert!(pools.len() <= most, "{} are too many", pools.len());
    }
}

/// This many connections to one node.
async fn open(first: &Pool, address: SocketAddr, connections: usize) -> Vec<Pool> {
    let mut pools = Vec::new();
    // In lots, so that handshakes do not time each other out.
    while pools.len() < connections {
        let mut lot = tokio::task::JoinSet::new();
        for _ in 0..64.min(connections - pools.len()) {
            lot.spawn(one_more(first.beside(), address));
        }
        while let Some(pool) = lot.join_next().await {
            pools.push(pool.expect("no panic").expect("it answers"));
        }
    }
    pools
}

/// The cluster serves beside these connections, which all live, and a peer that starts anew gets
/// in.
async fn serves_beside(cluster: &mut Cluster, pools: &[Pool]) {
    let address = cluster.nodes()[0].address;
    let connected = pools.iter().filter(|p| p.is_connected(address)).count();
    assert_eq!(connected, pools.len(), "some were lost meanwhile");
    let client = connect(cluster).await;
    client.put("a", "1").await.expect("it serves");
    let peak = peak_memory_mib(cluster);
    eprintln!("{} connections: {peak} MiB", pools.len());
    assert!(peak < 256 + pools.len() as u64 / 4, "{peak} MiB");
    cluster.node_mut(1).kill();
    cluster.start_node(1).expect("the node starts");
    settled(cluster).await;
}

#[tokio::test]
async fn hundreds_of_connections_to_one_node_are_served() {
    let mut cluster = cluster(&[]);
    let address = cluster.nodes()[0].address;
    let first = cluster.pool().expect("good certificates");
    let pools = open(&first, address, 300).await;
    serves_beside(&mut cluster, &pools).await;
}

/// `cargo test --release -p synod-tests --test connections -- --ignored --nocapture`
#[tokio::test]
#[ignore = "takes a minute; see docs/testing.md"]
async fn ten_thousand_connections_to_one_node_are_served() {
    let mut cluster = cluster(&[]);
    let address = cluster.nodes()[0].address;
    let first = cluster.pool().expect("good certificates");
    let mut pools = open(&first, address, BOUND - 20).await;
    until_refused(&first, address, &mut pools, BOUND).await;
    // All but those of the two peers, one each way.
    assert!(pools.len() >= BOUND - 4, "only {}", pools.len());
    // Who leaves makes room.
    pools.truncate(BOUND - 100);
    eventually("room for one more", async || {
        one_more(first.beside(), address).await.is_ok()
    })
    .await;
    serves_beside(&mut cluster, &pools).await;
}

/// Beyond the bound clients are refused in words, and a peer that comes just then gets in. A
/// node's bound of 10,000 is in no setting, so these are endpoints by themselves, with a small one.
#[tokio::test]
async fn a_full_endpoint_refuses_clients_in_words_and_lets_peers_in() {
    const FEW: usize = 20;
    let dir = tempfile::tempdir().expect("a directory");
    cert::create_ca(dir.path(), "test").expect("a CA");
    for name in ["a", "b"] {
        cert::issue_node(dir.path(), name, &Validity::default()).expect("a node");
    }
    cert::issue_user(dir.path(), "admin", &Validity::default()).expect("a user");
    let identity = |role, name| TlsIdentity::from_dir(dir.path(), role, name).expect("it is good");
    let bind = |name, options: EndpointOptions| {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Endpoint::bind(any, &identity(CertRole::Node, name), options).expect("it binds")
    };
    let (full, peer) = (NodeId(1), NodeId(2));
    let mut options = EndpointOptions::new(full, Incarnation(1));
    options.max_connections = FEW;
    let (node, address) = bind("a", options);
    let (other, back) = bind("b", EndpointOptions::new(peer, Incarnation(1)));
    let hello = [NodeMessage::MapDigest(1)];
    // Who is told something is known.
    node.send_peer(peer, back, Lane::Consensus, &hello);

    let tls = identity(CertRole::User, "admin");
    let first = Pool::new(&tls, PoolOptions::default()).expect("a socket");
    let mut pools = Vec::new();
    let events = node.events();
    // Answers clients until a peer speaks.
    let serve = async {
        let mut arrived = Vec::new();
        loop {
            events.wait().await;
            events.drain(&mut arrived);
            for event in arrived.drain(..) {
                match event {
                    Event::Client {
                        connection,
                        frame: ClientFrame::Node { id, .. },
                        ..
                    } => {
                        let response = NodeResponse::Done;
                        node.reply(connection, &ServerFrame::Node { id, response });
                    }
                    Event::PeerFrame { from, .. } => return from,
                    _ => {}
                }
            }
        }
    };
    let work = async {
        until_refused(&first, address, &mut pools, FEW).await;
        assert_eq!(pools.len(), FEW);
        other.send_peer(full, address, Lane::Consensus, &hello);
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        from = serve => assert_eq!(from, peer),
        () = work => panic!("the peer is kept out"),
    }
    // For clients there is still no room.
    until_refused(&first, address, &mut pools, FEW).await;
    assert_eq!(pools.len(), FEW);
}
