//! A disk in memory that behaves as badly as a real one may: a crash loses
//! unsynced writes sector by sector and unsynced names one by one, and writes and
//! syncs fail on request. Deterministic: the same calls and seeds, the same disk.

use super::direct::BLOCK;
use super::disk::{Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes at once or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct Contents {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What is on the platter.
    synced: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Contents>,
    /// Names as seen, and as they would be after a crash.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    next: u64,
    /// Counts crashes: files opened before the last one are dead.
    life: u64,
    fail_after: Option<u64>,
    full: bool,
    syncs: u64,
    /// File, start and end of the last write.
    last_write: Option<(u64, usize, usize)>,
    /// The last one that was synced: if what follows is lost, it is the last.
    synced_write: Option<(u64, usize, usize)>,
}

/// The disk; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// A file of a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryFile {
    state: Arc<Mutex<State>>,
    id: u64,
    life: u64,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Counts down to the failure asked for; from then on everything fails.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.fail_after {
            Some(0) => Err(io::Error::other("the disk was told to fail")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&mut self, id: u64) -> io::Result<&mut Contents> {
        self.files
            .get_mut(&id)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn id(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))
    }
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// A power cut: every unsynced sector stays or goes, as does every unsynced
    /// change of a name, as `seed` has it. Open files are dead from now on, and
    /// failures asked for are forgotten.
    pub fn crash(&self, seed: u64) {
        let mut state = lock(&self.state);
        let mut random = seed | 1;
        let mut coin = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 63 == 1
        };
        for file in state.files.values_mut() {
            let dirty = std::mem::take(&mut file.dirty);
            for sector in dirty.into_iter().filter(|_| coin()) {
                let start = sector * SECTOR;
                let end = (start + SECTOR).min(file.seen.len());
                file.synced[start..end].copy_from_slice(&file.seen[start..end]);
            }
            file.seen.clone_from(&file.synced);
        }
        let seen = std::mem::take(&mut state.names);
        let mut names = state.durable_names.clone();
        for (name, id) in seen {
            if names.get(&name) != Some(&id) && coin() {
                // A rename moves: the file has one name afterwards.
                names.retain(|_, other| *other != id);
                names.insert(name, id);
            }
        }
        state.durable_names.clone_from(&names);
        state.names = names;
        state.life += 1;
        state.fail_after = None;
    }

    /// The process dies, the machine goes on: nothing is lost.
    pub fn kill(&self) {
        let mut state = lock(&self.state);
        state.life += 1;
        state.fail_after = None;
    }

    /// After `calls` more writes, syncs and changes of names, every one fails.
    pub fn fail_after(&self, calls: u64) {
        lock(&self.state).fail_after = Some(calls);
    }

    /// The failure asked for, if it has not come yet, does not come.
    pub fn mend(&self) {
        lock(&self.state).fail_after = None;
    }

    /// While the disk is full, nothing new fits on it.
    pub fn set_full(&self, full: bool) {
        lock(&self.state).full = full;
    }

    /// Files and their sizes, for a choice of what to damage.
    #[must_use]
    pub fn files(&self) -> Vec<(String, usize)> {
        let state = lock(&self.state);
        let size = |id: &u64| state.files.get(id).map_or(0, |f| f.synced.len());
        let files = state.names.iter();
        files.map(|(name, id)| (name.clone(), size(id))).collect()
    }

    /// Whether a byte belongs to the last write, or to the last one before that
    /// was synced: nothing later on the disk may prove that it was. Damage there
    /// looks like a write that a power cut interrupted.
    #[must_use]
    pub fn is_last_write(&self, name: &str, offset: usize) -> bool {
        let state = lock(&self.state);
        let id = state.names.get(name);
        let mut last = [state.last_write, state.synced_write].into_iter().flatten();
        last.any(|(file, start, end)| Some(&file) == id && (start..end).contains(&offset))
    }

    /// Flips the bits of `mask` in one byte on the platter. Does nothing if there
    /// is no such byte.
    pub fn damage(&self, name: &str, offset: usize, mask: u8) {
        let mut state = lock(&self.state);
        if let Some(id) = state.names.get(name).copied()
            && let Some(file) = state.files.get_mut(&id)
        {
            for bytes in [&mut file.seen, &mut file.synced] {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte ^= mask;
                }
            }
        }
    }

    /// Syncs so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        lock(&self.state).syncs
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.state).names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<MemoryFile> {
        let mut state = lock(&self.state);
        state.step()?;
        if state.full {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if state.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let id = state.next;
        state.next += 1;
        let zeros = vec![0; usize::try_from(bytes).unwrap_or(0)];
        let contents = Contents {
            seen: zeros.clone(),
            synced: zeros,
            dirty: BTreeSet::new(),
        };
        state.files.insert(id, contents);
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
        Ok(MemoryFile {
            state: self.state.clone(),
            id,
            life: state.life,
        })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let state = lock(&self.state);
        Ok(MemoryFile {
            state: self.state.clone(),
            id: state.id(name)?,
            life: state.life,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.step()?;
        let id = state.id(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.step()?;
        state.id(name)?;
        state.names.remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.step()?;
        state.durable_names = state.names.clone();
        let State { files, names, .. } = &mut *state;
        files.retain(|id, _| names.values().any(|named| named == id));
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/memory").join(name)
    }
}

impl MemoryFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.life == self.life {
            Ok(state)
        } else {
            Err(io::Error::other("opened before the crash"))
        }
    }
}

impl DiskFile for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.state()?.file(self.id)?.seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = state
            .file(self.id)?
            .seen
            .get(start..start.saturating_add(buffer.len()))
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.step()?;
        let file = state.file(self.id)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(data.len());
        if end > file.seen.len() {
            return Err(io::Error::other("segments never grow"));
        }
        file.seen[start..end].copy_from_slice(data);
        file.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
        // What stands behind goes, as with a real file that is written in blocks.
        let rest = file.seen.len().min(end.next_multiple_of(BLOCK));
        let mut at = end;
        while at < rest {
            let next = rest.min((at / SECTOR + 1) * SECTOR);
            if file.seen[at..next] != [0; SECTOR][..next - at] {
                file.seen[at..next].fill(0);
                file.dirty.insert(at / SECTOR);
            }
            at = next;
        }
        state.last_write = Some((self.id, start, end));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.step()?;
        state.syncs += 1;
        state.synced_write = state.last_write;
        let file = state.file(self.id)?;
        let Contents {
            seen,
            synced,
            dirty,
        } = file;
        for sector in std::mem::take(dirty) {
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(seen.len());
            synced[start..end].copy_from_slice(&seen[start..end]);
        }
        Ok(())
    }
}
