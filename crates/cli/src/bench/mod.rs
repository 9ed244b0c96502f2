//! `synod bench`: closed loops of clients, and failovers under load.

mod failover;
mod measure;
mod operation;
mod report;

use crate::connection::ConnectionArgs;
use crate::exit::{Failure, Status};
use crate::signals::Signals;
use operation::Workload;
use report::Table;
use std::net::SocketAddr;
use std::time::Duration;
use synod_client::Client;
use synod_harness::cluster::{Cluster, Options};
use synod_harness::load::Keys;
use synod_rpc::Pool;

/// `synod bench …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod bench --local 3
  synod bench put txn2 --clients 64 --seconds 30 --endpoint 127.0.0.1:7001 --certs certs
  synod bench failover --rounds 10 --local 3

Workloads: put (one key, blind), get (one key, newest version at its leader), txn2 (reads two keys
and writes two, in two different shards), failover (steady writes to every shard; kill -9 of the
node that leads most, again and again; needs --local). Without names: put, get and txn2.

Each client waits for its answer before it asks again. Latencies are of whole calls, retries
included; RETRIES counts attempts beyond the first. CPU is processor time per operation; with
--local everything shares this machine. Keys are bench/<number>, from 0 to --keys; in a cluster that
is not --local they stay when it is over.")]
pub struct Args {
    /// What to run
    #[arg(value_enum)]
    workloads: Vec<Workload>,
    /// Numbers of clients; each workload runs once with each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: Vec<u32>,
    /// Seconds measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds before that
    #[arg(long, default_value_t = 3)]
    warmup: u64,
    /// Different keys
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(2..=9_999_999_999))]
    keys: u64,
    /// Bytes of a key
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(16..=8192))]
    key_bytes: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_bytes: u32,
    /// Start a cluster of that many nodes on this machine (syncs on), and stop it afterwards
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u16).range(1..=9))]
    local: Option<u16>,
    /// Shards of the local cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=200))]
    shards: u32,
    /// Storage engine of the local cluster
    #[arg(long, default_value = "fjall", value_parser = ["fjall", "redb", "memory"])]
    engine: String,
    /// Times to kill a node in `failover`
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Print one JSON object per measurement
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What is measured against.
struct Target {
    client: Client,
    pool: Pool,
    nodes: Vec<(String, SocketAddr)>,
}

impl Args {
    fn keys(&self) -> Keys {
        Keys {
            count: self.keys,
            key_bytes: self.key_bytes as usize,
        }
    }

    fn value(&self) -> Vec<u8> {
        vec![b'v'; self.value_bytes as usize]
    }
}

/// Runs all workloads.
pub fn run(mut args: Args) -> Result<Status, Failure> {
    if args.workloads.is_empty() {
        args.workloads = vec![Workload::Put, Workload::Get, Workload::Txn2];
    }
    if args.local.is_none() && args.workloads.contains(&Workload::Failover) {
        return Err(Failure::input(
            "failover kills nodes, so it needs a cluster of its own: add --local 3",
        ));
    }
    crate::block_on(async {
        let Some(nodes) = args.local else {
            return measure_all(&args, None).await;
        };
        let mut signals = Signals::listen()?;
        let mut cluster = signals.start(local(&args, nodes)?).await?;
        signals.unless(measure_all(&args, Some(&mut cluster))).await
    })
}

async fn measure_all(args: &Args, mut cluster: Option<&mut Cluster>) -> Result<Status, Failure> {
    let target = target(args, cluster.as_deref()).await?;
    let (keys, value) = (args.keys(), args.value());
    let mut table = Table::new(args.json);
    let mut loaded = false;
    for workload in &args.workloads {
        if let (Workload::Failover, Some(cluster)) = (workload, cluster.as_deref_mut()) {
            failover::run(args, cluster, &target).await?;
            continue;
        }
        if !loaded {
            operation::fill(&target.client, &keys, &value).await?;
            loaded = true;
        }
        for &clients in &args.clients {
            let plan = measure::Plan {
                workload: *workload,
                clients,
                seconds: Duration::from_secs(args.seconds),
                warmup: Duration::from_secs(args.warmup),
            };
            table.add(&measure::run(&target, &keys, &value, &plan).await);
        }
    }
    Ok(Status::Done)
}

/// A cluster on this machine, its shards cut over the benchmark's keys.
fn local(args: &Args, nodes: u16) -> Result<Options, Failure> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::cluster(format!("cannot find this program: {e}")))?;
    let mut options = Options::new(program);
    options.dcs = usize::from(nodes);
    options.replicas = if nodes >= 3 { 3 } else { 1 };
    options.engine.clone_from(&args.engine);
    options.log_filter = "warn".to_owned();
    options.splits = args.keys().splits(args.shards.into());
    Ok(options)
}

async fn target(args: &Args, cluster: Option<&Cluster>) -> Result<Target, Failure> {
    let timeout = Duration::from_secs(30);
    if let Some(cluster) = cluster {
        let mut config = cluster.client_config();
        config.timeout = timeout;
        let nodes = cluster.nodes().iter();
        return Ok(Target {
            client: Client::connect(config).await.map_err(Failure::cluster)?,
            pool: cluster.pool().map_err(Failure::cluster)?,
            nodes: nodes.map(|n| (n.name.clone(), n.address)).collect(),
        });
    }
    if !args.connection.names_endpoints() {
        return Err(Failure::input(
            "no cluster to measure: --local 3 starts one for it; or say where a node of yours listens \
             with --endpoint HOST:PORT, SYNOD_ENDPOINTS, or [client] endpoints in --config FILE",
        ));
    }
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let map = synod_operate::map(&pool, &connection.endpoints, timeout).await?;
    Ok(Target {
        client: connection.client(timeout).await?,
        pool,
        nodes: map.nodes.into_iter().map(|n| (n.name, n.address)).collect(),
    })
}
