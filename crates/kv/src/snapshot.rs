//! Snapshots of one shard as chunks: reading them for a peer, and staging and
//! installing what a peer sent.
//!
//! The first chunks are the replicated state, the others are runs of versions
//! in engine order. A chunk once read can be read again (the start of each is kept), so
//! a transfer resumes where it was lost. Versions of later slots that the
//! engine snapshot happens to hold are committed data too, and are written
//! again, equal, when the receiver replays its log.

use crate::engine::{Cursor, Engine, EngineBatch, EngineError, EngineSnapshot};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use synod_paxos::{GroupId, NodeId, Slot, SnapshotId};
use synod_probe::{Mutation, mutated};
use synod_shard::wire::{SnapshotPiece, SnapshotState, snapshot_head};
use synod_txn::state::State;
use synod_txn::{Key, Span};

/// Bytes of one chunk, about.
const CHUNK_BYTES: usize = 512 << 10;
/// Bytes of one chunk that a receiver takes, at most.
const MAX_CHUNK_BYTES: usize = 64 << 20;
/// Snapshots read at the same time; more wait for the sender's retry.
const MAX_OUTGOING: usize = 16;

struct Reading {
    id: SnapshotId,
    state: SnapshotState,
    ancestors: BTreeSet<GroupId>,
    snapshot: Box<dyn EngineSnapshot>,
    /// Where each run of versions starts; none = at the span's beginning.
    starts: Vec<Option<Cursor>>,
}

/// Snapshots on their way to peers.
#[derive(Default)]
pub(crate) struct Outgoing {
    readings: BTreeMap<(GroupId, NodeId), Reading>,
}

impl Outgoing {
    pub(crate) fn open(
        &mut self,
        engine: &dyn Engine,
        group: GroupId,
        to: NodeId,
        id: SnapshotId,
        (state, ancestors): (SnapshotState, BTreeSet<GroupId>),
    ) -> Result<(), EngineError> {
        self.readings.remove(&(group, to));
        if self.readings.len() >= MAX_OUTGOING {
            return Ok(());
        }
        let reading = Reading {
            id,
            state,
            ancestors,
            snapshot: engine.snapshot()?,
            starts: vec![None],
        };
        self.readings.insert((group, to), reading);
        Ok(())
    }

    pub(crate) fn close(&mut self, group: GroupId, to: NodeId) {
        self.readings.remove(&(group, to));
    }

    /// The chunk and whether it is the last; none if it cannot be had (the
    /// receiver's leader starts a new snapshot after a while).
    pub(crate) fn read(
        &mut self,
        group: GroupId,
        to: NodeId,
        id: SnapshotId,
        chunk: u64,
    ) -> Result<Option<(Bytes, bool)>, EngineError> {
        let Some(reading) = self.readings.get_mut(&(group, to)).filter(|r| r.id == id) else {
            return Ok(None);
        };
        let Ok(chunk) = usize::try_from(chunk) else {
            return Ok(None);
        };
        // An empty state is one empty piece.
        let SnapshotState { span, state, .. } = &reading.state;
        let states = state.len().div_ceil(CHUNK_BYTES).max(1);
        let Some(index) = chunk.checked_sub(states) else {
            let from = chunk * CHUNK_BYTES;
            let to = (from + CHUNK_BYTES).min(state.len());
            let first = chunk == 0;
            let passed = reading.state.passed.iter().filter(|_| first);
            let part = SnapshotState {
                span: span.clone(),
                passed: passed.copied().collect(),
                state: state.slice(from..to),
            };
            let piece = if first && !reading.ancestors.is_empty() {
                SnapshotPiece::Merged {
                    state: part,
                    ancestors: reading.ancestors.clone(),
                }
            } else {
                SnapshotPiece::State(part)
            };
            return Ok(encode(&piece).map(|b| (b, false)));
        };
        let Some(start) = reading.starts.get(index).cloned() else {
            return Ok(None);
        };
        let (versions, end) = reading.snapshot.export(span, start.as_ref(), CHUNK_BYTES)?;
        let done = end.is_none();
        if !done && reading.starts.len() == index + 1 {
            reading.starts.push(end);
        }
        Ok(encode(&SnapshotPiece::Versions(versions)).map(|b| (b, done)))
    }
}

fn encode(piece: &SnapshotPiece) -> Option<Bytes> {
    postcard::to_stdvec(piece).ok().map(Bytes::from)
}

/// Where the chunks of incoming snapshots wait until they are all there.
#[derive(Clone, Debug)]
pub enum Staging {
    /// Files in this directory.
    Files(PathBuf),
    /// Memory: for the simulator, whose shards are small.
    Memory,
}

/// Before each chunk in a file: its length and its CRC-32.
const CHUNK_HEADER: usize = 12;

enum Chunks {
    File { file: File, path: PathBuf },
    Memory(Vec<Bytes>),
}

