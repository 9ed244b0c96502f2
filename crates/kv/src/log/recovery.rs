//! Opening a log: what must be there, what may be cut, and replay.
//!
//! The newest segment says where the log begins (`oldest` of its last batch).
//! From the segment that holds that position on, every segment must be there
//! and every batch up to the next segment's first one must be whole, because a
//! segment is synced before the next one begins. In the newest segment the first
//! position without a whole batch of the expected sequence is the end, unless a
//! later batch of the segment says that it was written after that sequence had
//! been synced: then something durable was damaged, and the log is refused.
//!
//! Later batches that say no such thing may exist: they were written with the
//! missing one and reached the disk before it. They are cut with it, and the
//! rest of the segment is zeroed, for otherwise a batch written over the hole
//! could happen to end where they begin.

use super::direct::BLOCK;
use super::disk::{Disk, DiskFile};
use super::format::{ALIGN, BatchHeader, FIRST, FIRST_BATCH, LAST, NoBatch, Seal, SegmentHeader};
use super::segments::{Segment, Segments, io, segment_name};
use super::writer::{Log, LogOptions, MAX_APPEND_BYTES, salt};
use super::{LogError, LogRecord, Sequence};
use std::path::PathBuf;
use synod_probe::{Mutation, mutated};

/// Segments and batches are counted from 1; no log gets near this, and what
/// claims to be beyond was never written here, whatever its checksum says.
const HIGHEST: u64 = 1 << 62;

/// What replay found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records replayed.
    pub records: u64,
    /// The last whole batch; 0 if there is none.
    pub last: Sequence,
    /// What was cut off the end, if anything.
    pub cut: Option<Cut>,
}

/// An end that was not whole: written, never acknowledged, interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub path: PathBuf,
    /// The byte from which on it was cut.
    pub offset: u64,
}

/// A segment read into memory.
struct Loaded<F> {
    header: SegmentHeader,
    seal: Seal,
    file: F,
    name: String,
    path: PathBuf,
    bytes: Vec<u8>,
}

/// Where the batches of the newest segment end.
struct Tail {
    offset: usize,
    next: u64,
    /// Every batch up to here is proven synced.
    synced: u64,
    /// Where the first batch above `synced` begins.
    unproven: usize,
    oldest: u64,
    /// Something other than an untouched rest follows.
    ragged: bool,
}

pub(super) fn open<D: Disk>(
    disk: D,
    options: &LogOptions,
    cluster: u128,
    visit: impl FnMut(Sequence, LogRecord),
) -> Result<(Log<D>, Recovery), LogError> {
    let (mut segments, numbers) = Segments::survey(disk, options.segment_bytes, options.spares)?;
    let Some(newest) = numbers.last().copied() else {
        return first(segments, options, cluster);
    };
    let newest = load(&segments.disk, newest, cluster)?;
    let tail = find_tail(&newest)?;

    let needed = needed(
        &segments.disk,
        &numbers,
        &newest.header,
        tail.oldest,
        cluster,
    )?;
    let mut replay = Replay {
        from: tail.oldest,
        visit,
        partial: None,
        recovery: Recovery::default(),
    };
    for pair in needed.windows(2) {
        let segment = load(&segments.disk, pair[0].number, cluster)?;
        let end = whole(&segment, pair[1].first, &mut replay)?;
        segments.used.push_back(Segment {
            number: segment.header.number,
            first: segment.header.first,
            bytes: (end as u64).saturating_sub(FIRST_BATCH),
        });
    }
    replay.batches(&newest, tail.next)?;
    let mut recovery = replay.recovery;
    recovery.last = Sequence(tail.next - 1);
    if tail.ragged {
        recovery.cut = Some(Cut {
            path: newest.path.clone(),
            offset: tail.offset as u64,
        });
    }
    settle(&segments.disk, &newest, &tail)?;

    segments.used.push_back(Segment {
        number: newest.header.number,
        first: newest.header.first,
        bytes: (tail.offset as u64).saturating_sub(FIRST_BATCH),
    });
    let in_use = segments.used.front().map_or(0, |s| s.number);
    let obsolete: Vec<u64> = numbers.into_iter().filter(|n| *n < in_use).collect();
    segments.free(&obsolete)?;
    let log = Log {
        segments,
        cluster,
        salt: options.salt,
        file: newest.file,
        name: newest.name,
        seal: newest.seal,
        segment_end: newest.header.bytes,
        offset: tail.offset as u64,
        buffer: Vec::new(),
        next: tail.next,
        synced: tail.next - 1,
        oldest: tail.oldest,
        announced: None,
        appended: 0,
        scratch: Vec::new(),
        poisoned: None,
    };
    Ok((log, recovery))
}

