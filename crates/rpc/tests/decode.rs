//! Whatever bytes come over a stream or in a certificate, decoding ends in a value
//! or an error; and values come back as they were.

#[allow(dead_code)]
#[path = "../../../fuzz/src/codec/mod.rs"]
mod codec;
#[allow(dead_code)]
#[path = "../../../fuzz/src/names.rs"]
mod names;
#[allow(dead_code)]
#[path = "../../../fuzz/src/wire.rs"]
mod wire;

use proptest::collection::vec;
use proptest::prelude::*;

use synod_rpc::{ClientFrame, ServerFrame};
use synod_shard::NodeMessage;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bytes_are_frames_or_an_error(choices in vec(any::<u8>(), 0..400), length in 0u32..64) {
        wire::frames(&choices);
        let mut framed = length.to_le_bytes().to_vec();
        framed.extend(codec::damaged::<NodeMessage>(&choices));
        wire::frames(&framed);
    }

    #[test]
    fn any_body_is_a_clients_frame_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        wire::client_frame(&choices);
        wire::client_frame(&codec::damaged::<ClientFrame>(&choices));
    }

    #[test]
    fn any_body_is_an_answer_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        wire::server_frame(&choices);
        wire::server_frame(&codec::damaged::<ServerFrame>(&choices));
    }

    #[test]
    fn any_body_is_messages_of_a_node_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        wire::node_frame(&choices);
        let mut several = codec::damaged::<NodeMessage>(&choices[choices.len() / 2..]);
        several.extend(codec::damaged::<NodeMessage>(&choices));
        wire::node_frame(&several);
    }

    #[test]
    fn any_bytes_are_a_hello_or_an_error(choices in vec(any::<u8>(), 0..100)) {
        wire::hello(&choices);
        let body = codec::damaged::<synod_rpc::hello::StreamHello>(&choices);
        let mut stream = b"SYNO\x01\0".to_vec();
        stream.extend_from_slice(&(body.len() as u32).to_le_bytes());
        stream.extend(body);
        wire::hello(&stream);
    }

    #[test]
    fn any_value_comes_back(choices in vec(any::<u8>(), 0..400)) {
        wire::value(&choices);
    }

    #[test]
    fn any_text_is_a_locality_or_an_error(text in "((region|dc|rack|host)=[a-z0-9._é-]{0,3},?){0,5}") {
        names::locality(&text);
        names::locality(text.trim_end_matches(','));
    }

    #[test]
    fn any_bytes_are_a_certificate_or_an_error(
        seed in any::<prop::sample::Index>(),
        harm in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut inputs = codec::corpus::of("certificate");
        let (_, mut bytes) = inputs.swap_remove(seed.index(inputs.len()));
        for (at, byte) in harm {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        names::certificate(&bytes);
        names::certificate(&bytes[..cut.index(bytes.len() + 1)]);
    }
}

/// The worst that bytes can do to memory, whatever they claim.
#[test]
fn long_lists_take_memory_in_proportion() {
    codec::long_lists::<ClientFrame>(50_000);
    codec::long_lists::<ServerFrame>(50_000);
    codec::long_lists::<NodeMessage>(50_000);
}

#[test]
fn the_corpus_holds() {
    for (_, input) in codec::corpus::of("frames") {
        wire::frames(&input);
    }
    for (_, input) in codec::corpus::of("client_frame") {
        wire::client_frame(&input);
    }
    for (_, input) in codec::corpus::of("server_frame") {
        wire::server_frame(&input);
    }
    for (_, input) in codec::corpus::of("node_frame") {
        wire::node_frame(&input);
    }
    for (_, input) in codec::corpus::of("hello") {
        wire::hello(&input);
    }
    for (_, input) in codec::corpus::of("certificate") {
        names::certificate(&input);
    }
    for (_, input) in codec::corpus::of("locality") {
        names::locality(&String::from_utf8_lossy(&input));
    }
}