impl Chunks {
    fn begin(staging: &Staging, group: GroupId) -> io::Result<Chunks> {
        match staging {
            Staging::Files(directory) => {
                fs::create_dir_all(directory)?;
                let path = directory.join(format!("shard-{}", group.0));
                let file = File::create(&path)?;
                Ok(Chunks::File { file, path })
            }
            Staging::Memory => Ok(Chunks::Memory(Vec::new())),
        }
    }

    fn push(&mut self, data: Bytes) -> io::Result<()> {
        match self {
            Chunks::File { file, .. } => {
                file.write_all(&(data.len() as u64).to_le_bytes())?;
                file.write_all(&crc32fast::hash(&data).to_le_bytes())?;
                file.write_all(&data)
            }
            Chunks::Memory(chunks) => {
                chunks.push(data);
                Ok(())
            }
        }
    }

    /// Gives their room back.
    fn discard(self) -> io::Result<()> {
        match self {
            Chunks::File { path, .. } => fs::remove_file(path),
            Chunks::Memory(_) => Ok(()),
        }
    }

    /// Hands out all chunks in order, then forgets them.
    fn drain(
        self,
        count: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        match self {
            Chunks::File { path, .. } => {
                let file = File::open(&path)?;
                let mut left = file.metadata()?.len();
                let mut reader = BufReader::new(file);
                for _ in 0..count {
                    let data = read_chunk(&mut reader, &mut left).map_err(|error| {
                        let reason = format!("the snapshot in {}: {error}", path.display());
                        io::Error::new(error.kind(), reason)
                    })?;
                    each(&data)?;
                }
                Ok(fs::remove_file(&path)?)
            }
            Chunks::Memory(chunks) => chunks.iter().try_for_each(|data| each(data)),
        }
    }
}

/// The next chunk of a file of which so many bytes are left. What has lain on a disk is checked
/// again: the engine seals it as if it were new.
fn read_chunk(reader: &mut impl Read, left: &mut u64) -> io::Result<Vec<u8>> {
    let mut header = [0; CHUNK_HEADER];
    reader.read_exact(&mut header)?;
    let (length, checksum) = header.split_at(8);
    let length = length.try_into().map_or(u64::MAX, u64::from_le_bytes);
    let rest = left.checked_sub(CHUNK_HEADER as u64);
    let rest = rest.and_then(|rest| rest.checked_sub(length));
    let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    *left = rest.ok_or_else(|| damaged("a chunk is longer than its file"))?;
    let mut data = vec![0; usize::try_from(length).map_err(|_| damaged("a chunk is too long"))?];
    reader.read_exact(&mut data)?;
    if crc32fast::hash(&data).to_le_bytes() != checksum {
        return Err(damaged("a chunk is not what was written"));
    }
    Ok(data)
}

/// Where a snapshot goes on this node.
pub(crate) struct Place {
    pub(crate) group: GroupId,
    /// The keys whose data it replaces, besides those that it is of.
    pub(crate) span: Span,
    /// Another replica's data begins there.
    pub(crate) clip: Option<Key>,
    /// Replicas here whose data it takes the place of, since their shards were absorbed.
    pub(crate) absorbed: Vec<GroupId>,
}

struct Staged {
    id: SnapshotId,
    /// The range that it is of, as its first chunk says.
    of: Option<Span>,
    next: u64,
    chunks: Chunks,
}

/// Snapshots on their way in: chunks are staged, then installed.
pub(crate) struct Incoming {
    staging: Staging,
    staged: BTreeMap<GroupId, Staged>,
}

impl Incoming {
    /// What an earlier process left staged is of no use: its transfer starts anew.
    pub(crate) fn new(staging: Staging) -> Incoming {
        if let Staging::Files(directory) = &staging {
            let _ = fs::remove_dir_all(directory);
        }
        Incoming {
            staging,
            staged: BTreeMap::new(),
        }
    }

    /// The replica is given up, and what was staged for it.
    pub(crate) fn forget(&mut self, group: GroupId) -> io::Result<()> {
        let staged = self.staged.remove(&group);
        staged.map_or(Ok(()), |staged| staged.chunks.discard())
    }

    /// Takes a chunk. With the last one, installs everything and returns the range that it
    /// is of and the replicated state.
    pub(crate) fn stage(
        &mut self,
        engine: &dyn Engine,
        place: &Place,
        id: SnapshotId,
        chunk: u64,
        data: Bytes,
        done: bool,
    ) -> Result<Option<(Span, Bytes)>, EngineError> {
        let group = place.group;
        if chunk == 0 {
            let staged = Staged {
                id,
                of: snapshot_head(&data).map(|(state, _)| state.span),
                next: 0,
                chunks: Chunks::begin(&self.staging, group)?,
            };
            self.staged.insert(group, staged);
        }
        let Some(staged) = self.staged.get_mut(&group) else {
            return Ok(None);
        };
        if staged.id != id || staged.next != chunk || data.len() > MAX_CHUNK_BYTES {
            return Ok(None);
        }
        staged.chunks.push(data)?;
        staged.next += 1;
        if !done {
            return Ok(None);
        }
        let Some(staged) = self.staged.remove(&group) else {
            return Ok(None);
        };
        install(engine, place, staged).map(Some)
    }
}

