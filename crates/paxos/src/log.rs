//! The log of one replica and its durable state. Recovery and the running
//! replica change it through the same few methods.

use crate::config::{Began, Configuration};
use crate::entry::Entry;
use crate::ids::{Ballot, Slot};
use crate::record::{Durable, Record, Staging};
use serde::Serialize;
use std::collections::VecDeque;
use synod_probe::{Mark, Mutation, mark, mutated};

/// What became of entries offered to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// They do not join on: entries from after this slot are needed.
    Gap(Slot),
    /// The log's own ballot; entries from this slot on are new.
    Appended(Slot),
    /// Part of a sync that is not complete; entries from this slot on are new.
    Staged(Slot),
    /// The sync is complete and has replaced the suffix; entries from this slot on are new.
    Completed(Slot),
    /// What is decided here is not in the log that the sync would make: nothing
    /// changed. No correct node sends this (P2).
    Contradicts,
}

impl Durable {
    /// A replica's state before it has promised or accepted anything.
    #[must_use]
    pub fn new(configuration: Configuration) -> Durable {
        Durable {
            promised: Ballot::default(),
            accepted: Ballot::default(),
            trimmed: Slot(0),
            entries: VecDeque::new(),
            decided: Slot(0),
            configuration,
            began: Slot(0),
            left: Vec::new(),
            staging: None,
        }
    }

    /// A replica's state in a group that begins with a state instead of an empty log, and
    /// holds it already: as if a snapshot of it had just been installed.
    #[must_use]
    pub fn founded(began: Began) -> Durable {
        let mut durable = Durable::new(Configuration::outside());
        durable.drop_through(began.after);
        durable.begin(began);
        durable
    }

    /// The configuration in force, and where it begins.
    #[must_use]
    pub fn in_force(&self) -> Began {
        Began {
            configuration: self.configuration.clone(),
            after: self.began,
            left: self.left.clone(),
        }
    }

    /// The last slot of the log (`trimmed` if it is empty).
    #[must_use]
    pub fn last(&self) -> Slot {
        Slot(self.trimmed.0 + self.entries.len() as u64)
    }

    /// The entry in `slot`, if the log holds it.
    #[must_use]
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        let index = slot.0.checked_sub(self.trimmed.0 + 1)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    /// Recovery: applies one record, in the order in which they were persisted.
    pub fn replay(&mut self, record: Record) {
        match record {
            Record::Promised(ballot) => self.promised = self.promised.max(ballot),
            Record::Accept {
                ballot,
                first,
                entries,
                decided,
                sync,
            } => {
                if ballot >= self.accepted {
                    let taken = self.accept(ballot, first, entries, sync);
                    assert!(
                        taken != Taken::Contradicts,
                        "P2: a record under {ballot} changes what was decided through {}",
                        self.decided
                    );
                    self.believe(ballot, decided);
                }
            }
            Record::Decided { ballot, slot } => {
                self.believe(ballot, slot);
            }
            Record::Trimmed { slot } => self.drop_through(slot.min(self.last())),
            Record::Installed { slot } => self.drop_through(slot),
            Record::Configured(began) => self.begin(*began),
            Record::Emptied(began) => self.empty(*began),
        }
    }

    /// Takes a configuration into force that is younger than the one known. The
    /// state it begins with is held here, so what an earlier one accepted after
    /// that, and nobody decided, goes; from there everybody starts equal.
    pub(crate) fn begin(&mut self, began: Began) {
        if began.configuration.epoch <= self.configuration.epoch {
            return;
        }
        let founding = Ballot::founding(began.configuration.epoch);
        self.configuration = began.configuration;
        self.began = began.after;
        self.left = began.left;
        self.promised = self.promised.max(founding);
        self.staging.take_if(|s| s.ballot < founding);
        if self.accepted < founding {
            let decided = self.decided.0.saturating_sub(self.trimmed.0);
            let kept = usize::try_from(decided).unwrap_or(usize::MAX);
            self.entries.truncate(kept);
            self.accepted = founding;
        }
    }

