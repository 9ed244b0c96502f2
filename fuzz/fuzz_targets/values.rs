//! Values of every type on the wire and in the log, there and back.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::value(bytes));
