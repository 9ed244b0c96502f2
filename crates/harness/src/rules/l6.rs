//! L6: a leader without support steps down; a node with a stalled disk stops
//! asking for support, and leads nothing.

use super::{Book, Context, Everyone, Ledger, Rule, Setting, Taken, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::lease::LeaseMessage;
use synod_paxos::{Ballot, GroupId, Mono};
use synod_shard::{Input, NodeMessage};

/// A leader without support stays for this many election waits at most; more
/// than what the replica takes, for a node that was not scheduled meanwhile.
const WAITS: u64 = 40;
/// So many looks in a row must find it without: support may come and go between two.
const LOOKS: u32 = 8;

pub(super) struct L6 {
    patience: u64,
    /// Nodes whose disk stalls, and whether their last step already knew it.
    stalled: BTreeMap<usize, bool>,
    /// Leaders without support: under which ballot, since when by their own clock,
    /// and for how many looks.
    alone: BTreeMap<(usize, GroupId), (Ballot, Mono, u32)>,
}

impl L6 {
    pub(super) fn new(setting: &Setting) -> L6 {
        L6 {
            patience: setting.election_nanos.saturating_mul(WAITS),
            stalled: BTreeMap::new(),
            alone: BTreeMap::new(),
        }
    }
}

impl Rule for L6 {
    fn number(&self) -> &'static str {
        "L6"
    }

    fn follows_inputs(&self) -> bool {
        true
    }

    fn taken(&mut self, taken: &Taken<'_>) {
        if let Input::DiskHealth { healthy } = taken.input {
            if *healthy {
                self.stalled.remove(&taken.node);
            } else {
                self.stalled.entry(taken.node).or_insert(false);
            }
        }
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        let look = cx.look;
        let Some(known) = self.stalled.get_mut(&look.node) else {
            return Ok(());
        };
        let before = std::mem::replace(known, true);
        let renews = |message: &NodeMessage| {
            matches!(message, NodeMessage::Lease(LeaseMessage::Renew { .. }))
        };
        if before && look.step.messages().any(|(_, m)| renews(m)) {
            return Err(format!(
                "{} asks for support although its disk stalls",
                look.id
            ));
        }
        let led = look
            .worker
            .shards()
            .find(|s| s.replica().term_ballot().is_some());
        match led {
            Some(shard) => Err(format!(
                "{} leads {} although its disk stalls",
                look.id,
                shard.descriptor().id
            )),
            None => Ok(()),
        }
    }

    fn full(&mut self, everyone: &Everyone<'_>, book: &Book, _ledger: &Ledger) -> Verdict {
        let mut still = BTreeSet::new();
        let mut verdict = Ok(());
        for (node, peer, worker) in everyone.running() {
            for shard in worker.shards() {
                let group = shard.descriptor().id;
                let (Some(ballot), Some(known)) =
                    (shard.replica().term_ballot(), book.group(group))
                else {
                    continue;
                };
                let held = |e: &&synod_paxos::NodeId| {
                    worker.leases().held_from(**e, peer.now.mono).is_some()
                };
                if known.electors.iter().filter(held).count() >= known.majority {
                    continue;
                }
                still.insert((node, group));
                let since = self
                    .alone
                    .entry((node, group))
                    .or_insert((ballot, peer.now.mono, 0));
                if since.0 != ballot {
                    *since = (ballot, peer.now.mono, 0);
                }
                since.2 += 1;
                // Paused, it has not had its turn to notice.
                let asleep = worker.next_timeout().is_some_and(|at| at < peer.now.mono);
                if !asleep && since.2 > LOOKS && peer.now.mono.since(since.1) > self.patience {
                    verdict = Err(format!(
                        "{} still leads {group}, without the support of a majority for {} ms",
                        peer.id,
                        peer.now.mono.since(since.1) / 1_000_000
                    ));
                }
            }
        }
        self.alone.retain(|key, _| still.contains(key));
        verdict
    }

    fn crashed(&mut self, node: usize) {
        self.stalled.remove(&node);
        self.alone.retain(|(n, _), _| *n != node);
    }
}
