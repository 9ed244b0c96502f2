//! P8: an entry kind is proposed only once the cluster version allows it; so
//! every node can read every entry that was decided.

use super::{Event, Ledger, Rule, Setting, Verdict};

pub(super) struct P8;

impl Rule for P8 {
    fn number(&self) -> &'static str {
        "P8"
    }

    fn follows_attempts(&self) -> bool {
        true
    }

    fn event(&mut self, event: &Event<'_>, _ledger: &Ledger, setting: &Setting) -> Verdict {
        let Event::Decided(fresh) = event else {
            return Ok(());
        };
        match &fresh.command {
            Some(command) if command.since() > setting.version => Err(format!(
                "slot {} of {} holds \"{command}\", of version {}, in a cluster of version {}",
                fresh.slot,
                fresh.group,
                command.since().0,
                setting.version.0
            )),
            _ => Ok(()),
        }
    }
}
