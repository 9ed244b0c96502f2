//! Whatever bytes come between nodes, decoding ends in a value or an error; and
//! whatever value comes, no worker panics.

#[allow(dead_code)]
#[path = "../../../fuzz/src/codec/mod.rs"]
mod codec;
#[allow(dead_code)]
#[path = "../../../fuzz/src/hostile.rs"]
mod hostile;
#[allow(dead_code)]
#[path = "../../../fuzz/src/node.rs"]
mod node;

use proptest::collection::vec;
use proptest::prelude::*;

use synod_shard::wire::SnapshotPiece;
use synod_shard::{Bootstrap, NodeMessage, ShardMap};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bytes_are_a_message_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        node::message(&choices);
        node::message(&codec::damaged::<NodeMessage>(&choices));
    }

    #[test]
    fn any_bytes_are_a_piece_of_a_snapshot_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        node::snapshot_piece(&choices);
        node::snapshot_piece(&codec::damaged::<SnapshotPiece>(&choices));
    }

    #[test]
    fn any_bytes_are_a_map_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        node::map(&choices);
        node::map(&codec::damaged::<ShardMap>(&choices));
        node::map(&codec::damaged::<Bootstrap>(&choices));
    }

    #[test]
    fn any_value_comes_back(choices in vec(any::<u8>(), 0..400)) {
        node::value(&choices);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_request_of_a_client_stops_a_node(choices in vec(any::<u8>(), 0..2_000)) {
        hostile::clients(&choices);
    }

    #[test]
    fn no_message_of_a_node_makes_another_panic(choices in vec(any::<u8>(), 0..2_000)) {
        hostile::peers(&choices);
    }
}

#[test]
fn the_corpus_holds() {
    for (_, input) in codec::corpus::of("snapshot_piece") {
        node::snapshot_piece(&input);
    }
    for (_, input) in codec::corpus::of("clients") {
        hostile::clients(&input);
    }
    for (_, input) in codec::corpus::of("peers") {
        hostile::peers(&input);
    }
}
