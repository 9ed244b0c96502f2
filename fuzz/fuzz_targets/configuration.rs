//! Configuration files.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| synod_fuzz::settings::configuration(text));
