//! P5: decided is believed only under its ballot, up to the end of a log
//! accepted under that ballot. That rests on logs accepted under one ballot
//! being prefixes of one log: one value per ballot and slot.

use super::{Change, Context, GroupBook, Rule, Taken, Verdict, hash};
use std::collections::BTreeMap;
use synod_paxos::{Ballot, Entry, GroupId, Message, NodeId, Replica, Slot};
use synod_shard::{Input, NodeMessage};
use synod_txn::{Command, command};

/// Values kept per group; those of decided slots are not needed.
const VALUES: usize = 1 << 14;

/// Digests by slot and ballot, and who showed them first.
type Values = BTreeMap<(Slot, Ballot), (u64, NodeId)>;

/// A leader's word that a slot is decided, which a node has taken.
struct Word {
    node: usize,
    group: GroupId,
    under: Ballot,
    slot: Slot,
}

#[derive(Default)]
pub(super) struct P5 {
    /// Undecided values.
    values: BTreeMap<GroupId, Values>,
    /// What was taken since the last step.
    words: Vec<Word>,
}

impl P5 {
    /// The entries of a replica from `first` on against all other logs of its ballot.
    fn compare(
        &mut self,
        id: NodeId,
        group: (GroupId, &GroupBook),
        replica: &Replica,
        first: Slot,
    ) -> Verdict {
        let (group, book) = group;
        let accepted = replica.accepted();
        let values = self.values.entry(group).or_default();
        for (slot, entry) in replica.entries_from(first) {
            if slot <= book.frontier() {
                // Decided values are compared by P2 and P3.
                continue;
            }
            let digest = hash::entry(entry);
            let known = values.entry((slot, accepted)).or_insert((digest, id));
            if known.0 != digest {
                return Err(format!(
                    "slot {slot} of {group} has two values under {accepted}: at {} and at {id}",
                    known.1
                ));
            }
        }
        while let Some(first) = values.first_entry()
            && first.key().0 <= book.frontier()
        {
            first.remove();
        }
        while values.len() > VALUES {
            values.pop_last();
        }
        Ok(())
    }

    /// Whether the replica came to a split that a snapshot has behind it, or to an end that was
    /// absorbed: that is not told by a ballot (decisions 15 and 19). P2 and P3 compare what it took for decided, as ever.
    fn is_believed(cx: &Context<'_>, change: &Change) -> bool {
        let shard = cx.look.worker.shard(change.group);
        let entry = shard.and_then(|s| s.replica().entry(change.after.decided));
        let Some(Entry::Command(bytes)) = entry else {
            return false;
        };
        matches!(
            command::decode(bytes),
            Ok(Command::Split(_) | Command::End(_))
        )
    }

    /// Up to where the node was told in this step that the group's log is decided, by those who led
    /// under the ballot that its log had before, or under one between that and its present one.
    /// A step is all that a node does in one turn: it may believe such a one, as it must, and
    /// then take a younger leader's log, who need not know yet what is decided in it.
    fn told_before(&self, cx: &Context<'_>, change: &Change, book: &GroupBook) -> Slot {
        let ballots = change.before.accepted..change.after.accepted;
        let words = self.words.iter().filter(|word| {
            word.node == cx.look.node && word.group == change.group && ballots.contains(&word.under)
        });
        // Nobody's word counts for more than its leader knew.
        let slots = words.map(|w| {
            book.told_by(w.under)
                .map_or(w.slot, |told| told.min(w.slot))
        });
        slots.max().unwrap_or_default()
    }

    fn believed(&self, cx: &Context<'_>, change: &Change, book: &GroupBook) -> Verdict {
        let (before, after) = (change.before, change.after);
        // A snapshot brings what its sender had applied.
        if after.decided <= before.decided
            || after.decided <= after.trimmed
            || after.leads == Some(after.accepted)
            // It may have found out and been deposed in one step.
            || before.leads.is_some()
        {
            return Ok(());
        }
        let Some(told) = book.told_by(after.accepted) else {
            return Ok(());
        };
        if after.decided <= told
            || after.decided <= self.told_before(cx, change, book)
            || Self::is_believed(cx, change)
        {
            return Ok(());
        }
        Err(format!(
            "{} of {} believes slot {} decided; its log was accepted under {}, whose leader \
             knew no more than slot {told}",
            cx.look.id, change.group, after.decided, after.accepted
        ))
    }

    fn check(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let Some(book) = cx.book.group(change.group) else {
                continue;
            };
            self.believed(cx, change, book)?;
            let first = change.first_new();
            if first > change.after.last {
                continue;
            }
            if let Some(shard) = cx.look.worker.shard(change.group) {
                let group = (change.group, book);
                self.compare(cx.look.id, group, shard.replica(), first)?;
            }
        }
        Ok(())
    }
}

impl Rule for P5 {
    fn number(&self) -> &'static str {
        "P5"
    }

    fn follows_inputs(&self) -> bool {
        true
    }

    fn taken(&mut self, taken: &Taken<'_>) {
        if let Input::Peer { message, .. } = taken.input
            && let NodeMessage::Group { group, message } = message
            && let Message::Decided {
                ballot,
                slot: decided,
            }
            | Message::Accept {
                ballot, decided, ..
            } = message
        {
            self.words.push(Word {
                node: taken.node,
                group: *group,
                under: *ballot,
                slot: *decided,
            });
        }
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        let verdict = self.check(cx);
        self.words.clear();
        verdict
    }

    fn restarted(&mut self, cx: &Context<'_>) -> Verdict {
        for shard in cx.look.worker.shards() {
            let group = shard.descriptor().id;
            if let Some(book) = cx.book.group(group) {
                self.compare(cx.look.id, (group, book), shard.replica(), Slot(0))?;
            }
        }
        Ok(())
    }
}
