//! A frame's body, as a client sends it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::wire::client_frame(bytes));
