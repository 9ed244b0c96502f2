//! The note in an engine's directory that says what made it, so that another
//! kind of engine never mistakes the directory for an empty one.

use super::EngineError;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

const NAME: &str = "KIND";

/// Makes the directory if there is none, and checks or writes its note.
/// `kind` names engine and layout version.
pub(super) fn check(path: &Path, kind: &str) -> Result<(), EngineError> {
    crate::files::make_directory(path)?;
    let note = path.join(NAME);
    match fs::read_to_string(&note) {
        Ok(found) if found.trim_end() == kind => Ok(()),
        Ok(found) => Err(EngineError::OtherKind {
            path: path.to_owned(),
            found: found.trim_end().to_owned(),
            wanted: kind.to_owned(),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let temporary = path.join("KIND.new");
            let mut file = File::create(&temporary)?;
            writeln!(file, "{kind}")?;
            file.sync_all()?;
            fs::rename(&temporary, &note)?;
            File::open(path)?.sync_all()?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
