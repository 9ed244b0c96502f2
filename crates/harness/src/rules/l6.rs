//! L6: a leader without support steps down; a node with a stalled disk stops
//! asking for support, and leads nothing.

use super::{Context, Rule, Setting, Taken, Verdict};
use std::collections::BTreeMap;
use synod_paxos::lease::LeaseMessage;
use synod_paxos::{Ballot, GroupId, Mono, NodeId};
use synod_shard::{Input, NodeMessage};

/// A leader without support stays for this many election waits at most. The
/// replica takes ten; a handover that begins within them ends by itself, and has
/// less than six more.
const WAITS: u64 = 16;

pub(super) struct L6 {
    patience: u64,
    /// Nodes whose disk stalls, and whether their last step already knew it.
    stalled: BTreeMap<usize, bool>,
    /// Leaders without support: under which ballot, since when by their own clock.
    alone: BTreeMap<(usize, GroupId), (Ballot, Mono)>,
    /// When each node is looked at again, by its own clock.
    next: BTreeMap<usize, Mono>,
}

impl L6 {
    pub(super) fn new(setting: &Setting) -> L6 {
        L6 {
            patience: setting.election_nanos.saturating_mul(WAITS),
            stalled: BTreeMap::new(),
            alone: BTreeMap::new(),
            next: BTreeMap::new(),
        }
    }

    /// Leaders that the step left without support. New ones are looked for every
    /// election wait; those known are looked at after every step, since support that
    /// comes late is soon over, may lie between two such looks, and yet lets the
    /// leader begin its wait anew.
    fn lonely(&mut self, cx: &Context<'_>) -> Verdict {
        let (node, now) = (cx.look.node, cx.look.now.mono);
        let worker = cx.look.worker;
        let groups: Vec<GroupId> = if self.next.get(&node).is_none_or(|at| now >= *at) {
            self.next.insert(node, now.plus(self.patience / WAITS));
            worker.shards().map(|s| s.descriptor().id).collect()
        } else {
            let known = (node, GroupId(0))..=(node, GroupId(u64::MAX));
            self.alone.range(known).map(|((_, g), _)| *g).collect()
        };
        for group in groups {
            let Some(ballot) = leads_alone(cx, group) else {
                self.alone.remove(&(node, group));
                continue;
            };
            let since = self.alone.entry((node, group)).or_insert((ballot, now));
            if since.0 != ballot {
                *since = (ballot, now);
            }
            if now.since(since.1) > self.patience {
                return Err(format!(
                    "{} still leads {group}, without the support of a majority for {} ms",
                    cx.look.id,
                    now.since(since.1) / 1_000_000
                ));
            }
        }
        Ok(())
    }
}

/// The ballot under which the node leads the group, if no majority supports it.
fn leads_alone(cx: &Context<'_>, group: GroupId) -> Option<Ballot> {
    let replica = cx.look.worker.shard(group)?.replica();
    let ballot = replica.term_ballot()?;
    let epoch = replica.configuration().epoch;
    let electorate = cx.book.group(group)?.electorate(epoch)?;
    let (leases, now) = (cx.look.worker.leases(), cx.look.now.mono);
    let held = |e: &&NodeId| leases.held_from(**e, now).is_some();
    let supporting = electorate.electors.iter().filter(held).count();
    (supporting < electorate.majority).then_some(ballot)
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
        self.lonely(cx)?;
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

    fn crashed(&mut self, node: usize) {
        self.stalled.remove(&node);
        self.next.remove(&node);
        self.alone.retain(|(n, _), _| *n != node);
    }
}
