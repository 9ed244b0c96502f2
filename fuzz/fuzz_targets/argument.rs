//! Durations and bytes on the command line.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| synod_fuzz::settings::argument(text));
