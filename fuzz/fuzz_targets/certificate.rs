//! Certificates and the names in them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::names::certificate(bytes));
