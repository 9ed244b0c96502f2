//! T3: one outcome per attempt. Only the leader that itself proposed Staged may
//! have an abort decided, and only while nobody was told *committed*; one that
//! inherited Staged polls, and what has every yes it commits.

use super::ledger::agree;
use super::{Event, Ledger, Rule, Setting, Verdict};
use synod_txn::{Command, Outcome};

pub(super) struct T3;

impl Rule for T3 {
    fn number(&self) -> &'static str {
        "T3"
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, _setting: &Setting) -> Verdict {
        match event {
            Event::Told {
                attempt,
                outcome,
                node,
                how,
            } => {
                let told = ledger.get(*attempt).and_then(|known| known.told);
                match told {
                    Some((first, first_how, first_node)) if !agree(first, *outcome) => {
                        Err(format!(
                            "{attempt}: {first_node} disclosed ({first_how:?}) \"{first}\", and \
                             now {node} discloses ({how:?}) \"{outcome}\""
                        ))
                    }
                    _ => Ok(()),
                }
            }
            Event::Decided(fresh) => match &fresh.command {
                Some(Command::Outcome {
                    attempt,
                    outcome: Outcome::Aborted(why),
                    ..
                }) => {
                    let Some(known) = ledger.get(*attempt) else {
                        return Ok(());
                    };
                    let inherited = known.staged.is_some_and(|(_, term, _)| term != fresh.term);
                    if known.outcome.is_none() && inherited && known.is_whole() {
                        return Err(format!(
                            "slot {} of {} aborts {attempt} ({why:?}) in term {}; it was staged \
                             in an earlier one, and every participant has its intent",
                            fresh.slot, fresh.group, fresh.term
                        ));
                    }
                    Ok(())
                }
                // The last yes after an abort that nobody's no allowed.
                Some(Command::Intent(intent)) => {
                    let Some(known) = ledger.get(intent.attempt) else {
                        return Ok(());
                    };
                    let missing = known.participants.iter();
                    let mut missing = missing.filter(|p| known.held_by(&p.anchor).is_none());
                    let last = missing.next().is_some_and(|p| p.anchor == *intent.anchor())
                        && missing.next().is_none();
                    if known.aborted_later && last {
                        return Err(format!(
                            "{} was aborted in a later term than it was staged in, and now its \
                             last intent is decided in {}: nobody can have said no",
                            intent.attempt, fresh.group
                        ));
                    }
                    Ok(())
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