/// Replaces the shard's data. The mark `installing` stands while the range is
/// neither the old state nor the new one.
fn install(
    engine: &dyn Engine,
    place: &Place,
    staged: Staged,
) -> Result<(Span, Bytes), EngineError> {
    let Place {
        group,
        span,
        clip,
        absorbed,
    } = place;
    let group = *group;
    // This replica may have known more of the shard's splits than the sender had applied, or
    // less: what it gets is what the sender's state is of.
    let of = staged.of.unwrap_or_else(|| span.clone());
    let theirs = of.before(clip.as_ref());
    let slot = staged.id.slot;
    if !mutated(Mutation::HalfInstalled) {
        engine.set_installing(group, Some(slot))?;
    }
    // After a crash in what follows they would be taken for whole.
    for id in absorbed {
        engine.set_installing(*id, Some(Slot(0)))?;
    }
    engine.clear_range(span)?;
    engine.clear_range(&theirs)?;
    let mut state = Vec::new();
    staged.chunks.drain(staged.next, |data| {
        match postcard::from_bytes::<SnapshotPiece>(data) {
            Ok(SnapshotPiece::State(part) | SnapshotPiece::Merged { state: part, .. }) => {
                state.extend_from_slice(&part.state);
            }
            Ok(SnapshotPiece::Versions(mut versions)) => {
                // One opened before a split brings what is another replica's data by now.
                versions.retain(|(key, ..)| theirs.contains(key));
                engine.apply(EngineBatch {
                    versions,
                    ..EngineBatch::default()
                })?;
            }
            // The checksum was right, so the sender speaks another format. The
            // range is cleared by now: this replica cannot go on.
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error).into()),
        }
        Ok(())
    })?;
    let state = Bytes::from(state);
    engine.apply(EngineBatch {
        marks: vec![(group, slot)],
        checkpoints: vec![(group, slot, state.clone())],
        ..EngineBatch::default()
    })?;
    forget_births(engine, group, &state, |key| {
        span.contains(key) || theirs.contains(key)
    })?;
    engine.sync()?;
    engine.set_installing(group, None)?;
    engine.sync()?;
    Ok((of, state))
}

/// What an interrupted birth has left of shards that were split off this one counts for nothing
/// any more: their data went with the range.
fn forget_births(
    engine: &dyn Engine,
    group: GroupId,
    state: &[u8],
    cleared: impl Fn(&Key) -> bool,
) -> Result<(), EngineError> {
    // A state that cannot be read stops the replica when it is told of it.
    let children = State::decode(group, state).map_or_else(|_| Vec::new(), |s| s.lineage.children);
    for child in children {
        if cleared(&child.span.start) {
            engine.set_installing(child.id, Some(Slot(0)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::MemoryEngine;

    #[test]
    fn what_was_staged_for_a_replica_goes_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut incoming = Incoming::new(Staging::Files(directory.path().join("staging")));
        let place = Place {
            group: GroupId(7),
            span: Span::of_prefix(b"k"),
            absorbed: Vec::new(),
            clip: None,
        };
        let id = SnapshotId {
            slot: Slot(3),
            nonce: 1,
        };
        let engine = MemoryEngine::new();
        let chunk = Bytes::from_static(b"chunk");
        let staged = incoming.stage(&engine, &place, id, 0, chunk, false);
        assert!(matches!(staged, Ok(None)));
        let file = directory.path().join("staging").join("shard-7");
        assert!(file.exists());
        incoming.forget(GroupId(7)).expect("it goes");
        assert!(!file.exists());
        incoming.forget(GroupId(7)).expect("there is nothing left");
    }

    #[test]
    fn what_was_damaged_while_it_was_staged_is_not_installed() {
        let directory = tempfile::tempdir().expect("a directory");
        let staging = Staging::Files(directory.path().to_owned());
        let file = directory.path().join("shard-7");
        let written = {
            let mut chunks = Chunks::begin(&staging, GroupId(7)).expect("begins");
            for chunk in [&b"one"[..], b"another"] {
                chunks.push(Bytes::from_static(chunk)).expect("is written");
            }
            fs::read(&file).expect("is there")
        };
        let read = |bytes: &[u8]| {
            fs::write(&file, bytes).expect("is written");
            let chunks = Chunks::File {
                file: File::open(&file).expect("is there"),
                path: file.clone(),
            };
            let mut all = Vec::new();
            let drained = chunks.drain(2, |data| {
                all.extend_from_slice(data);
                Ok(())
            });
            drained.map(|()| all)
        };
        assert_eq!(read(&written).expect("is whole"), b"oneanother");
        for at in 0..written.len() {
            let mut damaged = written.clone();
            damaged[at] ^= 0x10;
            let error = read(&damaged).expect_err("is noticed").to_string();
            assert!(error.contains("shard-7"), "byte {at}: {error}");
        }
        assert!(read(&written[..written.len() - 1]).is_err());
    }
}
