//! Faults of one node's disk and clock, put between the real program and the C
//! library by a small shim (`shim.c`), and changed while the program runs.

use super::ClusterError;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOURCE: &str = include_str!("shim.c");
/// Bytes of the file that the shim maps.
const CONTROL_BYTES: usize = 64;

/// What the operating system answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The disk failed (EIO).
    Broken,
    /// The disk is full (ENOSPC).
    Full,
}

impl DiskError {
    fn number(self) -> i64 {
        match self {
            DiskError::Broken => 5,
            DiskError::Full => 28,
        }
    }
}

/// Whose files disk faults concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of the node's.
    All,
    /// The log's.
    Log,
    /// The engine's.
    Engine,
}

/// The faults of one node; none at first.
#[derive(Debug)]
pub struct Faults {
    control: File,
    path: PathBuf,
}

/// Where each number stands.
const WALL_NANOS: u64 = 0;
const SYNC_MICROS: u64 = 8;
const SYNC_ERRNO: u64 = 16;
const WRITE_ERRNO: u64 = 24;
const FREE_BYTES: u64 = 32;
const SCOPE: u64 = 40;

impl Faults {
    pub(super) fn make(path: &Path) -> Result<Faults, ClusterError> {
        let make = || -> std::io::Result<File> {
            let options = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .open(path)?;
            options.write_all_at(&[0; CONTROL_BYTES], 0)?;
            Ok(options)
        };
        let control = make().map_err(|source| ClusterError::Io {
            what: format!("making {}", path.display()),
            source,
        })?;
        Ok(Faults {
            control,
            path: path.to_owned(),
        })
    }

    fn set(&self, at: u64, number: i64) {
        let written = self.control.write_all_at(&number.to_ne_bytes(), at);
        written.unwrap_or_else(|e| panic!("{} cannot be written: {e}", self.path.display()));
    }

    /// The wall clock shows so much more (or less) than the machine's.
    pub fn shift_clock(&self, nanos: i64) {
        self.set(WALL_NANOS, nanos);
    }

    /// Every sync takes so much longer; a stall ends early when this is set lower.
    pub fn slow_syncs(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.set(SYNC_MICROS, micros);
    }

    /// Every sync fails.
    pub fn fail_syncs(&self, error: Option<DiskError>) {
        self.set(SYNC_ERRNO, error.map_or(0, DiskError::number));
    }

    /// Every write fails.
    pub fn fail_writes(&self, error: Option<DiskError>) {
        self.set(WRITE_ERRNO, error.map_or(0, DiskError::number));
    }

    /// Disk faults concern these files only.
    pub fn concern(&self, part: Part) {
        let number = match part {
            Part::All => 0,
            Part::Log => 1,
            Part::Engine => 2,
        };
        self.set(SCOPE, number);
    }

    /// The file system says that so many bytes are free; none = the truth.
    pub fn pretend_free(&self, bytes: Option<u64>) {
        let bytes = bytes.map_or(0, |b| i64::try_from(b).unwrap_or(i64::MAX - 1) + 1);
        self.set(FREE_BYTES, bytes);
    }

    /// No faults any more.
    pub fn heal(&self) {
        let all = [
            WALL_NANOS,
            SYNC_MICROS,
            SYNC_ERRNO,
            WRITE_ERRNO,
            FREE_BYTES,
            SCOPE,
        ];
        for at in all {
            self.set(at, 0);
        }
    }

    /// What a process has to find in its environment. Disk faults concern the
    /// files below `data` only.
    pub(super) fn environment(&self, shim: &Path, data: &Path) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text(shim)),
            ("SYNOD_FAULTS".to_owned(), text(&self.path)),
            ("SYNOD_FAULTS_PATH".to_owned(), text(data)),
        ]
    }
}

/// Compiles the shim with the system's C compiler (which building Synod needs
/// anyway) into `dir`.
pub(super) fn compile(dir: &Path) -> Result<PathBuf, ClusterError> {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| ClusterError::Io { what, source }
    };
    std::fs::write(&source, SOURCE).map_err(io("writing the fault shim"))?;
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source)
        .output()
        .map_err(io("running the C compiler `cc`"))?;
    if output.status.success() {
        return Ok(library);
    }
    Err(ClusterError::Io {
        what: "compiling the fault shim".to_owned(),
        source: std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()),
    })
}
