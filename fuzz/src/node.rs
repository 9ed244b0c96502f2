//! What nodes say to each other about shards.

use crate::codec;
use synod_shard::wire::SnapshotPiece;
use synod_shard::{Bootstrap, NodeMessage, ShardMap, ShardReply, ShardRequest};

/// Bytes as a message between nodes.
pub fn message(bytes: &[u8]) {
    codec::any_bytes::<NodeMessage>(bytes);
}

/// Bytes as a piece of a snapshot.
pub fn snapshot_piece(bytes: &[u8]) {
    codec::any_bytes::<SnapshotPiece>(bytes);
}

/// Bytes as a shard map, and as a cluster's first one.
pub fn map(bytes: &[u8]) {
    codec::any_bytes::<ShardMap>(bytes);
    codec::any_bytes::<Bootstrap>(bytes);
}

/// Values of every type, one of which the first choice names.
pub fn value(choices: &[u8]) {
    match choices.split_first() {
        Some((0..=99, rest)) => codec::any_value::<NodeMessage>(rest),
        Some((100..=129, rest)) => codec::any_value::<SnapshotPiece>(rest),
        Some((130..=169, rest)) => codec::any_value::<Bootstrap>(rest),
        Some((170..=219, rest)) => codec::any_value::<ShardRequest>(rest),
        Some((220..=255, rest)) => codec::any_value::<ShardReply>(rest),
        None => {}
    }
}
