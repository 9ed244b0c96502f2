//! Durations on the command line: `500us`, `30ms`, `20s`, `2m`.

pub use synod_harness::duration::parse;