    /// Forgets everything but the promise: this replica is not part of `began`,
    /// which others hold the state of (G3). A later configuration may take it in
    /// again, from nothing.
    pub(crate) fn empty(&mut self, began: Began) {
        let founding = Ballot::founding(began.configuration.epoch);
        *self = Durable {
            promised: self.promised.max(founding),
            began: began.after,
            ..Durable::new(began.configuration)
        };
        if mutated(Mutation::ForgottenEpoch) {
            self.promised = Ballot::default();
            self.configuration = Configuration::outside();
        }
    }

    /// Looks through newly decided entries for the end of a configuration.
    fn cross(&mut self, first: Slot) {
        let mut begins = None;
        for slot in first.0..=self.decided.0 {
            if let Some(Entry::StopSign(stop)) = self.entry(Slot(slot)) {
                begins = Some(Began {
                    configuration: stop.successor.clone(),
                    after: Slot(slot),
                    left: stop.left.clone(),
                });
            }
        }
        if let Some(began) = begins {
            self.begin(began);
        }
    }

    /// Takes entries under `ballot`, which is not below `accepted` (P4). Parts of what a
    /// configuration begins with promise nothing: the one before may still need this
    /// replica.
    pub(crate) fn accept(
        &mut self,
        ballot: Ballot,
        first: Slot,
        entries: Vec<Entry>,
        sync: Option<(Slot, Slot)>,
    ) -> Taken {
        assert!(ballot >= self.accepted, "P1: accepting below `accepted`");
        if !ballot.is_founding() {
            self.promised = self.promised.max(ballot);
        }
        let again = ballot == self.accepted && sync.is_some();
        if ballot == self.accepted && !(again && mutated(Mutation::RepeatedSyncTruncates)) {
            if again {
                mark(Mark::SyncAgain);
            }
            return self.append(first, entries);
        }
        match sync {
            Some((_, end)) => self.stage(ballot, first, end, entries),
            None => Taken::Gap(self.wanted_after(ballot)),
        }
    }

    /// After which slot entries under `ballot` would join on.
    pub(crate) fn wanted_after(&self, ballot: Ballot) -> Slot {
        match &self.staging {
            _ if self.accepted == ballot => self.last(),
            Some(s) if s.ballot == ballot => Slot(s.first.0 + s.entries.len() as u64).prev(),
            _ => self.decided,
        }
    }

    fn append(&mut self, first: Slot, entries: Vec<Entry>) -> Taken {
        let fresh = self.last().next();
        if first > fresh {
            return Taken::Gap(self.last());
        }
        let held = usize::try_from(fresh.0 - first.0).unwrap_or(usize::MAX);
        self.entries.extend(entries.into_iter().skip(held));
        Taken::Appended(fresh)
    }

    /// A sync that ends below `first` is one whose end the replica holds already,
    /// by way of a snapshot: it is complete at once.
    fn stage(&mut self, ballot: Ballot, first: Slot, end: Slot, entries: Vec<Entry>) -> Taken {
        if first > self.last().next() && self.staging.as_ref().is_none_or(|s| s.ballot != ballot) {
            return Taken::Gap(self.decided);
        }
        let joined = self
            .staging
            .take_if(|s| s.ballot == ballot && s.end == end && s.first <= first);
        let (begin, fresh) = joined.as_ref().map_or((first, first), |s| {
            (s.first, Slot(s.first.0 + s.entries.len() as u64))
        });
        if first > fresh {
            self.staging = joined;
            return Taken::Gap(fresh.prev());
        }
        let held = usize::try_from(fresh.0 - first.0).unwrap_or(usize::MAX);
        let joins = joined.is_some();
        let mut staged = Staging {
            ballot,
            first: begin,
            end,
            entries: joined.map(|s| s.entries).unwrap_or_default(),
        };
        let before = staged.entries.len();
        staged.entries.extend(entries.into_iter().skip(held));
        let through = Slot(begin.0 + staged.entries.len() as u64).prev();
        let again = self.accepted == ballot;
        let reach = if again { self.last() } else { through };
        let complete = reach >= end || mutated(Mutation::HalfSync);
        if self.contradicts(&staged, complete) {
            // As if this part had never come: memory stays as the disk is.
            if joins {
                staged.entries.truncate(before);
                self.staging = Some(staged);
            }
            return Taken::Contradicts;
        }
        if !complete {
            self.staging = Some(staged);
            return Taken::Staged(fresh);
        }
        self.staging = None;
        self.complete(staged);
        Taken::Completed(fresh)
    }

