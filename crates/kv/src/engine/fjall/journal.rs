//! fjall's journal, read without fjall: where its whole batches end.
//!
//! ```text
//! batch   start, then items and clears, then end
//! start   1 | how many u32 | sequence number u64
//! item    2 | kind u8 | compression u8 | keyspace u64 | key length u16
//!           | value length u32 | stored length u32 | key | stored value
//! clear   4 | keyspace u64
//! end     3 | xxh3 of all items and clears u64 | "FJL" 3
//! ```
//!
//! Numbers are little-endian; zeros may follow the last batch, because files are
//! made longer than what is in them. This is the format of fjall 3
//! (`src/journal/entry.rs` there). fjall checks the same things, and one less:
//! that sequence numbers rise, which no checksum covers.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Seek, SeekFrom};
use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Never set in a sequence number; fjall keeps it for itself.
const RESERVED: u64 = 1 << 63;
/// Bytes read at once.
const BUFFER: usize = 256 << 10;
static ZEROS: [u8; BUFFER] = [0; BUFFER];

/// Where whole batches end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// The byte after the last one.
    pub(super) offset: u64,
    /// The sequence number of the last one.
    pub(super) sequence: Option<u64>,
}

/// Follows whole batches from `from` on, as far as they go. What lies behind the
/// first position without one is not looked at.
pub(super) fn follow(file: &File, from: End) -> Result<End> {
    let mut reader = BufReader::with_capacity(BUFFER, file);
    reader.seek(SeekFrom::Start(from.offset))?;
    let mut end = from;
    loop {
        let batch = match batch(&mut reader) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(end),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(end),
            Err(error) => return Err(error),
        };
        let rises = end.sequence.is_none_or(|last| batch.sequence > last);
        if !rises || batch.sequence & RESERVED != 0 {
            return Ok(end);
        }
        end = End {
            offset: end.offset + batch.bytes,
            sequence: Some(batch.sequence),
        };
    }
}

/// The byte after the last one that is not zero, at or behind `from`.
pub(super) fn written(file: &File, from: u64) -> Result<u64> {
    let mut reader = BufReader::with_capacity(BUFFER, file);
    reader.seek(SeekFrom::Start(from))?;
    let (mut at, mut written) = (from, from);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(written);
        }
        // Most are zeros, which are seen fastest as a whole.
        if *bytes != ZEROS[..bytes.len()]
            && let Some(last) = bytes.iter().rposition(|byte| *byte != 0)
        {
            written = at + last as u64 + 1;
        }
        let length = bytes.len();
        at += length as u64;
        reader.consume(length);
    }
}

struct Batch {
    bytes: u64,
    sequence: u64,
}

/// One batch; none if what is there is not a whole one. Nothing is kept in
/// memory, so lengths that are not true do no harm.
fn batch(reader: &mut impl BufRead) -> Result<Option<Batch>> {
    let [START] = array(reader)? else {
        return Ok(None);
    };
    let count = u32::from_le_bytes(array(reader)?);
    let sequence = u64::from_le_bytes(array(reader)?);
    let mut bytes = 1 + 4 + 8;
    let mut hash = Xxh3::new();
    for _ in 0..count {
        let Some(length) = part(reader, &mut hash)? else {
            return Ok(None);
        };
        bytes += length;
    }
    let [END] = array(reader)? else {
        return Ok(None);
    };
    let checksum = u64::from_le_bytes(array(reader)?);
    let trailer: [u8; 4] = array(reader)?;
    bytes += 1 + 8 + 4;
    let whole = checksum == hash.digest() && trailer == TRAILER;
    Ok(whole.then_some(Batch { bytes, sequence }))
}

/// One item or clear of a batch: how long it is.
fn part(reader: &mut impl BufRead, hash: &mut Xxh3) -> Result<Option<u64>> {
    let [tag] = array(reader)?;
    hash.update(&[tag]);
    match tag {
        ITEM => {
            let head: [u8; 20] = array(reader)?;
            hash.update(&head);
            let key = u16::from_le_bytes([head[10], head[11]]);
            let stored = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
            let length = u64::from(key) + u64::from(stored);
            pass(reader, length, hash)?;
            Ok(Some(1 + 20 + length))
        }
        CLEAR => {
            pass(reader, 8, hash)?;
            Ok(Some(1 + 8))
        }
        _ => Ok(None),
    }
}

fn array<const N: usize>(reader: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Hashes so many bytes.
fn pass(reader: &mut impl BufRead, mut left: u64, hash: &mut Xxh3) -> Result<()> {
    while left > 0 {
        let there = reader.fill_buf()?;
        if there.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let take = there.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        hash.update(&there[..take]);
        reader.consume(take);
        left -= take as u64;
    }
    Ok(())
}
