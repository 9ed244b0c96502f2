//! The first bytes of a stream.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::wire::hello(bytes));
