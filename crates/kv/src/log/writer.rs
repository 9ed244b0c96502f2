//! The running log: append, sync, trim.

use super::direct::BLOCK;
use super::disk::{Disk, DiskFile, RealDisk};
use super::format::{
    ALIGN, BATCH_HEADER, BatchHeader, FIRST, FIRST_BATCH, LAST, Seal, SegmentHeader,
};
use super::segments::{Segments, io, segment_name, segment_number};
use super::{LogError, LogRecord, Recovery, Sequence};
use synod_probe::{Mutation, mutated};

/// Bytes of records in one append, at most.
pub const MAX_APPEND_BYTES: usize = 1 << 30;
/// The smallest segment.
const MIN_SEGMENT_BYTES: u64 = BLOCK as u64;
/// The largest segment; recovery reads a whole one into memory.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
/// With less room than this a segment is full.
const MIN_ROOM: usize = BATCH_HEADER + 8 * ALIGN;
/// Buffered bytes are handed to the operating system from here on.
const FLUSH_BYTES: usize = 1 << 20;

const _: () = assert!(MIN_SEGMENT_BYTES as usize > FIRST_BATCH as usize + MIN_ROOM);

/// How a log is laid out.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes of one segment; a multiple of 4096. May change between starts:
    /// segments in use keep their size.
    pub segment_bytes: u64,
    /// Spare segments kept for reuse, at most.
    pub spares: usize,
    /// Salts the segments written by this process. Random by default; the
    /// simulator sets it.
    pub salt: u64,
}

impl LogOptions {
    /// The usual layout, with this salt.
    #[must_use]
    pub fn salted(salt: u64) -> LogOptions {
        LogOptions {
            segment_bytes: 16 << 20,
            spares: 16,
            salt,
        }
    }
}

#[cfg(feature = "server")]
impl Default for LogOptions {
    fn default() -> LogOptions {
        let random = uuid::Uuid::new_v4().as_u128();
        LogOptions::salted(random as u64 ^ (random >> 64) as u64)
    }
}

/// The log of one node. Not shared: one thread owns it ([`super::LogThread`]).
///
/// A failed write or sync poisons it for good, for afterwards nobody knows
/// what is on the disk: everything later fails with [`LogError::Poisoned`].
#[derive(Debug)]
pub struct Log<D: Disk = RealDisk> {
    pub(super) segments: Segments<D>,
    pub(super) cluster: u128,
    pub(super) salt: u64,
    /// The newest segment.
    pub(super) file: D::File,
    pub(super) name: String,
    pub(super) seal: Seal,
    pub(super) segment_end: u64,
    /// Where `buffer` goes in it.
    pub(super) offset: u64,
    pub(super) buffer: Vec<u8>,
    /// The sequence of the next batch.
    pub(super) next: u64,
    /// Every batch up to here is synced.
    pub(super) synced: u64,
    /// The log's beginning.
    pub(super) oldest: u64,
    /// The first batch that says so. Segments below are freed once it is
    /// synced: a beginning that only the directory knew could not be told from
    /// a lost file.
    pub(super) announced: Option<u64>,
    /// Bytes appended since the log was opened.
    pub(super) appended: u64,
    pub(super) scratch: Vec<u8>,
    pub(super) poisoned: Option<String>,
}

