//! T4: a Commit is valid in exactly the term it names; a no in that term or a
//! later one is final. And a term covers one range, stored in one way: it ends where
//! its shard takes another one in, or has its keys stored differently.

use super::{Context, Denied, Event, Fresh, Ledger, Rule, Setting, Verdict};
use std::collections::BTreeMap;
use synod_paxos::{Ballot, GroupId, Slot, Term};
use synod_txn::state::State;
use synod_txn::{AttemptId, Command, Outcome};

#[derive(Default)]
pub(super) struct T4 {
    /// The last entry of each group that ends its term, if it counts.
    turns: BTreeMap<GroupId, Turn>,
}

/// An entry that ends its term, if it counts.
struct Turn {
    slot: Slot,
    term: Ballot,
    command: Command,
    /// Whether it does; not known before somebody has applied it.
    counts: Option<bool>,
}

impl Turn {
    fn of(fresh: &Fresh) -> Option<Turn> {
        let command = fresh.command.as_ref()?;
        let turns = matches!(command, Command::Absorb(_) | Command::Hash(_));
        turns.then(|| Turn {
            slot: fresh.slot,
            term: fresh.term,
            command: command.clone(),
            counts: None,
        })
    }

    /// Whether it counted, where it has just been applied.
    fn changed(&self, state: &State) -> bool {
        match &self.command {
            Command::Absorb(absorb) => state.has_absorbed(absorb.right),
            Command::Hash(hash) => state.tail.hashing == hash.hashing,
            _ => false,
        }
    }
}

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

impl T4 {
    /// The first one that counts ends its term, whatever else is in that.
    fn turn(&mut self, group: GroupId, turn: Turn) {
        let last = self.turns.get(&group);
        if last.is_none_or(|last| last.counts != Some(true) || last.term != turn.term) {
            self.turns.insert(group, turn);
        }
    }
}

impl Rule for T4 {
    fn number(&self) -> &'static str {
        "T4"
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, _setting: &Setting) -> Verdict {
        match event {
            Event::Decided(fresh) => {
                if let Some(turn) = Turn::of(fresh) {
                    self.turn(fresh.group, turn);
                }
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
                let turn = self.turns.get(&fresh.group);
                let over = turn.filter(|turn| turn.counts == Some(true));
                if let Some(turn) = over.filter(|t| t.term == fresh.term && t.slot < fresh.slot) {
                    return Err(format!(
                        "slot {} of {} holds {attempt} in term {}, which slot {} ended: it changed \
                         what the shard's keys are",
                        fresh.slot, fresh.group, fresh.term, turn.slot
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

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let turn = self.turns.get_mut(&change.group);
            let Some(turn) = turn.filter(|turn| turn.counts.is_none()) else {
                continue;
            };
            let shard = cx.look.worker.shard(change.group);
            if let Some(shard) = shard.filter(|shard| shard.applied() >= turn.slot) {
                turn.counts = Some(turn.changed(shard.group().state()));
            }
        }
        Ok(())
    }
}
