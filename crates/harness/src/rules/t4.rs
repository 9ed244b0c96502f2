//! T4: a Commit is valid in exactly the term it names; a no in that term or a
//! later one is final.

use super::{Denied, Event, Ledger, Rule, Setting, Verdict};
use synod_paxos::{GroupId, Term};
use synod_txn::{AttemptId, Command, Outcome};

pub(super) struct T4;

/// What an entry commits or stages here, and under which term.
fn named(command: &Command) -> Option<(AttemptId, Term)> {
    match command {
        Command::OneShard { attempt, term, .. } => Some((*attempt, *term)),
        Command::Intent(intent) => {
            let here = intent.participants.get(intent.here as usize)?;
            Some((intent.attempt, here.term))
        }
        _ => None,
    }
}

/// Whether a participant that was said no to is committed or staged all the same. (A one-shard
/// commit has no other: its entry does not tell its anchor.)
fn denied(ledger: &Ledger, attempt: AttemptId, group: GroupId, command: &Command) -> Verdict {
    let meant = |no: &&Denied| match command {
        Command::Intent(intent) => no.anchor == *intent.anchor(),
        _ => no.group == group,
    };
    let known = ledger.get(attempt);
    match known.and_then(|k| k.noes.iter().find(meant)) {
        Some(Denied { node, .. }) => Err(format!(
            "{attempt} has an entry decided in {group}, for which {node} had said no"
        )),
        None => Ok(()),
    }
}

impl Rule for T4 {
    fn number(&self) -> &'static str {
        "T4"
    }

    fn follows_attempts(&self) -> bool {
        true
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, _setting: &Setting) -> Verdict {
        match event {
            Event::Decided(fresh) => {
                let Some(command) = fresh.command.as_ref() else {
                    return Ok(());
                };
                let Some((attempt, term)) = named(command) else {
                    return Ok(());
                };
                if term.group != fresh.group || term.ballot != fresh.term {
                    return Err(format!(
                        "slot {} of {} belongs to term {} and holds {attempt}, whose Commit names \
                         {term:?}",
                        fresh.slot, fresh.group, fresh.term
                    ));
                }
                denied(ledger, attempt, fresh.group, command)
            }
            Event::No {
                attempt,
                group,
                anchor,
                node,
            } => {
                let Some(known) = ledger.get(*attempt) else {
                    return Ok(());
                };
                let committed = matches!(known.told, Some((Outcome::Committed(_), ..)));
                let aborted = matches!(known.told, Some((Outcome::Aborted(_), ..)));
                let one = known
                    .one_shard
                    .is_some_and(|(shard, _)| ledger.is_of(*group, shard));
                let held = known.held_by(anchor).is_some() && !aborted;
                if committed || one || held {
                    return Err(format!(
                        "{node} says no to {attempt} in {group}; told: {:?}, one-shard commit: \
                         {one}, intent decided: {held}",
                        known.told
                    ));
                }
                Ok(())
            }
            // Below the floor nothing is known once the outcome is recorded (T6).
            Event::Forgotten {
                attempt,
                group,
                anchor,
                node,
            } => {
                let Some(known) = ledger.get(*attempt) else {
                    return Ok(());
                };
                let held = known.held_by(anchor);
                let open = held.is_some_and(|held| held.recorded.is_none());
                let aborted = matches!(known.told, Some((Outcome::Aborted(_), ..)));
                if open && !aborted {
                    return Err(format!(
                        "{node} knows nothing of {attempt} in {group}, whose intent is decided \
                         there and whose outcome is not recorded"
                    ));
                }
                Ok(())
            }
            Event::Told {
                attempt,
                outcome: outcome @ Outcome::Committed(_),
                node,
                how,
            } => {
                let no = ledger.get(*attempt).and_then(|k| k.noes.first());
                match no {
                    Some(no) => Err(format!(
                        "{node} disclosed ({how:?}) \"{outcome}\" of {attempt}, to which {} had \
                         said no in {}",
                        no.node, no.group
                    )),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
