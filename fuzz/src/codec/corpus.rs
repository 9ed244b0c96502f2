//! The seeds of the fuzz targets, and what they once found.

use std::path::Path;

/// All inputs kept for a target, with their names.
///
/// # Panics
/// If there are none: a corpus that was lost would test nothing.
#[allow(clippy::disallowed_methods)] // Tests of ring 0 read their inputs, too.
pub fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.join(if here.ends_with("fuzz") {
        ""
    } else {
        "../../fuzz"
    });
    let directory = root.join("corpus").join(target);
    let entries = std::fs::read_dir(&directory).expect("a corpus");
    let mut inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.display().to_string();
            (name, std::fs::read(path).expect("an input"))
        })
        .collect();
    assert!(!inputs.is_empty(), "{} is empty", directory.display());
    inputs.sort();
    inputs
}
