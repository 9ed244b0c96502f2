//! The files of a log: segments in use, and spares waiting to be used.
//!
//! A file becomes a segment in this order: header written and synced under the
//! spare's name, renamed, names synced. So whatever has a segment's name has
//! a whole header. It becomes a spare again by a rename that is made durable
//! before its header is overwritten, so no segment's name ever stands on a
//! header of another.

use super::LogError;
use super::disk::{Disk, DiskFile};
use super::format::SegmentHeader;
use std::collections::VecDeque;

/// Spares are counted from 1; so there is always a next number.
const HIGHEST_SPARE: u64 = 1 << 62;

/// So many spares are kept ready: one to go on in, and one while the next is
/// being made.
#[cfg(feature = "server")]
const SPARES_READY: usize = 2;

/// A segment in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// The sequence of its first batch.
    pub(super) first: u64,
    /// Bytes of batches in it.
    pub(super) bytes: u64,
}

/// All files of a log.
#[derive(Debug)]
pub(super) struct Segments<D: Disk> {
    pub(super) disk: D,
    segment_bytes: u64,
    spares_kept: usize,
    /// In use, oldest first; never empty once the log is open.
    pub(super) used: VecDeque<Segment>,
    spares: Vec<String>,
    next_spare: u64,
}

pub(super) fn segment_name(number: u64) -> String {
    format!("segment-{number:020}")
}

pub(super) fn segment_number(name: &str) -> Option<u64> {
    name.strip_prefix("segment-")?.parse().ok()
}

fn spare_number(name: &str) -> Option<u64> {
    name.strip_prefix("spare-")?.parse().ok()
}

/// Turns a system error on the file `name` into a [`LogError`].
pub(super) fn io<D: Disk>(
    disk: &D,
    action: &'static str,
    name: &str,
) -> impl FnOnce(std::io::Error) -> LogError {
    let path = disk.path(name);
    move |source| LogError::Io {
        action,
        path,
        source,
    }
}

impl<D: Disk> Segments<D> {
    /// Looks through the directory. Returns the numbers of the segments in it,
    /// ascending; which of them are in use is for recovery to say.
    pub(super) fn survey(
        disk: D,
        segment_bytes: u64,
        spares_kept: usize,
    ) -> Result<(Segments<D>, Vec<u64>), LogError> {
        // A process before this one may have ended between a rename and the sync that makes it
        // durable: what is written to that segment would be lost with its name.
        disk.sync_names()
            .map_err(io(&disk, "sync the names in", ""))?;
        let names = disk.list().map_err(io(&disk, "list", ""))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|n| segment_number(n)).collect();
        numbers.sort_unstable();
        let mut segments = Segments {
            disk,
            segment_bytes,
            spares_kept,
            used: VecDeque::new(),
            spares: Vec::new(),
            next_spare: 1,
        };
        for name in names {
            let Some(number) = spare_number(&name) else {
                continue;
            };
            if number < HIGHEST_SPARE {
                segments.next_spare = segments.next_spare.max(number + 1);
                segments.keep_or_remove(name)?;
            } else {
                // No log ever made so many. Its contents mean nothing anyway.
                segments
                    .disk
                    .remove(&name)
                    .map_err(io(&segments.disk, "remove", &name))?;
            }
        }
        Ok((segments, numbers))
    }

    /// Bytes of a new segment.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// A spare of the wrong length was cut short by a crash while it was made,
    /// or made under other options.
    fn keep_or_remove(&mut self, name: String) -> Result<(), LogError> {
        let file = self
            .disk
            .open(&name)
            .map_err(io(&self.disk, "open", &name))?;
        let bytes = file.bytes().map_err(io(&self.disk, "measure", &name))?;
        if bytes == self.segment_bytes && self.spares.len() < self.spares_kept {
            self.spares.push(name);
            return Ok(());
        }
        self.disk
            .remove(&name)
            .map_err(io(&self.disk, "remove", &name))
    }

    /// Makes a spare, or a new file, the newest segment.
    pub(super) fn activate(&mut self, header: &SegmentHeader) -> Result<D::File, LogError> {
        let (spare, file) = match self.spares.pop() {
            Some(name) => {
                let file = self.disk.open(&name);
                let file = file.map_err(io(&self.disk, "open", &name))?;
                (name, file)
            }
            None => self.make_spare()?,
        };
        let name = segment_name(header.number);
        file.write_at(&header.encode(), 0)
            .map_err(io(&self.disk, "write", &spare))?;
        file.sync().map_err(io(&self.disk, "sync", &spare))?;
        self.disk
            .rename(&spare, &name)
            .and_then(|()| self.disk.sync_names())
            .map_err(io(&self.disk, "rename a spare to", &name))?;
        self.used.push_back(Segment {
            number: header.number,
            first: header.first,
            bytes: 0,
        });
        Ok(file)
    }

    fn make_spare(&mut self) -> Result<(String, D::File), LogError> {
        let name = self.spare_name();
        let file = self
            .disk
            .create(&name, self.segment_bytes)
            .map_err(io(&self.disk, "create", &name))?;
        Ok((name, file))
    }

    /// Whether another spare should be made, with so many on their way.
    #[cfg(feature = "server")]
    pub(super) fn wants_spare(&self, on_their_way: usize) -> bool {
        self.spares.len() + on_their_way < SPARES_READY.min(self.spares_kept)
    }

    /// Takes in a spare that was made under a name of [`Segments::spare_name`].
    #[cfg(feature = "server")]
    pub(super) fn add_spare(&mut self, name: String) -> Result<(), LogError> {
        self.keep_or_remove(name)
    }

    /// A name for a new spare.
    pub(super) fn spare_name(&mut self) -> String {
        let name = format!("spare-{:020}", self.next_spare);
        self.next_spare += 1;
        name
    }

    /// How many of the oldest segments hold nothing at or above `oldest`. The
    /// newest one always stays.
    fn obsolete(&self, oldest: u64) -> usize {
        let later = self.used.iter().skip(1);
        later.take_while(|next| next.first <= oldest).count()
    }

    /// Bytes of batches in segments that hold something at or above `oldest`.
    pub(super) fn bytes_from(&self, oldest: u64) -> u64 {
        let kept = self.used.iter().skip(self.obsolete(oldest));
        kept.map(|s| s.bytes).sum()
    }

    /// Frees the segments wholly below `oldest`.
    pub(super) fn recycle(&mut self, oldest: u64) -> Result<(), LogError> {
        let obsolete: Vec<u64> = self
            .used
            .drain(..self.obsolete(oldest))
            .map(|s| s.number)
            .collect();
        self.free(&obsolete)
    }

    /// Turns the files of these segments into spares, or removes them.
    pub(super) fn free(&mut self, numbers: &[u64]) -> Result<(), LogError> {
        for number in numbers {
            let name = segment_name(*number);
            let spare = self.spare_name();
            self.disk
                .rename(&name, &spare)
                .map_err(io(&self.disk, "recycle", &name))?;
            self.keep_or_remove(spare)?;
        }
        if numbers.is_empty() {
            return Ok(());
        }
        self.disk
            .sync_names()
            .map_err(io(&self.disk, "sync the names in", ""))
    }
}
