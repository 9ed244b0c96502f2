//! What all nodes say about themselves and their shards, asked one by one.

use crate::connection::Connection;
use crate::exit::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use synod_harness::cluster::ask;
use synod_paxos::{Configuration, GroupId, NodeId};
use synod_rpc::status::{Health, NodeStatus, ReplicaRole, ShardStatus};
use synod_rpc::wire::MembersStatus;
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::wire::{ShardDescriptor, ShardMap};
use tokio::task::JoinSet;

/// The map, and each node's answer or why there is none.
pub struct Survey {
    /// As all nodes know it together.
    pub map: ShardMap,
    pub answers: BTreeMap<NodeId, Result<NodeStatus, String>>,
    /// What the nodes that answer know of the members of the shards they have or had.
    pub members: BTreeMap<NodeId, Vec<MembersStatus>>,
}

type Answer = (
    NodeId,
    Result<NodeStatus, String>,
    Vec<MembersStatus>,
    Vec<ShardDescriptor>,
);

/// One node's answers.
async fn node(pool: Pool, node: NodeId, address: SocketAddr, limit: Duration) -> Answer {
    let status = ask::status(&pool, address, limit).await;
    if status.is_err() {
        return (node, status, Vec::new(), Vec::new());
    }
    let members = match ask::members(&pool, address, None, limit).await {
        Ok(members) => members,
        // Nothing may be concluded from half an answer.
        Err(reason) => return (node, Err(reason), Vec::new(), Vec::new()),
    };
    let map = ask::map(&pool, address, limit).await;
    let shards = map.map(|map| map.shards).unwrap_or_default();
    (node, status, members, shards)
}

impl Survey {
    /// Asks every node; each may take this long.
    pub async fn take(connection: &Connection, limit: Duration) -> Result<Survey, Failure> {
        let pool = connection.pool()?;
        let mut map = map(&pool, &connection.endpoints, limit).await?;
        let mut asked = JoinSet::new();
        for n in &map.nodes {
            asked.spawn(node(pool.clone(), n.id, n.address, limit));
        }
        let mut answers = BTreeMap::new();
        let mut members = BTreeMap::new();
        for (id, status, of, shards) in asked.join_all().await {
            map.learn_all(&shards);
            answers.insert(id, status);
            members.insert(id, of);
        }
        Ok(Survey {
            map,
            answers,
            members,
        })
    }

    /// What a shard's leader knows of its members.
    pub fn leading(&self, shard: GroupId) -> Option<&MembersStatus> {
        let all = self.members.values().flatten();
        all.filter(|m| m.shard == shard && m.in_office)
            .max_by_key(|m| m.configuration.epoch)
    }

    /// Nodes that still have a copy of a shard that went on without them.
    pub fn leftovers(&self, shard: GroupId) -> Vec<NodeId> {
        let has = |(node, all): (&NodeId, &Vec<MembersStatus>)| {
            let of = all.iter().find(|m| m.shard == shard)?;
            let is_left = !of.emptied && !of.configuration.is_member(*node);
            is_left.then_some(*node)
        };
        self.members.iter().filter_map(has).collect()
    }

    /// How many replicas a node has.
    pub fn held(&self, node: NodeId) -> usize {
        let of = self.members.get(&node).into_iter().flatten();
        of.filter(|m| !m.emptied).count()
    }

    /// A node's name; its id if the map does not have it.
    pub fn name(&self, id: NodeId) -> String {
        self.map
            .node(id)
            .map_or_else(|| id.to_string(), |node| node.name.clone())
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<NodeId, Failure> {
        let node = self.map.nodes.iter().find(|node| node.name == name);
        node.map(|node| node.id).ok_or_else(|| {
            let names = self.map.nodes.iter().map(|node| node.name.as_str());
            let names: BTreeSet<&str> = names.collect();
            let names: Vec<&str> = names.into_iter().collect();
            Failure::input(format!(
                "there is no node `{name}`; there are {}",
                names.join(", ")
            ))
        })
    }

    /// Whether a node answered.
    pub fn answers(&self, id: NodeId) -> bool {
        matches!(self.answers.get(&id), Some(Ok(_)))
    }

    /// Whether a node answered that it cannot lead for as long as something is wrong with
    /// it: its clock or its disk. (One that was started lately says so, too; that passes.)
    pub fn is_unfit(&self, id: NodeId) -> bool {
        let answer = self.answers.get(&id).and_then(|a| a.as_ref().ok());
        answer.is_some_and(|status| {
            let stalls = matches!(&status.health, Health::Degraded(why) if why.contains("disk"));
            status.clock.quarantined.is_some() || stalls
        })
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
