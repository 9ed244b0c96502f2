//! Whatever text comes as a script, it is checked or refused at places that are in
//! it; and bytes shown to people are read as the same bytes.

#[allow(dead_code)]
#[path = "../../../fuzz/src/codec/mod.rs"]
mod codec;
#[allow(dead_code)]
#[path = "../../../fuzz/src/script.rs"]
mod script;

use proptest::collection::vec;
use proptest::prelude::*;

/// Words that scripts are made of, and some that break them.
fn script() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "begin",
        "commit",
        "rollback",
        "to",
        "let",
        "a",
        "=",
        "get",
        "k",
        "for",
        "update",
        "default",
        "put",
        "delete",
        "scan",
        "limit",
        "10",
        "reverse",
        "require",
        "==",
        "<",
        "savepoint",
        "s1",
        "read-only",
        "${a}",
        "${a + 1}",
        "${-(a*2) % 7}",
        "x'00ff'",
        "x'0",
        "\"a b\"",
        "\"\\x0",
        "#",
        ";",
        "·",
        "\n",
        "\r\n",
        "é",
        "\u{feff}",
        "${",
        "}",
        "((((",
    ];
    let word = prop_oneof![
        8 => prop::sample::select(WORDS).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    vec((word, prop::sample::select(&[" ", "", "\n"][..])), 0..40)
        .prop_map(|words| words.into_iter().map(|(word, gap)| word + gap).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_is_a_script_or_mistakes(text in script(), other in any::<String>()) {
        script::script(&text);
        script::script(&other);
    }

    #[test]
    fn what_is_shown_can_be_given_back(bytes in vec(any::<u8>(), 0..40), text in any::<String>()) {
        script::shown(&bytes);
        script::shown(text.as_bytes());
    }
}

#[test]
fn the_corpus_holds() {
    for (_, input) in codec::corpus::of("script") {
        script::script(&String::from_utf8_lossy(&input));
    }
}
