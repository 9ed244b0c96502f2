//! What all nodes say about themselves and their shards, asked one by one.

use crate::connection::Connection;
use crate::exit::Failure;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use synod_harness::cluster::ask;
use synod_paxos::{Configuration, GroupId, NodeId};
use synod_rpc::status::{NodeStatus, ReplicaRole, ShardStatus};
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::wire::ShardMap;

/// The map, and each node's answer or why there is none.
pub struct Survey {
    pub map: ShardMap,
    pub answers: BTreeMap<NodeId, Result<NodeStatus, String>>,
}

impl Survey {
    /// Asks every node; each may take this long.
    pub async fn take(connection: &Connection, limit: Duration) -> Result<Survey, Failure> {
        let pool = connection.pool()?;
        let map = map(&pool, &connection.endpoints, limit).await?;
        let mut answers = BTreeMap::new();
        for node in &map.nodes {
            let answer = ask::status(&pool, node.address, limit).await;
            answers.insert(node.id, answer);
        }
        Ok(Survey { map, answers })
    }

    /// A node's name; its id if the map does not have it.
    pub fn name(&self, id: NodeId) -> String {
        self.map
            .node(id)
            .map_or_else(|| id.to_string(), |node| node.name.clone())
    }

    /// Whether a node answered.
    pub fn answers(&self, id: NodeId) -> bool {
        matches!(self.answers.get(&id), Some(Ok(_)))
    }

    /// How many of those who vote in a shard answered.
    pub fn answering(&self, configuration: &Configuration) -> usize {
        let electors = configuration.electors();
        electors.filter(|id| self.answers(*id)).count()
    }

    /// What a shard's replicas say about it.
    pub fn replicas(&self, shard: GroupId) -> Vec<(NodeId, &ShardStatus)> {
        let replicas = self.answers.iter().filter_map(|(node, answer)| {
            let shards = &answer.as_ref().ok()?.shards;
            Some((*node, shards.iter().find(|s| s.id == shard)?))
        });
        replicas.collect()
    }

    /// Who leads a shard: of several that say so, the one with a lease.
    pub fn leader(&self, shard: GroupId) -> Option<(NodeId, &ShardStatus)> {
        let replicas = self.replicas(shard).into_iter();
        replicas
            .filter(|(_, s)| s.role == ReplicaRole::Leader && s.in_office)
            .max_by_key(|(_, s)| (s.lease_millis.is_some(), s.decided))
    }
}

/// The shard map, from the first endpoint that has one.
pub async fn map(
    pool: &Pool,
    endpoints: &[SocketAddr],
    limit: Duration,
) -> Result<ShardMap, Failure> {
    let mut last = String::new();
    for &endpoint in endpoints {
        match ask::ask(pool, endpoint, NodeRequest::Map, limit).await {
            Ok(NodeResponse::Map(map)) if !map.nodes.is_empty() => return Ok(*map),
            Ok(NodeResponse::Map(_)) => {
                last = format!("the node at {endpoint} is not initialized: run `synod init`");
            }
            Ok(other) => last = format!("the node at {endpoint} answered {other:?} to Map"),
            Err(reason) => last = reason,
        }
    }
    Err(Failure::cluster(last))
}
