//! What all nodes say about themselves and their shards, asked one by one.

use crate::{Intent, Trouble};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use synod_paxos::{Configuration, GroupId, NodeId};
use synod_rpc::ask;
use synod_rpc::copies::CopiesStatus;
use synod_rpc::load::LoadStatus;
use synod_rpc::status::{Health, NodeStatus, ReplicaRole, ShardStatus};
use synod_rpc::wire::{MembersStatus, PlacementStatus};
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::wire::{ShardDescriptor, ShardMap};
use synod_shard::{NodeRow, Roster};
use tokio::task::JoinSet;

/// The map, and each node's answer or why there is none.
#[derive(Clone)]
pub struct Survey {
    /// As all nodes know it together.
    pub map: ShardMap,
    /// What each node answered, or why it did not.
    pub answers: BTreeMap<NodeId, Result<NodeStatus, String>>,
    /// What the nodes that answer know of the members of the shards they have or had.
    pub members: BTreeMap<NodeId, Vec<MembersStatus>>,
    /// What is known of the sizes and loads of shards.
    pub weights: BTreeMap<GroupId, Weight>,
    /// What each node that tells it says of copies.
    pub copies: BTreeMap<NodeId, CopiesStatus>,
    /// The cluster's records, from the node whose keeper acts; none if there is none now.
    pub placement: Option<PlacementStatus>,
}

/// How large a shard is, and how much it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// The node that leads it, and knows this.
    pub leader: NodeId,
    /// Bytes in each replica that stores it; none while it is not known.
    pub bytes: Option<u64>,
    /// Requests a second.
    pub requests: u64,
}

/// One node's answers.
struct Answer {
    node: NodeId,
    status: Result<NodeStatus, String>,
    members: Vec<MembersStatus>,
    shards: Vec<ShardDescriptor>,
    placement: Option<PlacementStatus>,
    loads: Option<LoadStatus>,
    copies: Option<CopiesStatus>,
}

async fn node(pool: Pool, node: NodeId, address: SocketAddr, limit: Duration) -> Answer {
    let mut answer = Answer {
        node,
        status: ask::status(&pool, address, limit).await,
        members: Vec::new(),
        shards: Vec::new(),
        placement: None,
        loads: None,
        copies: None,
    };
    if answer.status.is_err() {
        return answer;
    }
    match ask::members(&pool, address, None, limit).await {
        Ok(members) => answer.members = members,
        // Nothing may be concluded from half an answer.
        Err(reason) => answer.status = Err(reason),
    }
    if let Ok(map) = ask::map(&pool, address, limit).await {
        answer.shards = map.shards;
    }
    answer.placement = ask::placement(&pool, address, limit).await.ok();
    answer.loads = ask::loads(&pool, address, None, limit).await.ok();
    // Last, as a program from before does not understand it.
    answer.copies = ask::copies(&pool, address, None, limit).await.ok();
    answer
}

impl Survey {
    /// Asks every node; each may take this long.
    ///
    /// # Errors
    /// When no node has a map.
    pub async fn take(
        pool: &Pool,
        endpoints: &[SocketAddr],
        limit: Duration,
    ) -> Result<Survey, Trouble> {
        let mut map = map(pool, endpoints, limit).await?;
        let mut answers = BTreeMap::new();
        let mut members = BTreeMap::new();
        let mut weights = BTreeMap::new();
        let mut copies = BTreeMap::new();
        let mut placement: Option<PlacementStatus> = None;
        // Twice if there are nodes that the first map does not know yet.
        for _ in 0..2 {
            let mut asked = JoinSet::new();
            let new = map.nodes.iter().filter(|n| !answers.contains_key(&n.id));
            for n in new {
                asked.spawn(node(pool.clone(), n.id, n.address, limit));
            }
            for answer in asked.join_all().await {
                map.learn_all(&answer.shards);
                answers.insert(answer.node, answer.status);
                members.insert(answer.node, answer.members);
                copies.extend(answer.copies.map(|told| (answer.node, told)));
                let leader = answer.node;
                let led = answer.loads.into_iter().flat_map(|loads| loads.shards);
                weights.extend(led.map(|load| {
                    let weight = Weight {
                        leader,
                        bytes: load.bytes,
                        requests: load.requests,
                    };
                    (load.shard, weight)
                }));
                if let Some(told) = answer.placement.filter(|p| p.acting) {
                    placement.get_or_insert(told);
                }
            }
            if let Some(told) = &placement {
                let known = map.nodes.iter().cloned().map(NodeRow::first);
                let roster = Roster::new(known.chain(told.records.nodes.iter().cloned()));
                map.nodes = roster.nodes().cloned().collect();
            }
        }
        Ok(Survey {
            map,
            answers,
            members,
            weights,
            copies,
            placement,
        })
    }

    /// What a shard's leader knows of its members.
    #[must_use]
    pub fn leading(&self, shard: GroupId) -> Option<&MembersStatus> {
        let all = self.members.values().flatten();
        all.filter(|m| m.shard == shard && m.in_office)
            .max_by_key(|m| m.configuration.epoch)
    }

    /// Nodes that still have a copy of a shard that went on without them.
    #[must_use]
    pub fn leftovers(&self, shard: GroupId) -> Vec<NodeId> {
        let has = |(node, all): (&NodeId, &Vec<MembersStatus>)| {
            let of = all.iter().find(|m| m.shard == shard)?;
            let is_left = !of.emptied && !of.configuration.is_member(*node);
            is_left.then_some(*node)
        };
        self.members.iter().filter_map(has).collect()
    }

