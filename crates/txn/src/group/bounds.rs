//! Bounds that depend on what this shard holds: what fits into one entry.

use super::Group;
use super::office::Progress;
use crate::locks::{Wants, span_weight};
use crate::settings::ENTRY_SLACK;
use crate::types::{AttemptId, Participant, Span, Write};

impl Group {
    /// Refuses a read with which the attempt would hold more than fits into an Intent.
    pub(super) fn check_held(&self, attempt: AttemptId, wants: &Wants) -> Result<(), String> {
        let held = self.office.as_deref().map_or(0, |o| o.locks.bytes(attempt));
        let bound = self.settings.read_bytes;
        if held + wants.bytes() <= bound {
            return Ok(());
        }
        Err(format!(
            "the keys and ranges this transaction reads in one shard take more than {bound} bytes; \
             read ranges instead of keys, or split the transaction"
        ))
    }

    /// Whether what a queued Commit read here makes an Intent that no entry can
    /// hold. Reads are bounded one by one; those that waited for locks together
    /// may have passed the bound together.
    pub(super) fn is_too_large(&self, attempt: AttemptId) -> bool {
        let Some(office) = self.office.as_deref() else {
            return false;
        };
        let Some(Progress::Queued(queued)) = office.active.get(&attempt).map(|a| &a.progress)
        else {
            return false;
        };
        let request = &queued.request;
        let one_entry =
            request.participants.len() == 1 && queued.bytes <= self.settings.entry_bytes;
        // Most hold far less than the bound, with the keys they write.
        if one_entry || office.locks.bytes(attempt) <= self.settings.read_bytes {
            return false;
        }
        let reads = office.locks.read_spans(attempt, &request.writes);
        reads.iter().map(span_weight).sum::<usize>() > self.settings.read_bytes
    }

    /// Cuts writes that do not fit into one entry into parts; the last rides
    /// with the Intent, if it fits in beside the reads and participants.
    pub(super) fn cut(
        &self,
        writes: Vec<Write>,
        bytes: usize,
        reads: &[Span],
        participants: &[Participant],
    ) -> (Vec<Vec<Write>>, Vec<Write>) {
        let lists = reads.iter().map(span_weight).sum::<usize>()
            + participants.iter().map(Participant::weight).sum::<usize>();
        let room = self
            .settings
            .entry_bytes
            .saturating_sub(lists.saturating_sub(ENTRY_SLACK));
        if bytes <= room {
            return (Vec::new(), writes);
        }
        let mut parts = Vec::new();
        let mut part = Vec::new();
        let mut size = 0;
        for write in writes {
            let weight = write.weight();
            if size + weight > self.settings.entry_bytes && !part.is_empty() {
                parts.push(std::mem::take(&mut part));
                size = 0;
            }
            size += weight;
            part.push(write);
        }
        if size > room && lists > ENTRY_SLACK {
            parts.push(std::mem::take(&mut part));
        }
        (parts, part)
    }
}
