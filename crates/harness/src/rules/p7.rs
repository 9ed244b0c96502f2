//! P7: state is a pure function of decided entries; equal slots mean equal
//! states. Encoding a state is dear, so only states at sampled slots are
//! compared, at slots that all replicas sample.

use super::{Book, Context, Everyone, Ledger, Rule, Verdict};
use std::collections::BTreeMap;
use synod_paxos::{GroupId, NodeId, Slot};
use synod_shard::Shard;

/// Digests kept.
const DIGESTS: usize = 1 << 12;

#[derive(Default)]
pub(super) struct P7 {
    digests: BTreeMap<(GroupId, Slot), (NodeId, u64)>,
    /// Up to where each group was compared with everything.
    compared: BTreeMap<GroupId, Slot>,
}

/// Whether the state after this slot is compared: often while it is small.
fn is_sampled(slot: Slot) -> bool {
    let every = match slot.0 {
        0..=255 => 8,
        256..=2_047 => 32,
        2_048..=8_191 => 128,
        _ => 1_024,
    };
    slot.0.is_multiple_of(every)
}

impl P7 {
    fn compare(&mut self, id: NodeId, shard: &Shard) -> Verdict {
        let (group, slot) = (shard.descriptor().id, shard.applied());
        let digest = shard.group().digest();
        let first = *self.digests.entry((group, slot)).or_insert((id, digest));
        while self.digests.len() > DIGESTS {
            self.digests.pop_first();
        }
        if first.1 == digest {
            return Ok(());
        }
        Err(format!(
            "the state of {group} after slot {slot} differs between {} and {id}",
            first.0
        ))
    }
}

impl Rule for P7 {
    fn number(&self) -> &'static str {
        "P7"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let after = change.after;
            if after.applied == change.before.applied {
                continue;
            }
            let Some(shard) = cx.look.worker.shard(change.group) else {
                continue;
            };
            let state = shard.group().state().applied;
            if after.applied > after.decided || state != after.applied {
                return Err(format!(
                    "{} of {} applied through slot {} (its state through {state}) of {} decided",
                    cx.look.id, change.group, after.applied, after.decided
                ));
            }
            if is_sampled(after.applied) {
                self.compare(cx.look.id, shard)?;
            }
        }
        Ok(())
    }

    /// Replicas that happen to be level. States grow with their slots, so this
    /// is done the more seldom, the more there is to encode.
    fn full(&mut self, everyone: &Everyone<'_>, _book: &Book, _ledger: &Ledger) -> Verdict {
        let mut at: BTreeMap<(GroupId, Slot), Vec<(NodeId, &Shard)>> = BTreeMap::new();
        for (_, peer, worker) in everyone.running() {
            for shard in worker.shards().filter(|s| s.applied() > Slot(0)) {
                let key = (shard.descriptor().id, shard.applied());
                at.entry(key).or_default().push((peer.id, shard));
            }
        }
        for ((group, slot), level) in at {
            let before = self.compared.entry(group).or_default();
            if level.len() < 2 || slot.0 <= before.0 + before.0 / 16 {
                continue;
            }
            *before = slot;
            for (id, shard) in level {
                self.compare(id, shard)?;
            }
        }
        Ok(())
    }
}
