//! The SDK over QUIC and real certificates, against one node that keeps its
//! values in a map.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use synod_client::{Client, Config, Error, Identity};
use synod_paxos::{Configuration, GroupId, Incarnation, NodeId, Term, Timestamp};
use synod_rpc::cert::{self, Validity};
use synod_rpc::{
    CertRole, ClientFrame, Endpoint, EndpointOptions, Event, NodeRequest, NodeResponse,
    ServerFrame, TlsIdentity,
};
use synod_shard::{NodeDescriptor, ShardDescriptor, ShardMap, ShardReply};
use synod_txn::{AttemptId, Key, Outcome, Request, Response, Span, Value, Version};

const SHARD: GroupId = GroupId(2);
const NODE: NodeId = NodeId(1);

fn certificates(dir: &Path) {
    let validity = Validity::days(1);
    cert::create_ca(dir, "test").unwrap();
    cert::issue_node(dir, "a", &validity).unwrap();
    cert::issue_user(dir, "app", &validity).unwrap();
}

fn bind(dir: &Path) -> (Endpoint, SocketAddr) {
    let identity = TlsIdentity::from_dir(dir, CertRole::Node, "a").unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = EndpointOptions::new(NODE, Incarnation(1));
    Endpoint::bind(any, &identity, options).unwrap()
}

fn config(dir: &Path, address: SocketAddr) -> Config {
    let identity = Identity::Files {
        ca: dir.join("ca.crt"),
        cert: dir.join("user-app.crt"),
        key: dir.join("user-app.key"),
    };
    Config::new([address.to_string()], identity)
}

fn map(address: SocketAddr) -> ShardMap {
    let everything = Span {
        start: Key::new(),
        end: Key::new(),
    };
    ShardMap {
        nodes: vec![NodeDescriptor {
            id: NODE,
            name: "a".to_owned(),
            address,
            locality: String::new(),
        }],
        shards: vec![ShardDescriptor {
            id: SHARD,
            span: everything,
            generation: 1,
            configuration: Configuration::of_voters(vec![NODE]),
            preferred_leader: NODE,
            born: None,
        }],
    }
}

fn answer(store: &mut BTreeMap<Key, Value>, request: Request) -> Response {
    let term = Term {
        group: SHARD,
        ..Term::default()
    };
    let now = Timestamp(1_700_000_000_000_000_000);
    match request {
        Request::Locate => Response::Located { term, now },
        Request::Latest { keys, .. } => {
            let version = |key: &Key| {
                store.get(key).map(|value| Version {
                    value: Some(value.clone()),
                    timestamp: now,
                    attempt: AttemptId(1),
                })
            };
            Response::Read {
                term,
                session: None,
                versions: keys.iter().map(version).collect(),
                rows: Vec::new(),
                more: false,
                now,
            }
        }
        Request::Commit(commit) => {
            let writes = commit.writes.into_iter();
            store.extend(writes.filter_map(|write| Some((write.key, write.value?))));
            let outcome = Outcome::Committed(now);
            Response::Outcome { outcome, syncs: 1 }
        }
        other => panic!("not expected here: {other:?}"),
    }
}

/// Answers for ever.
async fn serve(node: &Endpoint, address: SocketAddr) {
    let queue = node.events();
    let mut store = BTreeMap::new();
    let mut events = Vec::new();
    loop {
        queue.wait().await;
        queue.drain(&mut events);
        for event in events.drain(..) {
            let Event::Client {
                connection, frame, ..
            } = event
            else {
                continue;
            };
            let reply = match frame {
                ClientFrame::Request { id, request } => ServerFrame::Response {
                    id,
                    reply: ShardReply::Response(answer(&mut store, request.request)),
                },
                ClientFrame::Node {
                    id,
                    request: NodeRequest::Map,
                } => ServerFrame::Node {
                    id,
                    response: NodeResponse::Map(Box::new(map(address))),
                },
                _ => continue,
            };
            node.reply(connection, &reply);
        }
    }
}

#[tokio::test]
async fn values_go_to_a_node_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let (node, address) = bind(dir.path());
    let work = async {
        let client = Client::connect(config(dir.path(), address)).await.unwrap();
        let task = |n: u32| {
            let client = client.clone();
            tokio::spawn(async move {
                let key = format!("key {n}");
                client.put(&key, n.to_string()).await.unwrap();
                assert_eq!(client.get(&key).await.unwrap().unwrap(), n.to_string());
            })
        };
        for task in (0..256).map(task).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(client.get("nothing").await.unwrap(), None);
    };
    tokio::select! {
        () = serve(&node, address) => unreachable!("it serves for ever"),
        () = work => {}
    }
}

#[tokio::test]
async fn strangers_are_told_so_at_once_and_the_absent_in_time() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let (node, address) = bind(dir.path());
    let begun = Instant::now();
    let work = async {
        let error = Client::connect(config(other.path(), address)).await.err();
        assert!(matches!(error, Some(Error::Config(_))), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    };
    tokio::select! {
        () = serve(&node, address) => unreachable!("it serves for ever"),
        () = work => {}
    }
    node.close().await;
    let mut gone = config(dir.path(), address);
    gone.timeout = Duration::from_millis(300);
    let error = Client::connect(gone).await.err();
    assert!(matches!(error, Some(Error::NoCluster { .. })), "{error:?}");
    let mut nowhere = config(dir.path(), address);
    nowhere.endpoints = vec!["no port".to_owned()];
    let error = Client::connect(nowhere).await.err();
    assert!(matches!(error, Some(Error::Config(_))), "{error:?}");
}
