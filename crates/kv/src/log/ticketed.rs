//! A log whose owner counts in submissions: what was appended under which
//! ticket, and where to trim for it.

use super::disk::{Disk, RealDisk};
use super::writer::Log;
use super::{LogError, LogRecord, Sequence};
use std::collections::VecDeque;

/// The first submission that began in a segment.
struct Mark {
    segment: u64,
    ticket: u64,
    sequence: Sequence,
}

/// A log, and where the submissions of this process begin in it.
pub struct TicketedLog<D: Disk = RealDisk> {
    log: Log<D>,
    /// One per segment since the start, ascending: where a ticket lies, as
    /// exactly as trimming by segments needs it.
    marks: VecDeque<Mark>,
}

impl<D: Disk> TicketedLog<D> {
    /// Over a log just opened.
    #[must_use]
    pub fn new(log: Log<D>) -> TicketedLog<D> {
        TicketedLog {
            log,
            marks: VecDeque::new(),
        }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log<D> {
        &self.log
    }

    /// Its files.
    #[cfg(feature = "server")]
    pub(super) fn segments(&mut self) -> &mut super::segments::Segments<D> {
        &mut self.log.segments
    }

    /// Appends records under a ticket; tickets rise.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append(&mut self, records: &[LogRecord], ticket: u64) -> Result<(), LogError> {
        let segment = self.log.segment();
        let sequence = self.log.append(records)?;
        if self.marks.back().is_none_or(|mark| mark.segment < segment) {
            self.marks.push_back(Mark {
                segment,
                ticket,
                sequence,
            });
        }
        Ok(())
    }

    /// Forgets what was appended before `ticket`, as far as whole segments go.
    pub fn trim_before(&mut self, ticket: u64) {
        while self.marks.get(1).is_some_and(|next| next.ticket <= ticket) {
            self.marks.pop_front();
        }
        if let Some(mark) = self.marks.front()
            && mark.ticket <= ticket
        {
            self.log.trim(mark.sequence);
        }
    }

    /// Hands what was appended to the operating system, unsynced.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn write(&mut self) -> Result<(), LogError> {
        self.log.write()
    }

    /// Makes everything appended durable. Returns whether there was anything to sync.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub fn sync(&mut self) -> Result<bool, LogError> {
        self.log.sync()
    }
}
