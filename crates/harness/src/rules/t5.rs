//! T5: asking never aborts; only a participant with an unresolved intent may,
//! after a while, demand an end; or at once, when the shard that it names for the coordinator owns
//! its anchor no more, as its node's map says. So what was never staged is aborted only if a
//! Commit of it came to the coordinator, or an intent of it is that old; and
//! what is staged everywhere is not aborted as if it were not.

use super::{Event, Ledger, Rule, Setting, Verdict};
use std::collections::BTreeSet;
use synod_paxos::GroupId;
use synod_txn::{AbortReason, Command, Outcome};

#[derive(Default)]
pub(super) struct T5 {
    /// Shards whose range changed: a map that lags may take an anchor of theirs for another's.
    reshaped: BTreeSet<GroupId>,
}

impl Rule for T5 {
    fn number(&self) -> &'static str {
        "T5"
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, setting: &Setting) -> Verdict {
        let Event::Decided(fresh) = event else {
            return Ok(());
        };
        match &fresh.command {
            Some(Command::Split(split)) => self.reshaped.extend([fresh.group, split.child]),
            Some(Command::Absorb(absorb)) => self.reshaped.extend([fresh.group, absorb.right]),
            _ => {}
        }
        let Some(Command::Outcome {
            attempt,
            outcome: Outcome::Aborted(why),
            participants,
            anchor,
        }) = &fresh.command
        else {
            return Ok(());
        };
        let known = ledger.get(*attempt);
        // A participant's no has this reason, too: but not of one with an intent.
        let never = matches!(why, AbortReason::NeverStaged | AbortReason::TermEnded);
        if never && known.is_some_and(|k| k.outcome.is_none() && k.is_whole()) {
            return Err(format!(
                "slot {} of {} aborts {attempt} ({why:?}), although it is staged and every \
                 participant has its intent: all that anybody can have done is ask",
                fresh.slot, fresh.group
            ));
        }
        if known.is_some_and(|k| k.staged.is_some() || k.asked || k.outcome.is_some()) {
            return Ok(());
        }
        if !participants.iter().any(|p| p.anchor == *anchor) {
            return Err(format!(
                "slot {} of {} aborts {attempt} without naming its participants",
                fresh.slot, fresh.group
            ));
        }
        let patience = setting.txn.staged_timeout_nanos * 1_000 / (1_000 + setting.fast);
        let held = known.map_or(&[][..], |k| &k.held);
        let waited = held.iter().any(|h| h.t + patience <= fresh.t);
        if waited || self.reshaped.contains(&fresh.group) || ledger.forgot() {
            return Ok(());
        }
        Err(format!(
            "slot {} of {} aborts {attempt} ({why:?}), which was never staged; no Commit of it \
             came to {}, and no participant can have waited for long",
            fresh.slot, fresh.group, fresh.group
        ))
    }
}
