//! L5: a restarted node promises nobody for the longest lease it may have
//! granted; its own campaigns are promises too.

use super::{Context, Rule, Verdict};
use std::collections::BTreeMap;
use synod_paxos::{Incarnation, Message, Mono};
use synod_shard::NodeMessage;

#[derive(Default)]
pub(super) struct L5 {
    /// Until when, by its own clock, each node that came back abstains.
    until: BTreeMap<usize, Mono>,
}

impl Rule for L5 {
    fn number(&self) -> &'static str {
        "L5"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        let Some(until) = self.until.get(&cx.look.node).copied() else {
            return Ok(());
        };
        if cx.look.now.mono >= until {
            self.until.remove(&cx.look.node);
            return Ok(());
        }
        for (_, message) in cx.look.step.messages() {
            if let NodeMessage::Group { group, message } = message
                && let Message::Promise { ballot, .. } | Message::Prepare { ballot, .. } = message
            {
                return Err(format!(
                    "{} of {group} promised {ballot} {} ns before it may, after its restart",
                    cx.look.id,
                    until.since(cx.look.now.mono)
                ));
            }
        }
        Ok(())
    }

    fn restarted(&mut self, cx: &Context<'_>) -> Verdict {
        // The very first start has granted nothing.
        if cx.look.worker.leases().incarnation() > Incarnation(1) {
            let until = cx.look.now.mono.plus(cx.setting.lease.longest());
            self.until.insert(cx.look.node, until);
        }
        Ok(())
    }
}
