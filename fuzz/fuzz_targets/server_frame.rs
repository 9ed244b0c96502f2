//! A frame's body, as a node answers it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::wire::server_frame(bytes));