/// An empty log.
fn first<D: Disk>(
    mut segments: Segments<D>,
    options: &LogOptions,
    cluster: u128,
) -> Result<(Log<D>, Recovery), LogError> {
    let header = SegmentHeader {
        cluster,
        number: 1,
        first: 1,
        oldest: 1,
        salt: salt(options.salt, 1, 1),
        bytes: options.segment_bytes,
    };
    let file = segments.activate(&header)?;
    let log = Log {
        segments,
        cluster,
        salt: options.salt,
        file,
        name: segment_name(1),
        seal: header.seal(),
        segment_end: header.bytes,
        offset: FIRST_BATCH,
        buffer: Vec::new(),
        next: 1,
        synced: 0,
        oldest: 1,
        announced: None,
        appended: 0,
        scratch: Vec::new(),
        poisoned: None,
    };
    Ok((log, Recovery::default()))
}

/// Reads a segment's header and checks that it is the one its name says.
fn header<D: Disk>(
    disk: &D,
    number: u64,
    cluster: u128,
) -> Result<(SegmentHeader, D::File), LogError> {
    let name = segment_name(number);
    let path = disk.path(&name);
    let file = disk.open(&name).map_err(io(disk, "open", &name))?;
    let bytes = file.bytes().map_err(io(disk, "measure", &name))?;
    let length = usize::try_from(bytes.min(FIRST_BATCH)).unwrap_or(0);
    let mut buffer = vec![0; length];
    file.read_at(&mut buffer, 0)
        .map_err(io(disk, "read", &name))?;
    let header = SegmentHeader::decode(&buffer, &path)?;
    if header.cluster != cluster {
        return Err(LogError::OtherCluster {
            path,
            found: header.cluster,
            wanted: cluster,
        });
    }
    if header.number != number || header.bytes != bytes {
        return Err(LogError::Damaged {
            path,
            offset: 0,
            what: format!(
                "the header is of segment {} with {} bytes, the file is number {number} with {bytes}",
                header.number, header.bytes
            ),
        });
    }
    let counts = 1..=HIGHEST;
    let blocks = bytes.is_multiple_of(BLOCK as u64);
    let possible = blocks && counts.contains(&header.number) && counts.contains(&header.first);
    if !possible || header.oldest > header.first {
        return Err(LogError::Damaged {
            path,
            offset: 0,
            what: format!(
                "the header says that segment {} begins with batch {} and the log with batch {}, \
                 which no log ever does",
                header.number,
                Sequence(header.first),
                Sequence(header.oldest)
            ),
        });
    }
    Ok((header, file))
}

fn load<D: Disk>(disk: &D, number: u64, cluster: u128) -> Result<Loaded<D::File>, LogError> {
    let (header, file) = header(disk, number, cluster)?;
    let name = segment_name(number);
    let mut bytes = vec![0; usize::try_from(header.bytes).unwrap_or(0)];
    file.read_at(&mut bytes, 0)
        .map_err(io(disk, "read", &name))?;
    Ok(Loaded {
        seal: header.seal(),
        header,
        file,
        path: disk.path(&name),
        name,
        bytes,
    })
}

/// Follows the batches of the newest segment to their end.
fn find_tail<F: DiskFile>(segment: &Loaded<F>) -> Result<Tail, LogError> {
    let first = segment.header.first;
    let mut next = first;
    let mut offset = FIRST_BATCH as usize;
    let mut synced = first - 1;
    let mut oldest = segment.header.oldest;
    let mut starts = Vec::new();
    let ragged = loop {
        match segment.seal.decode(&segment.bytes, offset) {
            Ok(batch) if batch.header.sequence == next => {
                believable(segment, offset, batch.header)?;
                synced = synced.max(batch.header.synced);
                oldest = oldest.max(batch.header.oldest);
                starts.push(offset);
                offset = batch.end;
                next += 1;
            }
            Ok(_) | Err(NoBatch::Torn) => break true,
            Err(NoBatch::Absent) => break false,
        }
    };
    let mut ragged = ragged;
    for at in (offset..segment.bytes.len()).step_by(ALIGN) {
        let Ok(batch) = segment.seal.decode(&segment.bytes, at) else {
            continue;
        };
        let proven = batch.header.sequence > next && batch.header.synced >= next;
        if proven && !mutated(Mutation::DamageIsTorn) {
            return Err(LogError::Damaged {
                path: segment.path.clone(),
                offset: offset as u64,
                what: format!(
                    "batch {} is not whole, but batch {} at byte {at} proves that it was synced",
                    Sequence(next),
                    Sequence(batch.header.sequence)
                ),
            });
        }
        ragged = true;
    }
    let proven = usize::try_from(synced + 1 - first).unwrap_or(usize::MAX);
    Ok(Tail {
        offset,
        next,
        synced,
        unproven: starts.get(proven).copied().unwrap_or(offset),
        oldest,
        ragged,
    })
}

/// A batch knows nothing of what comes after it. One that says otherwise would
/// let the log begin behind its own end.
fn believable<F>(segment: &Loaded<F>, offset: usize, batch: BatchHeader) -> Result<(), LogError> {
    if batch.oldest <= batch.sequence && batch.synced < batch.sequence {
        return Ok(());
    }
    Err(LogError::Damaged {
        path: segment.path.clone(),
        offset: offset as u64,
        what: format!(
            "batch {} says that the log begins with {} and is synced up to {}, which no batch does",
            Sequence(batch.sequence),
            Sequence(batch.oldest),
            Sequence(batch.synced)
        ),
    })
}

