//! Whatever a crash leaves of a log, and whatever bytes it is damaged with, it
//! opens with everything that was synced, or is refused.

#[allow(dead_code)]
#[path = "../../../fuzz/src/codec/mod.rs"]
mod codec;
#[allow(dead_code)]
#[path = "../../../fuzz/src/log.rs"]
mod log;

use proptest::collection::vec;
use proptest::prelude::*;

use synod_kv::log::LogRecord;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bytes_are_a_record_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        log::record(&choices);
        log::record(&codec::damaged::<LogRecord>(&choices));
    }

    #[test]
    fn a_crash_takes_nothing_that_was_synced(choices in vec(any::<u8>(), 0..180)) {
        log::crashes(&choices);
    }

    #[test]
    fn damage_is_noticed_or_leaves_a_beginning(choices in vec(any::<u8>(), 0..120)) {
        log::damage(&choices);
    }

    #[test]
    fn any_bytes_are_a_segment_or_an_error(choices in vec(any::<u8>(), 0..800)) {
        log::segment(&choices, false);
    }
}

#[test]
fn the_corpus_holds() {
    for (_, input) in codec::corpus::of("log_crashes") {
        log::crashes(&input);
    }
    for (_, input) in codec::corpus::of("log_damage") {
        log::damage(&input);
    }
}
