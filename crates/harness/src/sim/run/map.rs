//! The cluster's map: shards over the clients' keys, replicas over the nodes.

use crate::sim::config::SimConfig;
use synod_paxos::{Configuration, GroupId, NodeId};
use synod_shard::wire::RESERVED_PREFIX;
use synod_shard::{NodeDescriptor, ShardDescriptor, ShardMap};
use synod_txn::Span;

pub(super) fn shard_map(config: &SimConfig) -> ShardMap {
    let nodes: Vec<NodeId> = (1..=config.nodes as u64).map(NodeId).collect();
    let mut bounds: Vec<Vec<u8>> = vec![Vec::new()];
    for shard in 1..config.shards as u64 {
        let at = config.keys * shard / config.shards as u64;
        bounds.push(format!("k{at:03}").into_bytes());
    }
    bounds.dedup();
    bounds.push(RESERVED_PREFIX.to_vec());
    bounds.push(Vec::new());
    let mut shards = Vec::new();
    let count = bounds.len() - 1;
    for index in 0..count {
        let meta = index + 1 == count;
        let id = if meta { 1 } else { index as u64 + 2 };
        // Three voters each, starting at another node.
        let voters = (0..3.min(nodes.len()))
            .map(|i| nodes[(index + i) % nodes.len()])
            .collect();
        shards.push(ShardDescriptor {
            id: GroupId(id),
            span: Span {
                start: bounds[index].clone().into(),
                end: bounds[index + 1].clone().into(),
            },
            generation: 1,
            configuration: Configuration::of_voters(voters),
            preferred_leader: nodes[index % nodes.len()],
        });
    }
    ShardMap {
        nodes: nodes
            .iter()
            .map(|id| NodeDescriptor {
                id: *id,
                name: format!("node-{}", id.0),
                address: std::net::SocketAddr::from(([127, 0, 0, 1], id.0 as u16)),
                locality: format!("dc=dc{}", id.0),
            })
            .collect(),
        shards,
    }
}
