//! A log among crashes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::log::crashes(bytes));