impl<D: Disk> Log<D> {
    /// Whether there is a log in `disk` already, in whatever state.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn is_begun(disk: &D) -> Result<bool, LogError> {
        let names = disk.list().map_err(io(disk, "list", ""))?;
        Ok(names.iter().any(|name| segment_number(name).is_some()))
    }

    /// Opens the log in `disk`, replaying its records in order into `visit`;
    /// an empty directory becomes an empty log. What is visited is durable: the
    /// part of it that no later batch proves synced is written and synced again.
    ///
    /// # Errors
    /// When something that was synced once is damaged or missing, when the log
    /// belongs to another cluster or program version, or when the disk fails.
    /// `visit` may then have seen a part of the log, which must not be used.
    pub fn open(
        disk: D,
        options: LogOptions,
        cluster: u128,
        visit: impl FnMut(Sequence, LogRecord),
    ) -> Result<(Log<D>, Recovery), LogError> {
        let bytes = options.segment_bytes;
        let blocks = bytes.is_multiple_of(BLOCK as u64);
        if !blocks || !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&bytes) {
            return Err(LogError::SegmentSize {
                bytes,
                least: MIN_SEGMENT_BYTES,
                most: MAX_SEGMENT_BYTES,
            });
        }
        super::recovery::open(disk, &options, cluster, visit)
    }

    /// Adds records as one append: after a crash all of them are there or
    /// none. Returns the sequence of the append's first batch, which is where to
    /// [`Log::trim`] if nothing older is needed. Durable only after [`Log::sync`].
    /// No records write nothing.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] changes nothing; all others poison the log.
    pub fn append(&mut self, records: &[LogRecord]) -> Result<Sequence, LogError> {
        self.check()?;
        let sequence = Sequence(self.next);
        if records.is_empty() {
            return Ok(sequence);
        }
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        for record in records {
            // Writing to memory does not fail; a record that postcard cannot
            // express would be a mistake in its type.
            payload = postcard::to_extend(record, payload).map_err(|error| {
                self.poison(LogError::Poisoned {
                    reason: format!("a record cannot be encoded: {error}"),
                })
            })?;
            if payload.len() > MAX_APPEND_BYTES {
                return Err(LogError::TooLarge {
                    bytes: payload.len(),
                    limit: MAX_APPEND_BYTES,
                });
            }
        }
        let written = self.append_payload(&payload);
        self.scratch = payload;
        self.scratch.shrink_to(FLUSH_BYTES);
        written.map_err(|error| self.poison(error))?;
        Ok(sequence)
    }

    /// Cuts a payload into batches, over as many segments as it takes.
    fn append_payload(&mut self, payload: &[u8]) -> Result<(), LogError> {
        let mut rest = payload;
        let mut flags = FIRST;
        while !rest.is_empty() {
            if self.room() < MIN_ROOM {
                self.rotate()?;
            }
            let (part, after) = rest.split_at(rest.len().min(self.room() - BATCH_HEADER));
            rest = after;
            if rest.is_empty() {
                flags |= LAST;
            }
            let header = BatchHeader {
                flags,
                sequence: self.next,
                synced: self.synced,
                oldest: self.oldest,
            };
            let before = self.buffer.len();
            self.seal.encode(header, part, &mut self.buffer);
            let added = (self.buffer.len() - before) as u64;
            self.appended += added;
            if let Some(segment) = self.segments.used.back_mut() {
                segment.bytes += added;
            }
            self.next += 1;
            flags = 0;
            if self.buffer.len() >= FLUSH_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Bytes left in the newest segment; a multiple of [`ALIGN`].
    fn room(&self) -> usize {
        let left = self.segment_end - self.offset;
        usize::try_from(left)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.buffer.len())
    }

    /// Hands what was appended to the operating system, unsynced. [`Log::sync`]
    /// does so by itself.
    ///
    /// # Errors
    /// Any failure poisons the log.
    pub fn write(&mut self) -> Result<(), LogError> {
        self.check()?;
        self.flush().map_err(|error| self.poison(error))
    }

    pub(super) fn flush(&mut self) -> Result<(), LogError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.file.write_at(&self.buffer, self.offset).map_err(io(
            &self.segments.disk,
            "write",
            &self.name,
        ))?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(2 * FLUSH_BYTES);
        Ok(())
    }

    fn flush_and_sync(&mut self) -> Result<(), LogError> {
        self.flush()?;
        if self.synced + 1 < self.next {
            if !mutated(Mutation::SyncNothing) {
                self.file
                    .sync()
                    .map_err(io(&self.segments.disk, "sync", &self.name))?;
            }
            self.synced = self.next - 1;
        }
        Ok(())
    }

    /// Goes on in a new segment. The old one is synced first, so that all
    /// batches below a segment's first one are known to have been.
    fn rotate(&mut self) -> Result<(), LogError> {
        self.flush_and_sync()?;
        let number = self.segments.used.back().map_or(0, |s| s.number) + 1;
        self.start_segment(number)
    }

    fn start_segment(&mut self, number: u64) -> Result<(), LogError> {
        let header = SegmentHeader {
            cluster: self.cluster,
            number,
            first: self.next,
            oldest: self.oldest,
            salt: salt(self.salt, number, self.next),
            bytes: self.segments.segment_bytes(),
        };
        self.file = self.segments.activate(&header)?;
        self.name = segment_name(number);
        self.seal = header.seal();
        self.segment_end = header.bytes;
        self.offset = FIRST_BATCH;
        Ok(())
    }

    /// Makes everything appended durable; without anything new, does nothing.
    /// Then frees segments, if a [`Log::trim`] has become durable. Returns
    /// whether there was anything to sync.
    ///
    /// # Errors
    /// Any failure poisons the log.
    pub fn sync(&mut self) -> Result<bool, LogError> {
        self.check()?;
        let needed = self.synced + 1 < self.next;
        let synced = self.flush_and_sync().and_then(|()| self.free_trimmed());
        match synced {
            Ok(()) => Ok(needed),
            Err(error) => Err(self.poison(error)),
        }
    }

    fn free_trimmed(&mut self) -> Result<(), LogError> {
        let early = mutated(Mutation::FreeSegmentsEarly);
        if self.announced.is_some_and(|at| at <= self.synced || early) {
            self.announced = None;
            self.segments.recycle(self.oldest)?;
        }
        Ok(())
    }

    /// Forgets everything below `below`, at most up to what is synced. The
    /// caller has written again, and synced, whatever it needs of it (see
    /// [`super`]). Segments wholly below it are recycled by the first sync
    /// that covers a later append.
    pub fn trim(&mut self, below: Sequence) {
        let below = below.0.min(self.synced + 1);
        if below > self.oldest {
            self.oldest = below;
            self.announced = Some(self.next);
        }
    }

    /// Whether a whole batch of the newest segment lies behind the log's end:
    /// after a power cut it would be taken for written later. Never, once the
    /// log is open; for whoever checks that. Reads the rest of the segment.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn has_rest(&self) -> Result<bool, LogError> {
        let from = self.offset + self.buffer.len() as u64;
        let bytes = usize::try_from(self.segment_end.saturating_sub(from)).unwrap_or(0);
        let mut rest = vec![0; bytes];
        self.file
            .read_at(&mut rest, from)
            .map_err(io(&self.segments.disk, "read", &self.name))?;
        let mut places = (0..bytes).step_by(ALIGN);
        Ok(places.any(|at| self.seal.decode(&rest, at).is_ok()))
    }

    /// Bytes that the log holds from its beginning on, without unused room.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.bytes_from(self.oldest)
    }

    /// Bytes appended since the log was opened, headers and padding included.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// The log's beginning: no batch below it is needed or replayed.
    #[must_use]
    pub fn oldest(&self) -> Sequence {
        Sequence(self.oldest)
    }

    /// The sequence of the batch that will be written next.
    #[must_use]
    pub fn next(&self) -> Sequence {
        Sequence(self.next)
    }

    /// The number of the newest segment; rises with every new one.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segments.used.back().map_or(0, |s| s.number)
    }

    fn check(&self) -> Result<(), LogError> {
        match &self.poisoned {
            Some(reason) => Err(LogError::Poisoned {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    fn poison(&mut self, error: LogError) -> LogError {
        self.poisoned.get_or_insert_with(|| error.to_string());
        error
    }
}

/// The salt of one segment (the finaliser of `SplitMix64` over the process's own).
pub(super) fn salt(process: u64, number: u64, first: u64) -> u64 {
    let mut z = process
        .wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(first.rotate_left(32));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
