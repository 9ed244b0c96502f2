//! Made-up segments of a log; the first byte says whether checksums are set right.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((first, rest)) = bytes.split_first() {
        synod_fuzz::log::segment(rest, first % 2 == 1);
    }
});
