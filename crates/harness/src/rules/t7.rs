//! T7: repeating a Commit never applies it twice; a version names the attempt
//! that wrote it.

use super::{Event, How, Ledger, Rule, Setting, Verdict};
use synod_txn::{Command, Outcome};

pub(super) struct T7;

impl Rule for T7 {
    fn number(&self) -> &'static str {
        "T7"
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, _setting: &Setting) -> Verdict {
        match event {
            Event::Decided(fresh) => {
                let attempt = match &fresh.command {
                    Some(Command::OneShard { attempt, .. }) => *attempt,
                    Some(Command::Intent(intent)) => intent.attempt,
                    _ => return Ok(()),
                };
                let Some(known) = ledger.get(attempt) else {
                    return Ok(());
                };
                if known.one_shard.is_some() || known.held_in(fresh.group).is_some() {
                    return Err(format!(
                        "slot {} of {} commits or stages {attempt} again; one-shard commit: \
                         {:?}, intents: {:?}",
                        fresh.slot,
                        fresh.group,
                        known.one_shard,
                        known
                            .held
                            .iter()
                            .map(|h| (h.group, h.slot))
                            .collect::<Vec<_>>()
                    ));
                }
                Ok(())
            }
            Event::Told {
                attempt,
                outcome: Outcome::Committed(at),
                node,
                how: How::Read,
            } => {
                // A version of an attempt that is not known here was written by nobody.
                let known = ledger.get(*attempt);
                if known.is_some_and(|k| k.one_shard.is_some() || !k.held.is_empty())
                    || ledger.forgot()
                {
                    return Ok(());
                }
                Err(format!(
                    "{node} showed a version at {at} of {attempt}, which has no entry anywhere"
                ))
            }
            _ => Ok(()),
        }
    }
}
