//! Records of the log and of a replica.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    synod_fuzz::log::record(bytes);
    synod_fuzz::consensus::record(bytes);
});
