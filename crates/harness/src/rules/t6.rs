//! T6: a participant acknowledges an outcome once its resolution is decided; a
//! resolution is forgotten only after the outcome is recorded at the
//! coordinator; a record only after all acks.

use super::{Attempt, Book, Event, Everyone, Ledger, Rule, Setting, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{GroupId, NodeId};
use synod_shard::wire::show_key;
use synod_txn::state::State;
use synod_txn::{AttemptId, Command, Key, Outcome};

#[derive(Default)]
pub(super) struct T6 {
    /// The forget floor up to which each replica's memory was compared.
    floors: BTreeMap<(usize, GroupId), u64>,
    /// Attempts that a state may have to remember, those of decided intents that are
    /// [settled](is_settled) taken out again.
    open: BTreeSet<AttemptId>,
}

/// Whether nobody has to remember anything of this attempt any more. It stays so until
/// another of its intents is decided.
fn is_settled(known: &Attempt) -> bool {
    let coordinator = known.staged.map(|(at, ..)| at);
    let acked = coordinator.is_none() || known.acked.is_some() || known.participants.len() < 2;
    let mut held = known.held.iter();
    acked && held.all(|h| h.recorded.is_some() || coordinator == Some(h.group))
}

/// Whether this participant may have acknowledged: its resolution is decided, or
/// it never had anything to resolve.
///
/// An abort needs no acks: whoever asks about an attempt without a record is told
/// that it was aborted, so nothing depends on who has forgotten it (the presumed
/// abort of R*, Mohan, Lindsay and Obermarck 1986; `docs/decisions/0007`).
fn resolved(ledger: &Ledger, attempt: AttemptId, anchor: &Key) -> bool {
    let Some(known) = ledger.get(attempt) else {
        return true;
    };
    let aborted = |outcome: &Outcome| matches!(outcome, Outcome::Aborted(_));
    let told = known.told.as_ref().map(|(outcome, ..)| outcome);
    let decided = known.outcome.as_ref().map(|(outcome, ..)| outcome);
    if told.or(decided).is_some_and(aborted) {
        return true;
    }
    known
        .held_by(anchor)
        .is_none_or(|held| held.resolved.is_some())
}

impl Rule for T6 {
    fn number(&self) -> &'static str {
        "T6"
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, _setting: &Setting) -> Verdict {
        if let Event::Decided(fresh) = event
            && let Some(Command::Intent(intent)) = &fresh.command
        {
            self.open.insert(intent.attempt);
        }
        match event {
            Event::Ack {
                attempt,
                group,
                anchor,
                node,
            } if !resolved(ledger, *attempt, anchor) => {
                let known = ledger.get(*attempt);
                let slot = known.and_then(|k| Some(k.held_by(anchor)?.slot));
                Err(format!(
                    "{node} acknowledges the outcome of {attempt} for {group} before its \
                     resolution is decided; its intent is in slot {slot:?}, told: {:?}",
                    known.and_then(|k| k.told)
                ))
            }
            Event::Decided(fresh) => {
                let Some(Command::Acked {
                    attempt,
                    participants,
                }) = &fresh.command
                else {
                    return Ok(());
                };
                let early = participants.iter();
                let mut early = early.filter(|anchor| !resolved(ledger, *attempt, anchor));
                match early.next() {
                    Some(anchor) => Err(format!(
                        "slot {} of {} says that {} acknowledged {attempt}; its resolution is \
                         not decided",
                        fresh.slot,
                        fresh.group,
                        show_key(anchor)
                    )),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn full(&mut self, everyone: &Everyone<'_>, _book: &Book, ledger: &Ledger) -> Verdict {
        let mut floor = 0;
        for (node, peer, worker) in everyone.running() {
            for shard in worker.shards().filter(|s| s.in_office()) {
                let (group, state) = (shard.descriptor().id, shard.group().state());
                let compared = self.floors.entry((node, group)).or_default();
                // Above the floor nothing is dropped; below it nothing comes back.
                if *compared == state.forget_floor {
                    continue;
                }
                *compared = state.forget_floor;
                floor = floor.max(state.forget_floor);
                for attempt in self.open.range(..below(state.forget_floor)) {
                    if let Some(known) = ledger.get(*attempt) {
                        remembers(peer.id, group, state, (*attempt, known))?;
                    }
                }
            }
        }
        let settled = |id: &&AttemptId| ledger.get(**id).is_none_or(is_settled);
        let settled = self.open.range(..below(floor)).filter(settled);
        for attempt in settled.copied().collect::<Vec<_>>() {
            self.open.remove(&attempt);
        }
        Ok(())
    }
}

/// The ids of all attempts below a forget floor are below this one.
fn below(floor: u64) -> AttemptId {
    AttemptId(u128::from(floor) << 80)
}

/// Whether a state still has what others will ask for of an attempt below its floor.
fn remembers(
    id: NodeId,
    group: GroupId,
    state: &State,
    (attempt, known): (AttemptId, &Attempt),
) -> Verdict {
    let applied = |slot| slot <= state.applied;
    let staged = known.staged.filter(|(at, ..)| *at == group);
    if staged.is_some_and(|(_, _, slot)| applied(slot))
        && known.acked.is_none()
        && known.participants.len() > 1
        && !state.records.contains_key(&attempt)
    {
        return Err(format!(
            "{id} has forgotten the record of {attempt} in {group}, which not all have \
             acknowledged"
        ));
    }
    let Some(held) = known.held_in(group) else {
        return Ok(());
    };
    if held.recorded.is_none()
        && applied(held.slot)
        && staged.is_none()
        && !state.resolutions.contains_key(&attempt)
        && !state.intents.contains_key(&attempt)
    {
        return Err(format!(
            "{id} has forgotten the intent of {attempt} in {group}, whose outcome nobody said \
             is recorded"
        ));
    }
    Ok(())
}
