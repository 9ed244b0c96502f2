//! Scripts of transactions.

use crate::codec;
use synod_client::script::{self, show_bytes};

/// Mistakes of one script that are told, at most (and the one about its end).
const MAX_MISTAKES: usize = 21;

/// A text as a script: checked, or refused with places that exist in it.
pub fn script(text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    match codec::bounded(text.as_bytes(), |_| script::parse(text)) {
        Ok(script) => {
            assert_eq!(script::parse(text), Ok(script.clone()));
            // Comments, indentation and empty lines change nothing but places.
            let more: String = lines
                .iter()
                .map(|line| format!("{line} # more\n"))
                .collect();
            assert_eq!(script::parse(&more).map(|_| ()), Ok(()));
        }
        Err(mistakes) => {
            assert!((1..=MAX_MISTAKES).contains(&mistakes.len()));
            for mistake in mistakes {
                let line = mistake.line.checked_sub(1).map(|n| lines.get(n as usize));
                let line = line.flatten().expect("a line of the script");
                let last = line.chars().count() as u32 + 2;
                assert!((1..=last).contains(&mistake.column), "{mistake}");
                assert!(!mistake.message.is_empty());
            }
        }
    }
}

/// Bytes shown to people are a word that a script reads as the same bytes.
pub fn shown(bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let plain = script::parse(&format!("put k x'{hex}'\n"));
    let shown = script::parse(&format!("put k {}\n", show_bytes(bytes)));
    assert_eq!(shown, plain, "{bytes:?}");
}
