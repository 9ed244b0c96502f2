//! A log with damaged bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::log::damage(bytes));
