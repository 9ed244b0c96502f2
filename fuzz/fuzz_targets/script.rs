//! Scripts of transactions, and bytes as people see them.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    synod_fuzz::script::script(text);
    synod_fuzz::script::shown(text.as_bytes());
});
