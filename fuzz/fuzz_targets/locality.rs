//! Places of nodes.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| synod_fuzz::names::locality(text));
