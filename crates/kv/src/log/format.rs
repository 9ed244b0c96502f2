//! The log's bytes: segment headers and batches. Described for readers of hex
//! dumps in `docs/log-format.md`; all numbers are little-endian.

use super::LogError;
use crc32fast::Hasher;
use std::path::Path;

/// The format written and read here.
pub(super) const FORMAT_VERSION: u32 = 2;
/// Where the first batch of a segment begins: the header has a sector of its own.
pub(super) const FIRST_BATCH: u64 = 512;
/// Bytes before a batch's payload.
pub(super) const BATCH_HEADER: usize = 48;
/// Batches begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// The batch begins an append.
pub(super) const FIRST: u32 = 1;
/// The batch ends an append.
pub(super) const LAST: u32 = 2;

const SEGMENT_MAGIC: [u8; 8] = *b"SYNODLOG";
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"SYNB");
const HEADER_BYTES: usize = 80;

/// What a segment says about itself. Written and synced before the segment
/// gets its name, so a segment without a valid header is a damaged one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) cluster: u128,
    /// Counts segments from 1; never reused.
    pub(super) number: u64,
    /// The sequence of its first batch. Everything below was synced before.
    pub(super) first: u64,
    /// The log's beginning when this segment began.
    pub(super) oldest: u64,
    /// Told to nobody outside: bytes that somebody put into a value can never
    /// pass for a batch, nor can those that an earlier use of the file left.
    pub(super) salt: u64,
    pub(super) bytes: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&self.cluster.to_le_bytes());
        for number in [self.number, self.first, self.oldest, self.salt, self.bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out.resize(HEADER_BYTES, 0);
        out
    }

    /// Reads a header; `path` is for messages.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<SegmentHeader, LogError> {
        let damaged = |what: &str| LogError::Damaged {
            path: path.to_owned(),
            offset: 0,
            what: what.to_owned(),
        };
        let header = bytes
            .get(..HEADER_BYTES)
            .ok_or_else(|| damaged("too short for a segment"))?;
        if header[..8] != SEGMENT_MAGIC {
            return Err(damaged("no segment header"));
        }
        let version = u32_at(header, 8);
        if version != FORMAT_VERSION {
            return Err(LogError::Version {
                path: path.to_owned(),
                found: version,
                known: FORMAT_VERSION,
            });
        }
        if crc32fast::hash(&header[..72]) != u32_at(header, 72) {
            return Err(damaged("wrong checksum of the segment header"));
        }
        let low = u128::from(u64_at(header, 16));
        Ok(SegmentHeader {
            cluster: u128::from(u64_at(header, 24)) << 64 | low,
            number: u64_at(header, 32),
            first: u64_at(header, 40),
            oldest: u64_at(header, 48),
            salt: u64_at(header, 56),
            bytes: u64_at(header, 64),
        })
    }

    /// How batches of this segment are marked and checked.
    pub(super) fn seal(&self) -> Seal {
        let mut hasher = Hasher::new();
        hasher.update(&self.cluster.to_le_bytes());
        hasher.update(&self.salt.to_le_bytes());
        Seal {
            mark: BATCH_MAGIC ^ (self.salt as u32) ^ ((self.salt >> 32) as u32),
            number: self.number,
            hasher,
        }
    }
}

/// Marks and checks the batches of one segment.
#[derive(Clone, Debug)]
pub(super) struct Seal {
    mark: u32,
    number: u64,
    hasher: Hasher,
}

/// The numbers in a batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) flags: u32,
    pub(super) sequence: u64,
    /// Every batch up to here was synced when this one was written.
    pub(super) synced: u64,
    /// The log's beginning: nothing below is needed.
    pub(super) oldest: u64,
}

/// A batch as found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    pub(super) header: BatchHeader,
    pub(super) payload: &'a [u8],
    /// Where the next batch begins.
    pub(super) end: usize,
}

/// Why there is no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoBatch {
    /// Nothing there looks like one of this segment.
    Absent,
    /// It begins like one, but is not whole.
    Torn,
}

impl Seal {
    /// Adds a batch to `out`, padded.
    pub(super) fn encode(&self, header: BatchHeader, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.mark.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&header.flags.to_le_bytes());
        for number in [self.number, header.sequence, header.synced, header.oldest] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(payload);
        let crc = self.checksum(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        out.resize(start + padded(out.len() - start), 0);
    }

    fn checksum(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher.clone();
        hasher.update(bytes);
        hasher.finalize()
    }

    /// The batch at `offset` of a segment's bytes.
    pub(super) fn decode<'a>(
        &self,
        segment: &'a [u8],
        offset: usize,
    ) -> Result<Batch<'a>, NoBatch> {
        let bytes = segment.get(offset..).unwrap_or(&[]);
        let header = bytes.get(..BATCH_HEADER).ok_or(NoBatch::Absent)?;
        if u32_at(header, 0) != self.mark {
            return Err(NoBatch::Absent);
        }
        let length = u32_at(header, 8) as usize;
        let end = BATCH_HEADER.checked_add(length).ok_or(NoBatch::Torn)?;
        let whole = bytes.get(8..end).ok_or(NoBatch::Torn)?;
        if u64_at(header, 16) != self.number || self.checksum(whole) != u32_at(header, 4) {
            return Err(NoBatch::Torn);
        }
        Ok(Batch {
            header: BatchHeader {
                flags: u32_at(header, 12),
                sequence: u64_at(header, 24),
                synced: u64_at(header, 32),
                oldest: u64_at(header, 40),
            },
            payload: &bytes[BATCH_HEADER..end],
            end: offset + padded(end),
        })
    }
}

/// `bytes` rounded up to where the next batch may begin.
pub(super) const fn padded(bytes: usize) -> usize {
    bytes.div_ceil(ALIGN) * ALIGN
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}
