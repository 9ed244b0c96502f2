//! A shard's replicated state, as checkpoints and snapshots bring it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::state::checkpoint(bytes));
