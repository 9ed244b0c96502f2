//! `synod init`: the first map of a new cluster.
//!
//! Every node given is asked who it is; replicas are planned over their
//! localities; the same map is handed to each. Doing so again is harmless: the
//! nodes refuse another map, and take the same one as done.

use super::records::change;
use crate::connection::{Connection, ConnectionArgs};
use crate::exit::{Failure, Status};
use crate::output::count;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_paxos::{ClusterVersion, Configuration, GroupId};
use synod_placement::{NodeView, PlanRequest};
use synod_rpc::placement::RecordChange;
use synod_rpc::{NodeRequest, NodeResponse, Pool, ask};
use synod_shard::Records;
use synod_shard::wire::{
    Bootstrap, META_SHARD, NodeDescriptor, RESERVED_PREFIX, ShardDescriptor, ShardMap,
};
use synod_txn::{Key, Span};

/// Between two looks at a cluster that is not ready.
const POLL: Duration = Duration::from_millis(20);
/// How long one node may take to answer one question.
const ANSWER: Duration = Duration::from_secs(1);

/// `synod init …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod init --endpoint 127.0.0.1:7001 --endpoint 127.0.0.1:7002 --endpoint 127.0.0.1:7003 \\
             --certs certs --split accounts/5 --split m

Name every node of the new cluster with --endpoint. With two --split keys there are three user
shards: before accounts/5, from there to m, and from m on. With --shards N and no --split, the
printable key space (first byte from space to ~) is cut into N equal parts; keys that all begin
alike then lie in one shard, so give --split when you know your keys.

It returns once every shard has a leader. Running it again with the same arguments is harmless.")]
pub struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// First key of another shard; repeat for more
    #[arg(long = "split", value_name = "KEY")]
    splits: Vec<String>,
    /// Number of user shards, cut evenly over printable keys
    #[arg(long, value_name = "N", conflicts_with = "splits", value_parser = clap::value_parser!(u32).range(1..=90))]
    shards: Option<u32>,
    /// Replicas of each shard
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=7))]
    replicas: u32,
    /// Cluster version to begin with; an older one if nodes of an older program are to join
    #[arg(long, value_name = "V", default_value_t = ClusterVersion::NEWEST.0)]
    cluster_version: u32,
    /// How long nodes may take to answer and shards to have leaders
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout_seconds: u64,
}

/// Initialises the cluster and waits until it serves.
pub async fn run(args: Args) -> Result<Status, Failure> {
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout_seconds);
    let nodes = meet(&pool, &connection.endpoints, deadline).await?;
    let splits = match args.shards {
        Some(shards) => even_splits(shards),
        None => args.splits.iter().map(|s| s.clone().into_bytes()).collect(),
    };
    let map = plan(nodes, splits, args.replicas)?;
    let bootstrap = Bootstrap {
        cluster: connection.identity.cluster(),
        version: ClusterVersion(args.cluster_version),
        map,
    };
    for node in &bootstrap.map.nodes {
        let request = NodeRequest::Init(Box::new(bootstrap.clone()));
        ask::ask(&pool, node.address, request, ANSWER * 5)
            .await
            .map_err(|reason| {
                Failure::failed(format!("node {} refuses the map: {reason}", node.name))
            })?;
    }
    let map = wait_for_leaders(&pool, &bootstrap.map, deadline).await?;
    keep_policy(&pool, &connection, args.replicas).await?;
    let replicas = (args.replicas as usize).min(bootstrap.map.nodes.len());
    println!(
        "cluster {} is ready: {}, {} (the meta shard included), {} each",
        uuid::Uuid::from_u128(bootstrap.cluster),
        count(bootstrap.map.nodes.len(), "node"),
        count(map.shards.len(), "shard"),
        count(replicas, "replica")
    );
    Ok(Status::Done)
}

/// What was asked for is the cluster's policy from now on, unless it has one by now. (Policies
/// know odd numbers of voters only.)
async fn keep_policy(pool: &Pool, connection: &Connection, replicas: u32) -> Result<(), Failure> {
    if replicas.is_multiple_of(2) {
        return Ok(());
    }
    let policy = RecordChange::Policy {
        prefix: Vec::new(),
        text: Some(format!("voters = {replicas}")),
    };
    let has_one = |records: &Records| records.policies.contains_key(&[][..]);
    change(pool, connection, policy, has_one).await.map(|_| ())
}

