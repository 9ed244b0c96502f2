//! What each node holds and is asked, as `synod placement show` tells it.

use super::loads::show_bytes;
use super::status::table;
use serde::Serialize;
use synod_operate::Seen;
use synod_placement::Node;

/// What is shown of a node.
#[derive(Debug, Serialize)]
pub(super) struct NodeRow {
    node: String,
    state: String,
    replicas: usize,
    /// Bytes of its replicas, as far as sizes are known.
    bytes: u64,
    /// Replicas of which the size is not known.
    unweighed: usize,
    leads: usize,
    /// Requests to the shards that it leads.
    requests_per_second: u64,
    /// Bytes that it may take in besides; none without a limit, or if it does not answer.
    room: Option<u64>,
    /// Copies that it does not take in, and why.
    refuses: Vec<String>,
}

/// All nodes.
pub(super) fn rows(seen: &Seen) -> Vec<NodeRow> {
    seen.view.nodes.iter().map(|node| row(seen, node)).collect()
}

fn row(seen: &Seen, node: &Node) -> NodeRow {
    let shards = &seen.view.shards;
    let there = || {
        shards
            .iter()
            .filter(|shard| shard.replicas.contains_key(&node.id))
    };
    let stored = there().filter(|shard| shard.replicas[&node.id].stores());
    let led = || shards.iter().filter(|shard| shard.leader == Some(node.id));
    let copies = seen.survey.copies.get(&node.id);
    let refused = copies.into_iter().flat_map(|copies| &copies.refused);
    NodeRow {
        node: seen.survey.name(node.id),
        state: node.state.to_string(),
        replicas: there().count(),
        bytes: stored.clone().filter_map(|shard| shard.bytes).sum(),
        unweighed: stored.filter(|shard| shard.bytes.is_none()).count(),
        leads: led().count(),
        requests_per_second: led().map(|shard| shard.requests).sum(),
        room: node.room,
        refuses: refused.map(|copy| copy.reason.clone()).collect(),
    }
}

/// Prints them.
pub(super) fn print(rows: &[NodeRow]) {
    let mut nodes = table(&[
        "NODE", "STATE", "REPLICAS", "HOLD", "LEADS", "ASKED/S", "ROOM",
    ]);
    for row in rows {
        let bytes = show_bytes(row.bytes);
        nodes.add_row([
            row.node.clone(),
            row.state.clone(),
            row.replicas.to_string(),
            match row.unweighed {
                0 => bytes,
                more => format!("{bytes}, and {more} ?"),
            },
            row.leads.to_string(),
            row.requests_per_second.to_string(),
            row.room.map_or_else(|| "?".to_owned(), show_bytes),
        ]);
    }
    println!("{nodes}\n");
}