/// Makes the tail what recovery takes it for. Batches that nothing proves
/// synced were read back, but a cache may have answered (the process died, not
/// the machine; or a sync failed and the cache was told it was clean), so they
/// are written once more before anything builds on them.
fn settle<D: Disk>(disk: &D, segment: &Loaded<D::File>, tail: &Tail) -> Result<(), LogError> {
    let name = &segment.name;
    if tail.unproven < tail.offset {
        debug_assert!(tail.synced + 1 < tail.next);
        let again = &segment.bytes[tail.unproven..tail.offset];
        segment
            .file
            .write_at(again, tail.unproven as u64)
            .map_err(io(disk, "write", name))?;
    }
    if tail.ragged && !mutated(Mutation::LeaveTornRest) {
        let zeros = vec![0; segment.bytes.len() - tail.offset];
        segment
            .file
            .write_at(&zeros, tail.offset as u64)
            .map_err(io(disk, "write", name))?;
    }
    segment.file.sync().map_err(io(disk, "sync", name))
}

/// The headers of all segments from the one that holds `oldest` to the newest.
fn needed<D: Disk>(
    disk: &D,
    numbers: &[u64],
    newest: &SegmentHeader,
    oldest: u64,
    cluster: u128,
) -> Result<Vec<SegmentHeader>, LogError> {
    let mut needed = vec![newest.clone()];
    let mut first = newest.clone();
    while first.first > oldest {
        let number = first.number - 1;
        if numbers.binary_search(&number).is_err() {
            return Err(LogError::Lost {
                path: disk.path(&segment_name(number)),
                what: format!(
                    "the batches from {} to {}: the file is missing",
                    Sequence(oldest),
                    Sequence(first.first - 1)
                ),
            });
        }
        first = header(disk, number, cluster)?.0;
        needed.push(first.clone());
    }
    needed.reverse();
    Ok(needed)
}

/// Replays a segment that must be whole up to `until`. Returns where it ends.
fn whole<F: DiskFile, V: FnMut(Sequence, LogRecord)>(
    segment: &Loaded<F>,
    until: u64,
    replay: &mut Replay<V>,
) -> Result<usize, LogError> {
    let (offset, next) = replay.batches(segment, until)?;
    if next < until {
        return Err(LogError::Damaged {
            path: segment.path.clone(),
            offset: offset as u64,
            what: format!(
                "batch {} is not whole, but the next segment proves that it was synced",
                Sequence(next)
            ),
        });
    }
    Ok(offset)
}

/// Puts appends together from their batches and hands out their records.
struct Replay<V> {
    /// Batches below are not needed any more.
    from: u64,
    visit: V,
    /// The append that has begun and not ended.
    partial: Option<Vec<u8>>,
    recovery: Recovery,
}

impl<V: FnMut(Sequence, LogRecord)> Replay<V> {
    /// Replays batches up to, not including, `until`. Returns the end's offset
    /// and sequence.
    fn batches<F: DiskFile>(
        &mut self,
        segment: &Loaded<F>,
        until: u64,
    ) -> Result<(usize, u64), LogError> {
        let mut offset = FIRST_BATCH as usize;
        let mut next = segment.header.first;
        while next < until {
            match segment.seal.decode(&segment.bytes, offset) {
                Ok(batch) if batch.header.sequence == next => {
                    if next >= self.from {
                        self.batch(segment, next, batch.header.flags, batch.payload)?;
                    }
                    offset = batch.end;
                    next += 1;
                }
                Ok(_) | Err(_) => break,
            }
        }
        Ok((offset, next))
    }

    fn batch<F: DiskFile>(
        &mut self,
        segment: &Loaded<F>,
        sequence: u64,
        flags: u32,
        payload: &[u8],
    ) -> Result<(), LogError> {
        if flags & FIRST != 0 {
            // An append that never ended was interrupted by a crash; its
            // batches are whole, yet it does not count.
            self.partial = Some(Vec::new());
        }
        let Some(partial) = &mut self.partial else {
            // The rest of an append that began below the log's beginning.
            return Ok(());
        };
        let undecodable = |what: String| LogError::Undecodable {
            path: segment.path.clone(),
            sequence: Sequence(sequence),
            what,
        };
        if flags & FIRST != 0 && flags & LAST != 0 {
            self.partial = None;
            return self.records(sequence, payload).map_err(undecodable);
        }
        if partial.len() + payload.len() > MAX_APPEND_BYTES {
            return Err(undecodable("the append has no end".to_owned()));
        }
        partial.extend_from_slice(payload);
        if flags & LAST != 0 {
            let whole = self.partial.take().unwrap_or_default();
            return self.records(sequence, &whole).map_err(undecodable);
        }
        Ok(())
    }

    fn records(&mut self, sequence: u64, payload: &[u8]) -> Result<(), String> {
        let mut rest = payload;
        while !rest.is_empty() {
            let (record, after) =
                postcard::take_from_bytes(rest).map_err(|error| error.to_string())?;
            rest = after;
            self.recovery.records += 1;
            (self.visit)(Sequence(sequence), record);
        }
        Ok(())
    }
}
