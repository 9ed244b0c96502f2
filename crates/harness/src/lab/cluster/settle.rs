//! Whether a cluster is at rest: every shard led, every follower level, every node well.

use crate::cluster::ask;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use synod_rpc::Pool;
use synod_rpc::wire::{Health, NodeStatus};
use synod_shard::ShardMap;
use tokio::task::JoinSet;

/// How long a node may take to say how it is.
const ANSWER: Duration = Duration::from_secs(1);

/// What is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Shards without a leader, and followers that are behind.
    pub missing: Vec<String>,
    /// Nodes that do not answer, or say that they are not well.
    pub unhealthy: Vec<String>,
}

impl Condition {
    /// Whether nothing is.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.missing.is_empty() && self.unhealthy.is_empty()
    }

    /// All of it in a line.
    #[must_use]
    pub fn words(&self) -> String {
        let all: Vec<&str> = self
            .missing
            .iter()
            .chain(&self.unhealthy)
            .map(String::as_str)
            .collect();
        all.join("; ")
    }
}

/// What these nodes say of themselves, all asked at once.
pub(super) async fn statuses(
    pool: &Pool,
    nodes: &[(usize, SocketAddr)],
    limit: Duration,
) -> BTreeMap<usize, Result<NodeStatus, String>> {
    let mut asked = JoinSet::new();
    for &(node, address) in nodes {
        let pool = pool.clone();
        asked.spawn(async move { (node, ask::status(&pool, address, limit).await) });
    }
    let mut all = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        if let Ok((node, status)) = answer {
            all.insert(node, status);
        }
    }
    all
}

/// Looks at the cluster once. `nodes` are those that are to be up; `names` is of all.
pub(super) async fn look(
    pool: &Pool,
    nodes: &[(usize, SocketAddr)],
    names: &[String],
    shards: usize,
) -> Condition {
    let statuses = statuses(pool, nodes, ANSWER).await;
    let mut condition = Condition::default();
    let mut led = BTreeSet::new();
    let mut ids = BTreeMap::new();
    for (node, status) in &statuses {
        let name = &names[*node];
        match status {
            Ok(status) => {
                ids.insert(status.id, name.clone());
                if status.health != Health::Ok {
                    condition
                        .unhealthy
                        .push(format!("{name}: {:?}", status.health));
                }
            }
            Err(error) => condition.unhealthy.push(format!("{name}: {error}")),
        }
    }
    for status in statuses.values().flatten() {
        for shard in status.shards.iter().filter(|shard| shard.in_office) {
            led.insert(shard.id.0);
            for follower in &shard.followers {
                if follower.matched.0 < shard.decided.0 {
                    let silent = || "a member that does not answer".to_owned();
                    let name = ids.get(&follower.node).cloned().unwrap_or_else(silent);
                    let text = format!("shard {}: {name} is behind", shard.id.0);
                    condition.missing.push(text);
                }
            }
        }
    }
    // The meta shard is the first. Commands may have split and merged the others.
    let map = match nodes
        .iter()
        .find(|(node, _)| statuses.get(node).is_some_and(Result::is_ok))
    {
        Some((_, address)) => ask::map(pool, *address, ANSWER).await.unwrap_or_default(),
        None => ShardMap::default(),
    };
    let first = (1..=shards as u64 + 1).filter(|_| map.shards.is_empty());
    let all = first.chain(map.shards.iter().map(|shard| shard.id.0));
    for shard in all.filter(|shard| !led.contains(shard)) {
        condition
            .missing
            .push(format!("shard {shard} has no leader"));
    }
    condition
}
