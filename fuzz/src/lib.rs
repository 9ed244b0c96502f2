//! What must hold of everything that decodes bytes from outside.
//!
//! Each property is a function of bytes or text. The fuzz targets call them with
//! what libFuzzer thinks of; the tests of the crates include the same files and
//! call them with what proptest thinks of, and with the corpus.

pub mod codec;
pub mod consensus;
pub mod hostile;
pub mod log;
pub mod names;
pub mod node;
pub mod script;
pub mod settings;
pub mod state;
pub mod wire;

// The program is no library. These files of it stand alone.
#[allow(dead_code)]
#[path = "../../crates/cli/src/bytes.rs"]
mod bytes;
#[allow(dead_code, unused_imports)]
#[path = "../../crates/cli/src/config/mod.rs"]
mod config;
#[allow(dead_code)]
#[path = "../../crates/cli/src/duration.rs"]
mod duration;
#[allow(dead_code)]
#[path = "../../crates/cli/src/exit.rs"]
mod exit;

/// A value of any type, there and back.
pub fn value(choices: &[u8]) {
    match choices.split_first() {
        Some((0..=59, rest)) => consensus::value(rest),
        Some((60..=129, rest)) => state::value(rest),
        Some((130..=199, rest)) => node::value(rest),
        Some((200..=255, rest)) => wire::value(rest),
        None => {}
    }
}
