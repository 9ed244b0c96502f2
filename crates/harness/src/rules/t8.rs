//! T8: timestamps of conflicting transactions rise in commit order: a key's
//! versions rise with the slots that made them.

use super::{Event, Ledger, Rule, Setting, Verdict};
use synod_shard::wire::show_key;

pub(super) struct T8;

impl Rule for T8 {
    fn number(&self) -> &'static str {
        "T8"
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, _setting: &Setting) -> Verdict {
        let Event::Decided(fresh) = event else {
            return Ok(());
        };
        let Some((attempt, timestamp, keys)) = ledger.makes(fresh) else {
            return Ok(());
        };
        for key in keys {
            let last = ledger.versions(key).and_then(|v| v.back());
            if let Some(last) = last.filter(|last| last.timestamp >= timestamp) {
                return Err(format!(
                    "slot {} of {} gives {} a version at {timestamp} by {attempt}; it has one at \
                     {} by {}",
                    fresh.slot,
                    fresh.group,
                    show_key(key),
                    last.timestamp,
                    last.attempt
                ));
            }
        }
        Ok(())
    }
}
