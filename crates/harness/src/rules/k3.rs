//! K3: per shard `last` only rises and is replicated; a timestamp lies above
//! it, so timestamps rise with slots.

use super::{Context, Event, Ledger, Rule, Setting, Verdict};
use synod_txn::Command;

pub(super) struct K3;

impl Rule for K3 {
    fn number(&self) -> &'static str {
        "K3"
    }

    fn event(&mut self, event: &Event<'_>, _ledger: &Ledger, _setting: &Setting) -> Verdict {
        let Event::Decided(fresh) = event else {
            return Ok(());
        };
        let timestamp = match &fresh.command {
            Some(Command::OneShard { timestamp, .. }) => *timestamp,
            Some(Command::Intent(intent)) => intent.timestamp,
            _ => return Ok(()),
        };
        if timestamp > fresh.above {
            return Ok(());
        }
        Err(format!(
            "slot {} of {} has timestamp {timestamp}; slots before it reach up to {}",
            fresh.slot, fresh.group, fresh.above
        ))
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let (before, after) = (change.before, change.after);
            let fell = after.replicated < before.replicated && !after.emptied;
            let same_office = after.office.is_some() && after.office == before.office;
            if fell || same_office && after.used < before.used {
                return Err(format!(
                    "`last` of {} fell at {}: replicated from {} to {}, used from {} to {}",
                    change.group,
                    cx.look.id,
                    before.replicated,
                    after.replicated,
                    before.used,
                    after.used
                ));
            }
        }
        Ok(())
    }
}