    /// Whether a sync would change or, if it is complete, drop what is decided here
    /// (P2, P4): some disk has lost what it promised to keep, or its sender lies.
    fn contradicts(&self, staged: &Staging, complete: bool) -> bool {
        let through = Slot(staged.first.0 + staged.entries.len() as u64).prev();
        let changed = |(slot, entry): (Slot, &Entry)| {
            let old = self.entry(slot);
            old.is_some_and(|old| old != entry)
        };
        let drops = complete && through.max(self.trimmed) < self.decided;
        let decided = (staged.first.0..=self.decided.0).map(Slot);
        drops || decided.zip(&staged.entries).any(changed)
    }

    /// The sync covers its end: from now on its entries are the log's suffix.
    fn complete(&mut self, staged: Staging) {
        let trimmed = usize::try_from(self.trimmed.next().0.saturating_sub(staged.first.0))
            .unwrap_or(usize::MAX);
        let kept = usize::try_from(staged.first.0.saturating_sub(self.trimmed.next().0))
            .unwrap_or(usize::MAX);
        if self.entries.len() > kept {
            mark(Mark::SuffixReplaced);
        }
        if self.entries.len() > kept + staged.entries.len() {
            mark(Mark::SuffixShortened);
        }
        self.entries.truncate(kept);
        self.entries
            .extend(staged.entries.into_iter().skip(trimmed));
        self.accepted = staged.ballot;
        self.promised = self.promised.max(staged.ballot);
        assert!(
            self.decided <= self.last(),
            "P4: a sync dropped decided entries"
        );
    }

    /// Believes that everything up to `slot` is decided, if `ballot` proves it (P5).
    pub(crate) fn believe(&mut self, ballot: Ballot, slot: Slot) -> bool {
        if self.accepted != ballot && !mutated(Mutation::BelieveForeignDecided) {
            return false;
        }
        let slot = slot.min(self.last());
        let before = self.decided;
        let rose = slot > before;
        if rose {
            self.decided = slot;
            self.cross(before.next());
        }
        rose
    }

    /// Drops the log through `slot`, whose effect the engine holds; a slot past
    /// the log's end (a snapshot's) leaves it empty after that slot.
    pub(crate) fn drop_through(&mut self, slot: Slot) {
        if slot <= self.trimmed {
            return;
        }
        let count = usize::try_from(slot.0 - self.trimmed.0).unwrap_or(usize::MAX);
        self.entries.drain(..count.min(self.entries.len()));
        self.trimmed = slot;
        self.decided = self.decided.max(slot);
        // Parts of a sync that ended below would not join on to anything any more.
        self.staging
            .take_if(|s| s.first.0 + (s.entries.len() as u64) <= slot.0);
    }
}

/// The durable state as it will be once everything submitted is on disk, with
/// running totals of its size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Log {
    pub(crate) durable: Durable,
    bytes: usize,
    undecided: usize,
}

impl Log {
    pub(crate) fn new(durable: Durable) -> Log {
        let mut log = Log {
            durable,
            bytes: 0,
            undecided: 0,
        };
        log.weigh();
        log
    }

    /// Bytes of all entries kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the entries above the decided slot.
    pub(crate) fn undecided_bytes(&self) -> usize {
        self.undecided
    }

