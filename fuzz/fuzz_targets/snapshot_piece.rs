//! A piece of a snapshot.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::node::snapshot_piece(bytes));
