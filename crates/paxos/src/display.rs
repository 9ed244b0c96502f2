//! The one formatter for messages, records and effects: logs, golden scripts
//! and the simulator all use it, so a log line can be pasted into a script.

use crate::config::Configuration;
use crate::effect::{Effect, PersistSeq, SnapshotId};
use crate::entry::Entry;
use crate::ids::{Round, Slot};
use crate::message::{Message, NackReason};
use crate::record::Record;
use std::fmt::{Display, Formatter, Result};

/// At most this many entries of a batch are shown.
const SHOWN: usize = 8;

impl Display for Entry {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Entry::Noop => write!(f, "noop"),
            Entry::TermStart(start) => {
                write!(f, "term({} floor={}", start.ballot, start.floor)?;
                if start.term != start.ballot {
                    write!(f, " of {}", start.term)?;
                }
                write!(f, ")")
            }
            Entry::Command(bytes)
                if bytes.len() <= 16 && bytes.iter().all(u8::is_ascii_graphic) =>
            {
                write!(f, "{}", bytes.escape_ascii())
            }
            Entry::Command(bytes) => write!(f, "[{} bytes]", bytes.len()),
            Entry::StopSign(stop) => {
                write!(f, "stop({} limit={})", stop.successor, stop.limit)
            }
        }
    }
}

impl Display for Configuration {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}:", self.epoch)?;
        let roles = [&self.voters, &self.witnesses, &self.learners];
        for (prefix, nodes) in ["", "w", "l"].into_iter().zip(roles) {
            for node in nodes {
                write!(f, " {prefix}{node}")?;
            }
        }
        Ok(())
    }
}

impl Display for SnapshotId {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}/{:x}", self.slot, self.nonce)
    }
}

impl Display for PersistSeq {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "#{}", self.number)
    }
}

impl Display for NackReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            NackReason::Promised(ballot) => write!(f, "promised {ballot}"),
            NackReason::Supports(ballot) => write!(f, "supports {ballot}"),
            NackReason::Abstains => write!(f, "abstains"),
            NackReason::Trimmed(slot) => write!(f, "trimmed {slot}"),
            NackReason::Gap(slot) => write!(f, "gap after {slot}"),
            NackReason::NeedsSnapshot => write!(f, "needs snapshot"),
            NackReason::Configuration { epoch, holds } => {
                write!(f, "configuration {epoch} holds {holds}")
            }
        }
    }
}

/// `first..=last` with the entries, or where entries would go if there are none.
struct Entries<'a>(Slot, &'a [Entry]);

impl Display for Entries<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Entries(first, entries) = self;
        if entries.is_empty() {
            return write!(f, "{first}:-");
        }
        write!(f, "{first}:")?;
        for (i, entry) in entries.iter().take(SHOWN).enumerate() {
            write!(f, "{}{entry}", if i == 0 { "" } else { "," })?;
        }
        if entries.len() > SHOWN {
            write!(f, ",…{} more", entries.len() - SHOWN)?;
        }
        Ok(())
    }
}

fn sync_of(f: &mut Formatter<'_>, sync: Option<(Slot, Slot)>) -> Result {
    sync.map_or(Ok(()), |(first, end)| write!(f, " sync={first}..{end}"))
}

fn round_of(f: &mut Formatter<'_>, round: Round) -> Result {
    if round == Round(0) {
        return Ok(());
    }
    write!(f, " {round}")
}

