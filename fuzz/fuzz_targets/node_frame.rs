//! A frame's body, as nodes send it to each other.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::wire::node_frame(bytes));
