//! Calls per second of a pool against an endpoint that echoes, over loopback,
//! with 1, 16, 64 and 256 callers in a closed loop. Run it with `--release`;
//! the argument `own` gives the pool a thread of its own.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use synod_paxos::{GroupId, Incarnation, NodeId, Term, Timestamp};
use synod_rpc::cert::{self, Validity};
use synod_rpc::pool::Io;
use synod_rpc::{
    CertRole, ClientFrame, Endpoint, EndpointOptions, Event, Pool, PoolOptions, RequestBody,
    ServerFrame, TlsIdentity,
};
use synod_shard::{ShardReply, ShardRequest};
use synod_txn::{AttemptId, Request, Response, Version};

const SECONDS: u64 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    cert::create_ca(dir.path(), "throughput")?;
    cert::issue_node(dir.path(), "a", &Validity::default())?;
    cert::issue_user(dir.path(), "ann", &Validity::default())?;
    let node = TlsIdentity::from_dir(dir.path(), CertRole::Node, "a")?;
    let user = TlsIdentity::from_dir(dir.path(), CertRole::User, "ann")?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || serve(&node, &tell));
    let address = told.recv()?;
    println!("callers    calls/s   p50 us   p99 us");
    for callers in [1, 16, 64, 256] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut times = runtime.block_on(load(&user, address, callers))?;
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        let rate = times.len() as u64 / SECONDS;
        println!("{callers:>7} {rate:>10} {:>8} {:>8}", at(50), at(99));
    }
    Ok(())
}

/// Runs closed loops; returns all latencies in microseconds.
async fn load(
    user: &TlsIdentity,
    address: SocketAddr,
    callers: usize,
) -> Result<Vec<u64>, Box<dyn Error>> {
    let mut options = PoolOptions::default();
    if std::env::args().any(|argument| argument == "own") {
        options.io = Io::OwnThread;
    }
    let pool = Pool::new(user, options)?;
    pool.call(address, request(), Instant::now() + Duration::from_secs(5))
        .await?;
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let began = Instant::now();
                    if began >= end {
                        return Ok::<_, synod_rpc::CallError>(times);
                    }
                    pool.call(address, request(), began + Duration::from_secs(5))
                        .await?;
                    times.push(began.elapsed().as_micros() as u64);
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

fn request() -> RequestBody {
    RequestBody::Shard(ShardRequest {
        shard: GroupId(2),
        generation: 1,
        request: Request::Latest {
            keys: vec![vec![b'k'; 200].into()],
            scan: None,
        },
        hashing: None,
    })
}

/// A node that answers every read with its key.
fn serve(identity: &TlsIdentity, tell: &mpsc::Sender<SocketAddr>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let options = EndpointOptions::new(NodeId(1), Incarnation(1));
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (endpoint, address) = Endpoint::bind(any, identity, options).expect("binds");
        tell.send(address).expect("somebody listens");
        let queue = endpoint.events();
        let mut events = Vec::new();
        loop {
            queue.wait().await;
            queue.drain(&mut events);
            for event in events.drain(..) {
                if let Event::Client {
                    connection,
                    frame: ClientFrame::Request { id, request },
                    ..
                } = event
                    && let Request::Latest { keys, .. } = request.request
                {
                    endpoint.reply(connection, &answer(id, keys));
                }
            }
        }
    });
}

fn answer(id: u64, keys: Vec<bytes::Bytes>) -> ServerFrame {
    let versions = keys.into_iter().map(|key| {
        Some(Version {
            value: Some(key),
            timestamp: Timestamp(1),
            attempt: AttemptId(1),
        })
    });
    ServerFrame::Response {
        id,
        reply: ShardReply::Response(Response::Read {
            term: Term::default(),
            session: None,
            versions: versions.collect(),
            rows: Vec::new(),
            more: false,
            now: Timestamp(1),
        }),
    }
}