impl Display for Message {
    #[allow(
        clippy::too_many_lines,
        reason = "one arm for each message, in one place"
    )]
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Message::PreVote {
                ballot,
                accepted,
                last,
                decided,
                relinquished,
            }
            | Message::Prepare {
                ballot,
                accepted,
                last,
                decided,
                relinquished,
            } => {
                let name = if let Message::PreVote { .. } = self {
                    "PreVote"
                } else {
                    "Prepare"
                };
                write!(f, "{name} {ballot} has {accepted}/{last} decided={decided}")?;
                relinquished.map_or(Ok(()), |b| write!(f, " relinquished={b}"))
            }
            Message::PreVoteReply { ballot } => write!(f, "PreVoteReply {ballot}"),
            Message::Promise {
                ballot,
                accepted,
                last,
                decided,
                limit,
                first,
                entries,
                more,
            } => {
                write!(
                    f,
                    "Promise {ballot} has {accepted}/{last} decided={decided}"
                )?;
                write!(f, " limit={limit} {}", Entries(*first, entries))?;
                write!(f, "{}", if *more { " …" } else { "" })
            }
            Message::Accept {
                ballot,
                first,
                entries,
                decided,
                sync,
                round,
            } => {
                write!(
                    f,
                    "Accept {ballot} {} decided={decided}",
                    Entries(*first, entries)
                )?;
                sync_of(f, *sync)?;
                round_of(f, *round)
            }
            Message::Accepted {
                ballot,
                last,
                support,
                round,
                data,
            } => {
                write!(f, "Accepted {ballot} through {last} {support}")?;
                round_of(f, *round)?;
                write!(f, "{}", if *data { "" } else { " no-data" })
            }
            Message::Decided { ballot, slot } => write!(f, "Decided {ballot} through {slot}"),
            Message::Nack { ballot, reason } => write!(f, "Nack {ballot} {reason}"),
            Message::Contested { ballot } => write!(f, "Contested {ballot}"),
            Message::Relinquish { ballot, used } => {
                write!(f, "Relinquish {ballot}")?;
                used.map_or(Ok(()), |used| write!(f, " used={used}"))
            }
            Message::TransferLeader { ballot, used } => {
                write!(f, "TransferLeader {ballot} used={used}")
            }
            Message::SnapshotChunk {
                ballot,
                id,
                chunk,
                data,
                done,
                ..
            } => {
                let end = if *done { " done" } else { "" };
                write!(
                    f,
                    "SnapshotChunk {ballot} {id}+{chunk} [{} bytes]{end}",
                    data.len()
                )
            }
            Message::SnapshotAck {
                ballot,
                id,
                next,
                installed,
            } => {
                let end = if *installed { " installed" } else { "" };
                write!(f, "SnapshotAck {ballot} {id} next={next}{end}")
            }
            Message::Settled {
                epoch,
                first,
                entries,
                end,
            } => {
                let entries = Entries(*first, entries);
                write!(f, "Settled {epoch} {entries} end={end}")
            }
            Message::Began { epoch, after } => write!(f, "Began {epoch} after {after}"),
            Message::Gone { epoch } => write!(f, "Gone {epoch}"),
            Message::Held { began, holds } => {
                let holds = if *holds { " holds" } else { "" };
                write!(
                    f,
                    "Held ({}) after {}{holds}",
                    began.configuration, began.after
                )
            }
        }
    }
}

impl Display for Record {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Record::Promised(ballot) => write!(f, "promised {ballot}"),
            Record::Accept {
                ballot,
                first,
                entries,
                decided,
                sync,
            } => {
                write!(
                    f,
                    "accept {ballot} {} decided={decided}",
                    Entries(*first, entries)
                )?;
                sync_of(f, *sync)
            }
            Record::Decided { ballot, slot } => write!(f, "decided {ballot} {slot}"),
            Record::Trimmed { slot } => write!(f, "trimmed {slot}"),
            Record::Installed { slot } => write!(f, "installed {slot}"),
            Record::Configured(began) => write!(f, "configured {}", began.configuration),
            Record::Emptied(began) => write!(f, "emptied {}", began.configuration),
        }
    }
}

impl Display for Effect {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Effect::Send { to, message } => write!(f, "→{to} {message}"),
            Effect::Persist {
                records,
                release,
                seq,
            } => {
                write!(f, "persist {seq}")?;
                for record in records {
                    write!(f, " [{record}]")?;
                }
                for (to, message) in release {
                    write!(f, " then →{to} {message}")?;
                }
                Ok(())
            }
            Effect::Decided { through } => write!(f, "decided {through}"),
            Effect::Deposed { ballot } => write!(f, "deposed {ballot}"),
            Effect::Confirmed { round } => write!(f, "confirmed {round}"),
            Effect::ReadSnapshot { to, id, chunk } => {
                write!(f, "read snapshot for {to} ")?;
                id.map_or(write!(f, "new"), |id| write!(f, "{id}"))?;
                write!(f, "+{chunk}")
            }
            Effect::Destroy => write!(f, "destroy"),
            Effect::CloseSnapshot { to } => write!(f, "close snapshot for {to}"),
            Effect::StageSnapshot {
                id,
                chunk,
                data,
                done,
            } => {
                let end = if *done { " done" } else { "" };
                write!(f, "stage snapshot {id}+{chunk} [{} bytes]{end}", data.len())
            }
        }
    }
}
