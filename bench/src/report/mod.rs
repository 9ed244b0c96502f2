//! From records to tables and a picture.

mod markdown;
mod picture;
mod summary;

use crate::error::Error;
use crate::record;
use std::path::Path;
use summary::Summary;

/// The generated part of the document stands between these lines.
const BEGIN: &str = "<!-- begin of what bench/run writes -->";
const END: &str = "<!-- end of what bench/run writes -->";

/// Writes `benchmarks.md` (between its markers) and `benchmarks.svg` in `docs`.
///
/// # Errors
/// When a file cannot be read or written, or has no markers.
pub fn write(results: &Path, docs: &Path) -> Result<(), Error> {
    let summary = Summary::of(record::read(results)?);
    let path = docs.join("benchmarks.md");
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(Error::io(format!("reading {}", path.display())))?;
    let new = between_markers(&text, &markdown::all(&summary)).ok_or_else(|| {
        Error::Wrong(format!(
            "{} has no lines `{BEGIN}`, `{END}`",
            path.display()
        ))
    })?;
    std::fs::write(&path, new).map_err(Error::io(format!("writing {}", path.display())))?;
    let path = docs.join("benchmarks.svg");
    let picture = picture::draw(&summary);
    std::fs::write(&path, picture).map_err(Error::io(format!("writing {}", path.display())))
}

fn between_markers(text: &str, generated: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{BEGIN}\n\n{}\n\n{END}{after}",
        generated.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = between_markers(&text, "new\n").expect("has markers");
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(between_markers(&new, "new").as_deref(), Some(new.as_str()));
        assert_eq!(between_markers("no markers", "new"), None);
    }
}
