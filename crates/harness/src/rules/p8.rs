//! P8: an entry kind is proposed only once the cluster version allows it; so
//! every node can read every entry that was decided. Which version that is says the log itself.

use super::{Event, Ledger, Rule, Setting, Verdict};
use std::collections::BTreeMap;
use synod_paxos::{ClusterVersion, GroupId};
use synod_txn::Command;

/// The versions that logs have come to; others are at what the cluster began with.
#[derive(Default)]
pub(super) struct P8(BTreeMap<GroupId, ClusterVersion>);

impl Rule for P8 {
    fn number(&self) -> &'static str {
        "P8"
    }

    fn event(&mut self, event: &Event<'_>, _ledger: &Ledger, setting: &Setting) -> Verdict {
        let Event::Decided(fresh) = event else {
            return Ok(());
        };
        let Some(command) = &fresh.command else {
            return Ok(());
        };
        let known = self.0.get(&fresh.group).copied();
        let version = known.unwrap_or(setting.version);
        match command {
            Command::Version(raised) => {
                self.0.insert(fresh.group, version.max(*raised));
            }
            Command::Split(split) => {
                self.0.insert(split.child, version);
            }
            _ => {}
        }
        if command.since() > version {
            return Err(format!(
                "slot {} of {} holds \"{command}\", of version {}, in a log of version {}",
                fresh.slot,
                fresh.group,
                command.since().0,
                version.0
            ));
        }
        Ok(())
    }
}
