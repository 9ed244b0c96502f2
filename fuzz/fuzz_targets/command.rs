//! A command in a log entry.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::state::command(bytes));
