//! K1: no timestamp is assigned above the limit a majority granted, or above
//! the replicated `last` plus one increment.
//!
//! What was granted is taken from the Supports that left the supporters, not
//! from the leader's own count.

use super::{Context, Rule, Verdict};
use std::collections::BTreeMap;
use synod_paxos::lease::LeaseMessage;
use synod_paxos::{Entry, NodeId, Slot, Timestamp};
use synod_shard::NodeMessage;
use synod_txn::settings::TERM_INCREMENT;
use synod_txn::{AttemptId, Priority};

#[derive(Default)]
pub(super) struct K1 {
    /// The highest limit each supporter told each holder.
    told: BTreeMap<(NodeId, NodeId), Timestamp>,
}

/// The timestamp that an entry's command assigns, without decoding all of it:
/// a command begins with its kind, its attempt and, an intent, its age.
fn assigned(entry: &Entry) -> Option<Timestamp> {
    const ONE_SHARD: u32 = 0;
    const INTENT: u32 = 1;
    let Entry::Command(bytes) = entry else {
        return None;
    };
    let ((kind, _), rest): ((u32, AttemptId), &[u8]) = postcard::take_from_bytes(bytes).ok()?;
    match kind {
        ONE_SHARD => Some(postcard::take_from_bytes(rest).ok()?.0),
        INTENT => {
            let (_, rest): (Priority, &[u8]) = postcard::take_from_bytes(rest).ok()?;
            Some(postcard::take_from_bytes(rest).ok()?.0)
        }
        _ => None,
    }
}

impl K1 {
    /// The highest limit that a majority of these electors granted to this node.
    fn granted(&self, cx: &Context<'_>, electors: &[NodeId], majority: usize) -> Timestamp {
        let me = cx.look.id;
        let limit = |node: &NodeId| match *node {
            // A node's own support needs no message.
            node if node == me => cx.look.worker.leases().granted_limit(me),
            node => self.told.get(&(node, me)).copied().unwrap_or_default(),
        };
        let mut limits: Vec<Timestamp> = electors.iter().map(limit).collect();
        limits.sort_unstable_by(|a, b| b.cmp(a));
        let reached = limits.get(majority.saturating_sub(1));
        reached.copied().unwrap_or_default()
    }
}

impl Rule for K1 {
    fn number(&self) -> &'static str {
        "K1"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for (to, message) in cx.look.step.messages() {
            if let NodeMessage::Lease(LeaseMessage::Support { limit, .. }) = message {
                let told = self.told.entry((cx.look.id, to)).or_default();
                *told = (*told).max(*limit);
            }
        }
        for change in &cx.news.changes {
            let (before, after) = (change.before, change.after);
            if after.leads.is_none() || before.leads != after.leads || after.last <= before.last {
                continue;
            }
            let (Some(shard), Some(book)) = (
                cx.look.worker.shard(change.group),
                cx.book.group(change.group),
            ) else {
                continue;
            };
            let proposed = (before.last.0 + 1..=after.last.0).map(Slot);
            let proposed = proposed.filter_map(|slot| assigned(shard.replica().entry(slot)?));
            let Some(highest) = proposed.max() else {
                continue;
            };
            let own = after.replicated.plus(TERM_INCREMENT);
            let epoch = after.leads.map(|ballot| ballot.epoch).unwrap_or_default();
            let Some(known) = book.electorate(epoch) else {
                continue;
            };
            if highest > own && highest > self.granted(cx, &known.electors, known.majority) {
                let limit = self.granted(cx, &known.electors, known.majority);
                return Err(format!(
                    "{} assigned {highest} in {}; a majority granted {limit}, and `last` is {}",
                    cx.look.id, change.group, after.replicated
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_txn::Command;
    use synod_txn::command::Intent;

    #[test]
    fn the_timestamp_is_read_where_it_stands() -> Result<(), postcard::Error> {
        let attempt = AttemptId(u128::MAX / 3);
        let one = Command::OneShard {
            attempt,
            timestamp: Timestamp(1_700_000_000_000_000_001),
            term: synod_paxos::Term::default(),
            writes: Vec::new(),
        };
        let two = Command::Intent(Box::new(Intent {
            attempt,
            priority: Priority {
                start: Timestamp(77),
                first: attempt,
            },
            timestamp: Timestamp(42),
            writes: Vec::new(),
            parts: 0,
            reads: Vec::new(),
            participants: Vec::new(),
            here: 0,
            coordinator: 0,
        }));
        let entry = |command: &Command| synod_txn::command::encode(command).map(Entry::Command);
        assert_eq!(
            assigned(&entry(&one)?),
            Some(Timestamp(1_700_000_000_000_000_001))
        );
        assert_eq!(assigned(&entry(&two)?), Some(Timestamp(42)));
        assert_eq!(assigned(&Entry::Noop), None);
        Ok(())
    }
}
