//! T4: a Commit is valid in exactly the term it names; a no in that term or a
//! later one is final.

use super::{Event, Ledger, Rule, Setting, Verdict};
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

fn denied(ledger: &Ledger, attempt: AttemptId, group: GroupId) -> Verdict {
    let known = ledger.get(attempt);
    let no = known.and_then(|k| k.noes.iter().find(|(shard, _)| *shard == group));
    match no {
        Some((_, node)) => Err(format!(
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
                let Some((attempt, term)) = fresh.command.as_ref().and_then(named) else {
                    return Ok(());
                };
                if term.group != fresh.group || term.ballot != fresh.term {
                    return Err(format!(
                        "slot {} of {} belongs to term {} and holds {attempt}, whose Commit names \
                         {term:?}",
                        fresh.slot, fresh.group, fresh.term
                    ));
                }
                denied(ledger, attempt, fresh.group)
            }
            Event::No {
                attempt,
                group,
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
                let held = known.held_in(*group).is_some() && !aborted;
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
                node,
            } => {
                let Some(known) = ledger.get(*attempt) else {
                    return Ok(());
                };
                let held = known.held_in(*group);
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
                    Some((group, by)) => Err(format!(
                        "{node} disclosed ({how:?}) \"{outcome}\" of {attempt}, to which {by} had \
                         said no in {group}"
                    )),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