    /// How many replicas a node has.
    #[must_use]
    pub fn held(&self, node: NodeId) -> usize {
        let of = self.members.get(&node).into_iter().flatten();
        of.filter(|m| !m.emptied).count()
    }

    /// A node's name; its id if the map does not have it.
    #[must_use]
    pub fn name(&self, id: NodeId) -> String {
        let node = self.map.node(id).or_else(|| Some(&self.row(id)?.node));
        node.map_or_else(|| id.to_string(), |node| node.name.clone())
    }

    /// What the cluster's records ask for; nothing if nobody tells them now.
    ///
    /// # Errors
    /// When a stored policy cannot be read.
    pub fn intent(&self) -> Result<Intent, Trouble> {
        let status = self.placement.as_ref();
        status.map_or_else(
            || Ok(Intent::default()),
            |status| Intent::of_records(&status.records, &status.down),
        )
    }

    /// Whether the cluster moves replicas by itself.
    #[must_use]
    pub fn is_automatic(&self) -> bool {
        let status = self.placement.as_ref();
        status.is_some_and(|status| !status.records.manual)
    }

    /// What the cluster's records say of a node, one that was taken out too.
    #[must_use]
    pub fn row(&self, id: NodeId) -> Option<&NodeRow> {
        let records = &self.placement.as_ref()?.records;
        records.nodes.iter().find(|row| row.node.id == id)
    }

    /// Shards whose members may be others in a moment, or are not known for sure.
    #[must_use]
    pub fn unsettled(&self) -> Vec<GroupId> {
        let settled = |id| self.leading(id).is_some_and(|leader| !leader.changing);
        let shards = self.map.shards.iter().map(|s| s.id);
        shards.filter(|id| !settled(*id)).collect()
    }

    /// The node of this name.
    ///
    /// # Errors
    /// When there is none; says which there are.
    pub fn node(&self, name: &str) -> Result<NodeId, Trouble> {
        let node = self.map.nodes.iter().find(|node| node.name == name);
        node.map(|node| node.id).ok_or_else(|| {
            let names = self.map.nodes.iter().map(|node| node.name.as_str());
            let names: BTreeSet<&str> = names.collect();
            let names: Vec<&str> = names.into_iter().collect();
            Trouble::Input(format!(
                "there is no node `{name}`; there are {}",
                names.join(", ")
            ))
        })
    }

    /// Whether a node answered, as itself and as one of the cluster: at its address may be
    /// another one by now, or one that has lost its directory.
    #[must_use]
    pub fn answers(&self, id: NodeId) -> bool {
        let answer = self.answers.get(&id).and_then(|a| a.as_ref().ok());
        answer.is_some_and(|s| s.id == id && s.health != Health::Uninitialized)
    }

    /// Whether a node answered that it cannot lead for as long as something is wrong with
    /// it: its clock, its disk or its program. (One that was started lately says so, too; that passes.)
    #[must_use]
    pub fn is_unfit(&self, id: NodeId) -> bool {
        let answer = self.answers.get(&id).and_then(|a| a.as_ref().ok());
        answer.is_some_and(|status| {
            let unfit = |why: &str| why.contains("disk") || why.contains("leads nothing");
            let unfit = matches!(&status.health, Health::Degraded(why) if unfit(why));
            status.clock.quarantined.is_some() || unfit
        })
    }

    /// How many of those who vote in a shard answered.
    #[must_use]
    pub fn answering(&self, configuration: &Configuration) -> usize {
        let electors = configuration.electors();
        electors.filter(|id| self.answers(*id)).count()
    }

    /// What a shard's replicas say about it.
    #[must_use]
    pub fn replicas(&self, shard: GroupId) -> Vec<(NodeId, &ShardStatus)> {
        let replicas = self.answers.iter().filter_map(|(node, answer)| {
            let shards = &answer.as_ref().ok()?.shards;
            Some((*node, shards.iter().find(|s| s.id == shard)?))
        });
        replicas.collect()
    }

    /// Who leads a shard: of several that say so, the one with a lease.
    #[must_use]
    pub fn leader(&self, shard: GroupId) -> Option<(NodeId, &ShardStatus)> {
        let replicas = self.replicas(shard).into_iter();
        replicas
            .filter(|(_, s)| s.role == ReplicaRole::Leader && s.in_office)
            .max_by_key(|(_, s)| (s.lease_millis.is_some(), s.decided))
    }
}

/// The shard map, from the first endpoint that has one.
///
/// # Errors
/// When none has.
pub async fn map(
    pool: &Pool,
    endpoints: &[SocketAddr],
    limit: Duration,
) -> Result<ShardMap, Trouble> {
    let mut last = String::new();
    for &endpoint in endpoints {
        match ask::ask(pool, endpoint, NodeRequest::Map, limit).await {
            Ok(NodeResponse::Map(map)) if !map.nodes.is_empty() => return Ok(*map),
            Ok(NodeResponse::Map(_)) => {
                last = format!("the node at {endpoint} is not initialized: run `synod init`");
            }
            Ok(other) => last = format!("the node at {endpoint} answered {other:?} to Map"),
            Err(reason) => last = unreachable(&reason),
        }
    }
    Err(Trouble::Unreachable(last))
}

/// As the SDK says it.
fn unreachable(reason: &str) -> String {
    let advice = match reason.ends_with('?') {
        true => "",
        false => "; are the endpoints right and the nodes up?",
    };
    format!("no node of the cluster can be reached: {reason}{advice}")
}
