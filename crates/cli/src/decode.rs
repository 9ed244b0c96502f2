//! Whatever is written in a configuration file or on the command line, it is
//! understood or refused in words.

#[path = "../../../fuzz/src/settings.rs"]
mod settings;

use proptest::collection::vec;
use proptest::prelude::*;

/// Lines that configuration files are made of, and some that break them.
fn file() -> impl Strategy<Value = String> {
    const LINES: &[&str] = &[
        "[node]",
        "[log]",
        "[timing]",
        "[testing]",
        "[client]",
        "[",
        "name = \"n1\"",
        "listen = \"127.0.0.1:7001\"",
        "listen = \"7001\"",
        "locality = \"dc=a\"",
        "locality = \"dc\"",
        "data_dir = \"d\"",
        "ca = \"\"",
        "cert = 1",
        "key = \"\\u0000\"",
        "engine = \"redb\"",
        "segment_bytes = -1",
        "segment_bytes = 1048577",
        "lease_millis = 9223372036854775807",
        "endpoints = [\"a\", 1]",
        "endpoints = []",
        "endpoints = [\"127.0.0.1:1\"]",
        "lease_milis = 1",
        "# a comment",
        "é = \"\"",
    ];
    let line = prop_oneof![
        9 => prop::sample::select(LINES).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    vec(line, 0..24).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_text_is_a_configuration_or_refused(text in file()) {
        settings::configuration(&text);
    }

    #[test]
    fn any_text_is_an_argument_or_refused(
        text in any::<String>(),
        duration in "[-+]?[0-9.e]{0,4}(us|ms|s|m|h)?",
        hex in "x'[0-9a-fé+]{0,6}'?",
    ) {
        settings::argument(&text);
        settings::argument(&duration);
        settings::argument(&hex);
    }
}
