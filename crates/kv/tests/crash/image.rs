//! A copy of a directory, and what a crash may do to it.

use super::Numbers;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What the operating system writes back at once.
const PAGE: usize = 4096;

/// A file: its bytes up to the last one that is not zero, and its length.
/// Journals are made longer than what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    bytes: Vec<u8>,
    length: usize,
}

/// A copy of a directory: its files by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    files: BTreeMap<String, File>,
    directories: Vec<String>,
}

/// The number a journal is named by.
pub fn number(name: &str) -> Option<u64> {
    let name = name.rsplit('/').next()?;
    name.strip_suffix(".jnl")?.parse().ok()
}

/// What tells that a directory changed while it was copied.
type Listing = BTreeMap<String, (u64, Option<std::time::SystemTime>)>;

fn list(root: &Path, below: &str, into: &mut Listing) {
    let here = root.join(below);
    // A directory may go while it is listed; the second listing tells.
    for entry in fs::read_dir(here).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().expect("a plain name");
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let Ok(about) = entry.metadata() else {
            continue;
        };
        if about.is_dir() {
            into.insert(format!("{path}/"), (0, None));
            list(root, &path, into);
        } else {
            into.insert(path, (about.len(), about.modified().ok()));
        }
    }
}

impl Image {
    /// Copies a directory that an engine is working in: again, until nothing
    /// moved meanwhile.
    pub fn copy(root: &Path) -> Image {
        for _ in 0..10_000 {
            let mut before = Listing::new();
            list(root, "", &mut before);
            let mut image = Image::default();
            for name in before.keys() {
                match name.strip_suffix('/') {
                    Some(name) => image.directories.push(name.to_owned()),
                    None => {
                        if let Ok(bytes) = fs::read(root.join(name)) {
                            image.files.insert(name.clone(), File::of(bytes));
                        }
                    }
                }
            }
            let mut after = Listing::new();
            list(root, "", &mut after);
            if before == after {
                return image;
            }
        }
        panic!("{} never stands still", root.display());
    }

    /// Makes the directory anew.
    pub fn write(&self, root: &Path) {
        fs::create_dir_all(root).expect("a directory");
        for name in &self.directories {
            fs::create_dir_all(root.join(name)).expect("a directory");
        }
        for (name, file) in &self.files {
            let path = root.join(name);
            fs::write(&path, &file.bytes).expect("a file");
            let open = fs::OpenOptions::new().write(true).open(&path);
            let set = open.and_then(|open| open.set_len(file.length as u64));
            set.expect("its length");
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Bytes of a file up to the last one that is not zero; 0 if there is none.
    pub fn used(&self, name: &str) -> usize {
        self.files.get(name).map_or(0, |file| file.bytes.len())
    }

    /// Loses what a file has from `at` on: the file becomes shorter, or keeps its
    /// length with zeros.
    pub fn cut(&mut self, name: &str, at: usize, keep_length: bool) {
        let file = self.files.get_mut(name).expect("a file");
        file.bytes.truncate(at);
        if !keep_length {
            file.length = at;
        }
    }

    /// Loses some pages of what was written after `synced`, as `choice` has it;
    /// the others are there. A page that held synced bytes keeps those.
    pub fn lose_pages(&mut self, name: &str, synced: &Image, choice: &mut Numbers) {
        let keep = synced.used(name);
        let file = self.files.get_mut(name).expect("a file");
        let first = keep / PAGE;
        for page in first..file.bytes.len().div_ceil(PAGE) {
            if choice.below(2) == 0 {
                let end = ((page + 1) * PAGE).min(file.bytes.len());
                file.bytes[(page * PAGE).max(keep)..end].fill(0);
            }
        }
        *file = File::with_length(std::mem::take(&mut file.bytes), file.length);
    }

    /// Loses one page.
    pub fn lose_page(&mut self, name: &str, page: usize) {
        let file = self.files.get_mut(name).expect("a file");
        file.bytes[page * PAGE..(page + 1) * PAGE].fill(0);
    }

    /// Overwrites one byte after what was synced.
    pub fn garble(&mut self, name: &str, at: usize, byte: u8) {
        if let Some(there) = self.files.get_mut(name).and_then(|f| f.bytes.get_mut(at)) {
            *there = byte;
        }
    }

    /// Flips bits of one byte.
    pub fn flip(&mut self, name: &str, at: usize, bits: u8) {
        if let Some(there) = self.files.get_mut(name).and_then(|f| f.bytes.get_mut(at)) {
            *there ^= bits;
        }
    }

    /// Replaces a file by the one of another copy.
    pub fn take(&mut self, name: &str, other: &Image) {
        let file = other.files.get(name).expect("a file");
        self.files.insert(name.to_owned(), file.clone());
    }

    /// Loses a file.
    pub fn remove(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// Adds the files of `later` that are not here yet, as `choice` has it:
    /// whole, cut short, or not at all.
    pub fn add_new_files(&mut self, later: &Image, choice: &mut Numbers) {
        self.directories.extend(later.directories.iter().cloned());
        for (name, file) in &later.files {
            if self.files.contains_key(name) {
                continue;
            }
            let mut file = file.clone();
            match choice.below(3) {
                0 => continue,
                1 => {
                    let at = choice.below(file.bytes.len() as u64 + 1) as usize;
                    file = File::of(file.bytes[..at].to_vec());
                }
                _ => {}
            }
            self.files.insert(name.clone(), file);
        }
    }
}

impl File {
    fn of(bytes: Vec<u8>) -> File {
        let length = bytes.len();
        File::with_length(bytes, length)
    }

    fn with_length(mut bytes: Vec<u8>, length: usize) -> File {
        // Whole pages first: most of a journal is zeros, and this is often called.
        while bytes.ends_with(&[0; PAGE]) {
            bytes.truncate(bytes.len() - PAGE);
        }
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        bytes.truncate(used);
        File { bytes, length }
    }
}