/// Asks every endpoint who it is, again and again until the deadline.
async fn meet(
    pool: &Pool,
    endpoints: &[SocketAddr],
    deadline: Instant,
) -> Result<Vec<NodeDescriptor>, Failure> {
    let mut nodes: Vec<NodeDescriptor> = Vec::new();
    for &endpoint in endpoints {
        let node = loop {
            match ask::ask(pool, endpoint, NodeRequest::Info, ANSWER).await {
                Ok(NodeResponse::Info {
                    id,
                    name,
                    address,
                    locality,
                    ..
                }) => {
                    break NodeDescriptor {
                        id,
                        name,
                        address,
                        locality,
                    };
                }
                Ok(other) => {
                    return Err(Failure::cluster(format!(
                        "the node at {endpoint} answered {other:?} to Info"
                    )));
                }
                Err(reason) if Instant::now() >= deadline => return Err(Failure::cluster(reason)),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        };
        if let Some(twin) = nodes.iter().find(|n| n.id == node.id) {
            return Err(Failure::input(format!(
                "{endpoint} and {} are the same node, {}",
                twin.address, twin.name
            )));
        }
        nodes.push(node);
    }
    nodes.sort_by_key(|n| n.id);
    Ok(nodes)
}

/// The map: user shards between the splits, and the meta shard at the end of all keys.
fn plan(
    nodes: Vec<NodeDescriptor>,
    mut splits: Vec<Vec<u8>>,
    replicas: u32,
) -> Result<ShardMap, Failure> {
    splits.sort();
    splits.dedup();
    if splits
        .iter()
        .any(|s| s.is_empty() || s.starts_with(RESERVED_PREFIX))
    {
        return Err(Failure::input(
            "a --split key is empty or begins with the cluster's own prefix (bytes ff ff)",
        ));
    }
    let mut views = Vec::new();
    for node in &nodes {
        let locality = node.locality.parse().map_err(|e| {
            Failure::input(format!(
                "node {} says it is in `{}`: {e}",
                node.name, node.locality
            ))
        })?;
        views.push(NodeView {
            id: node.id,
            locality,
        });
    }
    // The borders of the user shards, and of the meta shard behind them.
    let mut borders: Vec<Key> = vec![Key::new()];
    borders.extend(splits.into_iter().map(Key::from));
    borders.push(Key::from_static(RESERVED_PREFIX));
    borders.push(Key::new());
    let placed = synod_placement::plan(PlanRequest {
        nodes: views,
        replicas: replicas as usize,
        shards: borders.len() - 1,
    })
    .map_err(Failure::input)?;
    let last = placed.len() - 1;
    let shards =
        placed
            .into_iter()
            .zip(borders.windows(2))
            .enumerate()
            .map(|(index, (place, border))| ShardDescriptor {
                id: if index == last {
                    META_SHARD
                } else {
                    GroupId(META_SHARD.0 + 1 + index as u64)
                },
                span: Span {
                    start: border[0].clone(),
                    end: border[1].clone(),
                },
                generation: 1,
                configuration: Configuration::of_voters(place.voters),
                preferred_leader: place.leader,
                born: None,
            });
    Ok(ShardMap {
        shards: shards.collect(),
        nodes,
    })
}

/// Keys that cut printable first bytes (0x20 to 0x7e) into equal parts.
fn even_splits(shards: u32) -> Vec<Vec<u8>> {
    const FIRST: u32 = 0x20;
    const COUNT: u32 = 0x7f - FIRST;
    (1..shards)
        .filter_map(|i| u8::try_from(FIRST + COUNT * i / shards).ok())
        .map(|byte| vec![byte])
        .collect()
}

/// Waits until every shard has a leader: those that the cluster has now, which has perhaps split and
/// merged some and taken in nodes since it was initialized. Returns the map as it is now.
async fn wait_for_leaders(
    pool: &Pool,
    first: &ShardMap,
    deadline: Instant,
) -> Result<ShardMap, Failure> {
    loop {
        let mut map = first.clone();
        for node in &first.nodes {
            if let Ok(known) = ask::map(pool, node.address, ANSWER).await {
                let is_new = |new: &&NodeDescriptor| map.node(new.id).is_none();
                let new: Vec<NodeDescriptor> = known.nodes.iter().filter(is_new).cloned().collect();
                map.nodes.extend(new);
                map.learn_all(&known.shards);
            }
        }
        let mut waiting: Vec<u64> = map.shards.iter().map(|s| s.id.0).collect();
        for node in &map.nodes {
            if waiting.is_empty() {
                break;
            }
            if let Ok(status) = ask::status(pool, node.address, ANSWER).await {
                let led = status.shards.iter().filter(|s| s.in_office);
                for shard in led {
                    waiting.retain(|id| *id != shard.id.0);
                }
            }
        }
        if waiting.is_empty() {
            return Ok(map);
        }
        if Instant::now() >= deadline {
            return Err(Failure::cluster(format!(
                "the map was handed out, but {} of {} shards have no leader yet (the first is {}); \
                 look at `synod status`",
                waiting.len(),
                map.shards.len(),
                waiting[0]
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::NodeId;

    fn nodes(count: u64) -> Vec<NodeDescriptor> {
        let node = |id: u64| NodeDescriptor {
            id: NodeId(id),
            name: format!("n{id}"),
            address: SocketAddr::from(([127, 0, 0, 1], 7000)),
            locality: format!("region=eu,dc=eu-{id}"),
        };
        (1..=count).map(node).collect()
    }

    #[test]
    fn a_map_has_no_holes_and_ends_with_the_meta_shard() {
        let splits = vec![b"m".to_vec(), b"c".to_vec(), b"m".to_vec()];
        let map = plan(nodes(3), splits, 3).expect("a plan");
        assert_eq!(map.shards.len(), 4);
        for pair in map.shards.windows(2) {
            assert_eq!(pair[0].span.end, pair[1].span.start);
        }
        assert_eq!(map.shard_of(b"").map(|s| s.id), Some(GroupId(2)));
        assert_eq!(map.shard_of(b"c").map(|s| s.id), Some(GroupId(3)));
        assert_eq!(map.shard_of(b"z").map(|s| s.id), Some(GroupId(4)));
        assert_eq!(
            map.shard_of(&[0xff, 0xff, 1]).map(|s| s.id),
            Some(META_SHARD)
        );
    }

    #[test]
    fn splits_in_the_reserved_range_are_refused() {
        for split in [vec![], vec![0xff, 0xff, 0]] {
            assert!(plan(nodes(3), vec![split], 3).is_err());
        }
    }

    #[test]
    fn even_splits_rise_and_are_printable() {
        for shards in 1..=90 {
            let splits = even_splits(shards);
            assert_eq!(splits.len() as u32, shards - 1);
            assert!(splits.is_sorted_by(|a, b| a < b));
            assert!(splits.iter().all(|s| (0x20..0x7f).contains(&s[0])));
        }
    }
}
