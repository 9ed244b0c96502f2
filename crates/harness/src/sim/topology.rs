//! The cluster's map: nodes in racks in sites, shards over the clients' keys,
//! replicas placed by the planner that places those of a real cluster.

use super::config::SimConfig;
use bytes::Bytes;
use synod_paxos::{Configuration, GroupId, NodeId};
use synod_placement::{Locality, NodeView, PlanRequest};
use synod_shard::wire::RESERVED_PREFIX;
use synod_shard::{Bootstrap, META_SHARD, NodeDescriptor, ShardDescriptor, ShardMap};
use synod_txn::Span;

/// The cluster's id in every run.
pub(super) const CLUSTER: u128 = 0x5359_4e4f_4453_494d;

fn locality(config: &SimConfig, node: usize) -> Locality {
    let tier = |name: &str, value: usize| (name.to_owned(), format!("{name}{}", value + 1));
    Locality(vec![
        tier("dc", config.site_of(node)),
        tier("rack", config.rack_of(node)),
        tier("host", node),
    ])
}

/// The first map, with shards cut at `splits`.
pub(super) fn bootstrap(config: &SimConfig, splits: &[Bytes]) -> Result<Bootstrap, String> {
    let ids: Vec<NodeId> = (1..=config.nodes() as u64).map(NodeId).collect();
    let views = ids.iter().enumerate().map(|(index, id)| NodeView {
        id: *id,
        locality: locality(config, index),
    });
    let mut borders = vec![Bytes::new()];
    borders.extend_from_slice(splits);
    borders.push(Bytes::from_static(RESERVED_PREFIX));
    borders.push(Bytes::new());
    let placed = synod_placement::plan(PlanRequest {
        nodes: views.collect(),
        replicas: config.replicas,
        shards: borders.len() - 1,
    })
    .map_err(|error| error.to_string())?;
    let last = placed.len() - 1;
    let shards = placed.into_iter().zip(borders.windows(2)).enumerate();
    let shards = shards.map(|(index, (place, border))| ShardDescriptor {
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
    let nodes = ids.iter().enumerate().map(|(index, id)| NodeDescriptor {
        id: *id,
        name: format!("n{}", id.0),
        address: std::net::SocketAddr::from(([127, 0, 0, 1], id.0 as u16)),
        locality: String::from(locality(config, index)),
    });
    Ok(Bootstrap {
        cluster: CLUSTER,
        version: config.begins_at,
        map: ShardMap {
            nodes: nodes.collect(),
            shards: shards.collect(),
        },
    })
}