    fn weigh(&mut self) {
        let decided = self.durable.decided;
        self.bytes = self.durable.entries.iter().map(Entry::weight).sum();
        self.undecided = self
            .range(decided.next(), self.durable.last())
            .map(Entry::weight)
            .sum();
    }

    /// See [`Durable::accept`].
    pub(crate) fn accept(
        &mut self,
        ballot: Ballot,
        first: Slot,
        entries: Vec<Entry>,
        sync: Option<(Slot, Slot)>,
    ) -> Taken {
        let taken = self.durable.accept(ballot, first, entries, sync);
        match taken {
            Taken::Appended(fresh) => {
                let added: usize = self
                    .range(fresh, self.durable.last())
                    .map(Entry::weight)
                    .sum();
                self.bytes += added;
                self.undecided += added;
            }
            Taken::Completed(_) => self.weigh(),
            Taken::Gap(_) | Taken::Staged(_) | Taken::Contradicts => {}
        }
        taken
    }

    /// One entry at the end, under the log's own ballot.
    pub(crate) fn push(&mut self, entry: Entry) -> Slot {
        self.bytes += entry.weight();
        self.undecided += entry.weight();
        self.durable.entries.push_back(entry);
        self.durable.last()
    }

    /// See [`Durable::believe`].
    pub(crate) fn believe(&mut self, ballot: Ballot, slot: Slot) -> bool {
        let (before, epoch) = (self.durable.decided, self.durable.configuration.epoch);
        if !self.durable.believe(ballot, slot) {
            return false;
        }
        if self.durable.configuration.epoch > epoch {
            // A configuration ended, and with it what it left undecided.
            self.weigh();
            return true;
        }
        let settled: usize = self
            .range(before.next(), self.durable.decided)
            .map(Entry::weight)
            .sum();
        self.undecided -= settled;
        true
    }

    /// See [`Durable::drop_through`].
    pub(crate) fn drop_through(&mut self, slot: Slot) {
        let dropped = slot.min(self.durable.last());
        let bytes: usize = self
            .range(self.durable.trimmed.next(), dropped)
            .map(Entry::weight)
            .sum();
        let undecided: usize = self
            .range(self.durable.decided.next(), dropped)
            .map(Entry::weight)
            .sum();
        self.bytes -= bytes;
        self.undecided -= undecided;
        self.durable.drop_through(slot);
    }

    /// See [`Durable::begin`].
    pub(crate) fn begin(&mut self, began: Began) {
        self.durable.begin(began);
        self.weigh();
    }

    /// See [`Durable::empty`].
    pub(crate) fn empty(&mut self, began: Began) {
        self.durable.empty(began);
        self.weigh();
    }

    /// The entries `first..=through` that the log holds. None of them is trimmed:
    /// what is left of them would pass for entries of other slots.
    pub(crate) fn range(&self, first: Slot, through: Slot) -> impl Iterator<Item = &Entry> + '_ {
        let base = self.durable.trimmed.0 + 1;
        assert!(
            first.0 >= base,
            "P2: slot {first} is trimmed, the log begins after {}",
            self.durable.trimmed
        );
        let len = self.durable.entries.len();
        let clamp = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(len);
        let from = clamp(first.0 - base);
        let to = clamp(through.next().0.saturating_sub(base)).max(from);
        self.durable.entries.range(from..to)
    }

    /// Clones entries from `first` on, up to `through` and about `bytes` bytes,
    /// but at least one if there is one. Returns them with their weight.
    pub(crate) fn batch(&self, first: Slot, through: Slot, bytes: usize) -> (Vec<Entry>, usize) {
        let mut weight = 0;
        let mut entries = Vec::new();
        for entry in self.range(first, through) {
            if !entries.is_empty() && weight + entry.weight() > bytes {
                break;
            }
            weight += entry.weight();
            entries.push(entry.clone());
        }
        (entries, weight)
    }
}
