//! Whatever bytes come as messages or records, decoding ends in a value or an
//! error; and values come back as they were.

#[allow(dead_code)]
#[path = "../../../fuzz/src/codec/mod.rs"]
mod codec;
#[allow(dead_code)]
#[path = "../../../fuzz/src/consensus.rs"]
mod consensus;

use proptest::collection::vec;
use proptest::prelude::*;

use synod_paxos::{Durable, Message, Record};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_a_message_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        consensus::message(&choices);
        consensus::message(&codec::damaged::<Message>(&choices));
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        consensus::record(&choices);
        consensus::record(&codec::damaged::<Record>(&choices));
        consensus::record(&codec::damaged::<Durable>(&choices));
    }

    #[test]
    fn any_value_comes_back(choices in vec(any::<u8>(), 0..400)) {
        consensus::value(&choices);
    }
}

#[test]
fn the_corpus_holds() {
    for (_, input) in codec::corpus::of("record") {
        consensus::record(&input);
    }
}
