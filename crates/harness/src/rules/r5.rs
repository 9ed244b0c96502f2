//! R5: the garbage horizon is replicated state, raised by an entry, and stays
//! far enough below `last`.

use super::{Event, Ledger, Rule, Setting, Verdict};
use synod_txn::Command;

pub(super) struct R5;

impl Rule for R5 {
    fn number(&self) -> &'static str {
        "R5"
    }

    fn event(&mut self, event: &Event<'_>, _ledger: &Ledger, setting: &Setting) -> Verdict {
        let Event::Decided(fresh) = event else {
            return Ok(());
        };
        let Some(Command::Horizon { horizon }) = &fresh.command else {
            return Ok(());
        };
        let kept = setting.txn.horizon_millis.saturating_mul(1_000_000);
        if horizon.plus(kept) > fresh.above {
            return Err(format!(
                "slot {} of {} raises the horizon to {horizon}, less than {} ms below {}",
                fresh.slot, fresh.group, setting.txn.horizon_millis, fresh.above
            ));
        }
        Ok(())
    }
}
