//! Clients that send whatever decodes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synod_fuzz::hostile::clients(bytes));
